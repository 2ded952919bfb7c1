"""What is needed to judge a run's numbers or to produce them again, as texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peo_bench.report.wording import fact
from peo_bench.results.folder import RunFolder

Fact = tuple[str, str]
"""What it is called, and its value as text."""


@dataclass(frozen=True)
class Provenance:
    """The run's circumstances as texts: the command, groups of facts, dates and licence, ids of kept artefacts."""

    command: str
    facts: dict[str, list[Fact]]
    when: str
    job_ids: tuple[str, ...]


def provenance(folder: RunFolder) -> Provenance:
    """Prepare the run's circumstances; groups without facts are left out."""
    run = folder.run
    groups = {
        "Packages": _facts(run.packages.items()),
        "Hardware": _facts(run.hardware or ()),
        "Seconds per stage": _facts(run.stages.items()),
        "Seconds of work": _facts(run.job_seconds.items()),
    }
    seeds = ", ".join(str(seed) for seed in run.seeds)
    return Provenance(
        command=run.command,
        facts={title: facts for title, facts in groups.items() if facts} | {"How it was measured": _measured(folder)},
        when=f"finished {run.finished}; seeds {seeds}; licence {run.licence}",
        job_ids=folder.job_ids,
    )


def _facts(pairs: Iterable[tuple[str, object]]) -> list[Fact]:
    return [(name, fact(value)) for name, value in pairs]


def _measured(folder: RunFolder) -> list[Fact]:
    """Return task version, scorers, judges, decoding and prompts as texts."""
    measure = folder.run.measure
    judges = dict.fromkeys(judge for task in folder.metrics.tasks.values() for judge in task.judges or ())
    told = [("judge (model, prompt hash)", judge) for judge in judges]
    if measure is None:
        return told
    return [
        ("task", f"{measure.task} v{measure.version}"),
        *((f"scorer of {column}", fact(by)) for column, by in measure.scorers.items()),
        *told,
        *((f"decoding: {name}", fact(value)) for name, value in measure.decoding),
        ("precision", measure.precision),
        ("test prompts: n", fact(measure.prompts.n)),
        ("test prompts: sha256", measure.prompts.sha256),
    ]
