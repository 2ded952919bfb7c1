"""Rewarded soups: theta(w) = theta_ref + sum_i w_i (theta_i - theta_ref), the experts' weights interpolated."""

from __future__ import annotations

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import policy


class Soup(Method):
    """Interpolate the experts' weights with the preference (Rewarded Soups; with DPO experts, a DPO soup).

    Exact: LoRA experts are combined by the sum of their products B_i A_i, never by averaging the factors.
    """

    name = "soup"
    reference = "Ramé et al. 2023, arXiv 2306.04488"
    trains = "one expert per objective"
    costs = "2 U"
    exact = "sum of LoRA products, any coefficients"
    ours = "DPO experts instead of PPO ones"

    def build(self, world: World) -> Build:
        """Train the experts; a preference is its own vector of coefficients."""
        aspects = world.aspects
        yield Round(aspects)
        ids = [job.id for job in aspects]
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(world.reference.id, zip(ids, w, strict=True)),
            coefficients=lambda w: w,
        )
