"""Build the world of a suite: the reference policy, pairs, scorers and prompts, as jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peo_bench.core import roles
from peo_bench.core.method import Method, Objective, World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import PolicySpec, policy
from peo_bench.data.given_checkpoint import checkpoint_job, smollm2_job
from peo_bench.data.pairs import pairs_job, prompts_job
from peo_bench.data.prompts import prompts_identity
from peo_bench.errors import UsageError, unknown
from peo_bench.jobs.job import Job
from peo_bench.methods import METHODS, make_method
from peo_bench.runs.config import RunConfig
from peo_bench.sandbox.kinds import oracle_job
from peo_bench.scorers import scorer_version
from peo_bench.scorers.columns import PROXY
from peo_bench.scorers.kinds import scorer_jobs
from peo_bench.scorers.settings import by_column
from peo_bench.suites.suite import PairsData, SandboxData, SuiteConfig, TaskConfig, load_task
from peo_bench.training.reward_model import foresee_reference


def scaled(n: int, limit: int | None) -> int:
    """Return `n`, at most `limit` where one is given."""
    return n if limit is None else min(n, limit)


def build_world(config: RunConfig, task: TaskConfig, seed: int) -> World:
    """Return the jobs that every method of the run may use, for one training seed."""
    suite, limit = config.suite, config.limit
    objectives = tuple(Objective(o.name, o.column, o.maximise) for o in task.objectives)
    if isinstance(suite.data, SandboxData):
        if suite.model != "sandbox":
            raise UsageError(f"--model {suite.model}: suite {suite.name} trains its own model; use a suite of pairs")
        if task.prompts or suite.over_refusal_prompts:
            raise UsageError(f"suite {suite.name} draws its own prompts: use task peo_sandbox, over_refusal_prompts 0")
        reference, pairs, prompts = _sandbox(suite, suite.data, limit, seed)
    else:
        reference, pairs, prompts = _pairs(suite, suite.data, task, limit, seed)
    given = scorer_jobs(suite.proxies, objectives)
    return World(
        reference=reference,
        objectives=objectives,
        pairs={objective.name: pairs for objective in objectives},
        proxies={o.name: given.get(o.column) or _proxy(suite, o, reference, pairs, seed) for o in objectives},
        prompts=prompts,
        preferences=_preferences(config, [objective.name for objective in objectives]),
        training=suite.training.job_params(),
        decoding=suite.decoding,
        precision=suite.precision,
        seed=seed,
        validation_prompts=scaled(suite.validation_prompts, limit),
        max_kl=config.max_kl,
        labels_on_both=suite.labels_on_both,
        experts=_experts(config, [objective.name for objective in objectives], reference),
        evaluation=scorer_jobs(task.scorers, objectives),
    )


def _preferences(config: RunConfig, objectives: list[str]) -> tuple[Preference, ...]:
    """Return what is asked for, by rising weight of the first objective."""
    asked = (Preference.of(objectives, helpful=weight) for weight in config.preferences)
    return tuple(sorted(asked, key=lambda preference: preference.weights))


def _proxy(suite: SuiteConfig, objective: Objective, reference: Job, pairs: Job, seed: int) -> Job:
    """Return the training of the run's own reward or cost model of an objective."""
    foresee_reference(reference)
    direction = "reward" if objective.maximise else "cost"
    params = {"objective": objective.name, "direction": direction, "seed": seed}
    settings = suite.reward_model.model_dump(mode="json")
    return Job("reward-model", params | settings, {"reference": reference, "pairs": pairs})


def _experts(config: RunConfig, objectives: list[str], reference: Job) -> dict[str, Job]:
    for name in config.experts:
        if name not in objectives:
            raise unknown("objective in --expert", name, objectives)
    return {name: checkpoint_job(path, "delta", reference) for name, path in config.experts.items()}


def _sandbox(suite: SuiteConfig, data: SandboxData, limit: int | None, seed: int) -> tuple[Job, Job, Job]:
    corpus = Job("sandbox-corpus", {"n": data.corpus, "seed": seed})
    reference = Job("sft", {"seed": seed, **suite.sft.model_dump(mode="json")}, {"corpus": corpus})
    sizes = {"policy": scaled(data.policy_prompts, limit), "scorer": scaled(data.scorer_prompts, limit)}
    pairs = Job("sandbox-pairs", {"seed": seed, **sizes}, {"reference": reference})
    counts = {"validation": scaled(suite.validation_prompts, limit), "test": scaled(suite.test_prompts, limit)}
    return reference, pairs, Job("sandbox-prompts", counts)


