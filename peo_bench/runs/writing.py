"""What a run writes into its folder: the contract that other tools read (schema version 1; docs/run-folder.md)."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from peo_bench import __version__
from peo_bench.results.costs_records import Costs
from peo_bench.results.differences import write_sums
from peo_bench.results.folder import RunFolder, write_run_folder
from peo_bench.results.judge_records import JudgingRecord
from peo_bench.results.measure import Measure
from peo_bench.results.metrics_records import Metrics, TaskMetrics
from peo_bench.results.records import Counts, Hardware, Missing, ObjectiveRecord, RunRecord, ScorerRecord
from peo_bench.runs.config import RunConfig
from peo_bench.runs.judging import Judging, write_judgements
from peo_bench.suites import SUITES
from peo_bench.suites.suite import TaskConfig, load_suite

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy", "pandas", "pymoo", "moocore")
STRICTLY = (
    "Computed strictly (--strict-repro): on a processor of this kind with these packages, the same command gives the "
    "same numbers to the last bit, whatever the number of processes and cores."
)
SMALL = 200
"""Test prompts below which a run is called underpowered (the literature uses 200 to 700)."""


@dataclass(frozen=True)
class Provenance:
    """How the run came about and measured.

    `stages` are wall seconds by stage, `failed` reasons by job; `scorers` by training seed are those of
    `peo_bench.runs.scorer_records.scorer_records`; `extras` counts the results of `peo_bench.runs.extras`.
    """

    command: str
    stages: Mapping[str, float]
    threads: int | None
    failed: Mapping[str, str]
    reused: int
    extras: int
    notes: tuple[str, ...]
    scorers: Mapping[int, Mapping[str, ScorerRecord]]
    job_seconds: Mapping[str, float]
    measure: Measure
    judging: JudgingRecord | None


@dataclass(frozen=True)
class Tables:
    """The tables of a run: operating points, answers, evaluations of searches, training curves."""

    points: pd.DataFrame
    answers: pd.DataFrame
    search: pd.DataFrame
    curves: pd.DataFrame


def write_folder(
    out: Path, config: RunConfig, run: RunRecord, metrics: TaskMetrics, costs: Costs, tables: Tables, judging: Judging
) -> None:
    """Write every file of the folder but the report, each atomically, `run.json` and the digests last."""
    write_judgements(out, judging)
    files = RunFolder(
        run=run,
        config=config.to_yaml(),
        points=tables.points,
        metrics=Metrics(tasks={config.suite.task: metrics}),
        costs=costs,
        answers=tables.answers,
        curves=tables.curves,
        search=tables.search.round(6),
    )
    write_run_folder(out, files)
    write_sums(out)


def run_record(
    config: RunConfig, task: TaskConfig, points: pd.DataFrame, missing: Sequence[Missing], provenance: Provenance
) -> RunRecord:
    """Return the content of `run.json`."""
    asked = points[points["method"] != "oracle"]
    verdicts = provenance.judging.judges.values() if provenance.judging else ()
    ok = len(asked) + provenance.extras + sum(counts.ok for counts in verdicts)
    by_reason: Counter[str] = Counter()
    for item in missing:
        by_reason[item.reason] += item.n
    n = int(asked.loc[asked["split"] == "test", "n"].min())
    return RunRecord(
        peo_bench=__version__,
        command=provenance.command,
        suite=config.suite.name,
        title=config.suite.title,
        model=config.suite.model,
        task=config.suite.task,
        task_version=task.version,
        licence=task.licence,
        methods=config.methods,
        controls=config.controls,
        external=config.given,
        stand_in=config.stand_in,
        seed=config.seeds[0],
        seeds=config.seeds,
        objectives=tuple(ObjectiveRecord(**objective.model_dump()) for objective in task.objectives),
        status="incomplete" if missing else "complete",
        counts=Counts(expected=ok + by_reason.total(), ok=ok, missing=by_reason.total(), by_reason=by_reason),
        missing=tuple(missing),
        failed_jobs=provenance.failed,
        reused_artefacts=provenance.reused,
        underpowered=f"{n} test prompts: differences below the intervals shown are noise" if n < SMALL else False,
        limited=config.limit,
        substituted=config.substitute,
        notes=(*suite_notes(config), *_notes(config, task), *provenance.notes),
        scorers=provenance.scorers,
        packages={name: _version(name) for name in PACKAGES},
        hardware=hardware(provenance.threads),
        stages=provenance.stages,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        judging=provenance.judging,
        job_seconds=provenance.job_seconds,
        measure=provenance.measure,
    )


REGIME = ("data", "model", "sft", "training", "reward_model", "decoding", "proxies")
"""A suite's keys that what its notes say of its regime rests on."""


def suite_notes(config: RunConfig) -> tuple[str, ...]:
    """Return the suite's notes; of one of ours that was changed, only that they do not hold."""
    suite = config.suite
    if not suite.notes or suite.name not in SUITES.names():
        return suite.notes
    ours = load_suite(suite.name)
    same = config.limit is None and all(getattr(suite, key) == getattr(ours, key) for key in REGIME)
    return suite.notes if same else (f"Data or training are not those of suite {suite.name}: its regime is another.",)


def _notes(config: RunConfig, task: TaskConfig) -> list[str]:
    notes = []
    if len(config.seeds) == 1 and config.methods:
        notes.append("One training seed: intervals cover prompts, not training.")
    if config.suite.scorers and task.units == "raw":
        notes.append(f"Hypervolume's reference point is that of task {config.suite.task} for scorers of its own.")
    if config.strict_repro:
        notes.append(STRICTLY)
    if config.given:
        notes.append(
            f"Given, not trained here: {', '.join(config.given)}. Each is one policy for every balance: it is held "
            "against the others by the same utility, and by dominance."
        )
    if config.stand_in:
        notes.append(
            f"There is no reference policy in this run: {config.stand_in} stands in for it. Units are the mean and "
            "the standard deviation of its scores on the test prompts, win rates are against it, and lengths are in "
            "words."
        )
    elif not config.methods:
        notes.append("Units rest on the reference policy's answers to the test prompts: nothing was searched for.")
    return notes


def hardware(threads: int | None = None) -> Hardware:
    """Return what the run was computed on, each job with so many `threads`."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    version_ = platform.python_version()
    return Hardware(
        platform=platform.platform(), python=version_, cpus=os.cpu_count(), gpus=tuple(gpus), threads=threads
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
