"""MGDA on the objectives' DPO losses: always the min-norm combination of the gradients, so no objective gets worse.

Desideri 2012; Sener & Koltun 2018, arXiv 1810.04650, eq. 3. It takes no preference: one policy, which stops where the
gradients cancel (a Pareto-stationary point). Judge it by dominance, not by its front.
"""

from __future__ import annotations

from peo_bench.core.method import Build, Method, World
from peo_bench.core.preference import Preference
from peo_bench.methods.per_preference import combined_job, single_policy


class MGDA(Method):
    """One DPO run along the common descent direction of all objectives."""

    name = "mgda"
    reference = "Sener & Koltun 2018, arXiv 1810.04650"
    trains = "one policy"
    costs = "1.7 U"
    exact = "the min-norm point, solved to 1e-6"
    ours = "nothing; it takes no preference"
    needs_labels_on_both = True

    def build(self, world: World) -> Build:
        """Train the one policy."""
        return (yield from single_policy(world, combined_job(world, Preference.even(world.names), "mgda")))
