"""Copies of hub repositories for machines without a network: `peo-bench fetch` writes them, `--offline DIR` reads them.

`<dir>/fetched.json` lists every repository with its commit and the SHA-256 of each of its files; these lie as plain
files in `<dir>/models--<owner>--<name>` and `<dir>/datasets--<owner>--<name>`. Sizes are compared when a copy is looked
up, the digests when it is taken over. A run from a copy is the run that it would be from the hub, job by job.
The folder goes through the environment, as that of `--data-dir` does, so that worker processes know it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Literal

from peo_bench.data.schema import DataSource
from peo_bench.errors import UsageError
from peo_bench.files.atomic import write_json
from peo_bench.files.digest import file_digest
from peo_bench.files.inside import inside
from peo_bench.settings import Frozen, check, load_yaml

OFFLINE = "PEO_BENCH_OFFLINE"
"""Environment variable with the folder of `--offline`."""
MANIFEST = "fetched.json"
Kind = Literal["model", "dataset"]
CARD = "README.md"
ROWS = ("*.json", "*.jsonl", "*.parquet", "*.csv", "*.tsv", "*.txt", "*.gz", "*.xz", "*.zst", "*.bz2", "*.arrow")
"""Files of a data set that may hold rows; code is never among them."""


class FetchedFile(Frozen):
    """One file of a copy."""

    size: int
    sha256: str


class FetchedRepository(Frozen):
    """The copy of a repository: what was asked for, the commit that this was, and its files by name.

    `patterns` say which of its files were wanted.
    """

    kind: Kind
    id: str
    revision: str | None
    commit: str
    patterns: tuple[str, ...]
    files: dict[str, FetchedFile]

    @property
    def place(self) -> str:
        """Where it lies in the folder."""
        return f"{self.kind}s--{self.id.replace('/', '--')}"


class Manifest(Frozen):
    """All of `fetched.json`."""

    schema_version: Literal[1] = 1
    repositories: tuple[FetchedRepository, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A repository of the hub that a run reads, and which of its files."""

    kind: Kind
    id: str
    revision: str | None
    patterns: tuple[str, ...]


def dataset_wanted(source: DataSource) -> Wanted | None:
    """Return what a source reads of the hub, None for one of files."""
    if source.hub is None:
        return None
    folder = f"{source.data_dir}/" if source.data_dir else ""
    patterns = (source.file,) if source.file else tuple(folder + pattern for pattern in ROWS)
    return Wanted("dataset", source.hub, source.revision, (CARD, *patterns))


def look_offline(folder: Path | None) -> None:
    """Read copies in `folder`, that of `--offline`, from now on; None: the hub."""
    if folder is None:
        os.environ.pop(OFFLINE, None)
        return
    read_manifest(folder)
    os.environ[OFFLINE] = str(folder.resolve())


