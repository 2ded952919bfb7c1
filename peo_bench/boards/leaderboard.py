"""Leaderboards: one folder per measure (task, scorers, judges, prompts, decoding), every row recomputable.

`<dir>/<measure>/board.json` holds the measure, the units and the rows; `scores/<row>.parquet` the scores by prompt from
which every indicator of a row follows, and `reference.parquet` those of the first run's reference policy, from which
the units follow. Rows of different scorers, judges or prompts can never share a table, since they are in different
folders. `verify` computes all rows again. Someone who changes both a row and its scores is found by the repository's
history, not by `verify`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import cast

import pandas as pd

from peo_bench import __version__
from peo_bench.boards.compare import Finished, read_finished, side_by_side
from peo_bench.boards.records import BoardRecord, BoardRow, RowProvenance, RowValues
from peo_bench.core.preference import Preference
from peo_bench.errors import UsageError, unknown
from peo_bench.files.atomic import replacing, write_json
from peo_bench.files.digest import digest, file_digest
from peo_bench.files.inside import inside, refuse_links
from peo_bench.files.json_types import Json
from peo_bench.files.parquet import read_parquet
from peo_bench.registry import check_name
from peo_bench.results.costs_records import BuildCost, Costs, MethodCost
from peo_bench.results.differences import json_problems, unknown_keys
from peo_bench.results.folder import RunFolder
from peo_bench.results.measure import Measure, identity_of
from peo_bench.results.metrics_records import Metrics, ReferenceUnits
from peo_bench.results.operating_points import Row, point_row, point_table
from peo_bench.results.record import check_file, from_json, read_json, read_record
from peo_bench.results.records import Counts, ObjectiveRecord, RunRecord

REFERENCE = "reference.parquet"


@dataclass(frozen=True)
class Board:
    """One leaderboard: its folder, how its rows were measured, the units of utilities, and the rows as stored."""

    folder: Path
    measure: Measure
    first: ReferenceUnits
    stored: tuple[Json, ...]

    @cached_property
    def rows(self) -> list[BoardRow]:
        """The rows; UsageError where one is damaged."""
        return [from_json(BoardRow, row, self.folder / "board.json") for row in self.stored]

    def scores(self, row: BoardRow) -> pd.DataFrame:
        """Return the scores by prompt behind a row."""
        path = _scores_file(self.folder, row.id)
        check_file(path)
        return read_parquet(path)


def boards(root: Path) -> list[Board]:
    """Return the leaderboards under `root`, by name; UsageError for a malformed one."""
    return [_read(path.parent) for path in sorted(root.glob("*/board.json"))]


def add_run(root: Path, run_folder: Path, methods: Iterable[str] | None) -> tuple[Board, list[str]]:
    """Add a row for each of `methods` (default: all of the run, without its controls); return board and row names.

    A row of the same method and configuration takes the place of the old one. Raises UsageError for incomplete
    methods and for runs on limited data.
    """
    run = read_finished(run_folder)
    about = run.files.run
    if about.limited:
        raise UsageError(f"{run_folder} was limited to {about.limited}: a leaderboard takes whole runs")
    if about.substituted:
        raise UsageError(
            f"{run_folder} was run with --substitute {about.substituted}: its numbers mean nothing, and a leaderboard "
            "takes runs of the suite itself"
        )
    if about.compared is not None:
        raise UsageError(f"{run_folder} is a comparison: add the runs that it compares")
    wanted = list(methods) if methods else [m for m in about.asked if m in run.methods]
    for method in wanted:
        if method not in run.methods:
            raise unknown(f"complete method in {run_folder}", method, run.methods)
        check_name(f"{run_folder}: method", method)
    folder = inside(root, run.measure.name)
    if folder.exists():
        refuse_links(folder)
    board = _read(folder) if (folder / "board.json").exists() else _begun(folder, run)
    added = [_row(board, run, method) for method in wanted]
    ids = {row.id for row in added}
    rows = sorted([*(row for row in board.rows if row.id not in ids), *added], key=lambda row: row.id)
    board = Board(folder, board.measure, board.first, tuple(row.to_json() for row in rows))
    _write(board)
    return board, [row.id for row in added]


def _begun(folder: Path, run: Finished) -> Board:
    """Return a leaderboard without rows; its units are those of `run`'s reference policy, whose scores are written."""
    own = run.answers[(run.answers["method"] == "reference") & (run.answers["split"] == "validation")]
    if own.empty:
        raise UsageError(
            f"{run.folder}: answers.parquet has no validation answers of the reference policy, which give a "
            "leaderboard its units: begin it with a run that trains a method, or repeat the run"
        )
    columns = run.measure.columns
    _write_table(folder / REFERENCE, own[["seed", "prompt_id", *columns]])
    return Board(folder, run.measure, _units(own, columns), ())


