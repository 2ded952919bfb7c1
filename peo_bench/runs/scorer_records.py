"""What a run records of its scorers: identity, checks, scale and truncation, by column; and what a reader must know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from peo_bench.core import roles
from peo_bench.core.method import World
from peo_bench.jobs.job import Handle, Job
from peo_bench.results.records import Scale, ScorerRecord
from peo_bench.scorers.columns import PROXY

RECORDED = ("layout", "source", "template", "dtype", "max_length", "labels", "licence", "batch_gap")


def scorer_records(
    world: World, units: Job, answers: Iterable[Job], handles: Mapping[str, Handle], table: pd.DataFrame
) -> dict[str, ScorerRecord]:
    """Return by column what scored it, for one training seed.

    `table` holds the reference policy's validation answers, as scored by the job `units`: their mean and standard
    deviation are the scorer's `scale`. `cut` of `scored` texts were longer than the scorer's context.
    """
    directions = {o.column: "higher" if o.maximise else "lower" for o in world.objectives}
    counted = [handles[job.id].result for job in {job.id: job for job in (units, *answers)}.values()]
    records = {}
    for column, job in _jobs(units).items():
        name = column.removesuffix(PROXY)
        handle = handles[job.id] if job else None
        records[column] = ScorerRecord(
            better=directions.get(name),
            **(_facts(handle, name) if handle else {"layout": "registered", "source": units.params["scorers"][column]}),
            scale=Scale(mean=float(table[column].mean()), sd=float(table[column].std(ddof=1))),
            cut=sum(result["cut_by_scorer"].get(column, 0) for result in counted),
            scored=sum(result["n"] for result in counted),
        )
    return records


def _jobs(units: Job) -> dict[str, Job | None]:
    """Return by column the job behind its scorer; None for a registered one."""
    return dict.fromkeys(units.params["scorers"]) | roles.scorers(units.needs)


def _facts(handle: Handle, column: str) -> dict[str, object]:
    result = handle.result
    if "layout" not in result:
        return {"layout": "trained", "source": handle.id, "held_out_accuracy": result["accuracy"]}
    known = {key: result[key] for key in RECORDED} | {"label": result["columns"][column]}
    return known | ({"anchors": result["signs"][column]} if column in result["signs"] else {})


def scorer_notes(records: Sequence[Mapping[str, ScorerRecord]], *, searched: bool = True) -> list[str]:
    """Return the remarks on scorers, from the `scorer_records` of every seed; `searched`: methods used them."""
    notes = []
    first = records[0]
    columns = [column for column in first if not column.endswith(PROXY)]
    same = [column for column in columns if first[column].better and f"{column}{PROXY}" not in first]
    if same and searched:
        trained = first[same[0]].layout == "trained"
        how = "trained on a disjoint set of prompts" if trained else "given as checkpoints"
        notes.append(
            f"Selection and evaluation use the same scorers for {' and '.join(same)}, {how}: what was searched for "
            "with a scorer looks better to that scorer than to another."
        )
    for column in first:
        cut, scored = sum(record[column].cut for record in records), sum(record[column].scored for record in records)
        if cut:
            notes.append(
                f"{column}: {cut} of {scored} texts were longer than the scorer's context and were cut before scoring."
            )
    return notes
