"""What is wrong with a run folder: files whose digest differs, and numbers that differ from what follows from others.

`SHA256SUMS` (the format of `sha256sum`) is written last, so that a file which changed afterwards is known. What digests
cannot show, `peo_bench.runs.verification` does: it computes the files again and compares them by the functions here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from peo_bench.files.atomic import write_text
from peo_bench.files.digest import file_digest
from peo_bench.files.inside import inside
from peo_bench.files.json_types import Json

SUMS = "SHA256SUMS"
SUMMED = (
    *("config.yaml", "run.json", "points.csv", "metrics.json", "costs.json", "search.csv", "curves.csv"),
    *("answers.parquet", "judgements.parquet", "judgements-missing.csv", "families.json", "jobs.jsonl"),
)
"""Files with a digest; the report can be built again at any time and has none."""
REPORTS = ("report.json", "report.md", "report.html")
TOLERANCE, NUMPY = 1e-6, 1e-9
"""Relative and absolute difference below which two numbers are equal: tables keep six decimals, and other builds of
numpy round otherwise."""
MOST = 50
"""Differences that are told of one table."""


def write_sums(folder: Path) -> None:
    """Write the digests of the files that are there."""
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in SUMMED if (folder / name).is_file()]
    write_text(folder / SUMS, "".join(lines))


def sum_problems(folder: Path) -> Iterator[str]:
    """Say which files of a run folder are not as they were when it was finished."""
    path = folder / SUMS
    if not path.is_file():
        yield f"{SUMS} is missing: type the command of the run again"
        return
    known: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        known[name] = digest
    for name in sorted(set(SUMMED) - known.keys()):
        if (folder / name).exists():
            yield f"{name} has no digest in {SUMS}"
    for name, digest in known.items():
        file = inside(folder, name)
        if not file.is_file():
            yield f"{name} is missing"
        elif file_digest(file) != digest:
            yield f"{name} was changed (SHA-256)"


def column_problems(file: str, table: pd.DataFrame, known: Collection[str]) -> Iterator[str]:
    """Say which columns of a table are not the `known` ones."""
    for name in sorted({*table.columns} ^ {*known}):
        yield f"{file}: column {name!r} is {'not known' if name in table else 'missing'}"


def table_problems(file: str, stated: pd.DataFrame, computed: pd.DataFrame) -> Iterator[str]:
    """Say where the table in `file` differs from what follows from the rest of its folder, at most `MOST` lines."""
    yield from column_problems(file, stated, computed.columns)
    if len(stated) != len(computed):
        yield f"{file}: it has {len(stated)} rows, {len(computed)} follow from the rest of the folder"
    n, shown = min(len(stated), len(computed)), 0
    whose = [f", {method}" for method in stated["method"]] if "method" in stated else [""] * n
    for name in stated.columns.intersection(computed.columns):
        theirs, ours = stated[name].iloc[:n].tolist(), computed[name].iloc[:n].tolist()
        for i, (one, other) in enumerate(zip(theirs, ours, strict=True), 2):
            if not _equal(one, other, TOLERANCE):
                shown += 1
                if shown > MOST:
                    return
                yield f"{file}: line {i}{whose[i - 2]}: {name} is {one}, the rest of the folder gives {other}"


def json_problems(
    stated: Any, computed: Any, path: str = "", by: str = "the rest of the folder gives", but: Collection[str] = ()
) -> Iterator[str]:
    """Say where a stated JSON value differs from the computed one, by more than other builds of numpy make it.

    Lines begin with the place, which lies under `path`; `by` says what the computed value follows from. Top keys in
    `but` are passed over.
    """
    if isinstance(computed, Mapping) and isinstance(stated, Mapping):
        for name in dict.fromkeys([*computed, *stated]):
            inner = f"{path}.{name}".lstrip(".")
            if name in but:
                continue
            if name not in stated or name not in computed:
                yield f"{inner} is missing" if name in computed else f"{inner} is there, {by} none"
            else:
                yield from json_problems(stated[name], computed[name], inner, by)
    elif isinstance(computed, list | tuple) and isinstance(stated, list | tuple) and len(stated) == len(computed):
        for i, pair in enumerate(zip(stated, computed, strict=True)):
            yield from json_problems(*pair, f"{path}[{i}]", by)
    elif not _equal(stated, computed, NUMPY):
        yield f"{path} is {_short(stated)}, {by} {_short(computed)}"


def unknown_keys(stated: Json, known: Json, path: str = "") -> Iterator[str]:
    """Say which keys of a JSON value are none of the record that was read from it; null may stand for an absent one."""
    if isinstance(stated, Mapping) and isinstance(known, Mapping):
        for name, value in stated.items():
            inner = f"{path}.{name}".lstrip(".")
            if name in known:
                yield from unknown_keys(value, known[name], inner)
            elif value is not None:
                yield f"{inner} is no key of this file"
    elif isinstance(stated, list) and isinstance(known, list):
        for i, pair in enumerate(zip(stated, known, strict=True)):
            yield from unknown_keys(*pair, f"{path}[{i}]")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    absent = [value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)) for value in (a, b)]
    if any(absent):
        return all(absent)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) if numbers else bool(a == b)
