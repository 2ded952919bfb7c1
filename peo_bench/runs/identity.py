"""How a run measures: what must agree before its numbers may stand beside those of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from peo_bench.core.method import World
from peo_bench.results.measure import Measure, identity_of
from peo_bench.scorers import scorer_version
from peo_bench.scorers.kinds import source_of
from peo_bench.scorers.settings import by_column
from peo_bench.suites.suite import TaskConfig


def run_measure(
    name: str,
    task: TaskConfig,
    worlds: Iterable[World],
    prompt_ids: Iterable[str],
    judges: Mapping[str, str] | None = None,
) -> Measure:
    """Return how a run measures: `worlds` of its seeds, ids of the test prompts, descriptions of judges by id."""
    several = list(worlds)
    first = several[0]
    declared = by_column(task.scorers)
    scorers = {}
    for objective in first.objectives:
        column = objective.column
        if column in first.evaluation:
            job = first.evaluation[column]
            scorers[column] = [f"{job.params['layout']} {source_of(job.params)} ({job.id})"]
        elif column in declared:
            scorer = declared[column].model
            scorers[column] = [f"{scorer} v{scorer_version(scorer)}"]
        else:
            scorers[column] = list(dict.fromkeys(world.proxies[objective.name].id for world in several))
    return Measure(
        task=name,
        version=task.version,
        objectives=first.objectives,
        reference_point=task.reference_point,
        units=task.units,
        scorers=scorers,
        judges=dict(judges or {}),
        decoding=first.decoding.model_dump(mode="json"),
        precision=first.precision,
        preferences=first.preferences,
        prompts=identity_of(prompt_ids),
    )
