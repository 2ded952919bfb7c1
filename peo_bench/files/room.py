"""Room on the disk: recognise that it was lacking, and say so in one line."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def disk_full(path: Path, what: str, need: int | None = None) -> DiskFull:
    """Return the error to raise: what could not be written, where, of how many bytes at least, and what to do."""
    of_size = f", {need:,} bytes or more" if need else ""
    free = f"{_free(path):,} bytes are free, a quota or `ulimit -f` may allow less"
    return DiskFull(
        f"{path}: no room to write {what}{of_size} ({free}): make room and type the same command again; finished work "
        "is kept"
    )


@contextmanager
def room_for(path: Path, what: str, need: Callable[[], int]) -> Iterator[None]:
    """Raise `disk_full` where what is written inside finds no room; `need()` is asked then."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if is_disk_full(error, path):
            raise disk_full(path, what, need()) from None
        raise


def size_of(folder: Path) -> int:
    """Return the bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def place_of(error: BaseException) -> Path | None:
    """Return the file that could not be written, as far as `error` or what led to it says: copies name two."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, shutil.Error) and link.args and isinstance(link.args[0], list):
            return Path(link.args[0][0][1])
        named = getattr(link, "filename2", None) or getattr(link, "filename", None)
        if isinstance(named, str | Path):
            return Path(named)
        link = link.__cause__ or link.__context__
    return None


def _free(path: Path) -> int:
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(place).free
