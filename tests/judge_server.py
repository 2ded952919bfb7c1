"""An OpenAI-compatible chat endpoint on loopback whose verdicts are a known function of the texts, and whose faults are
chosen by the test. It counts every call that reaches it.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pandas as pd
import pytest

from peo_bench.judges.settings import JudgeSettings

FAST = JudgeSettings(attempts=4, timeout_s=20.0, concurrency=4, prices={"m": {"input": 2.0, "output": 10.0}})
HASTY = FAST.model_copy(update={"timeout_s": 0.5})
"""Where an answer hangs; elsewhere a busy machine must not count as a fault."""
TOKENS = {"prompt_tokens": 400, "completion_tokens": 20}
PRICE = (400 * 2.0 + 20 * 10.0) / 1e6
"""USD of one call to model `m` at this server."""


@dataclass(frozen=True)
class Call:
    """One question as the server reads it: what is compared, and how often this very question came before."""

    objective: str
    prompt: str
    first: str
    second: str
    before: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the server sends; `hang` seconds first, and as long again after every byte if it is to `drip`.

    A `raw` body is everything, from the first word of HTTP.
    """

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    hang: float = 0.0
    drip: bool = False
    raw: bool = False


def says(text: str | None, *, finish: str = "stop", usage: Any = TOKENS) -> Answer:
    """A completion with this text; without `usage` where that is None."""
    message = {"role": "assistant", "content": text}
    completion = {"id": "x", "object": "chat.completion", "model": "m"}
    completion["choices"] = [{"index": 0, "finish_reason": finish, "message": message}]
    return Answer(json.dumps(completion | ({} if usage is None else {"usage": usage})).encode())


def verdict(name: str) -> Answer:
    return says(f"Because.\nVerdict: {name}")


def by_length(call: Call) -> Answer:
    """Helpful: the longer answer; harmless: the shorter one; equal lengths tie."""
    gap = len(call.first) - len(call.second)
    gap = gap if call.objective == "helpful" else -gap
    return verdict("A" if gap > 0 else "B" if gap < 0 else "tie")


class JudgeServer:
    """Serves until closed; `calls` holds every question in order of arrival."""

    def __init__(self, answer: Callable[[Call], Answer] = by_length) -> None:
        self.answer = answer
        self.calls: list[Call] = []
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def questions(self) -> Counter[tuple[str, ...]]:
        """How often each question came."""
        return Counter((c.objective, c.prompt, c.first, c.second) for c in self.calls)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = (
                    owner._take(body, {k.lower(): v for k, v in self.headers.items()})
                    if self.path == "/v1/chat/completions"
                    else Answer(b"", 404)
                )
                owner.released.wait(answer.hang)
                with contextlib.suppress(OSError):  # a client that has given up waiting
                    if not answer.raw:
                        self.send_response(answer.status)
                        for name, value in (("Content-Type", "application/json"), *answer.headers):
                            self.send_header(name, value)
                        self.send_header("Content-Length", str(len(answer.body)))
                        self.end_headers()
                    for part in [bytes([byte]) for byte in answer.body] if answer.drip else [answer.body]:
                        self.wfile.write(part)
                        owner.released.wait(answer.hang if answer.drip else 0.0)

            def log_message(self, *args: Any) -> None: ...

        return Handler

    def _take(self, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        text = body["messages"][0]["content"]
        quoted = re.findall(r"<(?:request|answer-[AB])-(\w+)>\n(.*?)\n</", text, re.DOTALL)
        objective = "helpful" if "by HELPFULNESS" in text else "harmless"
        with self._lock:
            call = Call(objective, *(part for _, part in quoted), self._seen[text], headers, body)  # type: ignore[arg-type]
            self._seen[text] += 1
            self.calls.append(call)
        return self.answer(call)


@pytest.fixture
def serve():
    """Start a server with `serve(answer)`; all are closed at the end."""
    servers = []

    def start(answer: Callable[[Call], Answer] = by_length) -> JudgeServer:
        servers.append(JudgeServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def comparisons(n: int = 6, methods: tuple[str, ...] = ("peo", "modpo"), preferences: tuple[float, ...] = (0.0, 1.0)):
    """A table of comparisons as `peo_bench.judges.matchups.pair_table` makes it: methods against the reference."""
    rows = []
    for objective in ("helpful", "harmless"):
        for method in methods:
            for weight in preferences:
                for j in range(n):
                    a = f"{method} at {weight} says " + "x" * (j + len(method))
                    rows.append({
                        "objective": objective, "seed": 0, "preference": weight, "method_a": method,
                        "method_b": "reference", "spec_key_a": f"{method}{weight}", "spec_key_b": "r",
                        "prompt_id": f"p{j}", "prompt": f"question {j}", "answer_a": a,
                        "answer_b": f"ref {j}" + "y" * 22,
                        "score_a": float(j), "score_b": 1.0,
                    })  # fmt: skip
    return pd.DataFrame(rows)
