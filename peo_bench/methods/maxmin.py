"""MaxMin-RLHF: maximise the worst of the expected rewards; one policy, no preference.

Chakraborty et al. 2024, arXiv 2402.08925, algorithm 1: every update improves the objective whose expected reward is the
lowest at the moment. The paper's groups of users are the objectives here, so there is nothing to cluster. At an inner
optimum the rewards are equal. Judge it by dominance, not by its front.
"""

from __future__ import annotations

from peo_bench.core.method import Build, World
from peo_bench.core.preference import Preference
from peo_bench.methods.combined_rewards import OnlineMethod
from peo_bench.methods.per_preference import single_policy


class MaxMin(OnlineMethod):
    """Train one policy by RLOO on whichever objective is worst off."""

    name = "maxmin"
    reference = "Chakraborty et al. 2024, arXiv 2402.08925"
    trains = "one policy, on its own answers"
    costs = "1 U, on answers it generates and scores"
    exact = "algorithm 1, given the rewards"
    ours = "groups are objectives; a running mean over batches; it takes no preference"
    combiner = "worst"

    def build(self, world: World) -> Build:
        """Train the one policy."""
        return (yield from single_policy(world, self.job(world, Preference.even(world.names))))
