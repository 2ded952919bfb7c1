"""PEO with a strength per objective: theta_ref + mu k_1 tau_1 + (1 - mu) k_2 tau_2 (after Bone Soups, 2502.10762).

k_i is found at the pure preference for objective i, where it alone counts, and the preference mu then blends the two
strengthened experts. A strength of 1 is the expert itself, so with k = (1, 1) this is the soup.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.evaluation.validation import utility_scores


class PEOBonesoupSettings(MethodSettings):
    """`budget` evaluations shared by the objectives, for strengths evenly spaced from 0.5 to `strongest`."""

    budget: int = Field(36, ge=4)
    strongest: float = Field(2.0, gt=0.5)


class PEOBonesoup(Method):
    """Blend experts that were strengthened one by one on validation prompts."""

    name = "peo-bonesoup"
    reference = "PEO, arXiv 2503.01233, after Bone Soups, arXiv 2502.10762"
    trains = "one expert per objective"
    costs = "2 U, 37 evaluations"
    exact = "blend of strengthened experts"
    ours = "the grid of strengths"
    Settings = PEOBonesoupSettings

    def build(self, world: World) -> Build:
        """Choose every expert's strength by its own objective's proxy; then blend with the preference."""
        base, ids, m = world.reference.id, [job.id for job in world.aspects], len(world.objectives)
        strengths = np.linspace(0.5, self.settings.strongest, self.settings.budget // m)
        specs = [policy(base, [(expert, float(k))]).to_json() for expert in ids for k in strengths]
        job = world.validation_job("candidates", {"specs": specs}, world.aspects)
        result = (yield Round([job]))[job.id].result
        scores = utility_scores(result["points"], result["reference"], world.objectives).reshape(m, len(strengths), m)
        chosen = [float(strengths[int(np.argmax(scores[i, :, i]))]) for i in range(m)]

        def coefficients(w: Preference) -> tuple[float, ...]:
            return tuple(weight * k for weight, k in zip(w.weights, chosen, strict=True))

        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, coefficients(w), strict=True)),
            coefficients=coefficients,
            chosen={"strengths": chosen},
        )
