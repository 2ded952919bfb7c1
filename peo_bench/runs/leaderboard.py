"""Leaderboards: one folder per measure (task, scorers, judges, prompts, decoding), every row recomputable.

`<dir>/<measure>/board.json` holds the measure, the units and the rows; `scores/<row>.parquet` the scores by prompt from
which every number of a row follows. Rows of different scorers, judges or prompts can never share a table, since they
are in different folders. `verify` computes all rows again. Someone who changes both a row and its scores is found by
the repository's history, not by `verify`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from peo_bench.core.spec import digest
from peo_bench.errors import UsageError, unknown
from peo_bench.report.build import finite
from peo_bench.report.folder import RunFolder
from peo_bench.runs.compare import Finished, read_finished, side_by_side
from peo_bench.runs.measure import Measure, identity_of
from peo_bench.runs.points import point_row, point_table
from peo_bench.store.atomic import replacing, write_json

SCHEMA = 1
TOLERANCE = 1e-9
"""Relative difference below which a recomputed number counts as equal: other builds of numpy round otherwise."""
VALUES = (
    *("hypervolume", "steered_utility", "expected_utility", "n_nondominated", "n_points", "n_beyond_reference"),
    *("spacing", "steerability", "kl_mean", "length_mean"),
)
"""What a row states: indicators that do not depend on the other rows."""
COSTS = ("train_units", "pairs_trained", "tokens_generated", "scorer_calls", "validation_evaluations", "decode_factor")


@dataclass(frozen=True)
class Board:
    """One leaderboard: its folder, how its rows were measured, the units of utilities, and the rows."""

    folder: Path
    measure: Measure
    first: dict[str, Any]
    rows: list[dict[str, Any]]

    def scores(self, row: Mapping[str, Any]) -> pd.DataFrame:
        """Return the scores by prompt behind a row."""
        return pd.read_parquet(self.folder / row["scores"]["file"])


def boards(root: Path) -> list[Board]:
    """Return the leaderboards under `root`, by name; UsageError for a malformed one."""
    return [_read(path.parent) for path in sorted(root.glob("*/board.json"))]


def add_run(root: Path, run_folder: Path, methods: Iterable[str] | None) -> tuple[Board, list[str]]:
    """Add a row for each of `methods` (default: all of the run, without its controls); return board and row names.

    A row of the same method and configuration takes the place of the old one. Raises UsageError for incomplete
    methods and for runs on limited data.
    """
    run = read_finished(run_folder)
    if run.files.run.get("limited"):
        raise UsageError(f"{run_folder} was limited to {run.files.run['limited']}: a leaderboard takes whole runs")
    if "compared" in run.files.run:
        raise UsageError(f"{run_folder} is a comparison: add the runs that it compares")
    wanted = list(methods) if methods else [m for m in run.files.run["methods"] if m in run.methods]
    for method in wanted:
        if method not in run.methods:
            raise unknown(f"complete method in {run_folder}", method, run.methods)
    folder = root / run.measure.name
    if (folder / "board.json").exists():
        board = _read(folder)
    else:
        first = {key: run.task_metrics[key] for key in ("units", "reference_units")}
        board = Board(folder, run.measure, first, [])
    added = [_row(board, run, method) for method in wanted]
    ids = {row["id"] for row in added}
    rows = [row for row in board.rows if row["id"] not in ids] + added
    board = Board(folder, board.measure, board.first, sorted(rows, key=lambda row: row["id"]))
    _write(board)
    return board, [row["id"] for row in added]


def verify(board: Board) -> list[str]:
    """Recompute every row from its scores; return what does not agree, empty if all is well."""
    problems = []
    if board.folder.name != board.measure.name:
        problems.append(f"{board.folder.name}: the folder should be called {board.measure.name}")
    kept = {row["scores"]["file"] for row in board.rows}
    for path in sorted((board.folder / "scores").glob("*")):
        if f"scores/{path.name}" not in kept:
            problems.append(f"{board.folder.name}/scores/{path.name}: belongs to no row")
    for row in board.rows:
        where = f"{board.folder.name}: row {row['id']}"
        path = board.folder / row["scores"]["file"]
        if not path.exists():
            problems.append(f"{where}: {row['scores']['file']} is missing")
            continue
        if _sha256(path) != row["scores"]["sha256"]:
            problems.append(f"{where}: {row['scores']['file']} was changed (SHA-256)")
            continue
        scores = board.scores(row)
        if identity_of(scores["prompt_id"]) != board.measure.prompts:
            problems.append(f"{where}: the scores are of other prompts")
        identity = {"method": row["method"], "seeds": sorted(int(seed) for seed in scores["seed"].unique())}
        for key, value in identity.items():
            if row[key] != value:
                problems.append(f"{where}: {key} is {row[key]}, the scores say {value}")
        problems += [f"{where}: {line}" for line in _unequal(row["values"], _values(board, scores), "")]
        if row["id"] != _row_id(row):
            problems.append(f"{where}: the id does not follow from method, seeds and configuration")
    return problems


def as_run_folder(board: Board) -> RunFolder:
    """Return the board as a finished run's files, its rows as methods, for everything that shows one."""
    names = row_names(board)
    answers = pd.concat([board.scores(row).assign(method=names[row["id"]]) for row in board.rows], ignore_index=True)
    points = _points(board.measure, answers)
    metrics, notes = side_by_side(points, answers, board.measure, board.first, {})
    seeds = sorted({seed for row in board.rows for seed in row["seeds"]})
    run = {
        "schema_version": 1,
        "task": board.measure.task,
        "title": f"Leaderboard {board.measure.name}",
        "methods": [names[row["id"]] for row in board.rows],
        "controls": [],
        "seeds": seeds,
        "objectives": [{"name": o.name, "column": o.column, "maximise": o.maximise} for o in board.measure.objectives],
        "status": "complete",
        "notes": notes,
    }
    costs = {"methods": {names[row["id"]]: row["costs"] for row in board.rows}}
    tables = {"schema_version": 1, "tasks": {board.measure.task: finite(metrics)}}
    return RunFolder(run, "", points, tables, costs, None)


