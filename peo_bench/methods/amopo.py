"""AMoPO, static: reference-free preference losses of all objectives, summed with the preference as weights.

L = sum_k w_k ( -log sigma( s_k beta [ log pi(y_w)/|y_w| - log pi(y_l)/|y_l| ] - gamma ) ), s_k = +1 or -1 by objective
k's own label, |y| in tokens (Liu et al. 2025, arXiv 2506.07165, eq. 9 with fixed weights, the form in which RACO's
public code runs it as a baseline: without a margin, so gamma is 0 here). beta 0.8 is the best of RACO's sweep on a base
model. AMoPO's own code has a gamma of 0.5 by default and 2.0 in its run script; with labels that conflict the terms of
the sum then no longer share a zero.

Not built: the paper's adaptive weights. They are drawn from a Gaussian fitted to the token probabilities of both
answers under a prompt that names the objective; without such prompts, which a policy has to be trained to read, both
objectives get the same distribution of weights, and adaptivity is noise.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import MethodSettings, World
from peo_bench.core.preference import Preference
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import PointMethod, combined_job


class AMoPOSettings(MethodSettings):
    """`beta` scales log-probabilities per token, `gamma` is the margin that the better answer should have."""

    beta: float = Field(0.8, gt=0)
    gamma: float = Field(0.0, ge=0)


class AMoPO(PointMethod):
    """Train one policy per preference on length-normalised losses without a reference policy."""

    name = "amopo"
    reference = "Liu et al. 2025, arXiv 2506.07165"
    trains = "one policy per preference"
    costs = "1 U per preference"
    exact = "equation 9 with fixed weights, as in RACO's code"
    ours = "no adaptive weights and no prompts that name the objective"
    Settings = AMoPOSettings
    needs_labels_on_both = True

    def job(self, world: World, preference: Preference) -> Job:
        """Return the run at `preference`."""
        return combined_job(world, preference, "weighted", beta=self.settings.beta, gamma=self.settings.gamma)
