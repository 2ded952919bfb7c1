"""The store: finished artefacts under their job's id, one folder each.

    <root>/<kind>/<id>/meta.json     written last; an artefact without it does not exist
    <root>/<kind>/<id>/...           the artefact's files
    <root>/partial/<id>/             a job in progress; kept after a kill for the next attempt; with meta.json it is
                                     finished and only has to be given its place
    <root>/locks/<id>.lock           the claim of whoever does the job; a dead process holds none
    <root>/damaged/<id>.<n>          what was not as it was written, moved here when its job was done again

Every file's size and SHA-256 are in meta.json, and meta.json's own checksum too; they are checked on first use in a
process. A damaged artefact is said, once, counts as absent, and is moved aside when its job is done again.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from peo_bench.errors import JobFailed
from peo_bench.files.atomic import follow_umask, is_temporary, sync_dir, write_json
from peo_bench.files.inside import free_name
from peo_bench.files.json_types import Json
from peo_bench.files.plain import delete
from peo_bench.files.room import is_disk_full, room_for, size_of
from peo_bench.jobs.artefact import META, SCHEMA, SCRATCH, Damaged, flush, identity_of, read_artefact, sealed
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.versions import current_versions
from peo_bench.jobs.workspace import Progress, Workspace
from peo_bench.kill_points import kill_point

logger = logging.getLogger(__name__)

Done = TypeVar("Done")
STUMBLES = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, RecursionError)
"""What reading files that are not as expected raises; not what computing does, such as a lack of memory."""
PARTIAL = "partial"
"""Folder of the jobs in progress."""
CLAIMS = 100
"""Jobs that one process claims at a time, an open file each; systems allow 256 or more."""
WAITING = "another run does this: waiting for it"


class Store:
    """A folder of artefacts; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Use `root`, created on first write."""
        self.root = root
        self._checked: dict[str, Handle] = {}
        self._damaged: set[str] = set()
        self._locks: dict[str, FileLock] = {}
        self.done_elsewhere: set[str] = set()
        """Jobs that were to be done here and that somebody else had done when their turn came."""

    def path(self, job_id: str) -> Path:
        """Return where the artefact lies or will lie."""
        return self.root / job_id.rpartition("-")[0] / job_id

    def get(self, job_id: str) -> Handle | None:
        """Return the finished artefact, or None if there is none or it is damaged; changes nothing.

        Raises `UsageError` for an artefact that a newer peo-bench wrote.
        """
        if job_id in self._checked:
            return self._checked[job_id]
        path = self.path(job_id)
        if not self._begun(path):
            return None
        try:
            handle = read_artefact(path)
        except Damaged as reason:
            if job_id not in self._damaged:
                logger.warning("%s is damaged (%s): it counts as absent and is built again", path, reason)
            self._damaged.add(job_id)
            return None
        self._checked[job_id] = handle
        return handle

    @staticmethod
    def _begun(path: Path) -> bool:
        """Say whether what lies at `path` claims to be an artefact; a folder without meta.json does not."""
        plain = path.is_dir() and not path.is_symlink()
        return os.path.lexists(path / META) if plain else os.path.lexists(path)

    def __getitem__(self, job_id: str) -> Handle:
        """Return the finished artefact; KeyError if there is none."""
        handle = self.get(job_id)
        if handle is None:
            raise KeyError(job_id)
        return handle

    def run(self, job: Job, progress: Progress = lambda fraction, note: None) -> Handle:
        """Return the job's artefact, doing the work if nobody has. What it needs must be finished.

        A second process asking for the same job waits for the first.
        """
        with self._claim(job, progress):
            finished = self._finished(job)
            if finished is not None:
                self.done_elsewhere.add(job.id)
                return finished
            inputs = {role: self[need.id] for role, need in job.needs.items()}
            started = time.monotonic()

            def attempt() -> tuple[Workspace, Mapping[str, Json]]:
                work = self.workspace(job, progress)
                return work, JOB_KINDS.get(job.kind).run(job, inputs, work)

            work, result = self._tried([job], attempt)
            return self._finish(job, work, result, time.monotonic() - started)

    def run_together(self, jobs: Sequence[Job], progress: Progress = lambda fraction, note: None) -> None:
        """Do jobs of a kind that does them together, each once, whoever else asks for some of them.

        What another process does is left to it and waited for in the end; where that dies, it is done here.
        """
        together = JOB_KINDS.get(jobs[0].kind).together
        assert together is not None, f"jobs of kind {jobs[0].kind!r} are done one by one"
        todo, wait = self._missing(jobs), False
        self.done_elsewhere |= {job.id for job in jobs}
        while todo:
            if wait:
                progress(0.0, WAITING)
            with self._claims(todo, wait) as mine:
                self.done_elsewhere -= {job.id for job in mine}
                if mine:
                    self._tried(mine, partial(together, self, mine, progress))
                undone = self._missing(mine)
            if undone:
                raise JobFailed(f"{undone[0].id} was not stored by its kind")
            todo, wait = self._missing(todo), not mine

    def _tried(self, jobs: Sequence[Job], attempt: Callable[[], Done]) -> Done:
        """Return `attempt()`; where it stumbles over what an earlier attempt left, once more without that."""
        begun = [folder for job in jobs if any((folder := self.root / PARTIAL / job.id).glob("*"))]
        try:
            return attempt()
        except STUMBLES as error:
            if not begun or is_disk_full(error, self.root):
                raise
            logger.warning(
                "%s cannot go on from what an earlier attempt left (%s: %s): that is moved aside, and the work starts "
                "anew", jobs[0].id, type(error).__name__, error,
            )  # fmt: skip
        for folder in begun:
            if folder.exists():
                self._aside(folder)
        return attempt()

    def _missing(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if self.get(job.id) is None]

    @contextmanager
    def _claim(self, job: Job, progress: Progress) -> Iterator[None]:
        lock = self.lock(job.id)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(0.0, WAITING)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _claims(self, jobs: Sequence[Job], wait: bool) -> Iterator[list[Job]]:
        """Claim those of `jobs` that are not done and that nobody else does; with `wait`, the first one in any case.

        Nothing is held while waiting, so two processes never wait for each other.
        """
        with ExitStack() as claims:
            mine = []
            for i, job in enumerate(jobs):
                try:
                    claims.enter_context(self.lock(job.id).acquire(timeout=-1 if wait and i == 0 else 0))
                except Timeout:
                    continue
                mine += [] if self._finished(job) else [job]
                if len(mine) == CLAIMS:
                    break
            yield mine

    def adopt(self, job: Job, write: Callable[[Workspace], Mapping[str, Json]], seconds: float) -> Handle:
        """Store an artefact whose content was computed together with others; `write` writes its files."""
        with self.lock(job.id):
            finished = self._finished(job)
            if finished is not None:
                return finished
            work = self.workspace(job)
            for path in work.dir.iterdir():  # what a killed attempt wrote; its memos stay until this one is finished
                if path.name != SCRATCH:
                    delete(path)
            return self._finish(job, work, write(work), seconds)

    def workspace(self, job: Job, progress: Progress = lambda fraction, note: None) -> Workspace:
        """Return where `job` works, with what an earlier attempt left there, to be asked for under its claim.

        What is no plain file or folder is moved aside, and what a kill left of a write is deleted.
        """
        folder = self.root / PARTIAL / job.id
        self._make_way(folder.parent)
        self._make_way(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for path in list(folder.rglob("*")):
            if is_temporary(path):
                delete(path)
            elif path.is_symlink() or not (path.is_file() or path.is_dir()):
                self._aside(path)
        return Workspace(folder, progress, f"{job.label} {job.id.rpartition('-')[2]}")

    def copy_to(self, other: Path, job_ids: list[str]) -> None:
        """Copy artefacts into the store at `other`, replacing damaged ones there.

        Copies, not links: damage to one store must not reach the other.
        """
        target = Store(other)
        partial_copies = other / PARTIAL
        target._make_way(partial_copies)
        absent = {job_id: self[job_id].path for job_id in job_ids if target.get(job_id) is None}
        with room_for(other, "the artefacts of the run", lambda: sum(map(size_of, absent.values()))):
            for job_id, path in absent.items():
                copy = partial_copies / job_id
                delete(copy)
                shutil.copytree(path, copy)
                follow_umask(copy)
                flush(copy)
                target._place(job_id, copy)
        delete(partial_copies)

    def lock(self, name: str) -> FileLock:
        """Return the lock of a job, the same each time, so that who holds it may ask again; others wait."""
        if name not in self._locks:
            locks = self.root / "locks"
            self._make_way(locks)
            locks.mkdir(parents=True, exist_ok=True)
            path = locks / f"{name}.lock"
            if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
                self._aside(path)
            self._locks[name] = FileLock(path)
        return self._locks[name]

    def _finish(self, job: Job, work: Workspace, result: Mapping[str, Json], seconds: float) -> Handle:
        """Make an artefact of what `work` holds: its files on disk, then its record, and only then does scratch go.

        Whenever this is cut off, the next attempt finds either all that the work can go on from or a finished artefact.
        """
        (work.dir / META).unlink(missing_ok=True)
        follow_umask(work.dir)
        meta = {
            "schema": SCHEMA,
            **identity_of(job),
            "result": dict(result),
            "cost": work.cost.to_json(),
            "seconds": round(seconds, 3),
            "versions": current_versions(),
            "files": flush(work.dir, {SCRATCH}),
        }
        write_json(work.dir / META, sealed(meta))
        return self._place(job.id, work.dir)

    def _place(self, job_id: str, folder: Path) -> Handle:
        """Give a finished artefact, which lies in `folder`, its place in the store."""
        delete(folder / SCRATCH)
        target = self.path(job_id)
        self._make_way(target.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        kill_point("rename")
        self._clear(target)
        folder.replace(target)
        sync_dir(target.parent)
        sync_dir(self.root)
        return self[job_id]

    def _finished(self, job: Job) -> Handle | None:
        """Return the job's artefact, to be asked for under its claim: one that a kill kept from its place takes it."""
        folder = self.root / PARTIAL / job.id
        known = self.get(job.id)
        if known is not None or folder.is_symlink() or not os.path.lexists(folder / META):
            return known
        try:
            read_artefact(folder, {SCRATCH})
        except Damaged as reason:
            logger.warning("%s was finished and is damaged (%s): its work goes on from what is left", folder, reason)
            self._aside(folder / META)
            return None
        return self._place(job.id, folder)

    def _clear(self, target: Path) -> None:
        """Take what lies at `target` away: a folder that never became an artefact is deleted, all else moved aside."""
        self._make_way(target)
        if self._begun(target):
            self._aside(target)
        else:
            shutil.rmtree(target, ignore_errors=True)

    def _make_way(self, folder: Path) -> None:
        """Move aside what is in the place of `folder` and is no folder; a link is moved, never followed."""
        if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
            self._aside(folder)

    def _aside(self, path: Path) -> None:
        damaged = self.root / "damaged"
        if damaged.is_symlink() or (damaged.exists() and not damaged.is_dir()):
            damaged.rename(free_name(damaged))
        damaged.mkdir(parents=True, exist_ok=True)
        free = free_name(damaged / path.name)
        path.rename(free)
        logger.info("%s was damaged and now lies in %s", path, free)
