"""MOD: decoding-time mixing, log pi = sum_i w_i log pi_i + const, with the experts' policies pi_i."""

from __future__ import annotations

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import PolicySpec, Weights


class MOD(Method):
    """Mix the experts' next-token log-probabilities with the preference (one forward pass per expert)."""

    name = "mod"
    reference = "Shi et al. 2024, arXiv 2406.18853"
    trains = "one expert per objective"
    costs = "2 U, decoding x2"
    exact = "mixture of log-probabilities at every token"
    ours = "nothing"

    def build(self, world: World) -> Build:
        """Train the experts; a preference weighs their log-probabilities."""
        aspects = world.aspects
        yield Round(aspects)
        sources = [Weights(world.reference.id, ((job.id, 1.0),)) for job in aspects]
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: PolicySpec(mix=tuple(zip(w.weights, sources, strict=True))),
            mixes=True,
        )
