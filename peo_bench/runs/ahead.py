"""What can be said of a run before anything is done: the builds as far as the cache lets them be seen."""

from __future__ import annotations

from collections.abc import Mapping

from peo_bench.core.method import Method, World
from peo_bench.core.rounds import Ahead, see_ahead
from peo_bench.jobs.job import closure
from peo_bench.jobs.store import Store
from peo_bench.runs.config import RunConfig
from peo_bench.runs.world import Companions, answers_job, scaled
from peo_bench.suites.suite import TaskConfig


def look_ahead(
    config: RunConfig, task: TaskConfig, world: World, methods: Mapping[str, Method], beside: Companions, store: Store
) -> dict[str, Ahead]:
    """Return by method what can be said of its build, for one seed; no job is done.

    Raises `UsageError` for an artefact that a newer peo-bench wrote, whichever of the run's jobs it is of - answers of
    a method included, whose training may be done while another's is not: found later, it would end a run that has
    trained for hours.
    """
    aheads = {name: see_ahead(name, method, world, store) for name, method in methods.items()}
    for job in closure([*world.proxies.values(), *beside.jobs]):
        store.get(job.id)
    n = scaled(config.suite.test_prompts, config.limit)
    for ahead in aheads.values():
        specs = [ahead.family.resolve(asked) for asked in world.preferences] if ahead.family else []
        for spec in specs:
            store.get(answers_job(world, task, spec, ahead.jobs, "test", n).id)
    return aheads