def _units(scores: pd.DataFrame, columns: Sequence[str]) -> ReferenceUnits:
    """Return the units that follow from the reference policy's scores."""
    by_seed = {
        int(cast(int, seed)): {c: (float(table[c].mean()), float(table[c].std(ddof=1))) for c in columns}
        for seed, table in scores.groupby("seed")
    }
    mean = {
        c: (fmean(units[c][0] for units in by_seed.values()), fmean(units[c][1] for units in by_seed.values()))
        for c in columns
    }
    return ReferenceUnits(units=by_seed, reference_units=mean)


def verify(root: Path) -> list[str]:
    """Recompute every row of every leaderboard under `root`; return what does not agree, empty if all is well."""
    problems = [
        f"{path.parent.name}: has scores and no board.json"
        for path in sorted(root.glob("*/scores"))
        if not (path.parent / "board.json").exists()
    ]
    for board in boards(root):
        name = board.folder.name
        if name != board.measure.name:
            problems.append(f"{name}: the folder should be called {board.measure.name}")
        problems += [f"{name}: {problem}" for problem in (*_key_problems(board), *_unit_problems(board))]
        ids = [str(row.get("id")) if isinstance(row, dict) else str(row) for row in board.stored]
        problems += [
            f"{name}: row {id_}: occurs {ids.count(id_)} times" for id_ in sorted(set(ids)) if ids.count(id_) > 1
        ]
        stray = {path.stem for path in (board.folder / "scores").glob("*")} - set(ids)
        problems += [f"{name}/scores/{id_}.parquet: belongs to no row" for id_ in sorted(stray)]
        for id_, row in zip(ids, board.stored, strict=True):
            try:
                found = _row_problems(board, row)
            except (LookupError, TypeError, ValueError, AttributeError, OSError, UsageError) as error:
                found = [f"cannot be recomputed ({type(error).__name__}: {str(error).splitlines()[0]})"]
            problems += [f"{name}: row {id_}: {problem}" for problem in found]
    return problems


def _key_problems(board: Board) -> Iterator[str]:
    """Name the keys of the file that no record has; those of a row are told with the row."""
    path = board.folder / "board.json"
    known = BoardRecord(measure=board.measure, units=board.first, rows=board.stored)
    return unknown_keys(read_json(path), known.to_json())


def _unit_problems(board: Board) -> list[str]:
    path = inside(board.folder, REFERENCE)
    if not path.is_file():
        return [f"{REFERENCE} is missing: the units cannot be computed again"]
    try:
        computed = _units(read_parquet(path), board.measure.columns).to_json()
    except Exception as error:  # pandas and pyarrow raise some twenty kinds for a file that is not whole
        return [f"{REFERENCE} is damaged ({type(error).__name__})"]
    by = "the scores of the reference policy give"
    return [*json_problems(board.first.to_json(), computed, by=by)]


def _row_problems(board: Board, stored: Json) -> list[str]:
    row, measure = from_json(BoardRow, stored, board.folder / "board.json"), board.measure
    return [*unknown_keys(stored, row.to_json()), *_computed_problems(board, stored, row, measure)]


