"""MOD: decoding-time mixing, log pi = sum_i w_i log pi_i + const, with the experts' policies pi_i.

That is the optimum for experts held by a reverse KL to one reference policy (Shi et al. 2024, arXiv 2406.18853,
equation 7 with the f-divergence's inverse gradient). For other f-divergences the paper mixes otherwise (the official
code has forward KL, Jensen-Shannon and alpha); that is not built, so experts of such learners are refused.
"""

from __future__ import annotations

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import PolicySpec, Weights
from peo_bench.errors import UsageError
from peo_bench.training.learners import LEARNERS


class MOD(Method):
    """Mix the experts' next-token log-probabilities with the preference (one forward pass per expert)."""

    name = "mod"
    reference = "Shi et al. 2024, arXiv 2406.18853"
    trains = "one expert per objective"
    costs = "2 U, decoding x2"
    exact = "mixture of log-probabilities at every token"
    ours = "reverse KL only: experts of other f-divergences are refused"

    def build(self, world: World) -> Build:
        """Train the experts; a preference weighs their log-probabilities."""
        learner = world.training.get("learner", "dpo")
        if "f_divergence_type" in LEARNERS.get(learner).options:
            what = f"mod: experts of the learner {learner} do not mix by log-probabilities, their divergence being no"
            raise UsageError(f"{what} reverse KL: choose another training.learner, or leave mod out")
        aspects = world.aspects
        yield Round(aspects)
        sources = [Weights(world.reference.id, ((job.id, 1.0),)) for job in aspects]
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: PolicySpec(mix=tuple(zip(w.weights, sources, strict=True))),
            mixes=True,
        )
