"""Weighted Tchebycheff scalarisation of the expected rewards: every update improves the largest weighted regret.

minimise max_k w_k (z_k - E u_k) (Miettinen 1999, section 3.4). The ideal point z starts at a quantile of the reference
policy's validation answers per objective (0.95) and moves on where training comes near it, as in MOEA/D (Zhang and Li
2007). Unlike a weighted sum it can end in concave stretches of the front. The reward of an update is u_k, not w_k u_k,
so that reward and KL keep the exchange rate of the other methods: it ends at equal weighted regrets, at the KL of a
convex combination of the rewards.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.preference import Preference
from peo_bench.files.json_types import JsonObject
from peo_bench.methods.combined_rewards import OnlineMethod, OnlineSettings


class TchebycheffSettings(OnlineSettings):
    """`ideal` is the quantile of the reference policy's answers where the ideal point starts."""

    ideal: float = Field(0.95, gt=0.5, le=1)


class Tchebycheff(OnlineMethod):
    """Train one policy per preference by RLOO on the objective with the largest weighted regret."""

    name = "tchebycheff"
    reference = "Miettinen 1999, Nonlinear Multiobjective Optimization"
    costs = "1 U per preference, on answers it generates and scores"
    exact = "equal weighted regrets at the end"
    ours = "the ideal point; the reward is u_k, not w_k u_k; a running mean over batches"
    Settings = TchebycheffSettings
    combiner = "worst"

    def options(self, preference: Preference) -> JsonObject:
        """Return the quantile that the ideal point starts from."""
        return {"quantile": self.settings.ideal}
