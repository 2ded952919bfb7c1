"""The process: the device it computes on, its environment variables, and how it is asked to end."""

from __future__ import annotations

import ast
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from peo_bench.errors import UsageError

Precision = Literal["float32", "bfloat16", "float16"]
"""Of a model's weights while it generates and scores."""


DeviceKind = Literal["cuda", "cpu"]
"""Of a device that a run is planned for, which may be another machine's."""

DEVICE, BATCH_SIZE = "PEO_BENCH_DEVICE", "PEO_BENCH_BATCH_SIZE"
"""Environment variables with the device that jobs run on, and with the answers that are generated at a time."""
SUITES = "PEO_BENCH_SUITES_ENGINE"
"""Environment variable with what the suite says of both: it goes before theirs."""


def device() -> str:
    """Return the device jobs run on: the suite's, else PEO_BENCH_DEVICE, else "cuda" where there is one, else "cpu"."""
    import torch

    return _suites("device") or os.environ.get(DEVICE) or ("cuda" if torch.cuda.is_available() else "cpu")


def batch_size() -> int | None:
    """Return how many answers are generated at a time at most, where that is said."""
    said = _suites("batch_size") or os.environ.get(BATCH_SIZE)
    if said is None or (said.isdecimal() and int(said) > 0):
        return None if said is None else int(said)
    raise UsageError(f"{BATCH_SIZE}={said}: give a number of answers, at least 1")


def compute_on(engine: Mapping[str, object]) -> None:
    """Use what a suite says of `device` and `batch_size`, None where it says nothing, here and in processes to come."""
    os.environ[SUITES] = json.dumps({key: str(value) for key, value in engine.items() if value is not None})


def _suites(key: str) -> str | None:
    said = json.loads(os.environ.get(SUITES, "{}")).get(key)
    return None if said is None else str(said)


def settled(precision: Precision | Literal["auto"], planned: DeviceKind | None = None) -> Precision:
    """Return a precision; for "auto" bfloat16 on a CUDA device that computes in it, else float32.

    With a device that is `planned` for, on that one.
    """
    if precision != "auto":
        return precision
    if planned is not None:
        return "bfloat16" if planned == "cuda" else "float32"
    import torch

    cuda = device().startswith("cuda") and torch.cuda.is_available()
    return "bfloat16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def repeats_itself() -> bool:
    """Say whether worker processes, which import the script that runs, would come to this call of it again."""
    main = sys.modules["__main__"]
    frame = sys._getframe()
    while frame.f_globals is not main.__dict__ or frame.f_code.co_name != "<module>":
        if frame.f_back is None:
            return False
        frame = frame.f_back
    path = getattr(main, "__file__", None)
    if not path or not Path(path).is_file():
        return False
    statements = ast.parse(Path(path).read_bytes()).body
    at = next((part for part in statements if part.lineno <= frame.f_lineno <= (part.end_lineno or 0)), None)
    return not (isinstance(at, ast.If) and "__name__" in ast.unparse(at.test))


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


MOST_LINES = 1_000_000
"""Of a template, that are run for one text; loops within loops stand for more than anybody waits for."""
MANY_LINES = f"it runs more than {MOST_LINES:,} lines"


@contextmanager
def bounded_templates() -> Iterator[None]:
    """Raise jinja2's `TemplateRuntimeError` inside where templates run more than `MOST_LINES`, in this thread.

    For one text: lines are counted together inside. They are slow where they are counted.
    """
    from jinja2 import TemplateRuntimeError

    left = MOST_LINES

    def count(frame: FrameType, event: str, given: object) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TemplateRuntimeError(MANY_LINES)
        return count

    def watch(frame: FrameType, event: str, given: object) -> Any:
        return count if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


STRICT = {"OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PEO_BENCH_STRICT": "1"}
"""What a process that computes strictly has in its environment, and what those have that it starts."""


def compute_strictly() -> None:
    """Let torch compute with one thread and deterministic kernels; what has none raises `RuntimeError` when it is used.

    Sums of another number of threads differ in their last bits, and so do sums of kernels that add in any order.
    """
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def is_strict() -> bool:
    """Say whether this process was started by one that computes strictly."""
    return os.environ.get("PEO_BENCH_STRICT") == "1"


@contextmanager
def strictly(strict: bool) -> Iterator[None]:
    """Compute strictly inside, in this process and in those it starts, if `strict`."""
    if not strict:
        yield
        return
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with environment(STRICT):
        compute_strictly()
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


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
