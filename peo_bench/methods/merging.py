"""What methods that merge the experts by a rule share: one strength for all preferences, chosen as PEO chooses.

theta_ref + strength * merge(w), see `peo_bench.engine.merging`. The proxies score on validation prompts, as often as
PEO may ask them: the experts, whose KL is the default of the KL budget; the rule at strength 1 for every preference of
the run, at each of its densities; then the best density at other strengths, up to where KL's square law meets the
budget. The highest mean steered utility within the budget wins; where nothing keeps it, the reference policy is left.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import Merge, PolicySpec, policy
from peo_bench.errors import UsageError
from peo_bench.evaluation.kl_budget import best_for_all, kl_budget, times_until
from peo_bench.evaluation.validation import Candidates, read_candidates, validation_bound
from peo_bench.jobs.job import Job


class MergingSettings(MethodSettings):
    """`budget` evaluations on validation prompts; `max_kl` in nats, by default 1.5 or the largest expert's."""

    budget: int = Field(36, ge=3)
    max_kl: float | None = Field(None, gt=0)


class SparseSettings(MergingSettings):
    """`densities`: the shares of every task vector to try to keep."""

    densities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.2, 0.5, 0.8), min_length=1)


class MergingMethod(Method):
    """Merge the experts' task vectors by a rule, at a strength that validation chooses."""

    trains = "one expert per objective"
    costs = "2 U, 35 evaluations"
    Settings = MergingSettings
    strongest: ClassVar[float] = math.inf
    """No strength beyond it is offered."""

    @abstractmethod
    def rules(self, world: World) -> Sequence[Merge]:
        """Return the rules to try, the published one first."""

    def build(self, world: World) -> Build:
        """Train the experts, score the rules at strength 1, then the best of them at other strengths."""
        m, n = len(world.objectives), len(world.preferences)
        tries = (self.settings.budget - m) // n
        if tries < 1:
            key, needed = f"{self.name}.budget", m + n
            what = f"{m} experts and {n} preferences need {needed} evaluations"
            raise UsageError(f"{key}={self.settings.budget}: {what}: type --set {key}={needed}")
        rules = list(self.rules(world))[: (tries + 1) // 2]
        experts, start = _experts(world), _scored(world, rules)
        handles = yield Round([experts, start], later=validation_bound(world, (tries - len(rules)) * n))
        found = read_candidates(handles[start.id])
        max_kl = kl_budget(self.settings.max_kl or world.max_kl, read_candidates(handles[experts.id]).points)
        first = best_for_all(found, world, max_kl, starts=len(found.points))
        best = 0 if first is None else first
        others = self._strengths(found, best * n, n, max_kl, tries - len(rules))
        rules += [replace(rules[best], strength=strength) for strength in others]
        points = found.points
        if others:
            job = _scored(world, rules[-len(others) :])
            points += read_candidates((yield Round([job]))[job.id]).points
        last = best_for_all(Candidates(found.reference, points), world, max_kl, starts=len(found.points))
        chosen = replace(rules[0], strength=0.0) if last is None else rules[last]
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: _merged(world, w, chosen),
            chosen={"density": chosen.density, "strength": chosen.strength, "max_kl": max_kl},
        )

    def _strengths(self, found: Candidates, start: int, n: int, max_kl: float, tries: int) -> list[float]:
        """Return the strengths to try beside 1, from half up, given the `n` policies at strength 1 from `start` on."""
        reach = min(times_until(max_kl, point.kl) for point in found.points[start : start + n])
        high = min(self.strongest, reach)
        grid = np.linspace(min(0.5, high / 2), high, tries + (high == 1.0)).round(3).tolist()
        return [strength for strength in grid if strength != 1.0][:tries]


def _merged(world: World, preference: Preference, rule: Merge) -> PolicySpec:
    ids = [job.id for job in world.aspects]
    return policy(world.reference.id, zip(ids, preference.weights, strict=True), rule)


def _scored(world: World, rules: Sequence[Merge]) -> Job:
    """Return the job that scores every rule at every preference of the run."""
    specs = [_merged(world, w, rule).to_json() for rule in rules for w in world.preferences]
    return world.validation_job("candidates", {"specs": specs}, world.aspects)


def _experts(world: World) -> Job:
    """Return the job that scores the experts."""
    specs = [policy(world.reference.id, [(job.id, 1.0)]).to_json() for job in world.aspects]
    return world.validation_job("candidates", {"specs": specs}, world.aspects)
