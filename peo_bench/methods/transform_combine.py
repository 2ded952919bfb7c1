"""Transform and combine: MORLHF on log sigma(r_k - r_k^ref(x)) instead of r_k.

Wang et al. 2024, arXiv 2402.00742: for Bradley-Terry rewards the transformed reward is the log-probability that an
answer is good, so the sum is that of being good in every respect. r_k^ref(x) is a quantile of the reference policy's
own rewards on the prompt: 0.85 in the paper's helpfulness runs, here for every objective, from 8 answers per prompt.
(The paper takes a canonical refusal's score for harmlessness, which no general suite has.)
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.preference import Preference
from peo_bench.files.json_types import JsonObject
from peo_bench.methods.combined_rewards import OnlineMethod, OnlineSettings


class TransformSettings(OnlineSettings):
    """`quantile` of `samples` reference answers per prompt is the prompt's reference value.

    Rewards are log-probabilities of Bradley-Terry here, so `beta` is the KL penalty in their unit.
    """

    quantile: float = Field(0.85, ge=0, le=1)
    samples: int = Field(8, gt=1)


class TransformCombine(OnlineMethod):
    """Train one policy per preference by RLOO on the weighted sum of log-sigmoid rewards."""

    name = "transform-combine"
    reference = "Wang et al. 2024, arXiv 2402.00742"
    costs = "1 U per preference on its own scored answers, and once 8 reference answers per training prompt"
    exact = "the transformation"
    ours = "weights; the quantile for every objective"
    Settings = TransformSettings
    combiner = "transform"

    def options(self, preference: Preference) -> JsonObject:
        """Return the quantile that makes the anchors."""
        return {"quantile": self.settings.quantile}
