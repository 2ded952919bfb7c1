"""Recompute every number of a finished run that follows from its scores by prompt, and check its files' digests.

`answers.parquet` holds the score of every answer; `points.csv` and the indicators of `metrics.json` are functions
of it and of the measure in `run.json`. `SHA256SUMS` (the format of `sha256sum`) is written last, so that a file which
changed afterwards is known. Someone who changes scores and digests together is found by whoever repeats the run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd

from peo_bench.errors import UsageError
from peo_bench.files.atomic import write_text
from peo_bench.files.inside import inside
from peo_bench.results.folder import RunFolder, read_run_folder
from peo_bench.results.measure import Measure, identity_of
from peo_bench.results.metrics import Beside, run_metrics
from peo_bench.results.metrics_records import MeanSd
from peo_bench.results.operating_points import Scores, point_row, point_table
from peo_bench.results.record import damaged

SUMS = "SHA256SUMS"
SUMMED = (
    *("config.yaml", "run.json", "points.csv", "metrics.json", "costs.json", "search.csv", "curves.csv"),
    *("answers.parquet", "judgements.parquet", "families.json"),
)
"""Files with a digest; the report can be built again at any time and has none."""
TOLERANCE = 1e-6
"""Relative and absolute difference below which two numbers are equal: tables keep six decimals."""


def write_sums(folder: Path) -> None:
    """Write the digests of the files that are there."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in SUMMED if (folder / name).is_file()]
    write_text(folder / SUMS, "".join(lines))


def verify_run(folder: Path) -> list[str]:
    """Return what does not agree in the finished run at `folder`, empty if all does; `UsageError` for a damaged one."""
    run = read_run_folder(folder)
    measure, texts = run.run.measure, run.answers
    if run.run.compared or texts is None or measure is None:
        raise UsageError(f"{folder}: has no scores by prompt of its own: verify the runs that `peo-bench run` made")
    task = run.metrics.tasks.get(measure.task)
    if task is None:
        raise damaged(folder / "metrics.json", f"it has no task {measure.task!r}")
    beside = Beside(
        chosen={name: method.chosen for name, method in task.methods.items()},
        evaluations={name: cost.validation_evaluations for name, cost in run.costs.methods.items()},
        safety=task.safety,
        safety_zero=task.safety_zero,
        capabilities=task.capabilities,
        judges=task.judges,
    )
    points = _recomputed(run, texts, measure)
    scores = Scores.of(texts, [objective.name for objective in measure.objectives])
    metrics = run_metrics(points, scores, measure, _units(texts, task.units, measure), beside)
    return [
        *_sum_problems(folder),
        *_prompt_problems(texts, measure),
        *(f"points.csv: {line}" for line in _table_problems(run.points, points)),
        *(f"metrics.json: {line}" for line in _unequal(task.to_json(), metrics.to_json(), "")),
    ]


def _sum_problems(folder: Path) -> Iterator[str]:
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
        elif _sha256(file) != digest:
            yield f"{name} was changed (SHA-256)"


def _prompt_problems(texts: pd.DataFrame, measure: Measure) -> Iterator[str]:
    tested = texts.loc[texts["split"] == "test", "prompt_id"]
    if identity_of(tested) != measure.prompts:
        yield "answers.parquet: its test prompts are not those of run.json"


def _recomputed(run: RunFolder, texts: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return `points.csv` as it follows from the answers; rows without answers (the oracle's) as they are."""
    first = f"preference_{measure.objectives[0].name}"
    own = dict(list(texts.groupby(["method", "seed", "split", "spec_key"], sort=False)))
    rows = []
    for stated in cast(list[dict[str, Any]], run.points.to_dict("records")):
        part = own.get((stated["method"], stated["seed"], stated["split"], stated["spec_key"]))
        if part is not None:
            asked, weights = stated.get(first), part["preference"]
            part = part[weights.isna() if pd.isna(asked) else (weights - asked).abs() < TOLERANCE]
        if part is not None and len(part):
            stated |= point_row({}, part.drop(columns="truncated", errors="ignore"), measure.objectives)
        rows.append(stated)
    return point_table(rows, measure.objectives)


def _table_problems(stated: pd.DataFrame, computed: pd.DataFrame) -> Iterator[str]:
    for i, (theirs, ours) in enumerate(zip(stated.to_dict("records"), computed.to_dict("records"), strict=True), 2):
        for key, value in theirs.items():
            if not _equal(value, ours.get(key)):
                yield f"line {i}, {theirs['method']}: {key} is {value}, the scores give {ours.get(key)}"


def _units(
    texts: pd.DataFrame, stated: Mapping[int, Mapping[str, MeanSd]], measure: Measure
) -> dict[int, dict[str, tuple[float, float]]]:
    """Return mean and standard deviation of the reference policy's validation scores, by seed and column.

    As stated where the run kept no such answers.
    """
    base = texts[(texts["method"] == "reference") & (texts["split"] == "validation")]
    units: dict[int, dict[str, tuple[float, float]]] = {}
    for seed, columns in stated.items():
        own = base[base["seed"] == seed]
        for column in measure.columns:
            mean, deviation = (own[column].mean(), own[column].std(ddof=1)) if len(own) else columns[column]
            units.setdefault(seed, {})[column] = (
                math.nan if mean is None else float(mean),
                math.nan if deviation is None else float(deviation),
            )
    return units


def _unequal(stated: Any, computed: Any, key: str) -> Iterator[str]:
    """Say where a stated JSON value lacks or contradicts what was computed; what was not computed is not looked at."""
    if isinstance(computed, Mapping):
        for name, value in computed.items():
            inner = f"{key}.{name}".strip(".")
            if isinstance(stated, Mapping) and name in stated:
                yield from _unequal(stated[name], value, inner)
            else:
                yield f"{inner} is missing"
    elif isinstance(computed, list | tuple) and isinstance(stated, list) and len(stated) == len(computed):
        for i, pair in enumerate(zip(stated, computed, strict=True)):
            yield from _unequal(*pair, f"{key}[{i}]")
    elif not _equal(stated, computed):
        yield f"{key} is {stated}, the scores give {computed}"


def _equal(a: Any, b: Any) -> bool:
    absent = [value is None or (isinstance(value, float) and math.isnan(value)) for value in (a, b)]
    if any(absent):
        return all(absent)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE) if numbers else bool(a == b)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
