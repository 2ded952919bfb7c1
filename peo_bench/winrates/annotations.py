"""Read and write alpaca_eval's files: model outputs and annotations; read our own `judgements.parquet` the same way.

An annotation is one row of a JSON list (or of JSON lines, CSV, Parquet; gzip too): `preference` (1 baseline, 2 model,
1.5 or 0 a draw, null or absent: no verdict) and, as far as known, `instruction`, `output_1`, `generator_1` (baseline),
`output_2`, `generator_2` (model), `annotator`. A table without texts has `model` for `generator_2`, lengths in
characters as `len_output_1`, `len_output_2`, and `row`, the position in the file it was made from. A model output is
{dataset, instruction, output, generator}.
"""

from __future__ import annotations

import gzip
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsFloat, TypedDict

import numpy as np

from peo_bench.errors import UsageError, unknown
from peo_bench.files.atomic import replacing
from peo_bench.files.rows import RowError, file_rows
from peo_bench.winrates.winrate import FloatArray

Row = dict[str, object]
"""A row of a file as it was read: nothing is known of its values."""
JUDGEMENT = ("judge", "objective", "preference", "method_a", "method_b", "prompt_id", "verdict")
"""Columns of `judgements.parquet` that are read here."""
ABSENT = frozenset({"", "nan", "none", "null", "na"})
"""Texts that stand for no value in a cell of a CSV file."""


class ModelOutput(TypedDict):
    """One answer, as alpaca_eval reads it."""

    dataset: str
    instruction: str
    output: str
    generator: str


@dataclass(frozen=True)
class Annotations:
    """One annotator's verdicts on one model against one baseline, in file order; arrays have shape (n_rows,).

    ``preference`` and the lengths (characters) are NaN where unknown, names None. ``row`` is the position in the file,
    counted for this model, which upstream takes for the number of the instruction.
    """

    model: str | None
    baseline: str | None
    annotator: str | None
    preference: FloatArray
    length_baseline: FloatArray
    length_model: FloatArray
    instruction: tuple[str | None, ...]
    row: tuple[int, ...]


def read_annotations(
    path: Path, *, model: str | None = None, baseline: str | None = None, only: Mapping[str, str] | None = None
) -> Annotations:
    """Return the annotations of `path` for one model and baseline; `only` keeps rows whose column has that value.

    Names may be left out where the file has one. Raises `UsageError` for a row that is no annotation, naming it, and
    for a file that holds several models, baselines or annotators after the choice.
    """
    rows = read_rows(path)
    for column, value in (only or {}).items():
        rows = _kept(path, rows, column, value)
    if any("method_a" in row for row in rows):
        rows = from_judgements(path, rows, model)
    rows, model = _choose(path, rows, "model", _model, model)
    rows, baseline = _choose(path, rows, "baseline", lambda row: _text(row, "generator_1"), baseline)
    found, annotator = _choose(path, rows, "annotator", lambda row: _text(row, "annotator"), None)
    if not any("preference" in row for row in found):
        raise UsageError(f"{path}: no column 'preference' (columns: {', '.join(sorted(found[0]))}): give annotations")
    return Annotations(
        model=model,
        baseline=baseline,
        annotator=annotator,
        preference=np.array([_number(path, i, row, "preference") for i, row in enumerate(found, 1)]),
        length_baseline=np.array([_length(path, i, row, 1) for i, row in enumerate(found, 1)]),
        length_model=np.array([_length(path, i, row, 2) for i, row in enumerate(found, 1)]),
        instruction=tuple(_text(row, "instruction") for row in found),
        row=tuple(_position(path, i, row) for i, row in enumerate(found)),
    )


