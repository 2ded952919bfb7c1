"""RACO: conflict-averse DPO whose correction is clipped to what the user asked for.

As CAGrad with g_0 = sum w_i g_i, but p* is replaced by min(p*, w), element by element, so that the correction never
favours an objective beyond its weight. Settings read from the authors' repository (PeterLauLukChen/RACO): c 0.4; the
clip is off in its code's default and on in its README's command: `clip` says which one runs, and it is on here.
Gradients are combined once per optimiser step, over the whole batch; the authors combine per micro-batch.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import MethodSettings, World
from peo_bench.core.preference import Preference
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import PointMethod, combined_job


class RACOSettings(MethodSettings):
    """`c` in [0, 1): the radius of the correction. `clip`: the correction is clipped to the preference."""

    c: float = Field(0.4, ge=0, lt=1)
    clip: bool = True


class RACO(PointMethod):
    """One DPO run per preference with clipped conflict-averse steps."""

    name = "raco"
    reference = "RACO, github.com/PeterLauLukChen/RACO"
    trains = "one policy per preference"
    costs = "1.7 U per preference"
    exact = "the clipped conflict-averse direction"
    ours = "combined per optimiser step, not per micro-batch"
    Settings = RACOSettings
    needs_labels_on_both = True

    def job(self, world: World, preference: Preference) -> Job:
        """Return the run at `preference`."""
        return combined_job(world, preference, "raco", c=self.settings.c, clip=self.settings.clip)
