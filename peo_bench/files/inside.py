"""Paths made of names that somebody else chose: they stay inside the folder that they are meant for."""

from __future__ import annotations

from pathlib import Path

from peo_bench.errors import UsageError


def inside(folder: Path, name: str) -> Path:
    """Return `folder` / `name`; `UsageError` unless `name` is one part and the path, links followed, stays in `folder`.

    >>> inside(Path("board"), "peo-1.parquet").as_posix()
    'board/peo-1.parquet'
    """
    plain = name not in ("", ".", "..") and not set(name) & set("/\\\0\n")
    path = folder / name if plain else folder
    if not plain or path.resolve().parent != folder.resolve():
        raise UsageError(f"{folder}: {name!r} is no name of a file in it: names have no '/' and lead nowhere else")
    return path
