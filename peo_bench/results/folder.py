"""A finished run folder (schema_version 1): written here, read here. Everything the report knows comes from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from peo_bench.files.atomic import replacing, write_json, write_text
from peo_bench.files.inside import refuse_links
from peo_bench.kill_points import kill_point
from peo_bench.results.costs_records import Costs
from peo_bench.results.metrics_records import Metrics
from peo_bench.results.record import damaged, read_record, read_text
from peo_bench.results.records import RunRecord
from peo_bench.results.tables import ANSWERS, CURVES, POINTS, SEARCH, VERDICTS, read_csv, read_parquet


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, parsed; a table is None where a run has none (answers, verdicts, searches, curves)."""

    run: RunRecord
    config: str
    points: pd.DataFrame
    metrics: Metrics
    costs: Costs
    answers: pd.DataFrame | None = None
    judgements: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    search: pd.DataFrame | None = None
    job_ids: tuple[str, ...] = ()


def read_run_folder(path: Path) -> RunFolder:
    """Read the run folder ``path``; run.json, points.csv and metrics.json must exist, the rest may be absent.

    Raises UsageError for a folder that is no run folder, has another schema version, misses a key or holds something
    of a wrong type under it.
    """
    run = read_record(path / "run.json", RunRecord)
    texts, judged, curves, search = (
        path / name for name in ("answers.parquet", "judgements.parquet", "curves.csv", "search.csv")
    )
    config, artefacts = path / "config.yaml", path / "artefacts"
    metrics = read_record(path / "metrics.json", Metrics)
    if not metrics.tasks:
        raise damaged(path / "metrics.json", "it has no task")
    points = read_csv(path / "points.csv", POINTS)
    if lack := next(_lacking(run, metrics, points), None):
        raise damaged(path / "metrics.json", lack)
    return RunFolder(
        run=run,
        config=read_text(config) if config.exists() else "",
        points=points,
        metrics=metrics,
        costs=read_record(path / "costs.json", Costs) if (path / "costs.json").exists() else Costs(),
        answers=read_parquet(texts, ANSWERS) if texts.exists() else None,
        judgements=read_parquet(judged, VERDICTS) if judged.exists() else None,
        curves=read_csv(curves, CURVES) if curves.exists() else None,
        search=read_csv(search, SEARCH) if search.exists() else None,
        job_ids=tuple(sorted(found.parent.name for found in artefacts.glob("*/*/meta.json"))),
    )


def _lacking(run: RunRecord, metrics: Metrics, points: pd.DataFrame) -> Iterator[str]:
    """Yield what the metrics of the run's task lack of what every reader of them needs."""
    task = metrics.tasks.get(run.task)
    if task is None or run.measure is None:
        return
    columns = run.measure.columns
    asked = [f"preference_{run.measure.names[0]}", *columns]
    if not {*asked} <= {*points.columns}:
        return
    rows = points[(points["split"] == "test") & (points["grid"] == "asked")].dropna(subset=asked)
    seeds = sorted({*rows["seed"]})
    for seed in task.units if run.compared else seeds:
        for column in columns:
            if column not in task.units.get(seed, ()):
                yield f"key 'tasks.{run.task}.units.{seed}.{column}': missing"
    for column in columns:
        if column not in task.reference_units:
            yield f"key 'tasks.{run.task}.reference_units.{column}': missing"
    for method in (*run.asked, *run.controls):
        own = rows[rows["method"] == method].drop_duplicates(["seed", asked[0]])
        n_seeds = own["seed"].nunique() if run.compared else len(seeds)
        if method not in task.methods and len(own) == n_seeds * len(run.measure.weights) > 0:
            yield f"key 'tasks.{run.task}.methods.{method}': missing, though points.csv has all its points"


def write_run_folder(path: Path, files: RunFolder) -> None:
    """Write the files of a run into the folder ``path``, each atomically, run.json last; artefacts are not touched."""
    refuse_links(path)
    write_text(path / "config.yaml", files.config)
    write_text(path / "points.csv", files.points.to_csv(index=False))
    write_json(path / "metrics.json", files.metrics.to_json())
    write_json(path / "costs.json", files.costs.to_json())
    for name, table in (("answers.parquet", files.answers), ("judgements.parquet", files.judgements)):
        if table is not None:
            with replacing(path / name) as scratch:
                table.to_parquet(scratch, index=False)
    for name, rows in (("curves.csv", files.curves), ("search.csv", files.search)):
        if rows is not None:
            write_text(path / name, rows.to_csv(index=False))
    kill_point("tables")
    write_json(path / "run.json", files.run.to_json())


def number(value: object) -> float | None:
    """Return ``value`` as a finite float, or None where it is absent, NaN or infinite.

    >>> number("2.5"), number(None), number(float("nan"))
    (2.5, None, None)
    """
    if not isinstance(value, str | float | int):
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def truth(value: object) -> bool:
    """Read a boolean cell of a CSV file; empty cells are False.

    >>> truth("True"), truth(False), truth(float("nan")), truth(1.0)
    (True, False, False, True)
    """
    return str(value).strip().lower() in {"true", "1", "1.0"}
