"""Build the world of a suite: the reference policy, pairs, scorers and prompts, as jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from peo_bench.core import roles
from peo_bench.core.method import Method, Objective, World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import PolicySpec, policy
from peo_bench.data.given_answers import given_answers_job
from peo_bench.data.given_checkpoint import checkpoint_job, policy_job, smollm2_job
from peo_bench.data.pairs import pairs_job, prompts_job
from peo_bench.data.prompts import prompts_identity
from peo_bench.errors import UsageError, unknown
from peo_bench.jobs.job import Job, closure
from peo_bench.methods import METHODS
from peo_bench.methods.given import method_of
from peo_bench.process import settled
from peo_bench.runs.config import RunConfig
from peo_bench.runs.label_budget import trains_on
from peo_bench.sandbox.kinds import oracle_job
from peo_bench.sandbox.reference import shipped
from peo_bench.scorers import scorer_version
from peo_bench.scorers.columns import PROXY
from peo_bench.scorers.kinds import scorer_jobs
from peo_bench.scorers.settings import by_column
from peo_bench.suites.suite import PairsData, SandboxData, SuiteConfig, TaskConfig, load_task
from peo_bench.training.foresight import foresee_adapters
from peo_bench.training.reward_model import foresee_reference


def scaled(n: int, limit: int | None) -> int:
    """Return `n`, at most `limit` where one is given."""
    return n if limit is None else min(n, limit)


def build_world(config: RunConfig, task: TaskConfig, seed: int) -> World:
    """Return the jobs that every method of the run may use, for one training seed; what nothing needs is not looked up.

    A run that only compares given answers has no reference policy: the first of them stands in for it.
    """
    suite, limit = config.suite, config.limit
    objectives = tuple(Objective(o.name, o.column, o.maximise) for o in task.objectives)
    names = [objective.name for objective in objectives]
    base: _Sandbox | _Pairs
    if isinstance(suite.data, SandboxData):
        base = _Sandbox(config, task, seed, suite.data)
    else:
        base = _Pairs(config, task, seed, suite.data)
    scored, evaluation = by_column(task.scorers), scorer_jobs(task.scorers, objectives)
    own = suite.own_proxies or isinstance(suite.data, SandboxData)
    chosen = ({} if own else evaluation) | scorer_jobs(suite.proxies, objectives)
    needed = [o for o in objectives if config.methods or o.column not in scored]
    proxies = {o.name: chosen.get(o.column) or _proxy(suite, o, base.reference, base.pairs, seed) for o in needed}
    if config.methods and suite.training.form == "lora":
        foresee_adapters(base.reference)
    n_test = scaled(suite.test_prompts, limit)
    answers = {name: given_answers_job(digest, base.prompts, n_test) for name, digest in config.answers.items()}
    reference = next(iter(answers.values())) if config.only_answers else base.reference
    return World(
        reference=reference,
        objectives=objectives,
        pairs=dict.fromkeys(names, base.pairs) if config.methods or any(map(_is_trained, proxies.values())) else {},
        proxies=proxies,
        prompts=base.prompts,
        preferences=_preferences(config, names),
        training=suite.training.job_params(),
        decoding=suite.decoding,
        precision=settled(suite.precision),
        seed=seed,
        validation_prompts=scaled(suite.validation_prompts, limit),
        max_kl=config.max_kl,
        labels_on_both=suite.labels_on_both,
        experts=_experts(config, names, reference),
        evaluation=evaluation,
        given={name: policy_job(path, reference) for name, path in config.policies.items()} | answers,
    )


def _is_trained(scorer: Job) -> bool:
    return "pairs" in scorer.needs


def _preferences(config: RunConfig, objectives: list[str]) -> tuple[Preference, ...]:
    """Return what is asked for, by rising weight of the first objective."""
    asked = (Preference.of(objectives, helpful=weight) for weight in config.preferences)
    return tuple(sorted(asked, key=lambda preference: preference.weights))


def _proxy(suite: SuiteConfig, objective: Objective, reference: Job, pairs: Job, seed: int) -> Job:
    """Return the training of the run's own reward or cost model of an objective."""
    if isinstance(suite.data, PairsData) and "scorer" not in suite.data.splits:
        raise UsageError(
            f"suite {suite.name}: data.splits has no share for scorers, and column {objective.column!r} has none in "
            "proxies: add one of them"
        )
    if not suite.has_pairs:
        raise UsageError(
            f"suite {suite.name}: data.sources hold prompts alone, of which no model for column {objective.column!r} "
            "can be trained: give scorers for every column"
        )
    foresee_reference(reference)
    direction = "reward" if objective.maximise else "cost"
    params = {"objective": objective.name, "direction": direction, "seed": seed}
    settings = suite.reward_model.job_params()
    return Job("reward-model", params | settings, {"reference": reference, "pairs": pairs})


