"""Find folders: the package's data, at the repository's top level or inside an installed wheel, and the cache."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from peo_bench.errors import UsageError


def resource_dir(name: str) -> Path:
    """Return the folder `name` ("tasks", "leaderboards" or "reports") of this installation.

    A wheel carries it as `peo_bench/<name>`; in a checkout it is the top-level folder.
    """
    package = Path(__file__).parent
    return next(path for path in (package / name, package.parent / name) if path.is_dir())


def cache_dir() -> Path:
    """Return where finished work is kept: $XDG_CACHE_HOME/peo-bench, by default ~/.cache/peo-bench."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "peo-bench"
    except RuntimeError:  # a user without HOME and without an entry in the system's list, as in containers
        raise UsageError("this user has no home folder to keep finished work in: set XDG_CACHE_HOME") from None


def require(module: str, extra: str) -> None:
    """Raise a `UsageError` that says what to install unless `module` can be imported."""
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"this needs the package {module!r}: type `pip install 'peo-bench[{extra}]'`")
