"""Plan a run: its stages with upper bounds of their cost, without executing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peo_bench.core.spec import policy
from peo_bench.data.given_checkpoint import planning
from peo_bench.jobs.job import Cost, Job, closure
from peo_bench.jobs.store import Store
from peo_bench.judges.judge import make_judges
from peo_bench.runs.ahead import look_ahead
from peo_bench.runs.config import RunConfig
from peo_bench.runs.job_notes import FIRST_ROWS, foreseen_notes, job_notes
from peo_bench.runs.judging import judge_plan
from peo_bench.runs.world import answers_job, build_world, companions, make_methods, scaled
from peo_bench.suites.suite import suite_task
from peo_bench.training.foresight import Foresight


def plan_run(config: RunConfig, cache: Path) -> list[dict[str, Any]]:
    """Return the stages in order, each with jobs, cached and the cost bound of what is left to do.

    A stage carries the `notes` on its jobs, if any, such as limits that cut too much: on finished ones, and on coming
    trainings as far as their pairs, or the first rows of the data, and the reference policy's tokenizer are there.
    Rounds that depend on results not yet there appear as "later rounds of <method>" with their declared bound.
    Checkpoints of the package's suites that the hub cannot be asked for now are planned as they are known.
    """
    with planning() as unseen:
        stages = _stages(config, cache)
    if unseen:
        names = ", ".join(dict.fromkeys(unseen))
        note = f"Not looked up, for want of network or access, and planned as they are known: {names}."
        stages[0] = stages[0] | {"notes": [*stages[0].get("notes", ()), note]}
    return stages


def _stages(config: RunConfig, cache: Path) -> list[dict[str, Any]]:
    store, task = Store(cache), suite_task(config.suite)
    jobs: dict[str, Job] = {}
    later: list[dict[str, Any]] = []
    final = Cost()
    policies = measured = 0
    for seed in config.seeds:
        world = build_world(config, task, seed)
        methods, beside = make_methods(config, world), companions(config, task, world)
        jobs |= {job.id: job for job in closure([*world.proxies.values(), *beside.jobs])}
        for name, ahead in look_ahead(config, task, world, methods, beside, store).items():
            jobs |= ahead.jobs
            notes = {"notes": [f"{name} will be missing: {ahead.lost}"]} if ahead.lost else {}
            if ahead.later != Cost() or notes:
                stage = {"stage": f"later rounds of {name}", "jobs": None, "cached": 0, "cost": ahead.later.to_json()}
                later.append(stage | notes)
        splits = {"test": config.suite.test_prompts, "benign": config.suite.over_refusal_prompts}
        sizes = {split: scaled(n, config.limit) for split, n in splits.items() if n}
        reference, singles = policy(world.reference.id), len(config.given) + (not config.only_answers)
        one = sum((answers_job(world, task, reference, {}, s, n).bound for s, n in sizes.items()), Cost())
        trained = [method for name, method in methods.items() if name not in config.given]
        policies += len(trained) * len(config.preferences) + singles
        final = sum([one] * (singles - len(config.answers)), final)
        final = sum([Cost(scorer_calls=one.scorer_calls)] * len(config.answers), final)
        for method in trained:
            final = sum([_selecting(one, method.candidates, len(world.objectives))] * len(config.preferences), final)
        asked = len(trained) * len(config.suite.capabilities.preferences) + singles - len(config.answers)
        measured += len(config.capabilities) * asked
    evaluation = {"stage": f"answers ({', '.join(sizes)})", "jobs": policies, "cached": 0, "cost": final.to_json()}
    capabilities = [{"stage": "capability", "jobs": measured, "cached": 0, "cost": {}}] if measured else []
    prompts = scaled(config.suite.test_prompts, config.limit)
    judging = judge_plan(make_judges(config.judges, config.suite.judge), config, prompts)
    return [*_by_kind(list(jobs.values()), store), *later, evaluation, *capabilities, *judging]


def _selecting(one: Cost, k: int, scorers: int) -> Cost:
    """Return the cost of answers that are the best of `k`, where one answer each would cost `one`."""
    asked = k * one.answers * scorers if k > 1 else 0
    return Cost(
        answers=k * one.answers,
        tokens_generated=k * one.tokens_generated,
        scorer_calls=one.scorer_calls + asked,
    )


def _by_kind(jobs: list[Job], store: Store) -> list[dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = {}
    foresight = Foresight(store.get, FIRST_ROWS)
    for job in jobs:
        stage = stages.setdefault(job.kind, {"stage": job.kind, "jobs": 0, "cached": 0, "cost": Cost()})
        stage["jobs"] += 1
        done = store.get(job.id)
        if done:
            stage["cached"] += 1
        else:
            stage["cost"] = stage["cost"] + job.bound
        found = job_notes([done]) if done else foreseen_notes(job, foresight)
        notes = list(dict.fromkeys([*stage.get("notes", ()), *found]))
        stage |= {"notes": notes} if notes else {}
    return [stage | {"cost": stage["cost"].to_json()} for stage in stages.values()]
