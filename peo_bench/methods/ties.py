"""TIES-merging: trim, elect signs, merge what agrees (Yadav et al. 2023, arXiv 2306.01708, algorithm 1).

Of every tensor of every task vector the largest 20 % are kept (the paper's k, which it also searches between 10 and 30
where it has validation data), signs are elected by the preference-weighted sum, and agreeing numbers averaged by the
preference. The paper's lambda is the strength, chosen on validation prompts here. It trims whole task vectors and has
equal weights; trimming per tensor and weights are mergekit's. At a vertex the policy is the trimmed expert.
"""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.core.method import World
from peo_bench.core.spec import Merge
from peo_bench.methods.merging import MergingMethod, SparseSettings


class TIES(MergingMethod):
    """Trim the experts' task vectors, elect signs and average what agrees, by the preference."""

    name = "ties"
    reference = "Yadav et al. 2023, arXiv 2306.01708"
    exact = "trim, elect, disjoint mean"
    ours = "weights and trimming per tensor as in mergekit; density and strengths within a KL budget"
    Settings = SparseSettings

    def rules(self, world: World) -> Sequence[Merge]:
        """Return TIES at every density."""
        return [Merge("ties", density) for density in self.settings.densities]
