"""What a store takes on the disk, and how it is made smaller: by kind of job, by run, by age."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from peo_bench.errors import UsageError
from peo_bench.jobs.artefact import META, Damaged
from peo_bench.jobs.records import JOBS, read_records

UNFINISHED = "partial"
DAMAGED = "damaged"
LOCKS = "locks"


@dataclass(frozen=True)
class Stored:
    """A finished artefact, or what lies in `partial` or `damaged`; `made` is a time in seconds since 1970."""

    id: str
    kind: str
    path: Path
    size: int
    made: float


def stores(cache: Path) -> list[Path]:
    """Return the stores of a cache: itself, and those of `--strict-repro`."""
    return [cache, *sorted(path for path in cache.glob("strict-*") if path.is_dir() and not path.is_symlink())]


def stored(root: Path) -> list[Stored]:
    """Return what lies in the store at `root`; no link is followed."""
    kinds = [path for path in _folders(root) if path.name != LOCKS and not path.name.startswith("strict-")]
    found = []
    for folder in kinds:
        for path in _folders(folder):
            if folder.name in (UNFINISHED, DAMAGED) or (path / META).is_file():
                made = (path / META if (path / META).is_file() else path).stat().st_mtime
                found.append(Stored(path.name, folder.name, path, _size(path), made))
    return found


def jobs_of(run: Path) -> set[str]:
    """Return the ids of the jobs behind a finished run folder."""
    try:
        return set(read_records(run / JOBS, run / "artefacts").outcome.handles)
    except Damaged as reason:
        raise UsageError(f"{run / JOBS}: {reason}: give the folder of a finished run") from None


def prune(cache: Path, before: float, keep: Collection[str], delete: bool = True) -> list[Stored]:
    """Delete what was made `before` then, but for the jobs `keep`; return it. Without `delete`, say only what would go.

    Raises `UsageError` while a run works with the cache: what it has found there it will need.
    """
    gone = []
    for root in stores(cache):
        _check_that_nobody_works(root)
        old = [item for item in stored(root) if item.made < before and item.id not in keep]
        for item in old if delete else ():
            (item.path / META).unlink(missing_ok=True)  # first: without it there is no artefact, so no damaged one
            shutil.rmtree(item.path)
        gone += old
    return gone


def _check_that_nobody_works(root: Path) -> None:
    """Refuse while somebody holds a claim in the store at `root`."""
    for path in sorted((root / LOCKS).glob("*.lock")):
        if path.is_symlink() or not path.is_file():
            continue
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"{root}: a run is at work ({path.stem}): wait until it has ended") from None
        lock.release()


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(item for item in path.iterdir() if item.is_dir() and not item.is_symlink())


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