def _pairs(suite: SuiteConfig, data: PairsData, task: TaskConfig, limit: int | None, seed: int) -> tuple[Job, Job, Job]:
    reference = smollm2_job() if suite.model == "smollm2" else checkpoint_job(suite.model, "base")
    n = scaled(data.pairs, limit) if data.pairs else limit
    own = prompts_identity(task.prompts) if task.prompts else None
    benign = _benign(suite, task, limit)
    held_out = [*([own] if own else []), *([benign["source"]] if benign else [])]
    names = [objective.name for objective in task.objectives]
    pairs = pairs_job(data.sources, names, max_chars=data.max_chars, limit=n, seed=seed, held_out=held_out)
    counts = {"validation": scaled(suite.validation_prompts, limit), "test": scaled(suite.test_prompts, limit)}
    return reference, pairs, prompts_job(pairs, **counts, own=own, benign=benign)


def _benign(suite: SuiteConfig, task: TaskConfig, limit: int | None) -> dict[str, Any] | None:
    if not suite.over_refusal_prompts:
        return None
    if task.benign is None:
        raise UsageError(f"task {suite.task} has no set of benign prompts: set over_refusal_prompts to 0")
    return {"source": prompts_identity(task.benign), "n": scaled(suite.over_refusal_prompts, limit)}


def make_methods(config: RunConfig, world: World) -> dict[str, Method]:
    """Return the run's methods and controls by name; raise `UsageError` for one that the data cannot serve."""
    methods = {name: make_method(name, config.settings) for name in (*config.methods, *config.controls)}
    for name in methods:
        needs_both = any(METHODS.get(part).needs_labels_on_both for part in name.split("."))
        if needs_both and not world.labels_on_both:
            raise UsageError(
                f"{name} needs the labels of all objectives on every pair; suite {config.suite.name} has one"
            )
    return methods


@dataclass(frozen=True)
class Companions:
    """Jobs of a run beside its methods: the reference on validation prompts, external policies, the oracle's
    samples where the sandbox's exact scores are those reported.
    """

    units: Job
    oracle: Job | None
    externals: Mapping[str, Job]

    @property
    def jobs(self) -> list[Job]:
        """Return all of them."""
        return [self.units, *([self.oracle] if self.oracle else []), *self.externals.values()]


def companions(config: RunConfig, task: TaskConfig, world: World) -> Companions:
    """Return the jobs that a run needs beside those of its methods."""
    data, reference = config.suite.data, policy(world.reference.id)
    oracle = None
    if isinstance(data, SandboxData) and by_column(task.scorers) == by_column(load_task("peo_sandbox").scorers):
        oracle = oracle_job(world, scaled(data.oracle_prompts, config.limit), data.oracle_samples)
    return Companions(
        units=answers_job(world, task, reference, {}, "validation", world.validation_prompts),
        oracle=oracle,
        externals={name: checkpoint_job(path, "delta", world.reference) for name, path in config.policies.items()},
    )


def answers_job(world: World, task: TaskConfig, spec: PolicySpec, deltas: Mapping[str, Job], split: str, n: int) -> Job:
    """Return the job that evaluates `spec` on `n` prompts of `split`; `deltas` finds the jobs its weights come from.

    The task's scorers give the reported columns, and those of search and selection the `_proxy` ones where they are
    others; columns without a scorer are reported by the latter.
    """
    registered = {name: s.model for name, s in by_column(task.scorers).items() if s.layout == "registered"}
    needs = {"reference": world.reference, "prompts": world.prompts}
    needs |= {roles.scorer(column): job for column, job in world.evaluation.items()}
    for objective in world.objectives:
        column, proxy = objective.column, world.proxies[objective.name]
        if column in registered or world.evaluation.get(column, proxy) != proxy:
            column += PROXY
        needs[roles.scorer(column)] = proxy
    known = {job.id for job in needs.values()}
    needs |= {roles.delta(name): deltas[name] for name in spec.ids if name not in known}
    params: dict[str, Any] = {
        "spec": spec.to_json(),
        "split": split,
        "n_prompts": n,
        "scorers": registered,
        "scorer_versions": {name: scorer_version(name) for name in registered.values()},
        **world.sampling,
    }
    return Job("answers", params, needs)
