"""MO-GRPO: GRPO on the weighted sum of the rewards, one run per preference.

"Optimizing Safe and Aligned Language Generation" (arXiv 2503.21819): plain GRPO on the sum of a multi-label reward
model's columns, here weighted; TRL's `sum_then_normalize`. Not the other method of this name, which normalises every
reward first (see `gdpo`). Dividing by the standard deviation within the prompt makes the exchange rate of reward and KL
depend on the prompt, so its optimum is not MORLHF's.
"""

from __future__ import annotations

from peo_bench.methods.combined_rewards import OnlineMethod
from peo_bench.methods.gdpo import GRPOSettings


class MOGRPO(OnlineMethod):
    """Train one policy per preference by GRPO on the weighted sum of the rewards."""

    name = "mo-grpo"
    reference = "arXiv 2503.21819; GRPO, arXiv 2402.03300"
    costs = "1 U per preference, on answers it generates and scores"
    exact = "TRL's sum_then_normalize"
    ours = "weights; KL weight 0.04 and loss of GRPO's paper"
    Settings = GRPOSettings
    combiner = "mo-grpo"