def row_names(board: Board) -> dict[str, str]:
    """Return by row id the shortest name that tells it apart: the method, with the row's digest where need be."""
    methods = [row["method"] for row in board.rows]
    return {
        row["id"]: row["method"] if methods.count(row["method"]) == 1 else f"{row['method']}@{row['id'][-8:]}"
        for row in board.rows
    }


def _row(board: Board, run: Finished, method: str) -> dict[str, Any]:
    """Write the scores of one method and return its row."""
    differing = board.measure.differences(run.measure)
    if differing:
        raise UsageError(f"{run.folder} does not fit {board.folder}: {'; '.join(differing)}")
    about = run.files.run
    row: dict[str, Any] = {
        "method": method,
        "model": about["model"],
        "seeds": sorted(about["seeds"]),
        "n_prompts": run.measure.prompts["n"],
        "settings": run.task_metrics["methods"][method].get("chosen", {}),
        "costs": {key: run.files.costs["methods"][method].get(key) for key in COSTS},
        "provenance": {
            "config_sha256": run.config_digest,
            **{key: about.get(key) for key in ("peo_bench", "command", "suite", "packages", "licence", "finished")},
            "scorers": dict(run.measure.scorers),
            "judges": dict(run.measure.judges),
        },
    }
    row["id"] = _row_id(row)
    answers = run.answers
    own = answers[(answers["method"] == method) & (answers["split"] == "test") & answers["preference"].notna()]
    projected = run.files.points[(run.files.points["method"] == method) & (run.files.points["split"] == "test")]
    first = run.measure.objectives[0].name
    keys = projected[["seed", f"preference_{first}", f"projected_{first}"]]
    keys.columns = pd.Index(["seed", "preference", "projected"])
    columns = ["method", "seed", "preference", "spec_key", "prompt_id", "split", "length", "kl", *run.measure.columns]
    scores = own[columns].merge(keys, on=["seed", "preference"], validate="many_to_one")
    path = board.folder / "scores" / f"{row['id']}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        scores.to_parquet(scratch, index=False, compression="zstd")
    row["scores"] = {"file": f"scores/{path.name}", "sha256": _sha256(path)}
    row["values"] = _values(board, scores)
    return row


def _values(board: Board, scores: pd.DataFrame) -> dict[str, Any]:
    """Compute what a row states from its scores alone."""
    metrics, _ = side_by_side(_points(board.measure, scores), scores, board.measure, board.first, {})
    method = scores["method"].iloc[0]
    if method not in metrics["methods"]:
        raise UsageError(f"{board.folder}: the scores of {method} do not cover every preference")
    values: dict[str, Any] = finite({key: metrics["methods"][method][key] for key in VALUES})
    return json.loads(json.dumps(values))  # type: ignore[no-any-return] # as read back: tuples are lists


def _points(measure: Measure, answers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `points.csv` that follow from scores by prompt."""
    first, second = (objective.name for objective in measure.objectives[:2])
    rows = []
    keys = ["method", "seed", "preference", "projected", "spec_key"]
    for group, table in answers.groupby(keys, sort=False):
        method, seed, asked, projected, key = cast(tuple[str, int, float, float, str], group)
        identity = {
            **{"task": measure.task, "split": "test", "method": method, "seed": seed, "grid": "asked", "spec_key": key},
            **{f"preference_{first}": asked, f"preference_{second}": round(1 - asked, 9)},
            **{f"projected_{first}": projected, f"projected_{second}": round(1 - projected, 9)},
        }
        rows.append(point_row(identity, table, measure.objectives))
    return point_table(rows, measure.objectives)


def _row_id(row: Mapping[str, Any]) -> str:
    return f"{row['method']}-{digest([row['method'], row['seeds'], row['provenance']['config_sha256']])[:8]}"


def _unequal(stated: Any, computed: Any, key: str) -> list[str]:
    """Say where two JSON values differ by more than rounding."""
    if isinstance(stated, dict) and isinstance(computed, dict) and stated.keys() == computed.keys():
        return [line for name in stated for line in _unequal(stated[name], computed[name], f"{key}.{name}".strip("."))]
    if isinstance(stated, list) and isinstance(computed, list) and len(stated) == len(computed):
        return [
            line for i, pair in enumerate(zip(stated, computed, strict=True)) for line in _unequal(*pair, f"{key}[{i}]")
        ]
    numbers = all(isinstance(value, int | float) for value in (stated, computed))
    same = math.isclose(stated, computed, rel_tol=TOLERANCE, abs_tol=TOLERANCE) if numbers else stated == computed
    return [] if same else [f"{key} is {stated}, the scores give {computed}"]


def _read(folder: Path) -> Board:
    path = folder / "board.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA:
            raise UsageError(f"{path}: schema_version {content['schema_version']}, this version reads {SCHEMA}")
        return Board(folder, Measure.from_json(content["measure"]), content["units"], content["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: is no leaderboard ({type(error).__name__}: {error}): restore it") from None


def _write(board: Board) -> None:
    content = {
        "schema_version": SCHEMA,
        "measure": board.measure.to_json(),
        "units": board.first,
        "rows": board.rows,
    }
    write_json(board.folder / "board.json", content)
    kept = {row["scores"]["file"] for row in board.rows}
    for path in (board.folder / "scores").glob("*.parquet"):
        if f"scores/{path.name}" not in kept:
            path.unlink()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
