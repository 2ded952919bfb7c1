"""DARE: drop at random, rescale, add (Yu et al. 2023, arXiv 2311.03099, section 3.2), on the experts' task vectors.

Every number of every task vector is dropped with probability 1 - density and the others are divided by the density,
which keeps the expectation; then the vectors are added with the preference as weights (the paper's task arithmetic;
mergekit's `dare_linear`). The masks are drawn once per seed, expert and tensor, the same for every preference. The
paper drops up to 99 %, of vectors that are much smaller than those of short preference training.
"""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.core.method import World
from peo_bench.core.spec import Merge
from peo_bench.methods.merging import MergingMethod, SparseSettings


class DARE(MergingMethod):
    """Drop and rescale the experts' task vectors at random, then add them by the preference."""

    name = "dare"
    reference = "Yu et al. 2023, arXiv 2311.03099"
    exact = "drop, rescale by 1 / density, task arithmetic"
    ours = "the preference as weights; density and strengths within a KL budget"
    Settings = SparseSettings

    def rules(self, world: World) -> Sequence[Merge]:
        """Return DARE at every density, with the run's seed."""
        return [Merge("dare", density, seed=world.seed) for density in self.settings.densities]
