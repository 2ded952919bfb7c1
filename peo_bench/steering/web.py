"""`peo-bench steer --web`: a page on this machine that asks every method of a run at the balance of a slider.

Bound to 127.0.0.1. Nothing of the page comes from elsewhere, and other pages in the same browser cannot use it: a
request must name this host and port (against DNS rebinding), must not come from another origin, and asks with JSON,
which a browser sends across origins only after asking, and we never allow it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from peo_bench.errors import PeoBenchError, UsageError
from peo_bench.files.digest import digest
from peo_bench.files.json_types import JsonObject
from peo_bench.files.rows import is_whole
from peo_bench.steering.families import artefacts_of, asked_for, is_answers, load_family, read_families

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
MAX_BODY = 64_000
"""Bytes of a question; longer ones are refused."""
PATIENCE = 20.0
"""Seconds to wait for the next bytes of a request."""
Answers = Callable[[str, float], list[JsonObject]]
"""From a prompt and the asked weight of helpfulness to one entry per method: method, answer, preference, spec_key."""


def family_answers(folder: Path, seed: int | None) -> tuple[list[str], Answers]:
    """Return the methods of the finished run at `folder` and what answers with all of them in one batch."""
    found = {method: load_family(folder, method, seed) for method in read_families(folder).methods}
    families = {method: family for method, family in found.items() if not is_answers(method, family[1])}
    if not families:
        why = "compares answers that were given: there is no model to ask" if found else "none of its methods was made"
        raise UsageError(f"{folder}: {why}")
    methods = list(families)
    _, world, store = families[methods[0]]
    from peo_bench.engine.engine import Engine, Request
    from peo_bench.models.quiet import quiet

    engine = Engine(artefacts_of(store), precision=world.precision, noise_seed=world.seed)

    def answers(prompt: str, helpful: float) -> list[JsonObject]:
        asked = asked_for(world, helpful)
        specs = [family.resolve(asked) for family, _, _ in families.values()]
        requests = [Request(spec, prompt, digest(prompt), 0) for spec in specs]
        with quiet():
            answered = engine.generate(requests, world.decoding)
        return [
            {
                "method": method,
                "answer": answer.text,
                "preference": family.space.project(asked).to_json(),
                "spec_key": spec.key,
            }
            for (method, (family, _, _)), spec, answer in zip(families.items(), specs, answered, strict=True)
        ]

    return methods, answers


class SteerServer(ThreadingHTTPServer):
    """Serves one page; `answering` is held while families answer, one question at a time."""

    def __init__(self, answers: Answers, page: bytes, policy: str, port: int) -> None:
        """Listen on 127.0.0.1."""
        self.answers, self.page, self.policy = answers, page, policy
        self.answering = Lock()
        super().__init__((HOST, port), SteerHandler)

    def server_close(self) -> None:
        """Close, wait for the answer in work and let no other begin: threads must not be inside torch at exit."""
        super().server_close()
        self.answering.acquire()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep clients that hang up out of the terminal."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("%s", client_address)


class SteerHandler(BaseHTTPRequestHandler):
    """Answers one connection: GET / is the page, POST /answer a question."""

    server: SteerServer
    server_version = "peo-bench"
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Send the page."""
        if not self._ours():
            self._refuse(HTTPStatus.FORBIDDEN, "open this page by the address that peo-bench printed")
        elif self.path != "/":
            self._refuse(HTTPStatus.NOT_FOUND, "there is one page: /")
        else:
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """Send what the families answer to a question."""
        if not self._ours() or self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.FORBIDDEN, "only this server's own page may ask")
            return
        size = self.headers.get("Content-Length", "")
        if self.path != "/answer" or not re.fullmatch(r"[0-9]{1,18}", size) or int(size) > MAX_BODY:
            self._refuse(HTTPStatus.BAD_REQUEST, f"POST a question of at most {MAX_BODY} bytes to /answer")
            return
        try:
            prompt, helpful = _question(self._body(int(size)))
            with self.server.answering:
                found = self.server.answers(prompt, helpful)
        except PeoBenchError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        self._send(HTTPStatus.OK, json.dumps(found).encode(), "application/json")

    def _body(self, size: int) -> bytes:
        try:
            body = self.rfile.read(size)
        except TimeoutError:
            body = b""
        if len(body) < size:
            raise UsageError(f"the question is shorter than the {size} bytes that were announced")
        return body

    def _ours(self) -> bool:
        here = {f"{name}:{self.connection.getsockname()[1]}" for name in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in here and (origin is None or origin.removeprefix("http://") in here)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True
        self._send(status, json.dumps({"error": reason}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
        }  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log at info."""
        logger.info(format, *args)


def steer_server(answers: Answers, page: bytes, policy: str, port: int = 0) -> SteerServer:
    """Return a server of `page`, under the content security `policy`, on 127.0.0.1; port 0 takes a free one.

    `answers` is called by one request at a time. Raises `UsageError` where the port is taken.
    """
    try:
        return SteerServer(answers, page, policy, port)
    except OSError as error:
        raise UsageError(f"--port {port}: cannot listen there ({error.strerror}): give another, or 0") from None


def _question(body: bytes) -> tuple[str, float]:
    """Read a question; raise `UsageError` that says what is wrong with it."""
    try:
        value = json.loads(body)
        prompt, helpful = value["prompt"], value["helpful"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UsageError('a question is JSON: {"prompt": "...", "helpful": 0.5}') from None
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("the prompt is empty: write a question")
    if not is_whole(prompt):
        raise UsageError("the prompt holds half a character (a lone surrogate): write it anew")
    if isinstance(helpful, bool) or not isinstance(helpful, int | float) or not 0 <= helpful <= 1:
        raise UsageError(f"helpful {helpful!r}: give a weight between 0 and 1")
    return prompt, float(helpful)
