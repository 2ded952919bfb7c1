"""MAP: model merging with amortised Pareto fronts (Li et al. 2024, arXiv 2406.12845), on the experts' task vectors.

theta(c) = theta_ref + sum_i c_i tau_i is scored at a few coefficients c, every objective's score is fitted by a
quadratic a + b . c + c' A c, and the Pareto front of the *fitted* scores is found by an evolutionary algorithm, which
costs nothing. Published: NSGA-III, population 100, 150 generations, SBX and polynomial mutation with eta 20, at least
(m + 1)(m + 2) / 2 evaluations; the paper links bounded metrics through a sigmoid, ours are unbounded scores. A
preference takes the point of that front with the highest fitted utility. Ours: the box is [0, `reach`] in units in
which 1 is the expert, the points are a scrambled Sobol sequence plus the corners.

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
from peo_bench.errors import UsageError
from peo_bench.evaluation.validation import utility_scores
from peo_bench.training.search import fit_quadratic, surrogate_front

Floats = npt.NDArray[np.float64]


class MAPSettings(MethodSettings):
    """`budget` evaluations in the box [0, `reach`]; `optimiser` finds the front of the fitted scores."""

    budget: int = Field(36, ge=6)
    reach: float = Field(1.5, gt=0)
    optimiser: Literal["nsga2", "nsga3", "moead"] = "nsga3"


class MAP(Method):
    """Fit quadratics to a few merged models' scores and walk along the fitted front."""

    name = "map"
    reference = "Li et al. 2024, arXiv 2406.12845"
    trains = "one expert per objective"
    costs = "2 U, 37 evaluations"
    exact = "quadratic fits and NSGA-III with the published settings"
    ours = "box, sample, preference by highest fitted utility"
    Settings = MAPSettings

    def build(self, world: World) -> Build:
        """Score the sample on validation prompts, fit, find the front; a preference takes its best fitted point."""
        m, settings = len(world.objectives), self.settings
        needed = (m + 1) * (m + 2) // 2
        if settings.budget < needed:
            raise UsageError(f"map.budget={settings.budget}: quadratics of {m} coefficients need {needed} evaluations")
        base, ids = world.reference.id, [job.id for job in world.aspects]
        sample = settings.reach * box_sample(m, settings.budget, world.seed)
        specs = [policy(base, zip(ids, c.tolist(), strict=True)).to_json() for c in sample]
        job = world.validation_job("candidates", {"specs": specs}, world.aspects)
        result = (yield Round([job]))[job.id].result
        scores = utility_scores(result["points"], result["reference"], world.objectives)
        fit = fit_quadratic(sample / settings.reach, scores)
        front = surrogate_front(fit, m, world.seed, settings.optimiser)
        fitted = fit(front)

        def coefficients(w: Preference) -> tuple[float, ...]:
            return tuple(float(c) for c in settings.reach * front[int(np.argmax(fitted @ np.asarray(w.weights)))])

        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, coefficients(w), strict=True)),
            coefficients=coefficients,
            chosen={"front_points": len(front)},
        )


def box_sample(m: int, n: int, seed: int) -> Floats:
    """Return `n` points of the unit box (n, m): as many of its corners as fit, then a scrambled Sobol sequence."""
    from scipy.stats import qmc

    corners = np.array(list(itertools.product((0.0, 1.0), repeat=m)))[: n // 2]
    inner = qmc.Sobol(m, seed=seed).random_base2(int(np.ceil(np.log2(max(2, n)))))[: n - len(corners)]
    return np.vstack([corners, inner])
