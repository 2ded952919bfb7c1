"""LITI, linear interpolation towards initialisation: WARP's third stage (Ramé et al. 2024, arXiv 2406.16768).

theta_ref + eta (theta_slerp(w) - theta_ref) with eta between 0 and 1: WARP slides eta to trade reward for KL. Here
validation chooses an eta for every preference, among those within the KL budget; `slerp` may go beyond 1. WARP's
iterations, which train again from such a point, are not built.
"""

from __future__ import annotations

from peo_bench.methods.slerp import Slerp


class LITI(Slerp):
    """Interpolate between the reference policy and the spherical interpolation of the experts."""

    name = "liti"
    reference = "WARP's third stage, Ramé et al. 2024, arXiv 2406.16768"
    exact = "linear interpolation towards the reference policy, of slerps"
    ours = "the preference as the slerp's weight; eta on validation prompts, within a KL budget"
    strongest = 1.0
