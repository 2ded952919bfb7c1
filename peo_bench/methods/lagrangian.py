"""Safe RLHF: maximise helpfulness while harmlessness stays above a threshold, by dual ascent on its multiplier.

Dai et al. 2023, arXiv 2310.12773: reward (u_1 - lambda c) / (1 + lambda), ln lambda <- ln lambda + rate lambda E c,
from lambda 1 with rate 0.1 and at most 5 (their public code). The threshold is the axis of the family: the weight of
the constrained objective is the quantile of the reference policy's answers that the average answer has to reach. Weight
0 asks for nothing, 0.5 for the reference's median, 1 for its best answer (out of reach: lambda grows to its limit).
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import World
from peo_bench.core.preference import Preference
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Job
from peo_bench.methods.combined_rewards import OnlineMethod, OnlineSettings
from peo_bench.methods.per_preference import one_of_two


class LagrangianSettings(OnlineSettings):
    """`objective` is the one that is maximised; `rate` of the dual ascent, and the most its multiplier may become."""

    objective: str = "helpful"
    rate: float = Field(0.1, gt=0)
    most: float = Field(5.0, gt=0)


class Lagrangian(OnlineMethod):
    """Train one policy per threshold on the other objective by RLOO with a Lagrange multiplier."""

    name = "lagrangian"
    reference = "Dai et al. 2023, arXiv 2310.12773"
    trains = "one policy per threshold, on its own answers"
    costs = "1 U per preference, on answers it generates and scores"
    exact = "the Lagrangian and its dual ascent"
    ours = "a preference names the threshold; RLOO for PPO; a running mean over batches"
    Settings = LagrangianSettings
    combiner = "lagrangian"

    def options(self, preference: Preference) -> JsonObject:
        """Return the threshold as a quantile of the reference's answers, and the dual ascent's settings."""
        other = 1 - preference.objectives.index(self.settings.objective)
        rate, most = self.settings.rate, self.settings.most
        return {"quantile": preference.weights[other], "constrained": other, "rate": rate, "most": most}

    def job(self, world: World, preference: Preference) -> Job:
        """Return the training at the threshold of `preference`."""
        one_of_two(self.name, self.settings.objective, world)
        return super().job(world, preference)