def read_model_outputs(path: Path) -> list[Row]:
    """Return the model outputs of a file; every row must have an instruction and an output, all the same generator."""
    rows = read_rows(path, "model outputs (.json, .json.gz)")
    for number, row in enumerate(rows, 1):
        for key in ("instruction", "output"):
            if not isinstance(row.get(key), str):
                raise UsageError(f"{path}: row {number}: {key!r} is no text: a model output has instruction and output")
    generators = {str(row.get("generator")) for row in rows}
    if len(generators) > 1:
        raise UsageError(f"{path}: outputs of several generators ({', '.join(sorted(generators)[:9])}): give one's")
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write model outputs or annotations as alpaca_eval does: one JSON list; compressed if the name ends in .gz."""
    check_target(path)
    content = (json.dumps(list(rows), indent=2, allow_nan=False) + "\n").encode()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def check_target(path: Path) -> None:
    """Raise `UsageError` if `write_rows` cannot write to `path`, before anything is paid for."""
    if not path.name.endswith((".json", ".json.gz")):
        raise UsageError(f"{path}: alpaca_eval reads JSON: give a name that ends in .json or .json.gz")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder: make it first")


def model_outputs(answers: Iterable[Mapping[str, object]], generator: str) -> list[ModelOutput]:
    """Return rows of `answers.parquet` as alpaca_eval's model outputs; `dataset` is the prompt's category."""
    return [
        {
            "dataset": _text(row, "category") or "peo-bench",
            "instruction": str(row["prompt"]),
            "output": str(row["answer"]),
            "generator": generator,
        }
        for row in answers
    ]


def from_judgements(path: Path, rows: Iterable[Mapping[str, object]], model: str | None) -> list[Row]:
    """Return one annotation per prompt and pair of methods from rows of `judgements.parquet`.

    A prompt's preference is the mean over the orders and seeds that have a verdict. `method_a` is the model unless
    `model` is `method_b`. Raises `UsageError` if judges, objectives or asked weights are mixed.
    """
    calls = list(rows)
    absent = [key for key in JUDGEMENT if not any(key in row for row in calls)]
    if absent:
        raise UsageError(f"{path}: no column {absent[0]!r}: a table with verdicts needs {', '.join(JUDGEMENT)}")
    for column in ("judge", "objective", "preference"):
        values = {str(row.get(column)) for row in calls}
        if len(values) > 1:
            raise _several(path, f"values of {column}", values, f"--only {column}=")
    verdicts: dict[tuple[object, ...], list[float]] = {}
    for number, row in enumerate(calls, 1):
        pair = row.get("method_a"), row.get("method_b")
        verdict = _number(path, number, row, "verdict")
        if model is not None and pair[1] == model:
            pair, verdict = pair[::-1], 1 - verdict
        verdicts.setdefault((*pair, row.get("prompt_id")), []).append(verdict)
    return [
        {"generator_2": a, "generator_1": b, "annotator": calls[0]["judge"], "preference": _mean(own)}
        for (a, b, _), own in verdicts.items()
    ]


def read_rows(path: Path, what: str = "annotations (.json, .json.gz, .csv.gz, .parquet)") -> list[Row]:
    """Return the rows of a file of `what`; `UsageError` in one line if there is none or one is no object."""
    if not path.is_file():
        raise UsageError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}: give a file with {what}")
    rows = []
    for place, row in file_rows(path, str(path)):
        if not isinstance(row, Mapping):
            raise UsageError(
                f"{place}: {row if isinstance(row, RowError) else 'is no object with named columns'}: give {what}"
            )
        rows.append(dict(row))
    if not rows:
        raise UsageError(f"{path}: holds no rows: give {what}")
    return rows


# --- parts of a row ---------------------------------------------------------------------------------------------------


def _model(row: Mapping[str, object]) -> str | None:
    return _text(row, "generator_2" if "generator_2" in row else "model")


def _text(row: Mapping[str, object], key: str) -> str | None:
    value = row.get(key)
    return None if value is None or value != value else str(value)


def _number(path: Path, number: int, row: Mapping[str, object], key: str) -> float:
    value = row.get(key)
    if value is None or (isinstance(value, str) and value.strip().lower() in ABSENT):
        return math.nan
    try:
        return float(value if isinstance(value, SupportsFloat) and not isinstance(value, bool) else str(value))
    except (TypeError, ValueError):
        raise UsageError(
            f"{path}: row {number}: {key} is {str(value)[:40]!r}: expected a number, or null where there is none"
        ) from None


def _length(path: Path, number: int, row: Mapping[str, object], side: int) -> float:
    text = row.get(f"output_{side}")
    return float(len(text)) if isinstance(text, str) else _number(path, number, row, f"len_output_{side}")


def _position(path: Path, counted: int, row: Mapping[str, object]) -> int:
    given = _number(path, counted + 1, row, "row")
    if given != given:
        return counted
    if given < 0 or not given.is_integer():
        raise UsageError(f"{path}: row {counted + 1}: row is {given}: expected a position counted from 0")
    return int(given)


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if value == value]
    return 1 + sum(known) / len(known) if known else None


# --- choosing ---------------------------------------------------------------------------------------------------------


def _kept(path: Path, rows: list[Row], column: str, value: str) -> list[Row]:
    if not any(column in row for row in rows):
        raise unknown(f"column in {path}", column, {key for row in rows for key in row})
    kept = [row for row in rows if str(row.get(column)) == value]
    if not kept:
        raise unknown(f"value of {column} in {path}", value, {str(row.get(column)) for row in rows})
    return kept


def _choose(
    path: Path, rows: list[Row], what: str, name: Callable[[Mapping[str, object]], str | None], asked: str | None
) -> tuple[list[Row], str | None]:
    """Return the rows of the name asked for, or of the only one there is; rows without a name go with it."""
    found = {own for row in rows if (own := name(row)) is not None}
    if asked is not None and asked not in found:
        raise unknown(f"{what} in {path}", asked, found)
    if asked is None and len(found) > 1:
        raise _several(path, f"{what}s", found, "--only annotator=" if what == "annotator" else f"--{what} ")
    chosen = asked if asked is not None else next(iter(found), None)
    return [row for row in rows if name(row) in (None, chosen)], chosen


def _several(path: Path, what: str, found: Iterable[object], option: str) -> UsageError:
    names = sorted(str(name) for name in found)
    listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
    return UsageError(f"{path}: holds {len(names)} {what}: {listed}; choose one with `{option}{shlex.quote(names[0])}`")
