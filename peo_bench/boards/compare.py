"""Finished runs side by side: a comparison is a run folder too, so that whatever reads one reads it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from peo_bench.errors import UsageError
from peo_bench.files.atomic import finite, replacing, write_json, write_text
from peo_bench.results.folder import RunFolder, read_run_folder
from peo_bench.results.measure import Measure
from peo_bench.results.metrics import run_metrics
from peo_bench.results.operating_points import Scores, Units


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
        return list(self.task_metrics["methods"])

    @property
    def task_metrics(self) -> dict[str, Any]:
        """The part of metrics.json that belongs to the run's task."""
        found: dict[str, Any] = self.files.metrics["tasks"][self.measure.task]
        return found

    @property
    def answers(self) -> pd.DataFrame:
        """Every answer with its scores; UsageError where the run keeps none."""
        if self.files.generations is None:
            raise UsageError(f"{self.folder}: generations.parquet is missing: scores by prompt are needed")
        return self.files.generations

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
    if "measure" not in files.run:
        raise UsageError(f"{folder / 'run.json'}: has no `measure`: it was made by an older version; repeat the run")
    return Finished(folder, label or folder.resolve().name, files, Measure.from_json(files.run["measure"]))


def shared_units(first: Mapping[str, Any], measure: Measure, seeds: Iterable[int]) -> Units:
    """Return the units in which scores of several runs are compared: those of the `first` run's task metrics.

    By seed where each seed has scorers of its own, else their mean for every seed.
    """
    by_seed = {int(seed): units for seed, units in first["units"].items()}
    if measure.units == "reference" and by_seed.keys() >= set(seeds):
        return by_seed
    return dict.fromkeys(seeds, first["reference_units"])


def side_by_side(
    points: pd.DataFrame, answers: pd.DataFrame, measure: Measure, first: Mapping[str, Any], chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
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
    return run_metrics(points, Scores.of(answers, measure.names), measure, units, chosen), notes


def compare_runs(folders: list[Path], out: Path, command: str) -> None:
    """Write the comparison of finished runs into the new folder `out`, all but its report.

    Raises UsageError, saying what differs, for runs that were not measured alike.
    """
    runs = _read(folders)
    first = runs[0]
    _check_target(out)
    names, notes = _names(runs)
    points, answers, costs, chosen = _merged(runs, names)
    metrics, more = side_by_side(points, answers, first.measure, first.task_metrics, chosen)
    for (label, method), name in names.items():
        if name in metrics["methods"]:
            own = _of(runs, label).task_metrics["methods"][method]
            metrics["methods"][name]["validation_evaluations"] = own.get("validation_evaluations")
    write_text(out / "points.csv", points.to_csv(index=False))
    with replacing(out / "generations.parquet") as path:
        answers.to_parquet(path, index=False)
    write_json(out / "metrics.json", {"schema_version": 1, "tasks": {first.measure.task: finite(metrics)}})
    write_json(out / "costs.json", {"schema_version": 1, "methods": costs, "kinds": {}})
    write_text(out / "config.yaml", "".join(f"# {run.label}\n{run.files.config}---\n" for run in runs))
    write_json(out / "run.json", _run_json(runs, names, [*_reference_note(runs), *notes, *more], command))


def _check_target(out: Path) -> None:
    """Make the folder; UsageError unless it is new, empty or an earlier comparison."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and "compared" not in json.loads((out / "run.json").read_text(encoding="utf-8")):
            raise UsageError(f"{out} holds something else than a comparison: choose another folder with --out")
    except FileNotFoundError:
        raise UsageError(f"{out} holds something else than a comparison: choose another folder with --out") from None
    except OSError as error:
        raise UsageError(f"{out}: cannot write there ({error.strerror}): choose another folder with --out") from None


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


def _merged(
    runs: list[Finished], names: Mapping[tuple[str, str], str]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Return points, answers, costs and choices of all runs under their new names; the first run's reference stays."""
    points: list[pd.DataFrame] = []
    answers: list[pd.DataFrame] = []
    costs: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for i, run in enumerate(runs):
        renamed = {method: name for (label, method), name in names.items() if label == run.label}
        if i == 0:
            renamed |= {"reference": "reference", "oracle": "oracle"}
        for table, parts in ((run.files.points, points), (run.answers, answers)):
            own = table[table["method"].isin(renamed)]
            parts.append(own.assign(method=own["method"].map(renamed)))
        for method, name in renamed.items():
            if method in run.task_metrics["methods"]:
                costs[name] = run.files.costs.get("methods", {}).get(method, {})
                chosen[name] = run.task_metrics["methods"][method].get("chosen", {})
    return pd.concat(points, ignore_index=True), pd.concat(answers, ignore_index=True), costs, chosen


def _run_json(
    runs: list[Finished], names: Mapping[tuple[str, str], str], notes: list[str], command: str
) -> dict[str, Any]:
    first = runs[0].files.run
    methods = [name for (label, method), name in names.items() if method in _of(runs, label).files.run["methods"]]
    missing = [{**item, "what": f"{run.label}: {item['what']}"} for run in runs for item in run.files.run["missing"]]
    counts = [run.files.run["counts"] for run in runs]
    listing = " and ".join(run.label for run in runs)
    return {
        **{
            key: first.get(key)
            for key in ("schema_version", "peo_bench", "task", "task_version", "licence", "objectives")
        },
        "command": command,
        "suite": "comparison",
        "title": f"Comparison of {listing}",
        "model": ", ".join(dict.fromkeys(str(run.files.run.get("model")) for run in runs)),
        "methods": methods,
        "controls": [name for name in names.values() if name not in methods],
        "external": [],
        "seeds": sorted({seed for run in runs for seed in run.files.run["seeds"]}),
        "status": "incomplete" if missing else "complete",
        "counts": {key: sum(count[key] for count in counts) for key in counts[0]},
        "missing": missing,
        "underpowered": first.get("underpowered", False),
        "limited": first.get("limited"),
        "notes": [*notes, *dict.fromkeys(f"{run.label}: {note}" for run in runs for note in run.files.run["notes"])],
        "packages": first.get("packages", {}),
        "hardware": first.get("hardware", {}),
        "stages": {},
        "job_seconds": {},
        "measure": runs[0].measure.to_json(),
        "compared": [
            {
                "label": run.label,
                "folder": str(run.folder),
                "command": run.files.run.get("command"),
                "config_sha256": run.config_digest,
            }
            for run in runs
        ],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _of(runs: list[Finished], label: str) -> Finished:
    return next(run for run in runs if run.label == label)
