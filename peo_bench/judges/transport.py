"""HTTP whose answers are bounded in time and in size, whatever the other side sends.

The timeout of httpx starts anew with every byte, so that an endpoint that sends one now and then is never given up, and
its bodies have no end. Here both end: a body must be complete within the timeout of the whole call, and has a largest
size. Compressed bodies are refused, because their real size shows when it is too late. (Headers have the limits of
httpx: its timeout for every read, and 100 KiB.)
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

LARGEST_BODY = 4 * 2**20
"""Bytes. A verdict with its reasons has some thousand."""

DEADLINE = "peo_bench_deadline"


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


def bounded_client(seconds: float) -> Any:
    """Return an HTTP client whose answers end after `seconds` and `LARGEST_BODY` bytes.

    A body that does not raises the library's `ReadTimeout`, or its `ReadError` with a sentence.
    """
    import openai

    http = http_library()

    class Bounded(http.SyncByteStream):  # type: ignore[misc,name-defined]
        """A body that ends."""

        def __init__(self, stream: Any, deadline: float) -> None:
            self.stream, self.deadline = stream, deadline

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in self.stream:
                size += len(part)
                if size > LARGEST_BODY:
                    raise http.ReadError(f"the body is longer than {LARGEST_BODY // 2**20} MiB")
                if time.monotonic() > self.deadline:
                    raise http.ReadTimeout("the body did not end in time")
                yield part

        def close(self) -> None:
            self.stream.close()

    def begin(request: Any) -> None:
        request.headers["Accept-Encoding"] = "identity"
        request.extensions.setdefault(DEADLINE, time.monotonic() + seconds)  # once, redirections included

    def bound(response: Any) -> None:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise http.ReadError("the body is compressed, which was not asked for")
        response.stream = Bounded(response.stream, response.request.extensions[DEADLINE])

    return openai.DefaultHttpxClient(event_hooks={"request": [begin], "response": [bound]})
