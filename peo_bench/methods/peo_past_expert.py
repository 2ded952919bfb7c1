"""PEO past the experts: theta_gen + sum_i lambda_i (theta_i - theta_gen), a named variant of the third phase.

With two experts and a generalist between them every such policy lies on the line a + b = 1 of the plane
theta_ref + a tau_1 + b tau_2, whatever the generalist is: only lambda_1 phi_2 - lambda_2 phi_1 matters. So the line is
what is searched, from `reach` before one expert to `reach` past the other; beyond an expert one coefficient is
negative. The soup is its middle part.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.errors import UsageError
from peo_bench.evaluation.validation import utility_scores
from peo_bench.training.extrapolation import steering_map


class PEOPastExpertSettings(MethodSettings):
    """`budget` evenly spaced points of the line, which runs on by `reach` past both experts."""

    budget: int = Field(36, ge=3)
    reach: float = Field(0.5, ge=0)


class PEOPastExpert(Method):
    """Extrapolate along the line through both experts; preferences walk along the validation front."""

    name = "peo-past-expert"
    reference = "PEO, arXiv 2503.01233, a reading"
    trains = "one expert per objective"
    costs = "2 U, 37 evaluations"
    exact = "the line through both experts"
    ours = "how far past them, and the steering map"
    Settings = PEOPastExpertSettings

    def build(self, world: World) -> Build:
        """Score the line on validation prompts; its supported points become the steering map."""
        if len(world.objectives) != 2:
            raise UsageError(f"peo-past-expert needs two objectives, this suite has {len(world.objectives)}")
        base, ids = world.reference.id, [job.id for job in world.aspects]
        low, length, n = -self.settings.reach, 1 + 2 * self.settings.reach, self.settings.budget
        line = [(low + length * i / (n - 1), 1 - low - length * i / (n - 1)) for i in range(n)]
        specs = [policy(base, zip(ids, point, strict=True)).to_json() for point in line]
        job = world.validation_job("candidates", {"specs": specs}, world.aspects)
        result = (yield Round([job]))[job.id].result
        utilities = utility_scores(result["points"], result["reference"], world.objectives)
        steer = steering_map([{"coefficients": point} for point in line], utilities)
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, steer(w.weights[0]), strict=True)),
            coefficients=lambda w: steer(w.weights[0]),
            chosen={"front_points": len(steer.positions)},
        )
