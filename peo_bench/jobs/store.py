"""The store: finished artefacts under their job's id, one folder each.

    <root>/<kind>/<id>/meta.json     written last; an artefact without it does not exist
    <root>/<kind>/<id>/...           the artefact's files
    <root>/partial/<id>/             a job in progress; kept after a kill for the next attempt
    <root>/locks/<id>.lock           held while a job runs
    <root>/damaged/<id>.<n>          what was not as it was written, moved here when its job was done again

Every file's size and SHA-256 are in meta.json, and meta.json's own checksum too; they are checked on first use in a
process. A damaged artefact is said, once, counts as absent, and is moved aside when its job is done again.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from peo_bench.files.atomic import follow_umask, sync_dir, write_json
from peo_bench.files.json_types import Json
from peo_bench.jobs.artefact import META, SCHEMA, Damaged, fingerprint, read_artefact, sealed
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.versions import current_versions
from peo_bench.jobs.workspace import Progress, Workspace
from peo_bench.kill_points import kill_point

logger = logging.getLogger(__name__)


class Store:
    """A folder of artefacts; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Use `root`, created on first write."""
        self.root = root
        self._checked: dict[str, Handle] = {}
        self._damaged: set[str] = set()

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
        with self.lock(job.id):
            finished = self.get(job.id)
            if finished is not None:
                return finished
            inputs = {role: self[need.id] for role, need in job.needs.items()}
            partial = self.root / "partial" / job.id
            self._make_way(partial)
            partial.mkdir(parents=True, exist_ok=True)
            work = Workspace(partial, progress, f"{job.label} {job.id.rpartition('-')[2]}")
            started = time.monotonic()
            result = JOB_KINDS.get(job.kind).run(job, inputs, work)
            return self._finish(job, work, result, time.monotonic() - started)

    def adopt(self, job: Job, write: Callable[[Workspace], Mapping[str, Json]], seconds: float) -> Handle:
        """Store an artefact whose content was computed together with others; `write` writes its files."""
        with self.lock(job.id):
            finished = self.get(job.id)
            if finished is not None:
                return finished
            partial = self.root / "partial" / job.id
            self._make_way(partial)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            work = Workspace(partial)
            return self._finish(job, work, write(work), seconds)

    def copy_to(self, other: Path, job_ids: list[str]) -> None:
        """Copy artefacts into the store at `other`, replacing damaged ones there.

        Copies, not links: damage to one store must not reach the other.
        """
        target = Store(other)
        for job_id in job_ids:
            if target.get(job_id) is None:
                path = target.path(job_id)
                target._clear(path)
                shutil.copytree(self.path(job_id), path, ignore=shutil.ignore_patterns(META))
                shutil.copy2(self.path(job_id) / META, path)

    def lock(self, name: str) -> FileLock:
        """Return the lock of a job (or batch); waits for another process that holds it."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{name}.lock")

    def _finish(self, job: Job, work: Workspace, result: Mapping[str, Json], seconds: float) -> Handle:
        shutil.rmtree(work.dir / "scratch", ignore_errors=True)
        (work.dir / META).unlink(missing_ok=True)
        written = [file for file in sorted(work.dir.rglob("*")) if not file.is_dir()]
        files = {str(file.relative_to(work.dir)): fingerprint(file) for file in written}
        meta = {
            "schema": SCHEMA,
            "kind": job.kind,
            "version": JOB_KINDS.get(job.kind).version,
            "params": dict(job.params),
            "needs": {role: need.id for role, need in job.needs.items()},
            "result": dict(result),
            "cost": work.cost.to_json(),
            "seconds": round(seconds, 3),
            "versions": current_versions(),
            "files": files,
        }
        target = self.path(job.id)
        self._make_way(target.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        follow_umask(work.dir)
        write_json(work.dir / META, sealed(meta))
        kill_point("rename")
        self._clear(target)
        work.dir.replace(target)
        sync_dir(target.parent)
        return self[job.id]

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
        damaged.mkdir(parents=True, exist_ok=True)
        names = (damaged / f"{path.name}.{n}" for n in itertools.count(1))
        free = next(name for name in names if not os.path.lexists(name))
        path.rename(free)
        logger.info("%s was damaged and now lies in %s", path, free)
