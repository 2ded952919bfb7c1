"""What is no file is never opened: a pipe would be waited for, a device may have no end."""

from __future__ import annotations

import shutil
from pathlib import Path

from peo_bench.errors import UsageError


def is_no_file(path: Path) -> bool:
    """Say whether something else than a file lies at `path`, links followed; what is not there is another matter."""
    return path.exists() and not path.is_file()


def require_file(path: Path, give: str) -> None:
    """Raise `UsageError`, saying what to `give`, where `is_no_file`."""
    if is_no_file(path):
        raise UsageError(f"{path}: is no file: {give}")


def delete(path: Path) -> None:
    """Delete a folder with all in it, or whatever else lies there; never what a link leads to, which may lie outside.

    What is not there is no error.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
