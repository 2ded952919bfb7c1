"""What a run is doing now: `progress.json` in its folder while it works, and how another process reads it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from peo_bench.errors import UsageError
from peo_bench.files.atomic import write_json
from peo_bench.jobs.runner import Observer
from peo_bench.results.record import SCHEMA_VERSION, Record, read_record

logger = logging.getLogger(__name__)

PROGRESS, OWNER = "progress.json", ".owner"
"""Files that exist in the folder of a working run only."""
PERIOD = 1.0
"""Seconds between two looks; the file is replaced where something has happened in between."""
EARLIEST_ETA = 0.05
"""Fraction of a job from which the time it has taken says something about the rest."""


class JobCounts(Record):
    """How many jobs are known and what became of them."""

    queued: int
    """Jobs known so far that are to be done."""
    done: int
    """Jobs done."""
    failed: int
    """Jobs that failed."""
    reused: int
    """Jobs found in the cache, which are not queued."""


class RunningJob(Record):
    """A job at work."""

    what: str
    """Its name."""
    fraction: float
    """How much of it is done, from 0 to 1."""
    note: str
    """What it does now."""
    started: float
    """Seconds since the epoch."""


class ProgressRecord(Record):
    """All of `progress.json`, which is there only while a run works and is replaced at most once a second."""

    schema_version: int = SCHEMA_VERSION
    """1."""
    stage: str
    """Stage of the run; empty before the first."""
    jobs: JobCounts
    """Counts of jobs."""
    running: tuple[RunningJob, ...]
    """The jobs at work."""


class State:
    """Follows the events of a run (an `Observer`); several threads may report."""

    def __init__(self) -> None:
        """Start with nothing done."""
        self.changed = False
        self._lock = threading.Lock()
        self._stage = ""
        self._counts: Counter[str] = Counter()
        self._running: dict[str, RunningJob] = {}

    def __call__(self, event: str, job_id: str, fraction: float, note: str) -> None:
        """Take one event."""
        with self._lock:
            self.changed = True
            if event == "stage":
                self._stage = job_id
            elif event == "start":
                self._running[job_id] = RunningJob(what=note, fraction=0.0, note="", started=time.time())
            elif event == "progress" and job_id in self._running:
                update = {"fraction": fraction, "note": note}
                self._running[job_id] = self._running[job_id].model_copy(update=update)
            elif event in ("queued", "reused", "done", "failed"):
                self._counts[event] += 1
                self._running.pop(job_id, None)

    def take(self) -> ProgressRecord:
        """Return the content of `progress.json`."""
        with self._lock:
            self.changed = False
            counts = JobCounts(**{name: self._counts[name] for name in JobCounts.model_fields})
            return ProgressRecord(stage=self._stage, jobs=counts, running=tuple(self._running.values()))


@contextmanager
def progress_file(out: Path, observe: Observer) -> Iterator[Observer]:
    """Yield an observer that passes events on to `observe` and keeps `progress.json` in `out` up to date inside."""
    state, ended = State(), threading.Event()

    def both(event: str, job_id: str, fraction: float, note: str) -> None:
        state(event, job_id, fraction, note)
        observe(event, job_id, fraction, note)

    def write() -> None:
        while not ended.wait(PERIOD):
            if state.changed:
                try:
                    write_json(out / PROGRESS, state.take().to_json())
                except OSError as error:
                    logger.warning("%s: cannot be written (%s)", out / PROGRESS, error.strerror)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield both
    finally:
        ended.set()
        writer.join()
        (out / PROGRESS).unlink(missing_ok=True)


def owner(out: Path) -> str | None:
    """Return what the run that works on `out` says of itself; None where nothing does that can be read."""
    path = out / OWNER
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def is_running(out: Path) -> bool:
    """Say whether a run works on `out`; of a run on another machine only its word is known.

    The lock itself is not tried: taking it, for however short, could turn a run away that is about to start.
    """
    try:
        _, pid, _, host = (owner(out) or "").split()
        number = int(pid)
    except ValueError:
        return False
    if host != os.uname().nodename:
        return True
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def read_progress(out: Path) -> ProgressRecord | None:
    """Return what the run in `out` wrote last; None before its first second and after its end."""
    if not (out / PROGRESS).exists():
        return None
    with suppress(OSError, UsageError):  # the run may end between the two looks
        return read_record(out / PROGRESS, ProgressRecord)
    return None


def headline(state: ProgressRecord) -> str:
    """Return stage and counts in one line. Later rounds of jobs are not known yet, so there is no total for the run.

    >>> counts = JobCounts(queued=6, done=2, failed=1, reused=4)
    >>> headline(ProgressRecord(stage="build", jobs=counts, running=()))
    'build: 2 of 6 jobs known so far done, 1 failed, 4 more from the cache'
    """
    jobs = state.jobs
    parts = [f"{jobs.done} of {jobs.queued} jobs known so far done"]
    parts += [f"{jobs.failed} failed"] if jobs.failed else []
    parts += [f"{jobs.reused} more from the cache"] if jobs.reused else []
    return f"{state.stage or 'start'}: {', '.join(parts)}"


def running(jobs: Sequence[RunningJob], now: float) -> list[str]:
    """Return a line per running job: how far it is and, by its own pace, how long it still takes.

    >>> running([RunningJob(what="aspect helpful", fraction=0.25, note="step 5/20", started=100.0)], now=110.0)
    ['aspect helpful: 25 %, step 5/20, about 30 s left']
    """
    lines = []
    for job in jobs:
        parts = [f"{100 * job.fraction:.0f} %", *([job.note] if job.note else [])]
        if EARLIEST_ETA <= job.fraction < 1:
            left = (now - job.started) * (1 / job.fraction - 1)
            parts.append(f"about {left:.0f} s left" if left < 100 else f"about {left / 60:.0f} min left")
        lines.append(f"{job.what}: {', '.join(parts)}")
    return lines
