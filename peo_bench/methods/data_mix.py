"""One DPO on the union of all objectives' pairs: what one gets without any method for several objectives.

Every pair of every objective once, whatever it says of the others: where two objectives disagree about the same texts,
both orders are in the data. One policy comes out, the same for every preference; judge it by dominance, or steer it
with `expo.data-mix`. It sees exactly the pairs that the experts of `soup` and `peo` see, so it costs 2 U.
"""

from __future__ import annotations

from peo_bench.core.method import Build, Method, World
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import single_policy
from peo_bench.training.mixed_pairs import MIXTURE, mixed_pairs_job


class DataMix(Method):
    """Train one policy by DPO on the union of all objectives' pairs."""

    name = "data-mix"
    reference = "the usual practice"
    trains = "one policy"
    costs = "2 U"
    exact = "plain DPO (or phase 1's learner) on all pairs"
    ours = "nothing"

    def build(self, world: World) -> Build:
        """Train on the mixture; the family offers the one policy for every preference."""
        params = {"objective": MIXTURE, "seed": world.seed, **world.training}
        needs = {"reference": world.reference, "pairs": mixed_pairs_job(world)}
        return (yield from single_policy(world, Job("aspect", params, needs)))
