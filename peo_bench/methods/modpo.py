"""MODPO: one DPO run per preference, with a margin for the other objective.

L = -log sigma( (1/w_0) [ beta (dlogp_w - dlogp_l) - w_1 (R_1(y_w) - R_1(y_l)) ] ) on the pairs of objective 0, with the
frozen margin reward R_1 of the other objective (Zhou et al. 2023, arXiv 2310.03708, eq. 8): by default the implicit
reward beta (log pi_1 - log pi_ref) of its DPO expert, as in the public code and shared with PEO's phase 1, or the
run's own reward or cost model. Where the expert is given, so that its beta is not known, or was trained by a learner
whose reward this is not, a DPO expert is trained for the margin alone (1 U more).

w_0 = 1 is plain DPO, so the expert of objective 0; w_0 = 0 is undefined and its end point is the other expert. Both are
taken as they are. Training is exact: see `peo_bench.training.modpo`.
"""

from __future__ import annotations

from typing import Literal

from peo_bench.core import roles
from peo_bench.core.method import MethodSettings, World
from peo_bench.core.preference import Preference
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import PointMethod, one_of_two
from peo_bench.training.learners import LEARNERS
from peo_bench.training.settings import dpo_settings


class MODPOSettings(MethodSettings):
    """`objective` is the one whose pairs are trained on (the paper models "better" with the margin "safer").

    `margin` "implicit" is the other expert's DPO reward (or that of a DPO expert, where it has none), "explicit" the
    run's reward or cost model for it.
    """

    objective: str = "helpful"
    margin: Literal["implicit", "explicit"] = "implicit"


class MODPO(PointMethod):
    """Train one policy per preference by DPO with a margin from the other expert."""

    name = "modpo"
    reference = "Zhou et al. 2023, arXiv 2310.03708"
    trains = "one policy per preference"
    costs = "2 U + 1 U per inner preference"
    exact = "equation 8, as DPO with a shifted reference"
    ours = "a vertex is the other objective's expert; a DPO expert for the margin (1 U) where that is given or no DPO's"
    Settings = MODPOSettings

    def job(self, world: World, preference: Preference) -> Job:
        """Return the run at `preference`; a vertex is that objective's expert."""
        main, names = one_of_two(self.name, self.settings.objective, world), world.names
        weight = preference[self.settings.objective]
        if weight in (0.0, 1.0):
            return world.aspects[main if weight else 1 - main]
        name, other = names[main], names[1 - main]
        params = {"objective": name, "weight": weight, "seed": world.seed, **world.plain_training}
        needs = world.compared(name)
        if self.settings.margin == "explicit":
            return Job("modpo", params, needs | {"margin": world.proxies[other]})
        beta, expert = _margin(world, other)
        needs |= {"margin": expert, roles.MARGIN_LOG_PROBS: world.log_probs(name, expert)}
        return Job("modpo", params | {"margin_beta": beta}, needs)


def _margin(world: World, objective: str) -> tuple[float, Job]:
    """Return a policy whose implicit reward is beta (log pi - log pi_ref), and its beta: the expert or a DPO one."""
    settings = dpo_settings(world.training)
    if objective not in world.experts and LEARNERS.get(settings.learner).implicit_reward:
        return settings.aspect_beta, world.aspect(objective)
    plain: JsonObject = {"learner": "dpo", "learner_version": LEARNERS.get("dpo").version, "learner_beta": None}
    return settings.beta, world.dpo(objective, **plain)
