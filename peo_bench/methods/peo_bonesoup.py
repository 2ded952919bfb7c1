"""PEO with a strength per objective: theta_ref + mu k_1 tau_1 + (1 - mu) k_2 tau_2 (after Bone Soups, 2502.10762).

k_i is found at the pure preference for objective i, where it alone counts, and the preference mu then blends the two
strengthened experts. A strength of 1 is the expert itself, so with k = (1, 1) this is the soup. Strengths run from half
the expert to where KL's square law meets the KL budget.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.evaluation.kl_budget import EVALUATIONS, keeps, kl_budget, shares, times_until
from peo_bench.evaluation.validation import read_candidates, utility_scores, validation_bound
from peo_bench.jobs.job import Job


class PEOBonesoupSettings(MethodSettings):
    """`budget` evaluations shared by the objectives; `max_kl` in nats, by default 1.5 or the largest expert's."""

    budget: int = Field(EVALUATIONS, ge=6)
    max_kl: float | None = Field(None, gt=0)


class PEOBonesoup(Method):
    """Blend experts that were strengthened one by one on validation prompts."""

    name = "peo-bonesoup"
    reference = "PEO, arXiv 2503.01233, after Bone Soups, arXiv 2502.10762"
    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    exact = "blend of strengthened experts"
    ours = "the grid of strengths, up to a KL budget"
    Settings = PEOBonesoupSettings
    expo_adds = False

    def build(self, world: World) -> Build:
        """Choose every expert's strength by its own objective's proxy; then blend with the preference."""
        base, ids, m = world.reference.id, [job.id for job in world.aspects], len(world.objectives)
        left = self.settings.budget - m

        def score(strengths: Sequence[Sequence[float]], units: bool) -> Job:
            specs = [policy(base, [(name, k)]).to_json() for name, own in zip(ids, strengths, strict=True) for k in own]
            return world.validation_job("candidates", {"specs": specs, "units": units}, world.aspects)

        start = score([[1.0]] * m, units=True)
        handles = yield Round([start], later=validation_bound(world, left))
        experts = read_candidates(handles[start.id])
        max_kl = kl_budget(self.settings.max_kl or world.max_kl, experts.points)
        ends = [times_until(max_kl, expert.kl) for expert in experts.points]
        counts = shares(left, ends)
        strengths = [
            np.linspace(min(0.5, end / 2), end, n).round(3).tolist() for end, n in zip(ends, counts, strict=True)
        ]
        job = score(strengths, units=False)
        found = iter(read_candidates((yield Round([job]))[job.id]).points)
        chosen = []
        for i, expert in enumerate(experts.points):
            points = [expert, *itertools.islice(found, counts[i])]
            own = utility_scores(points, experts.reference, world.objectives)[:, i]
            within = keeps(max_kl, points, starts=1)
            best = int(np.argmax(np.where(within, own, -np.inf)))
            chosen.append([1.0, *strengths[i]][best] if within[best] else 0.0)

        def coefficients(w: Preference) -> tuple[float, ...]:
            return tuple(weight * k for weight, k in zip(w.weights, chosen, strict=True))

        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, coefficients(w), strict=True)),
            coefficients=coefficients,
            chosen={"strengths": chosen, "max_kl": max_kl},
        )
