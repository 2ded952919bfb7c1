"""The store: finished artefacts under their job's id, one folder each.

    <root>/<kind>/<id>/meta.json     written last; an artefact without it does not exist
    <root>/<kind>/<id>/...           the artefact's files
    <root>/partial/<id>/             a job in progress; kept after a kill for the next attempt
    <root>/locks/<id>.lock           held while a job runs

Every file's size and SHA-256 are in meta.json and are checked on first use in a process; a damaged artefact is said,
counts as absent, and is replaced when its job is done again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from peo_bench.files.atomic import follow_umask, sync_dir, write_json
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.workspace import Progress, Workspace

logger = logging.getLogger(__name__)

SCHEMA = 1


class Store:
    """A folder of artefacts; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Use `root`, created on first write."""
        self.root = root
        self._checked: dict[str, Handle] = {}

    def path(self, job_id: str) -> Path:
        """Return where the artefact lies or will lie."""
        return self.root / job_id.rpartition("-")[0] / job_id

    def get(self, job_id: str) -> Handle | None:
        """Return the finished artefact, or None if there is none or it is damaged; deletes nothing."""
        if job_id in self._checked:
            return self._checked[job_id]
        path = self.path(job_id)
        try:
            meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
            damaged = [name for name, known in meta["files"].items() if _fingerprint(path / name) != known]
        except FileNotFoundError as error:
            meta, damaged = {}, [] if error.filename == str(path / "meta.json") else [str(error.filename)]
        except (ValueError, KeyError):
            meta, damaged = {}, ["meta.json"]
        if damaged:
            logger.warning("%s is damaged: %s", path, ", ".join(damaged))
        if damaged or not meta:
            return None
        handle = Handle(job_id, path, meta["result"], Cost(**meta["cost"]), meta["seconds"])
        self._checked[job_id] = handle
        return handle

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
            partial.mkdir(parents=True, exist_ok=True)
            work = Workspace(partial, progress, f"{job.label} {job.id.rpartition('-')[2]}")
            started = time.monotonic()
            result = JOB_KINDS.get(job.kind).run(job, inputs, work)
            return self._finish(job, work, result, time.monotonic() - started)

    def adopt(self, job: Job, write: Callable[[Workspace], dict[str, Any]], seconds: float) -> Handle:
        """Store an artefact whose content was computed together with others; `write` writes its files."""
        with self.lock(job.id):
            finished = self.get(job.id)
            if finished is not None:
                return finished
            partial = self.root / "partial" / job.id
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
                shutil.rmtree(path, ignore_errors=True)
                shutil.copytree(self.path(job_id), path, ignore=shutil.ignore_patterns("meta.json"))
                shutil.copy2(self.path(job_id) / "meta.json", path)

    def lock(self, name: str) -> FileLock:
        """Return the lock of a job (or batch); waits for another process that holds it."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{name}.lock")

    def _finish(self, job: Job, work: Workspace, result: Mapping[str, Any], seconds: float) -> Handle:
        shutil.rmtree(work.dir / "scratch", ignore_errors=True)
        (work.dir / "meta.json").unlink(missing_ok=True)
        written = [file for file in sorted(work.dir.rglob("*")) if file.is_file()]
        files = {str(file.relative_to(work.dir)): _fingerprint(file) for file in written}
        meta = {
            "schema": SCHEMA,
            "kind": job.kind,
            "params": dict(job.params),
            "needs": {role: need.id for role, need in job.needs.items()},
            "result": dict(result),
            "cost": work.cost.to_json(),
            "seconds": round(seconds, 3),
            "files": files,
        }
        target = self.path(job.id)
        target.parent.mkdir(parents=True, exist_ok=True)
        follow_umask(work.dir)
        write_json(work.dir / "meta.json", meta)
        shutil.rmtree(target, ignore_errors=True)
        work.dir.replace(target)
        sync_dir(target.parent)
        return self[job.id]


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": checksum}
