"""SLERP of the experts' task vectors, the second stage of WARP (Ramé et al. 2024, arXiv 2406.16768).

theta(w) = theta_ref + strength [sin(w Omega) tau_1 + sin((1 - w) Omega) tau_2] / sin Omega, Omega the angle between the
task vectors, tensor by tensor. Between the experts it keeps their length, where the soup is shorter: where they are
orthogonal its centre is sqrt(2) times the soup's, and much longer where they oppose each other. WARP merges policies
that were trained on one reward, with EMA anchors that given experts do not have, and uses w = 1/2; a preference as w is
ours, and so is a strength that validation chooses.
"""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.core.method import World
from peo_bench.core.spec import Merge
from peo_bench.methods.merging import MergingMethod


class Slerp(MergingMethod):
    """Interpolate the experts' task vectors on the sphere, at strengths that validation chooses."""

    name = "slerp"
    reference = "WARP's second stage, Ramé et al. 2024, arXiv 2406.16768"
    exact = "spherical interpolation of task vectors, tensor by tensor"
    ours = "the preference as interpolation weight; strengths within a KL budget"

    def rules(self, world: World) -> Sequence[Merge]:
        """Return the one rule."""
        return [Merge("slerp")]
