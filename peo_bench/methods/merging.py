"""What methods that merge the experts by a rule share: a strength for every preference, chosen as PEO chooses.

theta_ref + strength(w) * merge(w), see `peo_bench.engine.merging`. The proxies score on validation prompts, as often as
PEO may ask them: the experts, whose KL is the default of the KL budget; the rule at strength 1 for every searched
preference, at each of its densities; then one density at other strengths, for each preference up to where KL's square
law meets the budget. At each of these preferences the highest steered utility within the budget wins, the reference
policy where nothing keeps it; between them strengths are interpolated. (One strength for all would be that of the
preference with the largest KL: where experts oppose each other, a slerp's middle is far longer than its ends.)
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import Merge, PolicySpec, policy
from peo_bench.errors import UsageError
from peo_bench.evaluation.kl_budget import EVALUATIONS, keeps, kl_budget, require_evaluations, shares, times_until
from peo_bench.evaluation.validation import (
    Candidates,
    Point,
    read_candidates,
    searched_preferences,
    utility_scores,
    validation_bound,
)
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Job
from peo_bench.training.interpolation import soup_line


class MergingSettings(MethodSettings):
    """`budget` evaluations on validation prompts; `max_kl` in nats, by default 1.5 or the largest expert's."""

    budget: int = Field(EVALUATIONS, ge=3)
    max_kl: float | None = Field(None, gt=0)


class SparseSettings(MergingSettings):
    """`densities`: the shares of every task vector to try to keep."""

    densities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.2, 0.5, 0.8), min_length=1)


class MergingMethod(Method):
    """Merge the experts' task vectors by a rule, at strengths that validation chooses."""

    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    Settings = MergingSettings
    expo_adds = False
    strongest: ClassVar[float] = math.inf
    """No strength beyond it is offered."""

    @abstractmethod
    def rules(self, world: World) -> Sequence[Merge]:
        """Return the rules to try, the published one first."""

    def build(self, world: World) -> Build:
        """Train the experts, score the rules at strength 1, then one of them at other strengths."""
        asked = searched_preferences(world)
        m, n = len(world.objectives), len(asked)
        if m != 2:
            raise UsageError(f"{self.name} merges two experts, this suite has {m} objectives")
        left = self.settings.budget - m
        require_evaluations(self.name, self.settings.budget, m + n, f"{m} experts and {n} preferences")
        rules = list(self.rules(world))[: (left // n + 1) // 2]
        left -= len(rules) * n
        experts = soup_line(world, [(1.0, 0.0), (0.0, 1.0)], self.name)
        start = _scored(world, [(w, rule) for rule in rules for w in asked])
        handles = yield Round([experts, start], later=validation_bound(world, left))
        ends = read_candidates(handles[experts.id])
        found = Candidates(ends.reference, read_candidates(handles[start.id]).points)
        max_kl = kl_budget(self.settings.max_kl or world.max_kl, ends.points)
        best = _promising(found, world, max_kl)
        rule, points = rules[best], found.points[best * n : (best + 1) * n]
        ways = [min(self.strongest, times_until(max_kl, point.kl)) for point in points]
        strengths = [_strengths(way, k) for way, k in zip(ways, shares(left, ways), strict=True)]
        others: tuple[Point, ...] = ()
        if left:
            tries = [(w, replace(rule, strength=s)) for w, own in zip(asked, strengths, strict=True) for s in own]
            job = _scored(world, tries)
            others = read_candidates((yield Round([job]))[job.id]).points
        chosen = _chosen(world, ends.reference, max_kl, points, strengths, others)
        weights = [w.weights[0] for w in asked]

        def at(w: Preference) -> PolicySpec:
            return _merged(world, w, replace(rule, strength=float(np.interp(w.weights[0], weights, chosen))))

        said: JsonObject = {"density": rule.density, "strengths": chosen, "max_kl": max_kl}
        return PolicyFamily(space=Space("simplex"), at=at, chosen=said)


def _strengths(way: float, tries: int) -> list[float]:
    """Return the strengths to try beside 1 at a preference, from half of it up to `way`."""
    others = np.linspace(min(0.5, way / 2), way, tries + 1 if way == 1.0 else tries)
    return [float(strength) for strength in others[:tries].round(3)]


def _chosen(
    world: World,
    units: Mapping[str, Sequence[float]],
    max_kl: float,
    starts: Sequence[Point],
    strengths: Sequence[Sequence[float]],
    others: Sequence[Point],
) -> list[float]:
    """Return the strength for every searched preference: the best within the budget, 0 where nothing keeps it.

    `starts` are the policies at strength 1, `others` those at `strengths`, preference by preference.
    """
    chosen, points = [], iter(others)
    for w, start, own in zip(searched_preferences(world), starts, strengths, strict=True):
        tried = [start, *itertools.islice(points, len(own))]
        steered = utility_scores(tried, units, world.objectives) @ w.weights
        within = keeps(max_kl, tried, starts=1)
        best = int(np.argmax(np.where(within, steered, -np.inf)))
        chosen.append([1.0, *own][best] if within[best] else 0.0)
    return chosen


def _promising(found: Candidates, world: World, max_kl: float) -> int:
    """Return which rule has the highest mean steered utility (the reference's is 0) within the budget.

    A policy beyond it counts for as much of its way as KL's square law lets it go.
    """
    steered = found.steered(world)
    kl = np.array([point.kl for point in found.points]).reshape(steered.shape)
    way = np.sqrt(max_kl / np.maximum(kl, max_kl))
    return int(np.argmax((steered * way).mean(axis=1)))


def _merged(world: World, preference: Preference, rule: Merge) -> PolicySpec:
    ids = [job.id for job in world.aspects]
    return policy(world.reference.id, zip(ids, preference.weights, strict=True), rule)


def _scored(world: World, tries: Sequence[tuple[Preference, Merge]]) -> Job:
    """Return the job that scores these merges; the reference's units come with the experts."""
    params: JsonObject = {"specs": [_merged(world, w, rule).to_json() for w, rule in tries], "units": False}
    return world.validation_job("candidates", params, world.aspects)
