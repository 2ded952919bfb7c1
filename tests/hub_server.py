"""A stand-in for the hub on loopback: what huggingface_hub asks of its API and of its files, for small repositories.

Use it with `serving(hub, monkeypatch)`: the library's own code runs, with another endpoint.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

COMMIT = "c0ffee00" * 5


@dataclass
class Hub:
    """Folders by `models/<id>` or `datasets/<id>`; licences by id; ids that nobody has access to."""

    folders: dict[str, Path] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    commits: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def commit(self, key: str) -> str:
        """Return the newest commit of a repository."""
        return self.commits.get(key, COMMIT)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path).strip("/")
        self.hub.asked.append(path)
        if path.startswith("api/"):
            self._api(path.removeprefix("api/"))
        else:
            self._file(path if path.startswith("datasets/") else f"models/{path}")

    def _api(self, path: str) -> None:
        if path.count("/") < 2:
            return self._refuse(404, "NotFound")
        kind, owner, name, *rest = [*path.split("/"), ""]
        key = f"{kind}/{owner}/{name}"
        if key not in self.hub.folders:
            return self._refuse(404, "RepoNotFound")
        if rest[0] == "auth-check":
            return self._refuse(403, "GatedRepo") if key in self.hub.gated else self._json({})
        if rest[0] in ("revision", "tree") and rest[1] not in ("main", self.hub.commit(key)):
            return self._refuse(404, "RevisionNotFound")
        files = self._files(key)
        if rest[0] == "tree":
            return self._json([{"type": "file", "path": n, "size": p.stat().st_size, "oid": _oid(p)} for n, p in files])
        about = {"id": f"{owner}/{name}", "sha": self.hub.commit(key), "siblings": [{"rfilename": n} for n, _ in files]}
        licence = self.hub.licences.get(key)
        return self._json(about | ({"cardData": {"license": licence}} if licence else {}))

    def _files(self, key: str) -> list[tuple[str, Path]]:
        folder = self.hub.folders[key]
        return [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]

    def _file(self, path: str) -> None:
        kind, owner, name, _, commit, *rest = path.split("/")
        key, file = f"{kind}/{owner}/{name}", "/".join(rest)
        found = dict(self._files(key)).get(file) if key in self.hub.folders else None
        if key in self.hub.gated:
            return self._refuse(403, "GatedRepo")
        if found is None:
            return self._refuse(404, "EntryNotFound")
        return self._send(found.read_bytes(), {"ETag": f'"{_oid(found)}"', "X-Repo-Commit": commit})

    def _json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def serving(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve `hub`; huggingface_hub asks it, and nobody else, inside."""
    import huggingface_hub.constants as constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with monkeypatch.context() as patch:
        patch.setenv("HF_ENDPOINT", address)
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setattr(constants, "ENDPOINT", address)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        try:
            yield address
        finally:
            server.shutdown()
            server.server_close()
