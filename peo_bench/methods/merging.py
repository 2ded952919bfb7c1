"""What methods that merge the experts by a rule share: a strength for every preference, chosen as PEO chooses.

theta_ref + strength(w) * merge(w), see `peo_bench.engine.merging`. The proxies score on validation prompts, as often as
PEO may ask them: the experts, whose KL is the default of the KL budget; the rule at strength 1 for every preference of
the run, at each of its densities; then one density at other strengths, for each preference up to where KL's square law
meets the budget. At each preference of the run the highest steered utility within the budget wins, the reference policy
where nothing keeps it; between them strengths are interpolated. (One strength for all would be that of the preference
with the largest KL: where experts oppose each other, a slerp's middle is far longer than its ends.)
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
from peo_bench.evaluation.kl_budget import keeps, kl_budget, times_until
from peo_bench.evaluation.validation import Candidates, Point, read_candidates, validation_bound
from peo_bench.jobs.job import Job
from peo_bench.training.interpolation import soup_line


class MergingSettings(MethodSettings):
    """`budget` evaluations on validation prompts; `max_kl` in nats, by default 1.5 or the largest expert's."""

    budget: int = Field(36, ge=3)
    max_kl: float | None = Field(None, gt=0)


class SparseSettings(MergingSettings):
    """`densities`: the shares of every task vector to try to keep."""

    densities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.2, 0.5, 0.8), min_length=1)


class MergingMethod(Method):
    """Merge the experts' task vectors by a rule, at strengths that validation chooses."""

    trains = "one expert per objective"
    costs = "2 U, 35 evaluations"
    Settings = MergingSettings
    expo_adds = False
    strongest: ClassVar[float] = math.inf
    """No strength beyond it is offered."""

    @abstractmethod
    def rules(self, world: World) -> Sequence[Merge]:
        """Return the rules to try, the published one first."""

    def build(self, world: World) -> Build:
        """Train the experts, score the rules at strength 1, then one of them at other strengths."""
        m, n = len(world.objectives), len(world.preferences)
        if m != 2:
            raise UsageError(f"{self.name} merges two experts, this suite has {m} objectives")
        tries = (self.settings.budget - m) // n
        if tries < 1:
            key, needed = f"{self.name}.budget", m + n
            what = f"{m} experts and {n} preferences need {needed} evaluations"
            raise UsageError(f"{key}={self.settings.budget}: {what}: type --set {key}={needed}")
        rules = list(self.rules(world))[: (tries + 1) // 2]
        experts = soup_line(world, [(1.0, 0.0), (0.0, 1.0)], self.name)
        start = _scored(world, [[rule] * n for rule in rules])
        handles = yield Round([experts, start], later=validation_bound(world, (tries - len(rules)) * n))
        found = read_candidates(handles[start.id])
        max_kl = kl_budget(self.settings.max_kl or world.max_kl, read_candidates(handles[experts.id]).points)
        best = _promising(found, world, max_kl)
        rule, points = rules[best], found.points[best * n : (best + 1) * n]
        grids = np.array([self._strengths(point, max_kl, tries - len(rules)) for point in points])
        strengths = np.vstack([np.ones(n), grids.T])
        if len(strengths) > 1:
            job = _scored(world, [[replace(rule, strength=s) for s in row] for row in strengths[1:].tolist()])
            points += read_candidates((yield Round([job]))[job.id]).points
        utilities = Candidates(found.reference, points).steered(world)
        within = keeps(max_kl, points, starts=n).reshape(utilities.shape)
        pick = np.argmax(np.where(within, utilities, -np.inf), axis=0)
        chosen = np.where(within.any(axis=0), strengths[pick, np.arange(n)], 0.0)
        asked = [w.weights[0] for w in world.preferences]

        def at(w: Preference) -> PolicySpec:
            return _merged(world, w, replace(rule, strength=float(np.interp(w.weights[0], asked, chosen))))

        said = {"density": rule.density, "strengths": chosen.tolist(), "max_kl": max_kl}
        return PolicyFamily(space=Space("simplex"), at=at, chosen=said)

    def _strengths(self, start: Point, max_kl: float, tries: int) -> list[float]:
        """Return the strengths to try beside 1 at a preference, from half up, `start` being its policy at 1."""
        high = min(self.strongest, times_until(max_kl, start.kl))
        others = np.linspace(min(0.5, high / 2), high, tries + 1 if high == 1.0 else tries)
        return [float(strength) for strength in others[:tries].round(3)]


def _promising(found: Candidates, world: World, max_kl: float) -> int:
    """Return which rule has the highest mean steered utility (the reference's is 0) within the budget.

    A policy beyond it counts for as much of its way as KL's square law lets it go.
    """
    kl = np.array([point.kl for point in found.points]).reshape(-1, len(world.preferences))
    way = np.sqrt(max_kl / np.maximum(kl, max_kl))
    return int(np.argmax((found.steered(world) * way).mean(axis=1)))


def _merged(world: World, preference: Preference, rule: Merge) -> PolicySpec:
    ids = [job.id for job in world.aspects]
    return policy(world.reference.id, zip(ids, preference.weights, strict=True), rule)


def _scored(world: World, rules: Sequence[Sequence[Merge]]) -> Job:
    """Return the job that scores one policy after another: in every row a rule for each preference of the run."""
    specs = [_merged(world, w, rule).to_json() for row in rules for w, rule in zip(world.preferences, row, strict=True)]
    return world.validation_job("candidates", {"specs": specs}, world.aspects)
