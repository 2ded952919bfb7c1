"""Names and links that somebody else chose: they lead nowhere but into the folder that they are meant for."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from peo_bench.errors import UsageError


def inside(folder: Path, name: str) -> Path:
    """Return `folder` / `name`; `UsageError` unless `name` is one part and the path, links followed, stays in `folder`.

    >>> inside(Path("board"), "peo-1.parquet").as_posix()
    'board/peo-1.parquet'
    """
    plain = name not in ("", ".", "..") and not set(name) & set("/\\\0\n")
    path = folder / name if plain else folder
    if not plain or os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
        raise UsageError(f"{folder}: {name!r} is no name of a file in it: names have no '/' and lead nowhere else")
    return path


def free_name(path: Path) -> Path:
    """Return the first of `path`.1, `path`.2, ... that is not there: for what is moved aside."""
    names = (path.with_name(f"{path.name}.{n}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def refuse_links(folder: Path) -> None:
    """Raise `UsageError` if a link in `folder` leads out of it: what is written there would be written elsewhere.

    A folder that somebody else has made may hold `report.html` as a link to a file of ours.
    """
    home = os.path.realpath(folder)
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not os.path.realpath(path).startswith(f"{home}{os.sep}"):
            raise UsageError(
                f"{path}: is a link that leads out of the folder, and nothing is written through it: delete it, or put "
                "what it leads to in its place"
            )
