"""Find the data folders that sit at the repository's top level and inside an installed wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from peo_bench.errors import UsageError


def resource_dir(name: str) -> Path:
    """Return the folder `name` ("tasks", "leaderboards" or "reports") of this installation.

    A wheel carries it as `peo_bench/<name>`; in a checkout it is the top-level folder.
    """
    package = Path(__file__).parent
    return next(path for path in (package / name, package.parent / name) if path.is_dir())


def require(module: str, extra: str) -> None:
    """Raise a `UsageError` that says what to install unless `module` can be imported."""
    if importlib.util.find_spec(module) is None:
        raise UsageError(f"this needs the package {module!r}: type `pip install 'peo-bench[{extra}]'`")
