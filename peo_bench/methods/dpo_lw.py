"""DPO on the weighted loss (DPO-LW, linear scalarisation): sum_i w_i L_i with L_i = -log sigma(beta s_i Delta).

Every pair carries both labels s_i; the baseline of MODPO's and RACO's papers. The optimum is that of a mixture of
*labels*, not of a mixture of rewards, so it differs from pi_ref exp(w . r / beta) where labels are noisy. At a vertex
it is the expert itself.
"""

from __future__ import annotations

from peo_bench.core.method import World
from peo_bench.core.preference import Preference
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import PointMethod, combined_job


class DPOLW(PointMethod):
    """One DPO run per preference, on the weighted sum of the objectives' losses."""

    name = "dpo-lw"
    reference = "the weighted-loss baseline of arXiv 2310.03708 and of RACO"
    trains = "one policy per preference"
    costs = "2 U + 1 U per inner preference"
    exact = "the weighted loss"
    ours = "a vertex is that objective's expert"
    needs_labels_on_both = True

    def job(self, world: World, preference: Preference) -> Job:
        """Return the weighted-loss run; a vertex is that objective's expert."""
        if 1.0 in preference.weights:
            return world.aspects[preference.weights.index(1.0)]
        return combined_job(world, preference, "weighted")
