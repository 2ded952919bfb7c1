"""PEO: experts, generalists between them, extrapolation beyond them (arXiv 2503.01233), as named variants.

Every reading lives in the plane theta(a, b) = theta_ref + a tau_1 + b tau_2. The paper's interpolation weights, search
and hyperparameters are not available to us, so nothing here is "the paper's number".

- `peo`: theta_gen(w) + lambda_1 tau_1 + lambda_2 tau_2 with lambda >= 0: the interpolated generalist of every
  preference w at lambda = 0 and what lies beyond it, up to the KL budget. Experts and soups belong to it. The policy
  leaves the interpolation only where the paired lower bound of the validation gain is positive.
- `peo-generalist`: the same beyond one generalist, the best for equal weights; the experts are out of reach.
- `peo-expo`: ExPO on the generalists, (1 + alpha) (w, 1 - w), one alpha chosen on validation prompts.

Their preference space is the simplex; the plane is internal, searched once on validation prompts with the proxies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.evaluation.kl_budget import EVALUATIONS, require_evaluations
from peo_bench.evaluation.validation import prompt_utilities, read_candidates, utility_scores
from peo_bench.files.json_types import JsonObject
from peo_bench.methods.expo import ExPO, ExPOSettings
from peo_bench.methods.soup import Soup
from peo_bench.training.extrapolation import Search, read_search
from peo_bench.training.interpolation import simplex_grid, soup_line
from peo_bench.training.steering_map import Evaluated, SteeringMap, cautious_map, evaluated_line, supported_map

LEAST_SEARCH = 9
"""Evaluations of the shortest search: `surrogate` fits a quadratic to a 3 x 3 grid."""


class PEOSettings(MethodSettings):
    """`budget` evaluations, `grid` of them in phase 2; `max_kl` in nats, by default 1.5 or the larger expert's."""

    budget: int = Field(EVALUATIONS, ge=12)
    strategy: Literal["gp", "surrogate", "grid", "nsga2", "cma-es"] = "gp"
    grid: int = Field(9, ge=3)
    max_kl: float | None = Field(None, gt=0)


class PEO(Method):
    """Extrapolate the generalists along both task vectors, within a KL budget and where that surely pays."""

    name = "peo"
    expo_adds = False
    reference = "PEO, arXiv 2503.01233"
    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    exact = "plane arithmetic in fp32"
    ours = "interpolation weights, search, KL budget and steering map (the paper's are not published)"
    Settings = PEOSettings

    def build(self, world: World) -> Build:
        """Phase 1: experts. Phase 2: generalists. Phase 3: the search. Then a path through what was evaluated."""
        return _search(world, self.settings, self.name, "soup", _along_the_line)


class PEOGeneralist(Method):
    """Extrapolate one generalist, the best soup for equal weights, along both task vectors."""

    name = "peo-generalist"
    expo_adds = False
    reference = "PEO, arXiv 2503.01233, a reading"
    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    exact = "plane arithmetic in fp32"
    ours = "the box beyond one generalist, KL budget, walk along the validation front"
    Settings = PEOSettings

    def build(self, world: World) -> Build:
        """Build as `peo`, with the box beyond one generalist, whose front becomes the steering map."""
        return _search(world, self.settings, self.name, "generalist", _along_the_front)


Steer = Callable[[World, list[Evaluated], Search], SteeringMap]


def _search(world: World, settings: PEOSettings, name: str, region: str, steer_through: Steer) -> Build:
    """Score the line of soups and search `region`; `steer_through` makes a path of the evaluations."""
    what = f"{settings.grid} soups ({name}.grid) and a search"
    require_evaluations(name, settings.budget, settings.grid + LEAST_SEARCH, what)
    phis = simplex_grid(settings.grid)
    line = soup_line(world, phis, name)
    params: JsonObject = {
        "phis": [list(phi) for phi in phis],
        "region": region,
        "maximise": {objective.column: objective.maximise for objective in world.objectives},
        "budget": settings.budget - settings.grid,
        "strategy": settings.strategy,
        "max_kl": settings.max_kl or world.max_kl,
    }
    job = world.validation_job("extrapolation", params, world.aspects, line=line)
    handles = yield Round([line, job])
    search, soups = read_search(handles[job.id]), read_candidates(handles[line.id])
    steer = steer_through(world, evaluated_line(phis, soups.points), search)
    base, ids = world.reference.id, [expert.id for expert in world.aspects]
    return PolicyFamily(
        space=Space("simplex"),
        at=lambda w: policy(base, zip(ids, steer(w.weights[0]), strict=True)),
        coefficients=lambda w: steer(w.weights[0]),
        chosen={"max_kl": search.max_kl, "beyond_the_soup": sum(sum(c) > 1 + 1e-9 for c in steer.coefficients)},
    )


def _along_the_line(world: World, line: list[Evaluated], search: Search) -> SteeringMap:
    points = [item.point for item in (*line, *search.evaluations)]
    utilities = prompt_utilities(points, search.reference, world.objectives)
    return cautious_map(line, search.evaluations, utilities, search.max_kl)


def _along_the_front(world: World, line: list[Evaluated], search: Search) -> SteeringMap:
    best = line[int(np.argmax(_means(world, line, search).mean(axis=1)))]
    points = [best, *search.evaluations]
    return supported_map(points, _means(world, points, search), search.max_kl, starts=1)


def _means(world: World, items: list[Evaluated], search: Search) -> npt.NDArray[np.float64]:
    return utility_scores([item.point for item in items], search.reference, world.objectives)


class PEOExPO(Method):
    """ExPO on the generalists: (1 + alpha) (w, 1 - w) on the task vectors, alpha chosen on validation prompts."""

    name = "peo-expo"
    expo_adds = False
    reference = "PEO, arXiv 2503.01233; ExPO, arXiv 2404.16792"
    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    exact = "extrapolation of the soup"
    ours = "one alpha for all preferences, chosen on validation prompts within a KL budget"
    Settings = ExPOSettings

    def build(self, world: World) -> Build:
        """Wrap the soup, whose policies are the generalists, with ExPO."""
        return ExPO(self.settings, Soup()).build(world)
