"""HTTP whose answers are bounded in time and in size, whatever the other side sends.

The timeout of httpx starts anew with every byte, so that an endpoint that sends one now and then, in its headers or in
its body, is never given up, and its bodies have no end. Here both end: a connection is cut when the time of the whole
attempt is over, and a body has a largest size. Compressed bodies are refused, because their real size shows when it is
too late. Every attempt has a connection of its own, which it alone can cut. (Headers have the limit of httpx: 100 KiB.)

A redirection to another origin (scheme, host and port) is not followed: whoever answers there was not chosen by the
user, and would be sent the key and the texts.
"""

from __future__ import annotations

import importlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any

LARGEST_BODY = 4 * 2**20
"""Bytes. A verdict with its reasons has some thousand."""
OPENED = ("connect_tcp.complete", "start_tls.complete")
"""Ends of the names of what httpx tells of a connection when it is there, bare and encrypted."""


class Moved(Exception):
    """The endpoint sends calls on to another origin; `url` is where to."""

    def __init__(self, url: str) -> None:
        """Keep the address."""
        super().__init__(url)
        self.url = url


class Deadline:
    """The time of one attempt; `passed` once its connection was cut."""

    def __init__(self) -> None:
        """Know no connection yet."""
        self.passed = False
        self._socket: socket.socket | None = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of a connection, cut if it is late; called by httpx with what happens to a request."""
        if event.endswith(OPENED):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.passed:  # by another thread: it set this before it looked for a socket
                self._shut()

    def cut(self) -> None:
        """End whatever waits for the other side."""
        self.passed = True
        self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # below encryption, which somebody else reads


_DEADLINE: ContextVar[Deadline] = ContextVar("deadline")


@contextmanager
def deadline(seconds: float) -> Iterator[Deadline]:
    """Cut the connections that a bounded client opens inside, in this thread, after `seconds`."""
    current = Deadline()
    token, timer = _DEADLINE.set(current), threading.Timer(seconds, current.cut)
    timer.daemon = True
    timer.start()
    try:
        yield current
    finally:
        timer.cancel()
        _DEADLINE.reset(token)


@cache
def http_library() -> ModuleType:
    """Return the library that the installed `openai` is built on: httpx, or httpx2 from openai 3 on."""
    import openai

    base = next(kind for kind in openai.DefaultHttpxClient.__mro__ if kind.__name__ == "Client")
    return importlib.import_module(base.__module__.partition(".")[0])


def was_sent(error: BaseException) -> bool:
    """Say whether a request that ended with `error` may have reached the other side."""
    http = http_library()
    return not isinstance(error, http.ConnectError | http.ConnectTimeout | http.PoolTimeout)


def bounded_client() -> Any:
    """Return an HTTP client, to be used inside `deadline`, whose answers end there and after `LARGEST_BODY` bytes.

    A longer body raises the library's `ReadError` with a sentence, a redirection to another origin `Moved`.
    """
    import openai

    http = http_library()

    class Bounded(http.SyncByteStream):  # type: ignore[misc,name-defined]
        """A body that ends."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in self.stream:
                size += len(part)
                if size > LARGEST_BODY:
                    raise http.ReadError(f"the body is longer than {LARGEST_BODY // 2**20} MiB")
                yield part

        def close(self) -> None:
            self.stream.close()

    def begin(request: Any) -> None:
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["trace"] = _DEADLINE.get().trace

    def bound(response: Any) -> None:
        if response.has_redirect_location:
            here, there = response.request.url, response.request.url.join(response.headers["Location"])
            if (here.scheme, here.host, here.port) != (there.scheme, there.host, there.port):
                raise Moved(str(there.copy_with(username=None, password=None, query=None, fragment=None)))
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise http.ReadError("the body is compressed, which was not asked for")
        response.stream = Bounded(response.stream)

    limits = http.Limits(max_keepalive_connections=0)
    return openai.DefaultHttpxClient(event_hooks={"request": [begin], "response": [bound]}, limits=limits)
