"""Run the jobs of all methods of a run: each once, as soon as what it needs is there, in several processes if wanted.

Methods advance in rounds, side by side: the jobs that all of them can name now are done, every method is sent the
handles, and so on until each has returned its family. A job that fails takes down the methods that need it and no
others; so does one whose process is killed, twice. A full disk ends the run.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TypeAlias

from peo_bench.errors import JobFailed, PeoBenchError
from peo_bench.files.room import room_for, size_of
from peo_bench.jobs.job import Handle, Job, closure
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import PARTIAL, Store
from peo_bench.process import compute_strictly, environment, is_strict

logger = logging.getLogger(__name__)

KILLED = (
    "its process was killed, twice, probably for lack of memory: try --workers 1 or a smaller micro_batch_size "
    "(--set training.micro_batch_size=1)"
)

Observer = Callable[[str, str, float, str], None]
"""Called with (event, job id, fraction, note); events: "queued", "start", "progress", "done", "reused",
"failed"; a run adds "stage" with the stage's name for an id."""


Events: TypeAlias = "SimpleQueue[tuple[str, float, str]]"
"""From the worker processes: job id, fraction, note."""


Finished: TypeAlias = dict[str, bool]
"""Of a task, by job: whether another run had done it when its turn came."""


@dataclass
class Outcome:
    """What became of the jobs: handles by id, reasons of the failed ones, ids of those found in the store.

    `undone` are the failed ones themselves.
    """

    handles: dict[str, Handle] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)
    undone: dict[str, Job] = field(default_factory=dict)


