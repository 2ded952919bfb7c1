"""Write a file so that a reader sees the old content or the new, never a part.

The new content goes to a temporary file in the same folder, is fsynced, and is renamed over the target; the folder is
fsynced too. On any failure (disk full, interrupt, no permission) the old file is intact and the temporary one is
removed; only a kill leaves it behind, and later writes take another name. A new file gets the permissions that the
umask leaves, an existing one keeps its own. Where the target is a symbolic link, the file it points to is replaced and
the link stays. Not promised: atomicity over several files, owner and hard links of an existing file, and network file
systems without atomic rename.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast, overload

from peo_bench.errors import UsageError
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.files.room import room_for

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}")
PERMISSIONS = 0o777
"""The bits of a mode that the umask decides about."""


def sync_dir(path: Path) -> None:
    """Flush a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Say whether a file is a temporary one by its name: where nobody writes, a kill has left it.

    >>> is_temporary(Path("out/.points.csv.0f12ab9c")), is_temporary(Path("out/points.csv"))
    (True, False)
    """
    return TEMPORARY.fullmatch(path.name) is not None


def _create_beside(path: Path, mode: int = 0o666) -> Path:
    """Create an empty file of a new name next to `path`, with what the umask leaves of `mode`."""
    while True:
        beside = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        try:
            os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        except FileExistsError:
            continue
        return beside


def _target(path: Path) -> Path:
    """Return the file to replace, links followed; `UsageError` for what is no file or may not be written."""
    try:
        target = path.resolve()
    except RuntimeError:
        raise UsageError(f"{path}: is a link that leads back to itself: delete it") from None
    if target.is_dir():
        raise UsageError(f"{path}: is a folder where a file belongs: move it away")
    if target.exists() and not target.is_file():
        raise UsageError(f"{path}: is a pipe or a device, no file: give another path")
    if target.exists() and not os.access(target, os.W_OK):
        raise UsageError(f"{path}: is read-only: make it writable or give another path")
    return target


@contextmanager
def replacing(path: Path, need: int = 0) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it takes the place of `path`.

    For writers that want a file name (Parquet, for instance). Raises `UsageError` where a folder is in the place, and
    `DiskFull` where there is no room, with the bytes that were to be written: `need`, or as many as there were when the
    room ended.
    """
    target = _target(path)
    known = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    with room_for(path, "this file", lambda: need):
        temporary = _create_beside(target, 0o666 if known is None else known & 0o666 | 0o600)
    try:
        mode = stat.S_IMODE(temporary.stat().st_mode) if known is None else known
        with room_for(path, "this file", lambda: max(need, temporary.stat().st_size)):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(target)
        sync_dir(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def follow_umask(folder: Path) -> None:
    """Give `folder` and all in it the permissions that new files and folders get.

    Writers that go through a private temporary file (safetensors, `tempfile`) leave what only its owner may read, so
    that a cache could not be shared.
    """
    probe = folder / f".umask.{secrets.token_hex(4)}"
    probe.mkdir()
    try:
        beside = _create_beside(probe / "file")
        for_folders, for_files = (path.stat().st_mode & PERMISSIONS for path in (probe, beside))
        beside.unlink()
    finally:
        probe.rmdir()
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            rest = stat.S_IMODE(path.stat().st_mode) & ~PERMISSIONS  # a shared folder's setgid bit stays
            path.chmod(rest | (for_folders if path.is_dir() else for_files))


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` with `text` (UTF-8)."""
    with replacing(path, len(text.encode())) as temporary:
        temporary.write_text(text, encoding="utf-8")


@overload
def finite(value: Mapping[str, object]) -> JsonObject: ...
@overload
def finite(value: object) -> Json: ...
def finite(value: object) -> Json:
    """Return ``value`` with NaN and infinities replaced by None, as JSON requires; the rest is left as it is."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else cast(Json, value)


def json_text(value: object) -> str:
    """Return indented JSON; NaN and infinity are errors, what JSON does not know too."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> None:
    """Replace the content of `path` with the `json_text` of `value`."""
    write_text(path, json_text(value))