def _computed_problems(board: Board, stored: Json, row: BoardRow, measure: Measure) -> list[str]:
    """Say what in a row does not follow from its scores."""
    path = _scores_file(board.folder, row.id)
    if not path.is_file():
        return [f"scores/{path.name} is missing"]
    if _sha256(path) != row.scores_sha256:
        return [f"scores/{path.name} was changed (SHA-256)"]
    scores = read_parquet(path)
    expected = len(row.seeds) * len(measure.preferences) * measure.prompts.n
    if len(scores) != expected or scores.duplicated(["seed", "preference", "prompt_id"]).any():
        return [f"{len(scores)} scores, {expected} different ones were expected"]
    pairs: dict[str, tuple[Json, Json]] = {
        "id": (row.id, _row_id(row.method, row.seeds, row.provenance)),
        "method": ([row.method], scores["method"].unique().tolist()),
        "seeds": (list(row.seeds), sorted(int(seed) for seed in scores["seed"].unique())),
        "n_prompts": (row.n_prompts, measure.prompts.n),
        "values": (row.values.to_json(), _values(board, scores).to_json()),
        "row_sha256": (row.row_sha256, _row_sha256(stored)),
        "units_sha256": (row.units_sha256, _sha256(board.folder / REFERENCE)),
        "provenance.scorers": (_lists(row.provenance.scorers), _lists(measure.scorers)),
        "provenance.judges": (dict(row.provenance.judges), dict(measure.judges)),
    }
    by = "the scores give"
    problems = [line for key, pair in pairs.items() for line in json_problems(*pair, key, by)]
    if identity_of(scores["prompt_id"]) != measure.prompts:
        problems.append("the scores are of other prompts")
    return problems


def as_run_folder(board: Board) -> RunFolder:
    """Return the board as a finished run's files, its rows as methods, for everything that shows one."""
    names = row_names(board)
    answers = pd.concat([board.scores(row).assign(method=names[row.id]) for row in board.rows], ignore_index=True)
    points = _points(board.measure, answers)
    metrics, notes = side_by_side(points, answers, board.measure, board.first)
    measure, abouts = board.measure, [row.provenance for row in board.rows]
    run = RunRecord(
        peo_bench=__version__,
        command=f"peo-bench leaderboard show --dir {board.folder.parent}",
        suite="leaderboard",
        title=f"Leaderboard {measure.name}",
        model=", ".join(dict.fromkeys(row.model for row in board.rows)),
        task=measure.task,
        task_version=measure.version,
        licence=", ".join(dict.fromkeys(about.licence for about in abouts)),
        methods=tuple(names[row.id] for row in board.rows),
        controls=(),
        seeds=tuple(sorted({seed for row in board.rows for seed in row.seeds})),
        objectives=tuple(
            ObjectiveRecord(name=o.name, column=o.column, maximise=o.maximise) for o in measure.objectives
        ),
        status="complete",
        counts=Counts(expected=len(points), ok=len(points), missing=0),
        missing=(),
        underpowered=False,
        limited=None,
        notes=tuple(notes),
        packages={},
        hardware=None,
        stages={},
        finished=max(about.finished for about in abouts),
        job_seconds={},
        measure=measure,
    )
    untold = dict.fromkeys(set(MethodCost.model_fields) - set(BuildCost.model_fields))
    costs = Costs(methods={names[row.id]: MethodCost(**dict(row.costs), **untold) for row in board.rows})
    return RunFolder(run, "", points, Metrics(tasks={measure.task: metrics}), costs)


def row_names(board: Board) -> dict[str, str]:
    """Return by row id the shortest name that tells it apart: the method, with the row's digest where need be."""
    methods = [row.method for row in board.rows]
    return {
        row.id: row.method if methods.count(row.method) == 1 else f"{row.method}@{row.id[-8:]}" for row in board.rows
    }


def _row(board: Board, run: Finished, method: str) -> BoardRow:
    """Write the scores of one method and return its row."""
    differing = board.measure.differences(run.measure)
    if differing:
        raise UsageError(f"{run.folder} does not fit {board.folder}: {'; '.join(differing)}")
    about, cost = run.files.run, run.files.costs.methods.get(method)
    given = method in about.external
    if cost is None and not given:
        raise UsageError(f"{run.folder / 'costs.json'}: key 'methods.{method}': it is missing: repeat the run")
    provenance = RowProvenance(
        config_sha256=run.config_digest,
        peo_bench=about.peo_bench,
        command=about.command,
        suite=about.suite,
        packages=about.packages,
        licence=about.licence,
        finished=about.finished,
        scorers=run.measure.scorers,
        judges=run.measure.judges,
    )
    seeds = tuple(sorted(about.seeds))
    id_, scores = _row_id(method, seeds, provenance), _scores(run, method)
    path = _scores_file(board.folder, id_)
    _write_table(path, scores)
    row = BoardRow(
        method=method,
        model="given" if given else about.model,
        seeds=seeds,
        n_prompts=run.measure.prompts.n,
        settings=run.task_metrics.methods[method].chosen,
        costs=BuildCost(**{key: getattr(cost, key, None) for key in BuildCost.model_fields}),
        provenance=provenance,
        id=id_,
        scores_sha256=_sha256(path),
        values=_values(board, scores),
        units_sha256=_sha256(board.folder / REFERENCE),
        row_sha256="",
    )
    return row.model_copy(update={"row_sha256": _row_sha256(row.to_json())})