class Runner:
    """Does jobs in `workers` processes (1: in this one) over the store at `root`."""

    start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

    def __init__(self, root: Path, workers: int = 1, observe: Observer = lambda *event: None) -> None:
        """Start nothing yet; use `with` or `close` to end the worker processes."""
        self.store = Store(root)
        self.workers = workers
        self.observe = observe
        self.outcome = Outcome()
        self._repeated: set[str] = set()
        self._pool: ProcessPoolExecutor | None = None
        self._events: Events | None = None

    def __enter__(self) -> Runner:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the worker processes; after an error at once, their jobs left for the next attempt."""
        if self._pool:
            if error[0] is not None:
                for process in multiprocessing.active_children():
                    process.terminate()
            self._pool.shutdown(wait=error[0] is None, cancel_futures=True)

    def run(self, jobs: list[Job]) -> Mapping[str, Handle]:
        """Do `jobs` and all they need; return every handle so far by id. Failures are noted in `outcome.failed`."""
        waiting = {}
        for job in closure(jobs):
            if job.id in self.outcome.handles or job.id in self.outcome.failed:
                continue
            handle = self.store.get(job.id)
            if handle is None:
                waiting[job.id] = job
                self.observe("queued", job.id, 0.0, job.label)
            else:
                self._done(handle, reused=True)
        running: dict[Future[Finished], list[Job]] = {}
        while waiting or running:
            for task in self._ready(waiting):
                for job in task:
                    del waiting[job.id]
                running[self._submit(task)] = task
                self._collect_finished(running, timeout=0)
            self._collect_finished(running, timeout=None)
        return self.outcome.handles

    def _ready(self, waiting: dict[str, Job]) -> list[list[Job]]:
        """Return the tasks that can start: single jobs, or groups of a kind that is done together."""
        single: list[list[Job]] = []
        groups: dict[str, list[Job]] = {}
        for job in list(waiting.values()):
            lost = [need.id for need in job.needs.values() if need.id in self.outcome.failed]
            if lost:
                del waiting[job.id]
                self._fail(job, f"needs {lost[0]}, which failed: {self.outcome.failed[lost[0]]}")
            elif all(need.id in self.outcome.handles for need in job.needs.values()):
                kind = JOB_KINDS.get(job.kind)
                if kind.together:
                    groups.setdefault(f"{kind.name} {kind.batch(job)}", []).append(job)
                else:
                    single.append([job])
        return single + [part for group in groups.values() for part in _split(group, self.workers)]

    def _submit(self, task: list[Job]) -> Future[Finished]:
        names = task[0].label if len(task) == 1 else f"{len(task)} x {task[0].kind}"
        self.observe("start", task[0].id, 0.0, names)
        future: Future[Finished] = Future()
        if self.workers > 1:
            try:
                return self._processes().submit(_work, self.store.root, task)
            except BrokenProcessPool as error:
                future.set_exception(error)
                return future
        try:
            future.set_result(_do(self.store, task, lambda fraction, note: self._progress(task, fraction, note)))
        except JobFailed as error:
            future.set_exception(error)
        return future

    def _collect_finished(self, running: dict[Future[Finished], list[Job]], timeout: float | None) -> None:
        """Take in what has finished, waiting for at least one task unless `timeout` says otherwise (seconds)."""
        broken: list[list[Job]] = []
        finished = wait(running, timeout, return_when=FIRST_COMPLETED).done
        if any(isinstance(future.exception(), BrokenProcessPool) for future in finished):
            finished = wait(running).done  # the others break with it, or have just been done
        for future in finished:
            task = running.pop(future)
            try:
                for job_id, elsewhere in future.result().items():
                    self._done(self.store[job_id])
                    if elsewhere and job_id not in self._repeated:
                        self.outcome.reused.add(job_id)
            except JobFailed as error:
                for job in task:
                    self._fail(job, str(error))
            except BrokenProcessPool:  # nobody knows by which of the tasks: each is tried again with none beside it
                broken.append(task)
        for task in broken:
            self._again(task)

    def _again(self, task: list[Job]) -> None:
        """Do a task whose process pool broke once more, alone; then its jobs one by one; fail those that break it."""
        self._drop_pool()
        self._repeated |= {job.id for job in task}  # what is found done now was done by the first attempt
        again = {self._submit(task): task}
        future = next(iter(again))
        wait([future])
        if not isinstance(future.exception(), BrokenProcessPool):
            self._collect_finished(again, timeout=None)
            return
        self._drop_pool()
        if len(task) > 1:
            for job in task:
                self._again([job])
        else:
            self._fail(task[0], KILLED)

    def _drop_pool(self) -> None:
        """Leave a broken pool behind; the next task starts another."""
        if self._pool:
            self._pool.shutdown(wait=False)
        self._pool = None

    def _done(self, handle: Handle, reused: bool = False) -> None:
        self.outcome.handles[handle.id] = handle
        if reused:
            self.outcome.reused.add(handle.id)
        self.observe("reused" if reused else "done", handle.id, 1.0, "")

    def _fail(self, job: Job, reason: str) -> None:
        self.outcome.failed[job.id] = reason
        self.outcome.undone[job.id] = job
        self.observe("failed", job.id, 1.0, reason)

    def _progress(self, task: list[Job], fraction: float, note: str) -> None:
        self.observe("progress", task[0].id, fraction, note)

    @property
    def threads(self) -> int:
        """How many threads a job computes with."""
        if self.workers == 1:
            import torch

            return int(torch.get_num_threads())
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return int(asked) if asked.isdecimal() else max(1, (os.cpu_count() or 1) // self.workers)

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context(self.start_method)
            context.set_forkserver_preload([MOST_NEED])
            self._events = context.SimpleQueue()
            given = (self._events, dict(os.environ) | {"OMP_NUM_THREADS": str(self.threads)})
            if self.start_method == "forkserver":
                with environment(given[1]):
                    forkserver.ensure_running()
            self._pool = ProcessPoolExecutor(self.workers, context, _start_worker, given)
            threading.Thread(target=self._relay, daemon=True).start()
        return self._pool

    def _relay(self) -> None:
        events = self._events
        with contextlib.suppress(EOFError, OSError):
            while events is not None:
                self.observe("progress", *events.get())


def _split(group: list[Job], parts: int) -> list[list[Job]]:
    """Split a group into at most `parts` contiguous parts of nearly equal size."""
    ordered = sorted(group, key=lambda job: job.id)
    size = -(-len(ordered) // parts)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def _do(store: Store, task: list[Job], progress: Callable[[float, str], None]) -> Finished:
    """Do one task; whatever goes wrong in it, but a user's mistake, is that task's failure and no other's."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        with room_for(store.root, task[0].label, lambda: sum(size_of(store.root / PARTIAL / job.id) for job in task)):
            if JOB_KINDS.get(task[0].kind).together:
                store.run_together(task, progress)
            else:
                store.run(task[0], progress)
    except PeoBenchError:
        raise
    except Exception as error:
        logger.warning("%s failed", task[0].id, exc_info=True)
        raise JobFailed(f"{type(error).__name__}: {error}") from None
    return {job.id: job.id in store.done_elsewhere for job in task}


_worker_events: Events | None = None


MOST_NEED = "transformers.trainer"
"""What most jobs need and takes longest to import: the server that workers are forked from does it once for all."""


def _start_worker(events: Events, environ: Mapping[str, str]) -> None:
    """Prepare a worker process: its environment and threads, its event queue, and an end when the parent is gone.

    It is forked from a server that may be older than this run, whose libraries were imported with other settings.
    """
    global _worker_events
    _worker_events = events
    os.environ.clear()
    os.environ.update(environ)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    import torch
    from threadpoolctl import threadpool_limits

    importlib.import_module(MOST_NEED)
    threads = int(environ["OMP_NUM_THREADS"])
    threadpool_limits(threads)
    torch.set_num_threads(threads)
    if is_strict():
        compute_strictly()


def _follow(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _work(root: Path, task: list[Job]) -> Finished:
    def progress(fraction: float, note: str) -> None:
        assert _worker_events is not None, "the process was not started as a worker"
        _worker_events.put((task[0].id, fraction, note))

    return _do(Store(root), task, progress)
