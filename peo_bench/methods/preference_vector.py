"""Preference vectors (arXiv 2504.20106): theta_ref + sum_i eta_i phi_i with phi_i = theta_i+ - theta_i-.

Besides the expert theta_i+ of every objective a second one, theta_i-, is trained by DPO on the same pairs with the
labels swapped; the difference of the two is the objective's vector. The paper scales each vector by eta in [-1, 1] and
reports the grid; a preference w gives eta = `eta` w here, which is ours.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import PolicySpec, policy


class PreferenceVectorSettings(MethodSettings):
    """`eta`: the strength of an objective's vector where it alone counts."""

    eta: float = Field(1.0, gt=0)


class PreferenceVector(Method):
    """Add the objectives' vectors in proportion to the preference."""

    name = "preference-vector"
    reference = "arXiv 2504.20106"
    trains = "two experts per objective, one on swapped labels"
    costs = "4 U"
    exact = "difference of the two experts"
    ours = "eta in proportion to the preference"
    Settings = PreferenceVectorSettings

    def build(self, world: World) -> Build:
        """Train two experts per objective, one of them on swapped labels."""
        preferred = world.aspects
        swapped = [world.dpo(objective.name, swapped=True) for objective in world.objectives]
        yield Round([*preferred, *swapped])
        vectors = list(zip(preferred, swapped, strict=True))

        def at(w: Preference) -> PolicySpec:
            signed = zip(w.weights, vectors, strict=True)
            scaled = [(self.settings.eta * weight, pair) for weight, pair in signed]
            terms = [(job.id, sign * eta) for eta, pair in scaled for job, sign in zip(pair, (1, -1), strict=True)]
            return policy(world.reference.id, terms)

        return PolicyFamily(space=Space("simplex"), at=at)