def _write_table(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        table.to_parquet(scratch, index=False, compression="zstd")


def _scores(run: Finished, method: str) -> pd.DataFrame:
    """Return the scores by prompt of one method, with what it offered for each preference."""
    answers = run.answers
    own = answers[(answers["method"] == method) & (answers["split"] == "test") & answers["preference"].notna()]
    projected = run.files.points[(run.files.points["method"] == method) & (run.files.points["split"] == "test")]
    first = run.measure.objectives[0].name
    keys = projected[["seed", f"preference_{first}", f"projected_{first}"]]
    keys.columns = pd.Index(["seed", "preference", "projected"])
    columns = ["method", "seed", "preference", "spec_key", "prompt_id", "split", "length", "kl", *run.measure.columns]
    if "kl_bound" in own and own["kl_bound"].notna().any():
        columns.append("kl_bound")
    return own[columns].merge(keys, on=["seed", "preference"], validate="many_to_one")


def _values(board: Board, scores: pd.DataFrame) -> RowValues:
    """Compute what a row states from its scores alone."""
    metrics, _ = side_by_side(_points(board.measure, scores), scores, board.measure, board.first)
    method = scores["method"].iloc[0]
    if method not in metrics.methods:
        raise UsageError(f"{board.folder}: the scores of {method} do not cover every preference")
    return RowValues(**{key: getattr(metrics.methods[method], key) for key in RowValues.model_fields})


def _points(measure: Measure, answers: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `points.csv` that follow from scores by prompt."""
    names, rows = measure.names, []
    keys = ["method", "seed", "preference", "projected", "spec_key"]
    for group, table in answers.groupby(keys, sort=False):
        method, seed, asked, projected, key = cast(tuple[str, int, float, float, str], group)
        identity: Row = {
            **{"task": measure.task, "split": "test", "method": method, "seed": seed, "grid": "asked", "spec_key": key},
        }
        for what, weight in (("preference", asked), ("projected", projected)):
            preference = Preference.of(names, **{names[0]: weight})
            identity |= {f"{what}_{name}": preference[name] for name in names}
        rows.append(point_row(identity, table, measure.objectives))
    return point_table(rows, measure.objectives)


def _scores_file(folder: Path, row_id: str) -> Path:
    return inside(inside(folder, "scores"), f"{row_id}.parquet")


def _lists(scorers: Mapping[str, Sequence[str]]) -> Json:
    return {column: list(by) for column, by in scorers.items()}


def _row_sha256(row: Json) -> str:
    """Return the digest of everything else in the row: it covers what scores cannot prove, such as costs."""
    content = {key: value for key, value in row.items() if key != "row_sha256"} if isinstance(row, dict) else row
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _row_id(method: str, seeds: Sequence[int], provenance: RowProvenance) -> str:
    return f"{method}-{digest([method, list(seeds), provenance.config_sha256])[:8]}"


def _read(folder: Path) -> Board:
    path = folder / "board.json"
    try:
        content = read_record(path, BoardRecord)
    except (OSError, UsageError) as error:
        raise UsageError(f"{path}: is no leaderboard ({error}): restore it") from None
    return Board(folder, content.measure, content.units, content.rows)


def _write(board: Board) -> None:
    content = BoardRecord(measure=board.measure, units=board.first, rows=board.stored)
    write_json(board.folder / "board.json", content.to_json())
    kept = {row.id for row in board.rows}
    for path in (board.folder / "scores").glob("*.parquet"):
        if path.stem not in kept:
            path.unlink()


def _sha256(path: Path) -> str:
    check_file(path)
    return file_digest(path)
