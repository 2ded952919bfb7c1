"""SACPO: stepwise alignment, DPO for helpfulness and then DPO for safety from there (arXiv 2404.11049), and its merges.

The second run starts at the first one's policy and takes it as its reference (the paper's beta for it is 0.1 or less;
`beta` overrides the suite's). P-SACPO merges the two policies linearly, theta_1 + q (theta_2 - theta_1), to soften the
second step without training again: q in {0.25, 0.5, 0.75} in the paper. Here a preference w for the first objective
gives q = 1 - w, so that w = 1 is the first policy and w = 0 is SACPO; the map from preference to q is ours.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import PolicySpec, policy
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import one_of_two


class SACPOSettings(MethodSettings):
    """`first` is the objective aligned first; `beta` is that of the second step, by default the suite's."""

    first: str = "helpful"
    beta: float | None = Field(None, gt=0)


class SACPO(Method):
    """Align stepwise, then merge the two steps' policies by preference."""

    name = "sacpo"
    reference = "Wachi et al. 2024, arXiv 2404.11049"
    trains = "helpfulness, then safety from there"
    costs = "2 U"
    exact = "both steps, and linear merges of them"
    ours = "preference 1 - q for the merge q"
    Settings = SACPOSettings

    def build(self, world: World) -> Build:
        """Train step 1 (the expert that others share), write its policy out, train step 2 from it."""
        main = one_of_two(self.name, self.settings.first, world)
        one, base = world.aspects[main], world.reference.id
        aligned = policy(base, [(one.id, 1.0)])
        start = Job("merged", {"spec": aligned.to_json()}, {"reference": world.reference, "one": one})
        changes = {} if self.settings.beta is None else {"learner_beta": self.settings.beta}
        plain = world.dpo(world.names[1 - main], **changes)
        two = Job(plain.kind, plain.params, {"reference": start, "pairs": plain.needs["pairs"]})
        handles = yield Round([two])
        stacked = handles[two.id].result["form"] == "lora"  # an adapter holds the second step alone, a model both

        def at(w: Preference) -> PolicySpec:
            q = 1.0 - w[self.settings.first]
            return policy(base, [(one.id, 1.0 if stacked else 1.0 - q), (two.id, q)])

        return PolicyFamily(space=Space("simplex"), at=at)
