"""GDPO: GRPO whose rewards are normalised one by one within the prompt before they are summed.

Liu et al. 2026, arXiv 2601.05242; TRL's `normalize_then_sum`. Sum-then-normalise (`mo-grpo`) maps different pairs of
rewards to the same advantage; normalising first keeps them apart. Not linear scalarisation: a weight acts on rewards
whose scale within the prompt was erased. The sums are normalised once more over the batch, as in the paper. beta 0.04
is that of GRPO's paper (arXiv 2402.03300).
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.methods.combined_rewards import OnlineMethod, OnlineSettings


class GRPOSettings(OnlineSettings):
    """As for all online methods; `beta` weighs the KL per token in the loss, advantages being standardised."""

    beta: float = Field(0.04, gt=0)


class GDPO(OnlineMethod):
    """Train one policy per preference by GRPO, each reward normalised within its prompt first."""

    name = "gdpo"
    reference = "Liu et al. 2026, arXiv 2601.05242"
    costs = "1 U per preference, on answers it generates and scores"
    exact = "TRL's normalize_then_sum"
    ours = "KL weight 0.04 and loss of GRPO's paper"
    Settings = GRPOSettings
    combiner = "gdpo"
