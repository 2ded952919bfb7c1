"""Read the tables of a run folder: one that is damaged is one line that names it, whatever the damage.

A folder may come from somebody else, or from a disk that lost a block: tables are checked for what every reader of them
needs before anybody computes with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from peo_bench.errors import UsageError
from peo_bench.files import parquet
from peo_bench.results.record import damaged, method_name

Kinds = Mapping[str, str]
"""Columns that a table must have, and what they hold: "number", "text", "name" (of a method), or "" for anything."""

POINTS: Kinds = {
    **dict.fromkeys(("task", "split", "grid"), "text"),
    "method": "name",
    **dict.fromkeys(("seed", "kl"), "number"),
    **dict.fromkeys(("spec_key", "nondominated"), ""),
}
ANSWERS: Kinds = {
    **dict.fromkeys(("prompt_id", "prompt", "split", "spec_key", "answer"), "text"),
    "method": "name",
    **dict.fromkeys(("seed", "preference", "length", "kl"), "number"),
}
VERDICTS: Kinds = {
    **dict.fromkeys(("judge", "objective", "prompt_id", "order"), "text"),
    **dict.fromkeys(("method_a", "method_b"), "name"),
    **dict.fromkeys(("seed", "preference", "verdict"), "number"),
}
UNJUDGED: Kinds = {
    **dict.fromkeys(("judge", "objective", "prompt_id", "order", "reason"), "text"),
    **dict.fromkeys(("method_a", "method_b"), "name"),
    **dict.fromkeys(("seed", "preference"), "number"),
}
SEARCH: Kinds = {"method": "name", "seed": "number", "index": "number"}
CURVES: Kinds = {"seed": "number", "method": "name", "job": "text", "step": "number", "name": "text", "value": "number"}


def read_csv(path: Path, kinds: Kinds) -> pd.DataFrame:
    """Return a CSV file as a table; `UsageError` naming the file and what is wrong with it."""
    return _checked(path, lambda: pd.read_csv(path), kinds)


def read_parquet(path: Path, kinds: Kinds) -> pd.DataFrame:
    """Return a Parquet file as a table; `UsageError` naming the file and what is wrong with it."""
    return _checked(path, lambda: parquet.read_parquet(path), kinds)


def _checked(path: Path, read: Callable[[], Any], kinds: Kinds) -> pd.DataFrame:
    if not path.is_file():
        raise UsageError(f"{path.parent} is not a finished run folder: {path.name} is missing")
    try:
        table: pd.DataFrame = read()
    except UsageError:
        raise
    except Exception as error:  # pandas and pyarrow raise some twenty kinds for a file that is not whole
        raise damaged(path, f"{type(error).__name__}: {error}") from None
    absent = [name for name in kinds if name not in table]
    if absent:
        raise damaged(path, f"it has no column {absent[0]!r}")
    if not isinstance(table.index, pd.RangeIndex):
        raise damaged(path, "its rows have more fields than its first line")
    for name, kind in kinds.items():
        if not _holds(table[name], kind):
            raise damaged(path, f"column {name!r} does not hold {kind}s throughout")
    return table


def _is_name(value: str) -> bool:
    try:
        return method_name(value) == value
    except ValueError:
        return False


def _holds(column: pd.Series[Any], kind: str) -> bool:
    if kind == "number":
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        return bool(numeric or column.isna().all())
    if kind == "name":
        return all(isinstance(value, str) and _is_name(value) for value in column.unique())
    return kind != "text" or bool(column.map(lambda value: isinstance(value, str)).all())
