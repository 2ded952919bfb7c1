"""The process: the device it computes on, and its environment variables."""

from __future__ import annotations

import os
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
