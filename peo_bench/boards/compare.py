"""Finished runs side by side: a comparison is a run folder too, so that whatever reads one reads it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from pathlib import Path

import pandas as pd

from peo_bench.errors import UsageError
from peo_bench.results.costs_records import Costs
from peo_bench.results.folder import RunFolder, read_run_folder, write_run_folder
from peo_bench.results.measure import Measure
from peo_bench.results.metrics import Beside, run_metrics
from peo_bench.results.metrics_records import MeanSd, Metrics, ReferenceUnits, TaskMetrics
from peo_bench.results.operating_points import Scores, Units
from peo_bench.results.record import read_json
from peo_bench.results.records import ComparedRun, RunRecord


@dataclass(frozen=True)
class Finished:
    """A finished run, read back: its files, how it measured, and the name it goes by here."""

    folder: Path
    label: str
    files: RunFolder
    measure: Measure

    @property
    def methods(self) -> list[str]:
        """The methods and controls with metrics."""
        return list(self.task_metrics.methods)

    @property
    def task_metrics(self) -> TaskMetrics:
        """The part of metrics.json that belongs to the run's task."""
        return self.files.metrics.tasks[self.measure.task]

    @property
    def answers(self) -> pd.DataFrame:
        """Every answer with its scores; UsageError where the run keeps none."""
        if self.files.answers is None:
            raise UsageError(f"{self.folder}: answers.parquet is missing: scores by prompt are needed")
        return self.files.answers

    @property
    def config_digest(self) -> str:
        """SHA-256 of config.yaml."""
        return hashlib.sha256(self.files.config.encode()).hexdigest()

    def keys(self, method: str) -> tuple[str, ...]:
        """The identities of the policies that `method` offers."""
        points = self.files.points
        return tuple(points.loc[(points["method"] == method) & (points["split"] == "test"), "spec_key"])


def read_finished(folder: Path, label: str | None = None) -> Finished:
    """Read a finished run; UsageError for a folder that is none or that an older version wrote."""
    files = read_run_folder(folder)
    measure = files.run.measure
    if measure is None:
        raise UsageError(f"{folder / 'run.json'}: has no `measure`: it was made by an older version; repeat the run")
    if measure.task not in files.metrics.tasks:
        raise UsageError(f"{folder / 'metrics.json'}: key 'tasks.{measure.task}': it is missing: repeat the run")
    return Finished(folder, label or folder.resolve().name, files, measure)


def shared_units(first: ReferenceUnits, measure: Measure, seeds: Iterable[int]) -> Units:
    """Return the units in which scores of several runs are compared: those of the `first` run.

    By seed where each seed has scorers of its own, else their mean for every seed.
    """
    if measure.units == "reference" and first.units.keys() >= set(seeds):
        return {seed: _floats(units) for seed, units in first.units.items()}
    return dict.fromkeys(seeds, _floats(first.reference_units))


def _floats(units: Mapping[str, MeanSd]) -> dict[str, tuple[float, float]]:
    """Return units as numbers, NaN for what is not known."""
    return {c: (math.nan if mean is None else mean, math.nan if sd is None else sd) for c, (mean, sd) in units.items()}


def side_by_side(
    points: pd.DataFrame,
    answers: pd.DataFrame,
    measure: Measure,
    first: ReferenceUnits,
    beside: Beside | None = None,
) -> tuple[TaskMetrics, list[str]]:
    """Return the metrics of methods from several runs, paired by prompt, and what a reader must know.

    Where methods were trained with different seeds, their scores are averaged over seeds first and intervals cover
    prompts only.
    """
    seeds = answers[answers["preference"].notna()].groupby("method")["seed"].unique()
    sets = {tuple(sorted(values)) for values in seeds}
    notes = []
    if len(sets) > 1:
        notes.append(
            "Methods were trained with different seeds: scores are averaged over them, intervals cover prompts only."
        )
        only = min(min(values) for values in sets)
        keys = ["method", "split", "preference", "prompt_id"]
        answers = answers.groupby(keys, sort=False)[measure.columns].mean().reset_index().assign(seed=only)
        sets = {(only,)}
    units = shared_units(first, measure, next(iter(sets)))
    return run_metrics(points, Scores.of(answers, measure.names), measure, units, beside), notes


def compare_runs(folders: list[Path], out: Path, command: str) -> None:
    """Write the comparison of finished runs into the new folder `out`, all but its report.

    Raises UsageError, saying what differs, for runs that were not measured alike.
    """
    runs = _read(folders)
    first = runs[0]
    _check_target(out)
    names, notes = _names(runs)
    points, answers = _merged(runs, names)
    metrics, more = side_by_side(points, answers, first.measure, first.task_metrics.reference, _beside(runs, names))
    files = RunFolder(
        run=_run_record(runs, names, [*_reference_note(runs), *notes, *more], command),
        config="".join(f"# {run.label}\n{run.files.config}---\n" for run in runs),
        points=points,
        metrics=Metrics(tasks={first.measure.task: metrics}),
        costs=_costs(runs, names),
        answers=answers,
    )
    write_run_folder(out, files)