def _experts(config: RunConfig, objectives: list[str], reference: Job) -> dict[str, Job]:
    for name in config.experts:
        if name not in objectives:
            raise unknown("objective in --expert", name, objectives)
    return {name: checkpoint_job(path, "delta", reference) for name, path in config.experts.items()}


@dataclass(frozen=True)
class _Sandbox:
    """What the embedded world gives, each job made when it is asked for."""

    config: RunConfig
    task: TaskConfig
    seed: int
    data: SandboxData

    def __post_init__(self) -> None:
        """Refuse what the world has already."""
        suite = self.config.suite
        if suite.model != "sandbox":
            raise UsageError(f"--model {suite.model}: suite {suite.name} trains its own model; use a suite of pairs")
        if self.task.prompts or suite.over_refusal_prompts:
            raise UsageError(f"suite {suite.name} draws its own prompts: use task peo_sandbox, over_refusal_prompts 0")

    @cached_property
    def reference(self) -> Job:
        corpus = Job("sandbox-corpus", {"n": self.data.corpus, "seed": self.seed})
        settings = self.config.suite.sft.model_dump(mode="json")
        trained = Job("sft", {"seed": self.seed, **settings}, {"corpus": corpus})
        return shipped(trained, self.config.shipped_reference)

    @cached_property
    def pairs(self) -> Job:
        sizes = {"policy": self.data.policy_prompts, "scorer": self.data.scorer_prompts}
        sizes = {part: scaled(n, self.config.limit) for part, n in sizes.items()}
        return Job("sandbox-pairs", {"seed": self.seed, **sizes}, {"reference": self.reference})

    @cached_property
    def prompts(self) -> Job:
        return Job("sandbox-prompts", _counts(self.config))


@dataclass(frozen=True)
class _Pairs:
    """What a suite of pairs gives, each job made when it is asked for."""

    config: RunConfig
    task: TaskConfig
    seed: int
    data: PairsData

    @cached_property
    def reference(self) -> Job:
        model = self.config.suite.model
        template = self.config.suite.chat_template
        return smollm2_job() if model == "smollm2" else checkpoint_job(model, "base", chat_template=template)

    @cached_property
    def _own(self) -> dict[str, Any] | None:
        return prompts_identity(self.task.prompts) if self.task.prompts else None

    @cached_property
    def _benign(self) -> dict[str, Any] | None:
        return None if self.config.only_answers else _benign(self.config.suite, self.task, self.config.limit)

    @cached_property
    def pairs(self) -> Job:
        limit = self.config.limit
        n = scaled(self.data.pairs, limit) if self.data.pairs else limit
        held_out = [*([self._own] if self._own else []), *([self._benign["source"]] if self._benign else [])]
        names = [objective.name for objective in self.task.objectives]
        job = pairs_job(
            self.data.sources, names, max_chars=self.data.max_chars, limit=n, seed=self.seed, held_out=held_out
        )
        return replace(job, params={**job.params, "fractions": dict(self.data.splits)})

    @cached_property
    def prompts(self) -> Job:
        """The prompts; those of the task alone where nothing asks for others."""
        counts = _counts(self.config)
        if self._own and not self.config.methods:
            return prompts_job(None, **counts | {"validation": 0}, own=self._own, benign=self._benign)
        return prompts_job(self.pairs, **counts, own=self._own, benign=self._benign)


