"""CAGrad on the objectives' DPO losses (Liu et al. 2021, arXiv 2110.14048), with the preference as weights.

The step is g_0 + c |g_0| G_p/|G_p| with g_0 = sum w_i g_i: the direction within a ball of radius c |g_0| around g_0
that serves the worst-served objective best. Published default c 0.4 (multi-task), also used here; the original takes
the mean of the gradients for g_0 and rescales the step, which Adam undoes. RACO is this with the correction clipped.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import MethodSettings, World
from peo_bench.core.preference import Preference
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import PointMethod, combined_job


class CAGradSettings(MethodSettings):
    """`c` in [0, 1): the radius of the correction; 0 is DPO-LW."""

    c: float = Field(0.4, ge=0, lt=1)


class CAGrad(PointMethod):
    """One DPO run per preference with conflict-averse steps."""

    name = "cagrad"
    reference = "Liu et al. 2021, arXiv 2110.14048"
    trains = "one policy per preference"
    costs = "1.7 U per preference"
    exact = "the conflict-averse direction, solved to 1e-7"
    ours = "weights instead of the mean; gradients of the whole batch"
    Settings = CAGradSettings
    needs_labels_on_both = True

    def job(self, world: World, preference: Preference) -> Job:
        """Return the run at `preference`."""
        return combined_job(world, preference, "cagrad", c=self.settings.c)