def read_manifest(folder: Path) -> Manifest:
    """Return what lies in a folder that `fetch` wrote; `UsageError` for another folder."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder}: no {MANIFEST} there: give the folder that `peo-bench fetch --to` wrote")
    return check(load_yaml(path), Manifest, str(path))


def copy_of(kind: Kind, repository: str, revision: str | None) -> tuple[Path, FetchedRepository] | None:
    """Return the folder of a repository's copy, and what is known of it; None without `--offline`.

    Raises `UsageError` where there is no such copy, a file of it is missing or of another size, or one was added.
    """
    if OFFLINE not in os.environ:
        return None
    folder = Path(os.environ[OFFLINE])
    known = [entry for entry in read_manifest(folder).repositories if (entry.kind, entry.id) == (kind, repository)]
    found = next((entry for entry in known if revision in (None, entry.revision, entry.commit)), None)
    if found is None:
        others = f"; it has {repository} at {', '.join(entry.commit for entry in known)}" if known else ""
        at = f" at {revision}" if revision else ""
        raise UsageError(
            f"{folder}: holds no {kind} {repository}{at}{others}: type `peo-bench fetch --suite NAME --to {folder}` "
            "where there is a network"
        )
    place = inside(folder, found.place)
    lost = _lost(place, found)
    if lost is not None:
        raise UsageError(f"{lost}: is missing or not whole: copy {folder} again, or fetch it anew")
    if not found.files:
        raise UsageError(f"{folder / MANIFEST}: names no files of {repository}: fetch it anew")
    added = next((name for name in _names(place) if name not in found.files), None)
    if added is not None:
        raise UsageError(f"{place / added}: was not fetched, and may be read for what was: delete it")
    return place, found


def _lost(place: Path, entry: FetchedRepository) -> Path | None:
    """Return the first file of a copy that is not there, or of another size."""
    files = ((reduce(inside, name.split("/"), place), file) for name, file in entry.files.items())
    return next((path for path, file in files if not path.is_file() or path.stat().st_size != file.size), None)


def _names(place: Path) -> list[str]:
    """Return the names of all that lies in a folder and below, but for folders."""
    return [path.relative_to(place).as_posix() for path in sorted(place.rglob("*")) if not path.is_dir()]


def verified(kind: Kind, repository: str, revision: str | None) -> Path | None:
    """Return the folder of a repository's copy once every file's digest was compared; None without `--offline`."""
    found = copy_of(kind, repository, revision)
    if found is None:
        return None
    place, entry = found
    check_digests(place, entry)
    return place


def check_digests(place: Path, entry: FetchedRepository) -> None:
    """Raise `UsageError` for a file of a copy that is not as it was fetched."""
    for name, file in entry.files.items():
        if file_digest(place / name) != file.sha256:
            raise UsageError(f"{place / name}: is not the file that was fetched (SHA-256): copy it again")


def fetch(wanted: Iterable[Wanted], folder: Path, tell: Callable[[str], None] = lambda line: None) -> Manifest:
    """Copy repositories of the hub to `folder`; what is there already, at the same commit and whole, stays.

    Raises `UsageError` for one that cannot be had, what was fetched before it is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = read_manifest(folder).repositories if (folder / MANIFEST).is_file() else ()
    done: dict[tuple[str, str], FetchedRepository] = {(entry.kind, entry.id): entry for entry in kept}
    for item in _together(wanted):
        commit = _commit(item)
        before = done.get((item.kind, item.id))
        if before is not None and before.commit != commit:
            shutil.rmtree(inside(folder, before.place), ignore_errors=True)
        elif before is not None:
            item = replace(item, patterns=tuple(dict.fromkeys((*before.patterns, *item.patterns))))
        if before is None or (before.commit, before.patterns) != (commit, item.patterns) or not _whole(folder, before):
            tell(f"{item.kind} {item.id} at {commit}")
            entry = _fetched(item, commit, folder)
        else:
            entry = before.model_copy(update={"revision": item.revision})
        done[item.kind, item.id] = entry
        manifest = Manifest(repositories=tuple(done.values()))
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return Manifest(repositories=tuple(done.values()))


def _together(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Return each repository once, with the files that any of its readers wants."""
    found: dict[tuple[str, str], Wanted] = {}
    for item in wanted:
        other = found.get((item.kind, item.id))
        if other is not None and other.revision != item.revision:
            raise UsageError(
                f"{item.id}: is wanted at {other.revision or 'its newest commit'} and at "
                f"{item.revision or 'its newest commit'}: fetch them into two folders"
            )
        patterns = (*(other.patterns if other else ()), *item.patterns)
        found[item.kind, item.id] = Wanted(item.kind, item.id, item.revision, tuple(dict.fromkeys(patterns)))
    return list(found.values())


def _commit(item: Wanted) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().repo_info(item.id, repo_type=item.kind, revision=item.revision).sha)
    except Exception as error:  # the errors of huggingface_hub's HTTP library change with its version
        raise _refused(item, error) from None


def _fetched(item: Wanted, commit: str, folder: Path) -> FetchedRepository:
    """Download a repository's files and return what they are."""
    from huggingface_hub import snapshot_download

    about = {"kind": item.kind, "id": item.id, "revision": item.revision, "commit": commit, "patterns": item.patterns}
    empty = FetchedRepository.model_validate({**about, "files": {}})
    place = inside(folder, empty.place)
    try:
        snapshot_download(
            item.id, repo_type=item.kind, revision=commit, allow_patterns=list(item.patterns), local_dir=place
        )
    except Exception as error:  # as above
        raise _refused(item, error) from None
    shutil.rmtree(place / ".cache", ignore_errors=True)
    files = {
        name: FetchedFile(size=(place / name).stat().st_size, sha256=file_digest(place / name))
        for name in _names(place)
    }
    return empty.model_copy(update={"files": files})


def _whole(folder: Path, entry: FetchedRepository) -> bool:
    return bool(entry.files) and _lost(inside(folder, entry.place), entry) is None


def _refused(item: Wanted, error: Exception) -> UsageError:
    return UsageError(f"{item.kind} {item.id}: {': '.join(access_problem(item.id, error))}")


def access_problem(repository: str, error: Exception) -> tuple[str, str]:
    """Say in a line why a repository cannot be had, and in another what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "no access", f"accept its licence at https://huggingface.co/{repository} and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision", "correct the revision in the suite"
    if isinstance(error, RepositoryNotFoundError):
        return "is not there, or not for this account", "check the id, and set HF_TOKEN if it is private"
    if isinstance(error, OfflineModeIsEnabled):
        return "not asked for, since HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE where there is a network"
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"unreachable ({reason})", "check the network"
