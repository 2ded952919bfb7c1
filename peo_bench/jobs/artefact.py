"""What lies in an artefact's folder: its `meta.json`, and whether all of it is as it was written.

`meta.json` holds the checksum of itself, so that not one number in it can change unseen, and its job (kind, version,
parameters, needs), whose digest is the folder's name. Nothing is opened that is no plain file, and nothing is followed:
a symbolic link, a device or a pipe where a file was is damage. So is a file that was added: of two files with weights a
library takes the one it likes. A checksum is no signature: who may write the store can write a whole artefact.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from peo_bench.errors import UsageError
from peo_bench.files.atomic import sync_dir
from peo_bench.files.digest import digest
from peo_bench.files.json_types import JsonObject
from peo_bench.files.rows import is_whole
from peo_bench.jobs.job import Cost, Handle, Job, job_id
from peo_bench.jobs.kinds import JOB_KINDS

SCHEMA = 2
META, SCRATCH = "meta.json", "scratch"
"""The record of an artefact; and where a job in progress keeps what is no part of it."""
CHECKSUM = "checksum"


COUNTS = frozenset(count.name for count in fields(Cost))
MOST = 10**15
"""Of a count, and of seconds: sums of these stay numbers."""


def _known_count(name: str) -> str:
    if name not in COUNTS:
        raise ValueError("no such count")
    return name


class _File(BaseModel, extra="forbid", strict=True):
    size: int = Field(ge=0)
    sha256: str


class _Meta(BaseModel, extra="forbid", strict=True):
    """What `meta.json` holds; kinds alone know what a result is."""

    written: int = Field(alias="schema")
    kind: str
    version: int
    params: dict[str, Any]
    needs: dict[str, str]
    result: dict[str, Any]
    cost: dict[Annotated[str, AfterValidator(_known_count)], Annotated[int, Field(ge=0, le=MOST)]]
    seconds: float = Field(ge=0, le=MOST)
    versions: dict[str, str]
    files: dict[str, _File]
    checksum: str


class Damaged(Exception):
    """An artefact is not as it was written; the text says what is wrong."""


def fingerprint(path: Path) -> JsonObject:
    """Return the size (bytes) and SHA-256 of a plain file; `Damaged` if it is absent or something else."""
    require_plain(path)
    try:
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            return {"size": os.fstat(file.fileno()).st_size, "sha256": checksum}
    except OSError as error:
        raise Damaged(f"{path.name}: {error.strerror}") from None


def flush(folder: Path, but: Collection[str] = ()) -> JsonObject:
    """Bring all of `folder` to disk and return its files' fingerprints; what is called as in `but` is left out."""
    found: JsonObject = {}
    for path in _contents(folder, but):
        if path.is_dir() and not path.is_symlink():
            sync_dir(path)
        else:
            found[str(path.relative_to(folder))] = fingerprint(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_dir(folder)
    return found


def check_files(folder: Path, known: Mapping[str, Any], but: Collection[str] = ()) -> None:
    """Raise `Damaged` unless the files of `folder`, but those called as in `but`, are those `known` by fingerprint."""
    for name, fingerprint_known in known.items():
        file = folder
        if not Path(name).parts or "\0" in name or not is_whole(name):
            raise Damaged(f"{name!r} is no file's name")
        *folders, last = Path(name).parts
        for part in folders:
            file = file / part
            require_plain(file, folder=True)
        if fingerprint(file / last) != fingerprint_known:
            raise Damaged(f"{name} is not as it was written")
    for path in _contents(folder, but):
        name = str(path.relative_to(folder))
        if name not in known and (path.is_symlink() or not path.is_dir()):
            raise Damaged(f"{name} was added")


def _contents(folder: Path, but: Collection[str]) -> Iterator[Path]:
    """Yield all that lies in `folder`, in order, links unfollowed; what is called as in `but` is left out."""
    for path in sorted(folder.iterdir()):
        if path.name not in but:
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from _contents(path, ())


def require_plain(path: Path, folder: bool = False) -> None:
    """Raise `Damaged` unless `path` itself is a plain file (or a folder), not a link to one."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        raise Damaged(f"{path.name}: {error.strerror}") from None
    if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
        raise Damaged(f"{path.name} is no plain {'folder' if folder else 'file'}")


def sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return `meta` with its checksum."""
    return {**meta, CHECKSUM: digest(dict(meta))}


def unsealed(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a `sealed` record without its checksum; raise `Damaged` calling it `name` if it was changed."""
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    if record.get(CHECKSUM) != _digest(content):
        raise Damaged(f"{name} is not as it was written")
    return content


def read_artefact(path: Path, but: Collection[str] = ()) -> Handle:
    """Return the handle of the artefact at `path`, every file checked; raise `Damaged` if anything differs.

    What lies at its top and is called as in `but` is not looked at.
    """
    require_plain(path.parent, folder=True)
    require_plain(path, folder=True)
    meta = _read_meta(path)
    check_files(path, meta["files"], {META, *but})
    return _handle(meta, path)


def read_record(path: Path) -> JsonObject:
    """Return the content of the `meta.json` of the artefact at `path`; `Damaged` if it is not as it was written."""
    return _read_meta(path)


def identity_of(job: Job) -> JsonObject:
    """Return the part of a record that says which job it is of."""
    return {
        "kind": job.kind,
        "version": JOB_KINDS.get(job.kind).version,
        "params": dict(job.params),
        "needs": {role: need.id for role, need in job.needs.items()},
    }


def recorded_job(record: Mapping[str, Any]) -> str:
    """Return the id of the job that a record is of; `Damaged` if it is of none that is known."""
    job = _job_of(record)
    if job is None:
        raise Damaged("it is the record of no job that is known")
    return job


def handle_of(record: Mapping[str, Any], root: Path) -> Handle:
    """Return the handle that a record tells of, wherever its files are: in the store at `root`, if they are kept.

    Raises `Damaged` if the record is not as it was written.
    """
    job = recorded_job(record)
    _check_meta(record, job)
    return _handle(record, root / record["kind"] / job)


def _handle(meta: Mapping[str, Any], path: Path) -> Handle:
    return Handle(path.name, path, meta["result"], Cost(**meta["cost"]), meta["seconds"], meta["versions"])


def _read_meta(path: Path) -> dict[str, Any]:
    """Return a `meta.json` that is whole and belongs to the job that the folder is named after."""
    require_plain(path / META)
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise Damaged(f"{META} cannot be read") from None
    if not isinstance(meta, dict) or not isinstance(meta.get("schema"), int):
        raise Damaged(f"{META} is no record of an artefact")
    if meta["schema"] > SCHEMA:
        raise UsageError(
            f"{path / META}: written by a newer peo-bench (schema {meta['schema']}, this one reads {SCHEMA}): upgrade "
            "peo-bench, or set XDG_CACHE_HOME to another cache"
        )
    if meta["schema"] < SCHEMA:
        raise Damaged(f"an older peo-bench wrote it (schema {meta['schema']})")
    _check_meta(meta, path.name)
    return meta


def _check_meta(meta: Mapping[str, Any], name: str) -> None:
    unsealed(meta, META)
    if _job_of(meta) != name:
        raise Damaged(f"{META} belongs to another job")
    expected = JOB_KINDS.get(meta["kind"]).result
    try:
        _Meta.model_validate(meta)
        TypeAdapter(expected).validate_python(meta["result"])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(f"{META} has an unknown {place!r} ({first['msg']})") from None
    outside = [name for name in meta["files"] if not Path(name).parts or Path(name).is_absolute() or ".." in name]
    if outside:
        raise Damaged(f"{META} names a file outside its folder")


def _job_of(meta: Mapping[str, Any]) -> str | None:
    """Return the id of the job that `meta` tells of."""
    try:
        return job_id(meta["kind"], meta["version"], meta["params"], meta["needs"])
    except (KeyError, TypeError, ValueError, AttributeError, UsageError):  # of a kind that is unknown, too
        return None


def _digest(value: object) -> str | None:
    try:
        return digest(value)
    except ValueError:  # NaN and infinities, which are never written
        return None
