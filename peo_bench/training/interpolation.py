"""Phase 2 of PEO: the generalist, the best interpolation of the experts (arXiv 2503.01233; the criterion is ours).

theta_gen = theta_ref + sum_i phi_i tau_i with phi on the simplex. The paper's own weights are not available to us; here
phi maximises the mean over objectives of the z-scored proxy (a cost negated) on validation prompts, over a grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from peo_bench.core.method import Objective
from peo_bench.evaluation.validation import utility_scores
from peo_bench.jobs.job import Handle


def simplex_grid(n: int) -> list[tuple[float, float]]:
    """Return `n` evenly spaced points of the 2-simplex, from (0, 1) to (1, 0).

    >>> simplex_grid(3)
    [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    """
    return [(i / (n - 1), 1 - i / (n - 1)) for i in range(n)]


def choose_generalist(
    phis: Sequence[tuple[float, float]], candidates: Handle, objectives: Sequence[Objective]
) -> tuple[float, float]:
    """Return the phi whose validation point has the highest mean utility (ties: the first)."""
    scores = utility_scores(candidates.result["points"], candidates.result["reference"], objectives)
    return phis[int(np.argmax(scores.mean(axis=1)))]
