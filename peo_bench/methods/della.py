"""DELLA: drop by rank of magnitude, elect signs, merge what agrees (Deep et al. 2024, arXiv 2406.11617).

As DARE, but the probability to stay rises evenly with a number's rank within its row, from density - epsilon to density
+ epsilon (MAGPRUNE), and each number that stays is divided by its own probability; then TIES's sign election and mean,
by the preference. mergekit rescales all that stay by one factor instead; the paper's own is taken here, and mergekit's
default epsilon. The paper's lambda is the strength.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, ValidationInfo, field_validator

from peo_bench.core.method import World
from peo_bench.core.spec import Merge
from peo_bench.methods.merging import MergingMethod, SparseSettings


class DELLASettings(SparseSettings):
    """`epsilon`: how far the probability to stay departs from the density, at the smallest and the largest number."""

    epsilon: float = Field(0.15, ge=0, validate_default=True)

    @field_validator("epsilon")
    @classmethod
    def _probabilities(cls, epsilon: float, found: ValidationInfo) -> float:
        if any(not epsilon < density < 1 - epsilon for density in found.data.get("densities", ())):
            raise ValueError("every density must lie between epsilon and 1 - epsilon")
        return epsilon


class DELLA(MergingMethod):
    """Drop the experts' smaller numbers more often, elect signs and average what agrees, by the preference."""

    name = "della"
    reference = "Deep et al. 2024, arXiv 2406.11617"
    exact = "drop by rank, rescale by 1 / probability, elect, disjoint mean"
    ours = "the preference as weights; density and strengths within a KL budget"
    Settings = DELLASettings

    def rules(self, world: World) -> Sequence[Merge]:
        """Return DELLA at every density, with the run's seed."""
        return [Merge("della", d, self.settings.epsilon, world.seed) for d in self.settings.densities]
