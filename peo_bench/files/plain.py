"""What is no file is never opened: a pipe would be waited for, a device may have no end."""

from __future__ import annotations

from pathlib import Path

from peo_bench.errors import UsageError


def is_no_file(path: Path) -> bool:
    """Say whether something else than a file lies at `path`, links followed; what is not there is another matter."""
    return path.exists() and not path.is_file()


def require_file(path: Path, give: str) -> None:
    """Raise `UsageError`, saying what to `give`, where `is_no_file`."""
    if is_no_file(path):
        raise UsageError(f"{path}: is no file: {give}")
