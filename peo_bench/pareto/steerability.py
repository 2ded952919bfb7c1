"""Does a method give what is asked for? Asked weights against obtained scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from peo_bench.pareto.checks import Directions, directions, validate_points, validate_weights


@dataclass(frozen=True)
class Steerability:
    """How a family answers to the asked weight, one entry per objective.

    ``rank_correlation``: Spearman's between the objective's weight and its score, 1 is best; None where the scores or
    weights are all equal. ``violations``: how many of the ``steps`` to the next higher weight made the score worse.
    ``span``: score at the highest weight minus score at the lowest, in the score's units, positive when steering
    works. ``distinct``: share of different policies among the preferences asked for, in (0, 1]. ``coverage``: share of
    the range of asked weights that the projected ones span, in [0, 1].
    """

    rank_correlation: tuple[float | None, ...]
    violations: tuple[int, ...]
    steps: tuple[int, ...]
    span: tuple[float, ...]
    distinct: float
    coverage: float


def steerability(asked: ArrayLike, projected: ArrayLike, means: ArrayLike, maximise: Directions) -> Steerability:
    """Compare asked weights with obtained mean scores.

    ``asked``, ``projected``: (n_preferences, n_objectives) on the simplex, what was asked for and what the method
    offers for it; ``means``: the scores of the policies offered, same shape. Steps are taken between neighbouring
    weights of one objective; policies with equal weight count by their mean. Raises ValueError with fewer than 2
    preferences. O(n log n).

    >>> found = steerability([[0, 1], [1, 0]], [[0, 1], [1, 0]], [[0.1, -1.0], [0.5, 2.0]], [True, False])
    >>> found.span, found.violations
    ((0.4, 3.0), (0, 0))
    """
    scores = validate_points(means)
    weights = validate_weights(asked, scores.shape[1])
    offered = validate_weights(projected, scores.shape[1])
    if not len(weights) == len(offered) == len(scores) >= 2:
        raise ValueError(
            f"asked, projected and means need one length, at least 2: {len(weights)}, {len(offered)}, {len(scores)}"
        )
    gains = scores * directions(maximise, scores.shape[1])
    correlations, violations, steps, spans = [], [], [], []
    for weight, gain in zip(weights.T, gains.T, strict=True):
        levels = np.unique(weight)
        curve = np.array([gain[weight == level].mean() for level in levels])
        flat = len(levels) < 2 or np.ptp(curve) == 0
        correlations.append(None if flat else float(stats.spearmanr(levels, curve).statistic))
        violations.append(int(np.count_nonzero(np.diff(curve) < 0)))
        steps.append(len(levels) - 1)
        spans.append(float(curve[-1] - curve[0]))
    ranges = np.ptp(weights, axis=0)
    covered = np.ptp(offered, axis=0)[ranges > 0] / ranges[ranges > 0]
    return Steerability(
        tuple(correlations),
        tuple(violations),
        tuple(steps),
        tuple(spans),
        len(np.unique(offered.round(9), axis=0)) / len(np.unique(weights.round(9), axis=0)),
        float(covered.mean()) if len(covered) else 0.0,
    )
