"""Indicators of one front, or of one front against another.

Sets of points have shape (n_points, n_objectives); ``maximise`` gives each objective's direction. Scores stay as the
model gives them: a cost is passed with ``maximise=False``, never negated by the caller. Indicators that measure
distances or add objectives up (IGD+, epsilon, EUM, R2, spacing, sparsity, steered utility) want one scale for all.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike
from pymoo.indicators.spacing import SpacingIndicator

from peo_bench.pareto.checks import (
    BoolArray,
    Directions,
    FloatArray,
    directions,
    require_finite,
    validate_points,
    validate_reference,
    validate_weights,
)


def nondominated(points: ArrayLike, maximise: Directions) -> BoolArray:
    """Return the mask (n_points,) of the points that no other point dominates.

    a dominates b if it is at least as good in every objective and better in one; so duplicates do not dominate.
    O(n log n) for 2 and 3 objectives (Kung, Luccio & Preparata 1975); computed by moocore.

    >>> nondominated([[1, 2], [2, 1], [1, 1], [2, 1]], maximise=True)
    array([ True,  True, False,  True])
    """
    array = validate_points(points)
    if not len(array):
        return np.zeros(0, dtype=bool)
    signs = directions(maximise, array.shape[1])
    return np.asarray(moocore.is_nondominated(array * -signs, keep_weakly=True), dtype=bool)


def hypervolume(points: ArrayLike, reference: ArrayLike, maximise: Directions) -> float:
    """Return the volume that ``points`` dominate within the bound ``reference`` (n_objectives,).

    Higher is better; the unit is the product of the objectives' units. Points that are not better than the reference
    in every objective contribute nothing (`n_beyond_reference` counts them); an empty set gives 0.0. O(n log n) for 2
    and 3 objectives. Zitzler & Thiele 1998; computed by moocore.

    >>> hypervolume([[1, 3], [2, 2], [3, 1]], reference=[0, 0], maximise=True)
    6.0
    >>> hypervolume([[1.0, -1.0]], reference=[0, 1], maximise=[True, False])
    2.0
    """
    bound = validate_reference(reference)
    array = validate_points(points, n_objectives=len(bound))
    signs = directions(maximise, len(bound))
    return volume(array * -signs, bound * -signs)


def volume(costs: FloatArray, bound: FloatArray) -> float:
    """Return the hypervolume of validated points, every objective minimised: `hypervolume` without its checks."""
    return float(moocore.hypervolume(costs, ref=bound)) if len(costs) else 0.0


def n_beyond_reference(points: ArrayLike, reference: ArrayLike, maximise: Directions) -> int:
    """Count the points that cannot add volume: those not strictly better than ``reference`` everywhere.

    A count above zero deserves a banner. O(n).

    >>> n_beyond_reference([[1, 1], [2, 0]], reference=[0, 0], maximise=True)
    1
    """
    bound = validate_reference(reference)
    array = validate_points(points, n_objectives=len(bound))
    signs = directions(maximise, len(bound))
    return int(np.count_nonzero(~np.all(array * signs > bound * signs, axis=1)))


def exclusive_contributions(points: ArrayLike, reference: ArrayLike, maximise: Directions) -> FloatArray:
    """Return by point (n_points,) the volume that only it dominates among the *non-dominated* points; higher is better.

    Dominated points have 0 and are left aside for the others; duplicates have 0, since each leaves the other's volume
    as it is. At least 2 objectives; O(n log n) for 2 and 3. Knowles & Corne 2003; computed by moocore.

    >>> exclusive_contributions([[1, 3], [2, 2], [3, 1], [1, 1]], reference=[0, 0], maximise=True).tolist()
    [1.0, 1.0, 1.0, 0.0]
    """
    bound = validate_reference(reference)
    array = validate_points(points, n_objectives=len(bound))
    if not len(array):
        return np.zeros(0)
    signs = directions(maximise, len(bound))
    return np.asarray(moocore.hv_contributions(array * -signs, ref=bound * -signs), dtype=np.float64)


def hypervolume_by_reference(points: ArrayLike, references: ArrayLike, maximise: Directions) -> FloatArray:
    """Return the hypervolume (n_references,) at each row of ``references`` (n_references, n_objectives).

    Shows whether a ranking hangs on the choice of the reference point. One `hypervolume` per reference.

    >>> hypervolume_by_reference([[1, 1]], [[0, 0], [-1, 0]], maximise=True).tolist()
    [1.0, 2.0]
    """
    return np.array([hypervolume(points, bound, maximise) for bound in validate_points(references)])


def hypervolume_within(
    points: ArrayLike, spent: ArrayLike, budgets: ArrayLike, reference: ArrayLike, maximise: Directions
) -> FloatArray:
    """Return the hypervolume (n_budgets,) of the points whose ``spent`` (n_points,) is at most each budget.

    With the KL to the reference policy as what is spent, methods are compared at equal distance from where they
    started. A budget that no point keeps gives 0.0. One `hypervolume` per budget.

    >>> hypervolume_within([[1, 1], [2, 2]], [0.5, 3.0], [0.1, 1.0, 5.0], [0, 0], maximise=True).tolist()
    [0.0, 1.0, 4.0]
    """
    array = validate_points(points)
    used, limits = (np.atleast_1d(np.array(values, dtype=np.float64)) for values in (spent, budgets))
    require_finite(used, "spent")
    require_finite(limits, "budgets")
    if used.shape != (len(array),):
        raise ValueError(f"spent must have one value for each of the {len(array)} points, got shape {used.shape}")
    return np.array([hypervolume(array[used <= limit], reference, maximise) for limit in limits])


def staircase(points: ArrayLike, reference: ArrayLike, maximise: Directions) -> FloatArray:
    """Return the vertices (n_vertices, 2) of the boundary of the region that two-objective points attain.

    The path starts on the reference's x, visits the non-dominated points from worst to best x and ends on the
    reference's y; closed through the reference point it encloses exactly the `hypervolume`. Between two points it moves
    along y first: the other corner was attained by none. Without points better than the reference it is empty.
    O(n log n).

    >>> staircase([[1, 2], [2, 1]], [0, 0], maximise=True).tolist()
    [[0.0, 2.0], [1.0, 2.0], [1.0, 1.0], [2.0, 1.0], [2.0, 0.0]]
    """
    bound = validate_reference(reference)
    if len(bound) != 2:
        raise ValueError(f"a staircase needs two objectives, got {len(bound)}")
    array = validate_points(points, n_objectives=2)
    signs = directions(maximise, 2)
    inside = array[np.all(array * signs > bound * signs, axis=1)]
    corners = np.unique(inside[nondominated(inside, maximise)], axis=0)[:: int(signs[0])]
    if not len(corners):
        return np.empty((0, 2))
    x = np.concatenate([[bound[0]], np.repeat(corners[:, 0], 2)])
    y = np.concatenate([np.repeat(corners[:, 1], 2), [bound[1]]])
    return np.column_stack([x, y])


def igd_plus(points: ArrayLike, target: ArrayLike, maximise: Directions) -> float:
    """Return IGD+ of ``points`` against the front ``target``; lower is better, 0 means none is missed.

    Mean over the target's points z of min_a sqrt(sum_k max(0, shortfall_k)^2), the least by which a point a falls
    short of z; unlike in IGD, objectives in which a is better do not count (Ishibuchi et al. 2015, EMO, "Modified
    distance calculation"). O(n_points n_target). Raises ValueError if either set is empty.

    >>> igd_plus([[0.0, 5.0]], [[3.0, 4.0]], maximise=True)
    3.0
    """
    array, front, signs = _against(points, target, maximise)
    return float(moocore.igd_plus(array * -signs, ref=front * -signs))


def additive_epsilon(points: ArrayLike, target: ArrayLike, maximise: Directions) -> float:
    """Return the least shift by which ``points`` come to weakly dominate all of ``target``; lower is better.

    Negative where they dominate it with room to spare. O(n_points n_target). Zitzler et al. 2003, IEEE TEC 7(2).
    Raises ValueError if either set is empty.

    >>> additive_epsilon([[1, 3], [3, 1]], [[2, 2]], maximise=True)
    1.0
    """
    array, front, signs = _against(points, target, maximise)
    return float(moocore.epsilon_additive(array * -signs, ref=front * -signs))


def coverage(points: ArrayLike, other: ArrayLike, maximise: Directions) -> float:
    """Return C(points, other), the share of ``other`` that some point weakly dominates, in [0, 1].

    Not symmetric: give C(a, b) and C(b, a). O(n_points n_other). Zitzler & Thiele 1998. Raises ValueError if either
    set is empty.

    >>> coverage([[2, 2]], [[1, 1], [3, 1]], maximise=True), coverage([[1, 1], [3, 1]], [[2, 2]], maximise=True)
    (0.5, 0.0)
    """
    array, front, signs = _against(points, other, maximise)
    covers = np.all(array[:, None] * signs >= front[None] * signs, axis=2)
    return float(covers.any(axis=0).mean())


def expected_utility(points: ArrayLike, weights: ArrayLike, maximise: Directions) -> float:
    """Return EUM: the mean over preferences w of the best w . score among ``points``; higher is better.

    It supposes that the user finds the best policy for w; `steered_utility` takes the one that the method offers for
    w. ``weights``: (n_preferences, n_objectives). O(n_points n_preferences). Zintgraf et al. 2015. An empty set raises
    ValueError.

    >>> expected_utility([[1, 0], [0, 1]], [[1, 0], [0.5, 0.5], [0, 1]], maximise=True) == 2.5 / 3
    True
    """
    array = validate_points(points)
    if not len(array):
        raise ValueError("the expected utility needs at least one point")
    simplex = validate_weights(weights, array.shape[1])
    return float(best_utility(array, simplex, directions(maximise, array.shape[1])))


def steered_utility(means: ArrayLike, weights: ArrayLike, maximise: Directions) -> float:
    """Return the mean over preferences w of w . score of the policy offered for w; higher is better.

    Row i of ``means`` (n_preferences, n_objectives) are the scores of the policy offered for row i of ``weights`` (same
    shape, non-negative, rows sum to 1); minimised objectives enter with a minus. It is linear in the means, so its
    paired test holds its level where a hypervolume's does not. Papers on steerable models call it the mean inner
    product, MIP (Panacea, arXiv 2402.02030). O(n_preferences n_objectives).

    >>> steered_utility([[2.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], maximise=[True, False])
    1.0
    """
    array = validate_points(means)
    simplex = validate_weights(weights, array.shape[1])
    if simplex.shape != array.shape:
        raise ValueError(f"weights must have the shape of the means {array.shape}, got {simplex.shape}")
    return float(utility(array, simplex, directions(maximise, array.shape[1])))


mean_inner_product = steered_utility


def utility(means: FloatArray, simplex: FloatArray, signs: FloatArray) -> FloatArray:
    """Return `steered_utility` of stacked means (..., n_preferences, n_objectives), without its checks."""
    return np.asarray(np.mean(np.sum(simplex * signs * means, axis=-1), axis=-1))


def best_utility(means: FloatArray, simplex: FloatArray, signs: FloatArray) -> FloatArray:
    """Return `expected_utility` of stacked means (..., n_points, n_objectives), without its checks."""
    return np.asarray((simplex * signs @ np.swapaxes(means, -1, -2)).max(axis=-1).mean(axis=-1))


def r2(points: ArrayLike, ideal: ArrayLike, weights: ArrayLike, maximise: Directions) -> float:
    """Return R2: the mean over w of min_a max_k w_k |ideal_k - a_k|, the weighted Tchebycheff gap; lower is better.

    ``ideal`` (n_objectives,) must be at least as good as every point; ``weights``: (n_preferences, n_objectives).
    O(n_points n_preferences n_objectives). Hansen & Jaszkiewicz 1998, in the unary form of Brockhoff et al. 2012.

    >>> r2([[1, 0], [0, 1]], ideal=[1, 1], weights=[[1, 0], [0.5, 0.5]], maximise=True)
    0.25
    """
    best = validate_reference(ideal)
    array = validate_points(points, n_objectives=len(best))
    if not len(array):
        raise ValueError("R2 needs at least one point")
    gaps = (best - array) * directions(maximise, len(best))
    if (gaps < 0).any():
        raise ValueError("R2 needs an ideal point that no point exceeds")
    simplex = validate_weights(weights, len(best))
    return float((simplex[:, None] * gaps[None]).max(axis=2).min(axis=1).mean())


def spacing(points: ArrayLike, maximise: Directions) -> float:
    """Return the standard deviation of the non-dominated points' distances to their nearest one; 0 is even.

    L1 distances (Schott 1995, with n instead of n - 1 in the denominator); computed by pymoo. It says nothing of how
    good or how wide a front is: two close points are perfectly even. NaN with fewer than 2 distinct points. O(n^2).

    >>> spacing([[0, 3], [1, 2], [2, 1], [3, 0]], maximise=True)
    0.0
    """
    front = np.unique(_front(points, maximise), axis=0)
    return float(SpacingIndicator().do(front)) if len(front) > 1 else float("nan")


def sparsity(points: ArrayLike, maximise: Directions) -> float:
    """Return the mean squared gap between neighbours on the front, summed over objectives; lower is denser.

    1/(n-1) sum_k sum_i (f_k(i) - f_k(i+1))^2 over the front sorted by objective k (Xu et al. 2020, PGMORL). It
    misleads: a front that collapses to one place is the densest of all, and dropping its extremes improves it. Never
    rank by it. NaN with fewer than 2 distinct points. O(n log n).

    >>> sparsity([[0, 2], [1, 1], [2, 0]], maximise=True)
    2.0
    """
    front = np.unique(_front(points, maximise), axis=0)
    if len(front) < 2:
        return float("nan")
    return float(np.sum(np.diff(np.sort(front, axis=0), axis=0) ** 2) / (len(front) - 1))


def _front(points: ArrayLike, maximise: Directions) -> FloatArray:
    array = validate_points(points)
    return array[nondominated(array, maximise)]


def _against(points: ArrayLike, other: ArrayLike, maximise: Directions) -> tuple[FloatArray, FloatArray, FloatArray]:
    front = validate_points(other)
    array = validate_points(points, n_objectives=front.shape[1] if len(front) else None)
    if not len(array) or not len(front):
        raise ValueError("comparing two sets needs at least one point in each")
    return array, front, directions(maximise, front.shape[1])
