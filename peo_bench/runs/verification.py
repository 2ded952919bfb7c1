"""Compute every file of a finished run again from what does not follow from others, and say what differs.

Numbers follow by the very code that wrote them (`peo_bench.runs.assembly`). Someone who changes the scores by prompt,
with all that follows from them, is found by whoever repeats the run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from peo_bench.errors import UsageError
from peo_bench.jobs.artefact import Damaged
from peo_bench.jobs.artefact import read_record as read_meta
from peo_bench.jobs.runner import Outcome
from peo_bench.jobs.versions import version_notes
from peo_bench.results.costs_records import Costs
from peo_bench.results.differences import json_problems, sum_problems, table_problems, unknown_keys
from peo_bench.results.families_records import SavedFamilies
from peo_bench.results.folder import RunFolder, read_run_folder
from peo_bench.results.metrics_records import Metrics, TaskMetrics
from peo_bench.results.progress import PROGRESS
from peo_bench.results.record import Record, damaged, read_json, read_record
from peo_bench.results.records import RunRecord
from peo_bench.runs.assembly import Gathered, Told, about, gather, numbers
from peo_bench.runs.refolding import Refolded
from peo_bench.runs.rejudging import Rejudged
from peo_bench.runs.world import build_world
from peo_bench.steering.families import FAMILIES, read_families, saved_families
from peo_bench.suites.suite import SandboxData

TOLD = ("peo_bench", "packages", "hardware", "finished", "command", "stages", "notes")
"""Keys of `run.json` that do not follow as the others do; versions and `notes` are looked at one by one."""
RECORDS: dict[str, type[Record]] = {
    "run.json": RunRecord,
    "metrics.json": Metrics,
    "costs.json": Costs,
    FAMILIES: SavedFamilies,
}
"""Files whose every key is one of its record's."""
REMARKS = ("jobs were done with", "trusted with --trust-task-code")
"""What only the machine that ran knows: other versions of packages, files of its own that it trusted."""


def verify_run(folder: Path) -> list[str]:
    """Return what does not agree in the finished run at `folder`, empty if all does; `UsageError` for a damaged one."""
    run = read_run_folder(folder)
    if run.run.compared or run.answers is None or run.run.measure is None:
        raise UsageError(f"{folder}: has no scores by prompt of its own: verify the runs that `peo-bench run` made")
    try:
        return list(dict.fromkeys([*sum_problems(folder), *_problems(folder, run, run.answers)]))
    except FileNotFoundError as error:
        raise damaged(folder / "artefacts", f"{error.filename} is missing") from None


def _problems(folder: Path, run: RunFolder, answers: pd.DataFrame) -> Iterator[str]:
    """Say what differs, file by file."""
    for name, record in RECORDS.items():
        if (folder / name).exists():
            known = read_record(folder / name, record).to_json()
            yield from (f"{name}: {line}" for line in unknown_keys(read_json(folder / name), known))
    again = Refolded(folder, run, answers)
    yield from _families_problems(folder, again)
    damage = [*_artefact_problems(run, again)]
    yield from damage
    try:
        yield from _number_problems(folder, run, again)
    except Exception:  # whatever a library raises for a file that is not whole
        if not damage:
            raise
        yield "no number was computed again: put the artefacts back, or repeat the run"
    if (folder / PROGRESS).exists():
        yield f"{PROGRESS} is there: a run works in this folder, or was killed: type the command of the run again"


def _number_problems(folder: Path, run: RunFolder, again: Refolded) -> Iterator[str]:
    stated = run.run
    found = gather(again.done, stated.measure.judges if stated.measure else {})
    judged = Rejudged(folder, run, again.config)
    judging = judged.judge(found.answers, again.done.first.world.objectives)
    metrics, costs = numbers(again.done, found, judging, labels=lambda jobs, handles: {})
    costs = _with_labels(costs, run.costs)
    record = about(again.done, found, costs, judging, Told(stated.command, stated.stages))
    yield from again.said
    yield from judged.said
    yield from _table_problems(run, found)
    yield from _metrics_problems(run, metrics, again.config.suite.task)
    yield from (f"costs.json: {line}" for line in json_problems(run.costs.to_json(), costs.to_json()))
    yield from (f"run.json: {line}" for line in json_problems(stated.to_json(), record.to_json(), but=TOLD))
    yield from _note_problems(stated, record, version_notes(again.done.outcome.handles.values()))
    yield from _version_problems(stated, again.done.outcome)
    threads = stated.hardware.threads if stated.hardware else None
    if again.config.strict_repro and threads != 1:
        yield f"run.json: hardware.threads is {threads}, with strict_repro it is 1"


