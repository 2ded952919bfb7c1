"""Room on the disk: recognise that it was lacking, and say so in one line."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from peo_bench.errors import DiskFull

CODES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TEXTS = ("No space left on device", "Disk quota exceeded", "File too large")
"""What libraries say that lose the code (safetensors, pyarrow)."""
TORCH = "PytorchStreamWriter failed writing"
"""What torch says of any failed write."""
SMALL = 64 * 2**20
"""Free bytes below which a failed write is taken for one without room."""


def is_disk_full(error: BaseException, path: Path) -> bool:
    """Say whether a disk without room (at `path`) is the reason of `error`, or of what led to it."""
    link: BaseException | None = error
    while link is not None:
        text = str(link)
        if getattr(link, "errno", None) in CODES or any(known in text for known in TEXTS):
            return True
        if TORCH in text and _free(path) < SMALL:
            return True
        link = link.__cause__ or link.__context__
    return False


def disk_full(path: Path, what: str) -> DiskFull:
    """Return the error to raise: what could not be written, where, and what to do."""
    free = f"{_free(path) / 2**20:,.0f} MiB free, a quota or `ulimit -f` may allow less"
    return DiskFull(
        f"{path}: no room to write {what} ({free}): make room and type the same command again; finished work is kept"
    )


def _free(path: Path) -> int:
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(place).free
