"""The two files that AlpacaEval's length control needs, and which difficulty belongs to which annotation.

Upstream fetches both from a hub; here a user names them. Upstream also looks difficulties up by a row's position in the
annotations, so that in a file from which rows are missing every later row gets its predecessor's. The published values
were computed that way: `located` follows it where the rows are in the original order, and returns what the instructions
themselves say next to it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsFloat

import numpy as np

from peo_bench.errors import UsageError
from peo_bench.winrates.annotations import Annotations, read_rows
from peo_bench.winrates.length_controlled import Regulariser
from peo_bench.winrates.winrate import FloatArray

VALUE = "instruction_difficulty"


@dataclass(frozen=True)
class DifficultyTable:
    """Difficulty by position, (n_instructions,), and the position of an instruction by the SHA-256 of its text."""

    values: FloatArray
    position: Mapping[str, int]


@dataclass(frozen=True)
class Located:
    """Difficulties (n_rows,) as the published values use them, and those of the rows' own instructions.

    ``own`` is None where it is not known, or the same.
    """

    published: FloatArray
    own: FloatArray | None


class UnplacedError(ValueError):
    """Annotations of prompts whose difficulty is not known; the text says why."""


def read_difficulty(path: Path) -> DifficultyTable:
    """Read a CSV file with columns `index` (or an unnamed first one), `instruction_difficulty`, `instruction_sha256`.

    The last may be absent, as in upstream's file; then only positions are known.
    """
    rows = read_rows(path, "difficulties (upstream's instruction_difficulty.csv)")
    key = "index" if "index" in rows[0] else next(iter(rows[0]))
    found = {int(_finite(path, i, row, key)): (_finite(path, i, row, VALUE), row) for i, row in enumerate(rows, 1)}
    if sorted(found) != list(range(len(rows))):
        raise UsageError(f"{path}: column {key!r} must count the instructions from 0, each once")
    values = np.array([found[i][0] for i in range(len(rows))])
    digests = {str(row["instruction_sha256"]): i for i, (_, row) in found.items() if row.get("instruction_sha256")}
    return DifficultyTable(values, digests)


def read_regulariser(path: Path) -> Regulariser:
    """Read upstream's `df_gamed.csv`: `preference` (0 to 1), `std_delta_len`, `instruction_difficulty`."""
    rows = list(enumerate(read_rows(path, "the regulariser (upstream's df_gamed.csv)"), 1))
    if any(str(row.get("not_gamed_baseline")).lower() not in ("false", "0", "none") for _, row in rows):
        raise UsageError(f"{path}: not_gamed_baseline must be False in every row: give upstream's df_gamed.csv")
    columns = [
        np.array([_finite(path, i, row, key) for i, row in rows]) for key in ("preference", "std_delta_len", VALUE)
    ]
    if ((columns[0] < 0) | (columns[0] > 1)).any():
        raise UsageError(f"{path}: column 'preference' must be between 0 and 1: give upstream's df_gamed.csv")
    return Regulariser(*columns)


def located(annotations: Annotations, table: DifficultyTable) -> Located:
    """Return the difficulty of each row; raise `UnplacedError` if the prompts are not the table's."""
    n = len(table.values)
    by_row = table.values[list(annotations.row)] if max(annotations.row) < n else None
    texts = [text for text in annotations.instruction if text is not None] if table.position else []
    positions = [table.position.get(instruction_digest(text)) for text in texts]
    if None in positions:
        strange = positions.count(None)
        raise UnplacedError(f"{strange} of {len(annotations.row)} instructions are not among the {n} known ones")
    numbers = np.array(positions, dtype=int)
    own = table.values[numbers] if len(numbers) == len(annotations.row) else None
    if by_row is not None and (np.diff(numbers) > 0).all():
        return Located(by_row, None if own is None or np.array_equal(own, by_row) else own)
    if own is None:
        raise UnplacedError(f"which of the {n} known instructions a row belongs to cannot be told")
    return Located(own, None)


def instruction_digest(text: str) -> str:
    """Return the SHA-256 of an instruction as the difficulty file has it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _finite(path: Path, number: int, row: Mapping[str, object], key: str) -> float:
    try:
        given = row[key]
        value = float(given if isinstance(given, SupportsFloat) else str(given))
    except KeyError:
        raise UsageError(f"{path}: no column {key!r} (columns: {', '.join(row)})") from None
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{path}: row {number}: {key} is {str(row[key])[:40]!r}: expected a finite number")
    return value