def _table_problems(run: RunFolder, found: Gathered) -> Iterator[str]:
    tables = (
        ("points.csv", run.points, found.points),
        ("search.csv", run.search, found.search.round(6)),
        ("curves.csv", run.curves, found.curves),
    )
    for name, stated, computed in tables:
        if stated is None:
            yield f"{name} is missing"
        else:  # through text, as the stated one went
            yield from table_problems(name, stated, pd.read_csv(io.StringIO(computed.to_csv(index=False))))


def _metrics_problems(run: RunFolder, metrics: TaskMetrics, task: str) -> Iterator[str]:
    for name, stated in run.metrics.tasks.items():
        if name != task:
            yield f"metrics.json: tasks.{name}: is no task of this run"
        else:
            yield from (f"metrics.json: {line}" for line in json_problems(stated.to_json(), metrics.to_json()))
    if task not in run.metrics.tasks:
        yield f"metrics.json: tasks.{task} is missing"


def _with_labels(costs: Costs, stated: Costs) -> Costs:
    """Return `costs` with the stated counts of labels: the pairs themselves are not in the folder."""
    methods = {
        name: cost.model_copy(update={"labels": stated.methods[name].labels if name in stated.methods else None})
        for name, cost in costs.methods.items()
    }
    return costs.model_copy(update={"methods": methods})


def _version_problems(stated: RunRecord, outcome: Outcome) -> Iterator[str]:
    """Compare the versions with those of the jobs that the run did itself; where it reused all, nothing tells them."""
    told = {**stated.packages, "peo-bench": stated.peo_bench}
    own = {entry for id_, job in outcome.handles.items() if id_ not in outcome.reused for entry in job.versions.items()}
    for name, made in sorted(own):
        if name in told and told[name] != made:
            key = "peo_bench" if name == "peo-bench" else f"packages.{name}"
            yield f"run.json: {key} is {told[name]}, jobs of this run were done with {made}"


def _note_problems(stated: RunRecord, computed: RunRecord, versions: list[str]) -> Iterator[str]:
    for note in computed.notes:
        if note not in stated.notes and note not in versions:
            yield f"run.json: notes lack {note!r}"
    for note in stated.notes:
        if note not in computed.notes and not any(remark in note for remark in REMARKS):
            yield f"run.json: notes: {note!r} does not follow from the rest of the folder"


def _families_problems(folder: Path, again: Refolded) -> Iterator[str]:
    """Compare `families.json` with the configuration: all of it where that opens no file and asks no hub."""
    config, worlds = again.config, again.worlds
    given = (config.experts, config.policies, config.suite.proxies, config.suite.scorers)
    if isinstance(config.suite.data, SandboxData) and not any(given):
        worlds = {seed: build_world(config, again.task, seed) for seed in config.seeds}
    names = list(dict.fromkeys(name for run in again.done.seeds.values() for name in run.built.families))
    expected = saved_families(names, config.settings, worlds)
    stated = read_families(folder).to_json()
    yield from (f"{FAMILIES}: {line}" for line in json_problems(stated, expected.to_json()))


def _artefact_problems(run: RunFolder, again: Refolded) -> Iterator[str]:
    kept = dict.fromkeys(name for seed in again.done.seeds.values() for name in seed.kept)
    for name in kept:
        if name in again.done.outcome.handles and name not in run.job_ids:
            yield f"artefacts: {name} is missing"
    for name in run.job_ids:
        if name not in kept:
            yield f"artefacts: {name} is of no job that this run keeps"
        elif again.store.get(name) is None:
            yield f"artefacts: {name} is damaged"
        elif _record(again, name) != again.records.metas.get(name):
            yield f"jobs.jsonl: the record of {name} is not that of its artefact"


def _record(again: Refolded, name: str) -> object:
    try:
        return read_meta(again.store.path(name))
    except Damaged:
        return None