def _counts(config: RunConfig) -> dict[str, int]:
    sizes = {"validation": config.suite.validation_prompts, "test": config.suite.test_prompts}
    return {split: scaled(n, config.limit) for split, n in sizes.items()}


def _benign(suite: SuiteConfig, task: TaskConfig, limit: int | None) -> dict[str, Any] | None:
    if not suite.over_refusal_prompts:
        return None
    if task.benign is None:
        raise UsageError(f"task {suite.task} has no set of benign prompts: set over_refusal_prompts to 0")
    return {"source": prompts_identity(task.benign), "n": scaled(suite.over_refusal_prompts, limit)}


def make_methods(config: RunConfig, world: World) -> dict[str, Method]:
    """Return all that competes, by name; raise `UsageError` for a method that the data cannot serve."""
    methods = {name: method_of(name, config.settings, world) for name in config.competing}
    for name in (*config.methods, *config.controls):
        needs_both = any(METHODS.get(part).needs_labels_on_both for part in name.split("."))
        if needs_both and not world.labels_on_both:
            raise UsageError(
                f"{name} needs the labels of all objectives on every pair; suite {config.suite.name} has one"
            )
        if not config.suite.has_pairs and _trains_on_pairs(methods[name], world):
            others = [n for n in METHODS.names() if not (METHODS.get(n).needs_pairs or METHODS.get(n).wraps)]
            missing = [n for n in world.names if n not in config.experts]
            experts = " ".join(f"--expert {n}=PATH" for n in missing)
            given = f"give finished experts ({experts}), or " if missing else ""
            raise UsageError(
                f"{name} trains on pairs, and data.sources of suite {config.suite.name} hold prompts alone: {given}"
                f"choose among {', '.join(others)}"
            )
    return methods


def _trains_on_pairs(method: Method, world: World) -> bool:
    """Say whether what a method begins with reads labels."""
    first = next(method.build(world), None)
    return first is not None and any(map(trains_on, closure(first.jobs)))


@dataclass(frozen=True)
class Companions:
    """Jobs of a run beside its methods: the reference on the prompts that units rest on, the oracle's samples where
    the sandbox's exact scores are those reported.
    """

    units: Job
    oracle: Job | None

    @property
    def jobs(self) -> list[Job]:
        """Return all of them."""
        return [self.units, *([self.oracle] if self.oracle else [])]


def companions(config: RunConfig, task: TaskConfig, world: World) -> Companions:
    """Return the jobs that a run needs beside those of its methods.

    Units rest on validation prompts; where nothing is searched for on these, on the test prompts.
    """
    data, reference = config.suite.data, policy(world.reference.id)
    oracle = None
    exact = by_column(task.scorers) == by_column(load_task("peo_sandbox").scorers)
    if isinstance(data, SandboxData) and exact and not config.only_answers:
        oracle = oracle_job(world, scaled(data.oracle_prompts, config.limit), data.oracle_samples)
    split, *_ = reference_splits(config)
    n = world.validation_prompts if split == "validation" else scaled(config.suite.test_prompts, config.limit)
    return Companions(answers_job(world, task, reference, {}, split, n), oracle)


def reference_splits(config: RunConfig) -> tuple[str, ...]:
    """Return the splits on which the reference policy is evaluated; on the first one the units rest."""
    return ("validation", "test") if config.methods else ("test",)


def answers_job(world: World, task: TaskConfig, spec: PolicySpec, deltas: Mapping[str, Job], split: str, n: int) -> Job:
    """Return the job that evaluates `spec` on `n` prompts of `split`; `deltas` finds the jobs its weights come from.

    The task's scorers give the reported columns, and those of search and selection the `_proxy` ones where they are
    others; columns without a scorer are reported by the latter.
    """
    registered = {name: s.model for name, s in by_column(task.scorers).items() if s.layout == "registered"}
    needs = {"reference": world.reference, "prompts": world.prompts}
    needs |= {roles.scorer(column): job for column, job in world.evaluation.items()}
    for objective in (o for o in world.objectives if o.name in world.proxies):
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
