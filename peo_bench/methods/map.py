"""MAP: model merging with amortised Pareto fronts (Li et al. 2024, arXiv 2406.12845), on the experts' task vectors.

theta(c) = theta_ref + sum_i c_i tau_i is scored at a few coefficients c, every objective's score is fitted by a
quadratic a + b . c + c' A c, and the Pareto front of the *fitted* scores is found by an evolutionary algorithm, which
costs nothing. Published: NSGA-III, population 100, 150 generations, SBX and polynomial mutation with eta 20, at least
(m + 1)(m + 2) / 2 evaluations; the paper links bounded metrics through a sigmoid, ours are unbounded scores. Here there
are 100 evenly spread reference directions (the authors' code has those of 2 + 1 partitions, about five for two
objectives), crossover (0.7) and mutation (0.3) can both befall one child (there one excludes the other), and the box is
ours (there [-3, 3]). A preference takes the point of that front with the highest fitted utility. Ours: the points are a
scrambled Sobol sequence plus the corners, the box ends per expert where KL's square law meets the KL budget, and the
upper end of KL is fitted like a score, by the fit's error too high, so that the evolutionary search stays within it.

Unlike PEO's third phase it never looks at its choice again: the fit is believed (mind the winner's curse).
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.evaluation.kl_budget import EVALUATIONS, kl_budget, require_evaluations, times_until
from peo_bench.evaluation.validation import read_candidates, utility_scores, validation_bound
from peo_bench.jobs.job import Job
from peo_bench.training.search import fit_error, fit_quadratic, surrogate_front

Floats = npt.NDArray[np.float64]


class MAPSettings(MethodSettings):
    """`budget` evaluations within `max_kl` nats (default: 1.5 or the largest expert's); `optimiser` finds the front."""

    budget: int = Field(EVALUATIONS, ge=8)
    max_kl: float | None = Field(None, gt=0)
    optimiser: Literal["nsga2", "nsga3", "moead"] = "nsga3"


class MAP(Method):
    """Fit quadratics to a few merged models' scores and walk along the fitted front."""

    name = "map"
    reference = "Li et al. 2024, arXiv 2406.12845"
    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    exact = "quadratic fits; NSGA-III with the published population, generations and eta"
    ours = "KL budget, box, sample, reference directions, preference by highest fitted utility"
    Settings = MAPSettings
    expo_adds = False

    def build(self, world: World) -> Build:
        """Score the sample on validation prompts, fit, find the front; a preference takes its best fitted point."""
        m, settings = len(world.objectives), self.settings
        needed = m + (m + 1) * (m + 2) // 2
        require_evaluations(self.name, settings.budget, needed, f"{m} experts and a quadratic")
        base, ids = world.reference.id, [job.id for job in world.aspects]

        def score(sample: Floats, units: bool) -> Job:
            specs = [policy(base, zip(ids, c.tolist(), strict=True)).to_json() for c in sample]
            return world.validation_job("candidates", {"specs": specs, "units": units}, world.aspects)

        start = score(np.eye(m), units=True)
        handles = yield Round([start], later=validation_bound(world, settings.budget - m))
        experts = read_candidates(handles[start.id])
        max_kl = kl_budget(settings.max_kl or world.max_kl, experts.points)
        high = np.array([times_until(max_kl, point.kl) for point in experts.points]).round(3)
        sample = box_sample(m, settings.budget - m, world.seed)
        job = score(sample * high, units=False)
        points = experts.points + read_candidates((yield Round([job]))[job.id]).points
        excess = [[point.kl_upper - max_kl] for point in points]
        values = np.hstack([utility_scores(points, experts.reference, world.objectives), excess])
        where = np.vstack([np.eye(m) / high, sample])
        values[:, -1] += fit_error(where, values[:, -1:])
        fit = fit_quadratic(where, values)
        front = surrogate_front(fit, m, world.seed, settings.optimiser)
        if fit(front)[:, -1].min() > 0:
            front = np.zeros((1, m))  # the fit sees nothing within the budget but the reference policy
        fitted = fit(front)[:, :-1]

        def coefficients(w: Preference) -> tuple[float, ...]:
            return tuple(float(c) for c in high * front[int(np.argmax(fitted @ np.asarray(w.weights)))])

        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, coefficients(w), strict=True)),
            coefficients=coefficients,
            chosen={"max_kl": max_kl, "front_points": len(front)},
        )


def box_sample(m: int, n: int, seed: int) -> Floats:
    """Return `n` points of the unit box (n, m): as many of its corners as fit, then a scrambled Sobol sequence."""
    from scipy.stats import qmc

    corners = np.array(list(itertools.product((0.0, 1.0), repeat=m)))[: n // 2]
    inner = qmc.Sobol(m, seed=seed).random_base2(int(np.ceil(np.log2(max(2, n)))))[: n - len(corners)]
    return np.vstack([corners, inner])
