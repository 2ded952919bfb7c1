"""The process: the device it computes on, its environment variables, and how it is asked to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def device() -> str:
    """Return the device jobs run on: PEO_BENCH_DEVICE if set, else "cuda" where there is one, else "cpu"."""
    import torch

    return os.environ.get("PEO_BENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as schedulers do before they kill; handled as Ctrl-C is."""


@contextmanager
def heeding_sigterm() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM arrives inside (in the main thread); a second one does not disturb the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
