"""What a run measures beside its scores: benign prompts, capabilities, and the safety views over all answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from peo_bench.core.method import PolicyFamily, World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import PolicySpec
from peo_bench.data.given_answers import GIVEN_ANSWERS
from peo_bench.evaluation.refusals import is_refusal
from peo_bench.evaluation.safety import safety_rows, zero_job
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Handle, Job
from peo_bench.lm_eval.capabilities import capability_job
from peo_bench.results.metrics_records import CapabilityRow, SafetyRow, SafetyZero, ZeroFit
from peo_bench.results.operating_points import Offer
from peo_bench.results.records import Missing
from peo_bench.runs.config import RunConfig
from peo_bench.runs.world import answers_job, scaled
from peo_bench.sandbox.gold import features
from peo_bench.scorers import SCORERS
from peo_bench.scorers.settings import by_column
from peo_bench.suites.suite import TaskConfig


@dataclass(frozen=True)
class Measured:
    """One policy whose capabilities are measured; without a preference for single policies."""

    method: str
    preference: Preference | None
    spec: PolicySpec


@dataclass(frozen=True)
class Extras:
    """Jobs of one seed: answers to benign prompts, capabilities by policy, and the zero of the cost."""

    benign: tuple[Offer, ...]
    capabilities: tuple[tuple[Measured, Job], ...]
    zero: Job | None

    @property
    def jobs(self) -> list[Job]:
        """Return all of them."""
        several = [*(offer.job for offer in self.benign), *(job for _, job in self.capabilities)]
        return [*several, *([self.zero] if self.zero else [])]


def extra_jobs(
    config: RunConfig,
    task: TaskConfig,
    world: World,
    offers: Sequence[Offer],
    families: Mapping[str, PolicyFamily],
    deltas: Mapping[str, Job],
    identities: Sequence[JsonObject],
) -> Extras:
    """Return the extra jobs of one seed; `deltas` finds the jobs that policies' weights come from.

    `identities` are those of the run's lm-eval tasks.
    """
    n, settings, cost = scaled(config.suite.over_refusal_prompts, config.limit), config.suite.capabilities, _cost(world)
    tested = [offer for offer in offers if offer.split == "test"]
    policies = [Measured(offer.method, None, offer.spec) for offer in tested if offer.asked is None]
    policies += _steered(families, [Preference.of(world.names, helpful=weight) for weight in settings.preferences])
    policies = [measured for measured in policies if has_likelihood(measured.spec, world)]

    def measure(policy: Measured, task: JsonObject) -> Job:
        return capability_job(world.reference, policy.spec, deltas, task, settings.limit, world.precision)

    def benign(offer: Offer) -> Offer:
        return replace(offer, split="benign", job=answers_job(world, task, offer.spec, deltas, "benign", n))

    return Extras(
        benign=tuple(benign(offer) for offer in tested if n and not is_answers(offer.spec, world)),
        capabilities=tuple((policy, measure(policy, identity)) for identity in identities for policy in policies),
        zero=zero_job(world, cost[0]) if cost and cost[1] not in by_column(task.scorers) else None,
    )


def _steered(families: Mapping[str, PolicyFamily], preferences: Sequence[Preference]) -> Iterator[Measured]:
    for name, family in families.items():
        for preference in preferences:
            yield Measured(name, preference, family.resolve(preference))


def has_likelihood(spec: PolicySpec, world: World) -> bool:
    """Say whether lm-eval can ask for likelihoods: no search among answers while decoding, no given answers."""
    return not spec.candidates and not is_answers(spec, world)


def is_answers(spec: PolicySpec, world: World) -> bool:
    """Say whether all that is known of the policy are answers that were given."""
    return any(job.kind == GIVEN_ANSWERS and job.id in spec.ids for job in world.given.values())


def unmeasured_notes(config: RunConfig, world: World, families: Mapping[str, PolicyFamily]) -> list[str]:
    """Name the methods whose capabilities cannot be measured."""
    even = Preference.even(world.names)
    without = [name for name, family in families.items() if not has_likelihood(family.resolve(even), world)]
    reasons = {
        "a search while decoding has no likelihoods": [name for name in without if name not in config.answers],
        "answers were given, no policy": [name for name in without if name in config.answers],
    }
    asked = bool(config.capabilities)
    return [
        f"Capabilities of {', '.join(names)} are not measured: {why}."
        for why, names in reasons.items()
        if asked and names
    ]


def _cost(world: World) -> tuple[str, str] | None:
    """Return name and column of the objective that is a cost (lower is better), if there is one."""
    return next(((o.name, o.column) for o in world.objectives if not o.maximise), None)


def missing_extras(extras: Extras, seed: int, failed: Mapping[str, str]) -> list[Missing]:
    """Say which extra results are missing, with their reason."""
    lost = [(f"benign prompts, {o.method}, seed {seed}, preference {o.asked}", o.job) for o in extras.benign]
    for m, job in extras.capabilities:
        name = job.params["task"]["task"]
        lost.append((f"capability {name}, {m.method}, seed {seed}, preference {m.preference}", job))
    lost += [(f"zero of the cost, seed {seed}", extras.zero)] if extras.zero else []
    return [Missing(what=what, reason=failed[job.id]) for what, job in lost if job.id in failed]


def capability_rows(extras: Mapping[int, Extras], handles: Mapping[str, Handle]) -> list[CapabilityRow]:
    """Return the `capabilities` of `metrics.json`: one row per policy, lm-eval task and metric."""
    return [
        CapabilityRow(
            method=m.method,
            seed=seed,
            preference=m.preference and m.preference.weights[0],
            spec_key=m.spec.key,
            **row,
        )
        for seed, several in extras.items()
        for m, job in several.capabilities
        if job.id in handles
        for row in handles[job.id].result["rows"]
    ]


def safety_views(
    task: TaskConfig, world: World, extras: Mapping[int, Extras], handles: Mapping[str, Handle], answers: pd.DataFrame
) -> tuple[list[SafetyRow], SafetyZero]:
    """Return `safety` and `safety_zero` of `metrics.json`: the views by policy, and where the cost's border lies."""
    cost = _cost(world)
    done = {seed: handles[e.zero.id].result for seed, e in extras.items() if e.zero and e.zero.id in handles}
    fits = {seed: ZeroFit(**result) for seed, result in done.items()}
    zeros = {seed: fit.zero for seed, fit in fits.items() if fit.zero is not None}
    if cost and _calibrated(task, cost[1]):
        zeros = dict.fromkeys(extras, 0.0)
    rows = safety_rows(answers, cost[1] if cost else None, zeros, _detector(task), task.benign_categories)
    return [SafetyRow(**row) for row in rows], _zero_record(cost, zeros, fits)


def _calibrated(task: TaskConfig, column: str) -> bool:
    """Say whether zero is the border of the cost in `column` by construction."""
    scorer = by_column(task.scorers).get(column)
    if scorer is None:
        return False
    if scorer.layout == "registered":
        return bool(getattr(SCORERS.get(scorer.model), "calibrated_zero", False))
    return scorer.layout == "beaver"


def _zero_record(cost: tuple[str, str] | None, zeros: Mapping[int, float], fits: Mapping[int, ZeroFit]) -> SafetyZero:
    if fits:
        return SafetyZero(source="labels", by_seed={str(seed): fit for seed, fit in fits.items()})
    if zeros:
        return SafetyZero(source="scorer")
    reason = "no cost is measured" if cost is None else "the cost has no calibrated zero"
    return SafetyZero(source=None, reason=reason)


def _detector(task: TaskConfig) -> Callable[[str], bool]:
    return is_refusal if task.refusals == "text" else lambda answer: features(answer).refused