def _check_target(out: Path) -> None:
    """Make the folder; UsageError unless it is new, empty or an earlier comparison."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = any(out.iterdir())
    except OSError as error:
        raise UsageError(f"{out}: cannot write there ({error.strerror}): choose another folder with --out") from None
    try:
        mine = not taken or "compared" in read_json(out / "run.json")
    except UsageError:
        mine = False
    if not mine:
        raise UsageError(f"{out} holds something else than a comparison: choose another folder with --out")


def _reference_note(runs: list[Finished]) -> list[str]:
    """Say so where runs began at different reference policies: then KLs and units do not mean the same."""
    different = [run.label for run in runs[1:] if run.keys("reference") != runs[0].keys("reference")]
    if not different:
        return []
    return [
        f"{', '.join(different)} began at another reference policy than {runs[0].label}: utilities are in units of "
        f"{runs[0].label}'s, KLs are to each run's own reference; the order of the runs matters."
    ]


def _read(folders: list[Path]) -> list[Finished]:
    if len(folders) < 2:
        raise UsageError("compare needs at least two run folders")
    runs: list[Finished] = []
    for folder in folders:
        name = folder.resolve().name
        labels = (name, *(f"{name}-{i}" for i in range(2, len(folders) + 1)))
        runs.append(read_finished(folder, next(x for x in labels if x not in {run.label for run in runs})))
    if not any(run.methods for run in runs):
        raise UsageError(f"{' and '.join(str(run.folder) for run in runs)}: no method of these runs was made")
    for run in runs[1:]:
        differing = runs[0].measure.differences(run.measure)
        if differing:
            raise UsageError(
                f"{runs[0].folder} and {run.folder} were not measured alike: {'; '.join(differing)}: repeat one of them"
            )
    return runs


def _names(runs: list[Finished]) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Name every method of every run; policies that an earlier run offers as well are left out, and said to be."""
    seen: dict[tuple[str, ...], str] = {}
    kept: list[tuple[str, str]] = []
    notes = []
    for run in runs:
        for method in run.methods:
            twin = seen.setdefault(run.keys(method), f"{method} of {run.label}")
            if twin == f"{method} of {run.label}":
                kept.append((run.label, method))
            else:
                notes.append(f"{method} of {run.label} offers the same policies as {twin}; it is shown once.")
    times = Counter(method for _, method in kept)
    return {(label, method): method if times[method] == 1 else f"{method}@{label}" for label, method in kept}, notes


def _merged(runs: list[Finished], names: Mapping[tuple[str, str], str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return points and answers of all runs under their new names; the first run's reference and oracle stay."""
    points: list[pd.DataFrame] = []
    answers: list[pd.DataFrame] = []
    for i, run in enumerate(runs):
        renamed = {method: name for (label, method), name in names.items() if label == run.label}
        if i == 0:
            renamed |= {"reference": "reference", "oracle": "oracle"}
        for table, parts in ((run.files.points, points), (run.answers, answers)):
            own = table[table["method"].isin(renamed)]
            parts.append(own.assign(method=own["method"].map(renamed)))
    return pd.concat(points, ignore_index=True), pd.concat(answers, ignore_index=True)


def _beside(runs: list[Finished], names: Mapping[tuple[str, str], str]) -> Beside:
    """Return what validation chose for every method, and after how many evaluations."""
    metrics = {name: _of(runs, label).task_metrics.methods[method] for (label, method), name in names.items()}
    return Beside(
        chosen={name: found.chosen for name, found in metrics.items()},
        evaluations={name: found.validation_evaluations for name, found in metrics.items()},
    )


def _costs(runs: list[Finished], names: Mapping[tuple[str, str], str]) -> Costs:
    """Return what every method cost in its own run, where that run says so."""
    costs = {name: _of(runs, label).files.costs.methods.get(method) for (label, method), name in names.items()}
    return Costs(methods={name: cost for name, cost in costs.items() if cost is not None})


def _run_record(
    runs: list[Finished], names: Mapping[tuple[str, str], str], notes: list[str], command: str
) -> RunRecord:
    first, every = runs[0].files.run, [run.files.run for run in runs]
    methods = tuple(name for (label, method), name in names.items() if method in _of(runs, label).files.run.methods)
    given = tuple(name for (label, method), name in names.items() if method in _of(runs, label).files.run.external)
    missing = [
        item.model_copy(update={"what": f"{run.label}: {item.what}"}) for run in runs for item in run.files.run.missing
    ]
    counts = [run.counts for run in every]
    own_notes = dict.fromkeys(f"{run.label}: {note}" for run in runs for note in run.files.run.notes)
    return RunRecord(
        peo_bench=first.peo_bench,
        command=command,
        suite="comparison",
        title=f"Comparison of {' and '.join(run.label for run in runs)}",
        model=", ".join(dict.fromkeys(run.model for run in every)),
        task=first.task,
        task_version=first.task_version,
        licence=first.licence,
        methods=methods,
        controls=tuple(name for name in names.values() if name not in (*methods, *given)),
        external=given,
        seeds=tuple(sorted({seed for run in every for seed in run.seeds})),
        objectives=first.objectives,
        status="incomplete" if missing else "complete",
        counts=reduce(add, counts),
        missing=tuple(missing),
        underpowered=first.underpowered,
        limited=first.limited,
        substituted=first.substituted,
        notes=(*notes, *own_notes),
        packages=first.packages,
        hardware=first.hardware,
        stages={},
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        job_seconds={},
        measure=runs[0].measure,
        compared=tuple(
            ComparedRun(
                label=run.label,
                folder=str(run.folder),
                command=run.files.run.command,
                config_sha256=run.config_digest,
            )
            for run in runs
        ),
    )


def _of(runs: list[Finished], label: str) -> Finished:
    return next(run for run in runs if run.label == label)
