"""PEO past the experts: theta_gen + sum_i lambda_i (theta_i - theta_gen), a named variant of the third phase.

With two experts and a generalist between them every such policy lies on the line a + b = 1 of the plane
theta_ref + a tau_1 + b tau_2, whatever the generalist is: only lambda_1 phi_2 - lambda_2 phi_1 matters. So the line is
what is searched, past both experts as far as the KL budget may allow; beyond an expert one coefficient is negative. The
soup is its middle part, and is scored first.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.evaluation.kl_budget import EVALUATIONS, kl_budget, require_evaluations, shares, times_until
from peo_bench.evaluation.validation import read_candidates, utility_scores, validation_bound
from peo_bench.training.interpolation import simplex_grid, soup_line
from peo_bench.training.steering_map import Evaluated, supported_map


class PEOPastExpertSettings(MethodSettings):
    """`budget` evaluations, `grid` of them soups; `max_kl` in nats, by default 1.5 or the larger expert's."""

    budget: int = Field(EVALUATIONS, ge=5)
    grid: int = Field(9, ge=3)
    max_kl: float | None = Field(None, gt=0)


class PEOPastExpert(Method):
    """Extrapolate along the line through both experts; preferences walk along the validation front."""

    name = "peo-past-expert"
    reference = "PEO, arXiv 2503.01233, a reading"
    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    exact = "the line through both experts"
    ours = "how far past them (KL budget), and the steering map"
    Settings = PEOPastExpertSettings
    expo_adds = False

    def build(self, world: World) -> Build:
        """Score the line on validation prompts; its supported points within the budget become the steering map."""
        settings = self.settings
        left = settings.budget - settings.grid
        what = f"{settings.grid} soups ({self.name}.grid) and a step past each expert"
        require_evaluations(self.name, settings.budget, settings.grid + 2, what)
        phis = simplex_grid(settings.grid)
        between = soup_line(world, phis, self.name)
        handles = yield Round([between], later=validation_bound(world, left))
        soups = read_candidates(handles[between.id])
        max_kl = kl_budget(settings.max_kl or world.max_kl, [soups.points[0], soups.points[-1]])
        base, ids = world.reference.id, [expert.id for expert in world.aspects]
        ways = [times_until(max_kl, soups.points[i].kl) - 1 for i in (-1, 0)]
        first, second = (_steps(way, n) for way, n in zip(ways, shares(left, ways), strict=True))
        past = [*((1 + step, -step) for step in first), *((-step, 1 + step) for step in second)]
        points = soups.points
        if past:
            specs = [policy(base, zip(ids, point, strict=True)).to_json() for point in past]
            job = world.validation_job("candidates", {"specs": specs, "units": False}, world.aspects)
            points += read_candidates((yield Round([job]))[job.id]).points
        line = [Evaluated(c, point) for c, point in zip([*phis, *past], points, strict=True)]
        steer = supported_map(line, utility_scores(points, soups.reference, world.objectives), max_kl, len(phis))
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, steer(w.weights[0]), strict=True)),
            coefficients=lambda w: steer(w.weights[0]),
            chosen={"max_kl": max_kl, "front_points": len(steer.positions)},
        )


def _steps(way: float, n: int) -> list[float]:
    """Return `n` evenly spaced steps past an expert, up to `way`; none past one that exceeds the budget."""
    return [round(way * i / n, 3) for i in range(1, n + 1)] if way > 0 else []
