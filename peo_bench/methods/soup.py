"""Rewarded soups: theta(w) = theta_ref + sum_i w_i (theta_i - theta_ref), the experts' weights interpolated."""

from __future__ import annotations

from peo_bench.core import roles
from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.jobs.job import Job


class SoupSettings(MethodSettings):
    """`factors` averages LoRA's A and B separately, as the public code does: a reproduction mode, not the soup."""

    factors: bool = False


class Soup(Method):
    """Interpolate the experts' weights with the preference (Rewarded Soups; with DPO experts, a DPO soup).

    Exact: LoRA experts are combined by the sum of their products B_i A_i, never, unless asked for, by averaging the
    factors.
    """

    name = "soup"
    expo_adds = False
    reference = "Ramé et al. 2023, arXiv 2306.04488"
    Settings = SoupSettings
    trains = "one expert per objective"
    costs = "2 U"
    exact = "sum of LoRA products, any coefficients"
    ours = "DPO experts instead of PPO ones; `factors` reproduces the public code's averaged factors"

    def build(self, world: World) -> Build:
        """Train the experts; a preference is its own vector of coefficients."""
        aspects, base = world.aspects, world.reference.id
        if self.settings.factors:
            needs = {roles.delta(i): job for i, job in enumerate(aspects)}
            jobs = {w: Job("averaged-factors", {"weights": list(w.weights)}, needs) for w in world.preferences}
            yield Round(list(jobs.values()))
            return PolicyFamily(
                space=Space("points", world.preferences), at=lambda w: policy(base, [(jobs[w].id, 1.0)])
            )
        yield Round(aspects)
        ids = [job.id for job in aspects]
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, w.weights, strict=True)),
            coefficients=lambda w: w.weights,
        )
