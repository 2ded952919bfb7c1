"""Numerics of fronts: non-dominance, hypervolume, steered utility and their paired bootstrap.

Arrays in, arrays out. Nothing here knows of files, methods or plots.

Convention: a set of points has shape (n_points, n_objectives) and one direction per objective, ``maximise`` (True:
higher is better; one bool stands for all). Scores stay as the model gives them: a cost is passed with
``maximise=False``, never negated by the caller. Inputs are validated first, because pymoo and moocore drop NaN rows
silently and turn -inf into an infinite hypervolume, and they are never mutated.

Uncertainty: the unit of resampling is the prompt. All methods share one draw of prompts (paired), so noise that prompts
have in common cancels in differences. With one training seed an interval says nothing about training variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Directions = bool | Sequence[bool] | BoolArray


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % percentile bootstrap interval.

    ``bias`` is mean(resamples) - value: clearly positive for a hypervolume whose front owes its points to noise.
    ``resamples`` (n_resamples,) are kept so that differences can be paired.
    """

    value: float
    ci_low: float
    ci_high: float
    bias: float
    resamples: FloatArray

    def as_dict(self) -> dict[str, float]:
        """Return value, ci_low, ci_high and bias, ready for ``metrics.json``."""
        return {"value": self.value, "ci_low": self.ci_low, "ci_high": self.ci_high, "bias": self.bias}


def validate_points(points: ArrayLike, *, n_objectives: int | None = None) -> FloatArray:
    """Return ``points`` as a new float64 array of shape (n_points, n_objectives).

    An empty set is valid. Raises ValueError for other shapes and for NaN or infinite values, naming the first.
    """
    array = np.array(points, dtype=np.float64)
    if array.size == 0 and array.ndim <= 2:
        return np.empty((0, n_objectives or (array.shape[1] if array.ndim == 2 else 0)))
    if array.ndim != 2:
        raise ValueError(f"points must have shape (n_points, n_objectives), got shape {array.shape}")
    if n_objectives is not None and array.shape[1] != n_objectives:
        raise ValueError(f"points have {array.shape[1]} objectives, expected {n_objectives}")
    _require_finite(array, "points")
    return array


def nondominated(points: ArrayLike, maximise: Directions) -> BoolArray:
    """Return the mask (n_points,) of the points that no other point dominates.

    a dominates b if it is at least as good in every objective and better in one; so duplicates do not dominate.

    >>> nondominated([[1, 2], [2, 1], [1, 1], [2, 1]], maximise=True)
    array([ True,  True, False,  True])
    """
    array = validate_points(points)
    if not len(array):
        return np.zeros(0, dtype=bool)
    signs = _directions(maximise, array.shape[1])
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
    bound = _reference(reference)
    array = validate_points(points, n_objectives=len(bound))
    signs = _directions(maximise, len(bound))
    return _volume(array * -signs, bound * -signs)


def n_beyond_reference(points: ArrayLike, reference: ArrayLike, maximise: Directions) -> int:
    """Count the points that cannot add volume: those not strictly better than ``reference`` everywhere.

    A count above zero deserves a banner.
    """
    bound = _reference(reference)
    array = validate_points(points, n_objectives=len(bound))
    signs = _directions(maximise, len(bound))
    return int(np.count_nonzero(~np.all(array * signs > bound * signs, axis=1)))


def staircase(points: ArrayLike, reference: ArrayLike, maximise: Directions) -> FloatArray:
    """Return the vertices (n_vertices, 2) of the boundary of the region that two-objective points attain.

    The path starts on the reference's x, visits the non-dominated points from worst to best x and ends on the
    reference's y; closed through the reference point it encloses exactly the `hypervolume`. Between two points it moves
    along y first: the other corner was attained by none. Without points better than the reference it is empty.

    >>> staircase([[1, 2], [2, 1]], [0, 0], maximise=True).tolist()
    [[0.0, 2.0], [1.0, 2.0], [1.0, 1.0], [2.0, 1.0], [2.0, 0.0]]
    """
    bound = _reference(reference)
    if len(bound) != 2:
        raise ValueError(f"a staircase needs two objectives, got {len(bound)}")
    array = validate_points(points, n_objectives=2)
    signs = _directions(maximise, 2)
    inside = array[np.all(array * signs > bound * signs, axis=1)]
    corners = np.unique(inside[nondominated(inside, maximise)], axis=0)[:: int(signs[0])]
    if not len(corners):
        return np.empty((0, 2))
    x = np.concatenate([[bound[0]], np.repeat(corners[:, 0], 2)])
    y = np.concatenate([np.repeat(corners[:, 1], 2), [bound[1]]])
    return np.column_stack([x, y])


def distance_to_front(points: ArrayLike, oracle: ArrayLike, maximise: Directions) -> float:
    """Return IGD+ of ``points`` against the front ``oracle``; lower is better, 0 means none is missed.

    Mean over the oracle's points z of min_a sqrt(sum_k max(0, shortfall_k)^2), the least by which a point a falls
    short of z; unlike in IGD, objectives in which a is better do not count (Ishibuchi et al. 2015, EMO, "Modified
    distance calculation"). Bring objectives to one scale first. Raises ValueError if either set is empty.

    >>> distance_to_front([[0.0, 5.0]], [[3.0, 4.0]], maximise=True)
    3.0
    """
    target = validate_points(oracle)
    array = validate_points(points, n_objectives=target.shape[1])
    if not len(array) or not len(target):
        raise ValueError("the distance to a front needs at least one point in both sets")
    signs = _directions(maximise, target.shape[1])
    return float(moocore.igd_plus(array * -signs, ref=target * -signs))


def steered_utility(means: ArrayLike, weights: ArrayLike, maximise: Directions) -> float:
    """Return the mean over preferences w of w . score; higher is better.

    Row i of ``means`` (n_preferences, n_objectives) are the scores of the policy offered for row i of ``weights`` (same
    shape, non-negative, rows sum to 1); minimised objectives enter with a minus. It is linear in the means, so its
    paired test holds its level where a hypervolume's does not.

    >>> steered_utility([[2.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], maximise=[True, False])
    1.0
    """
    array = validate_points(means)
    simplex = _weights(weights, array.shape)
    return float(_utility(array, simplex, _directions(maximise, array.shape[1])))


def bootstrap_hypervolume(
    scores: Mapping[str, ArrayLike],
    reference: ArrayLike,
    maximise: Directions,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate each method's hypervolume with a paired bootstrap over prompts.

    ``scores[method]`` has shape (n_policies, n_prompts, n_objectives); n_policies may differ, prompt j must be the same
    prompt in all methods. A hypervolume is a maximum over noisy points and favours collapsed fronts: read ``bias``, and
    rest no verdict on it.
    """
    bound = _reference(reference)
    signs = _directions(maximise, len(bound))

    def volumes(means: FloatArray) -> FloatArray:
        return np.array([_volume(mean, bound * -signs) for mean in means * -signs])

    return _bootstrap(scores, len(bound), volumes, n_resamples, seed)


def bootstrap_steered_utility(
    scores: Mapping[str, ArrayLike],
    weights: ArrayLike,
    maximise: Directions,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate each method's `steered_utility` with a paired bootstrap over prompts.

    ``scores[method]``: (n_preferences, n_prompts, n_objectives); ``weights``: (n_preferences, n_objectives).
    """
    simplex = np.asarray(weights, dtype=np.float64)
    if simplex.ndim != 2:
        raise ValueError(f"weights must have shape (n_preferences, n_objectives), got {simplex.shape}")

    signs = _directions(maximise, simplex.shape[1])

    def utilities(means: FloatArray) -> FloatArray:
        return _utility(means, _weights(simplex, means.shape[1:]), signs)

    return _bootstrap(scores, simplex.shape[1], utilities, n_resamples, seed)


def paired_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return the estimate of a - b; both must come from one call of a ``bootstrap_*`` function.

    Raises ValueError if the numbers of resamples differ (then they cannot be paired).
    """
    if a.resamples.shape != b.resamples.shape:
        raise ValueError(f"cannot pair {len(a.resamples)} resamples with {len(b.resamples)}")
    return _estimate(a.value - b.value, a.resamples - b.resamples)


def resample_counts(n_prompts: int, n_resamples: int, seed: int) -> FloatArray:
    """Draw how often each prompt occurs in each bootstrap resample: (n_resamples, n_prompts), rows sum to n_prompts."""
    shares = np.full(n_prompts, 1.0 / n_prompts)
    return np.random.default_rng(seed).multinomial(n_prompts, shares, size=n_resamples).astype(np.float64)


def _bootstrap(
    scores: Mapping[str, ArrayLike],
    n_objectives: int,
    statistic: Callable[[FloatArray], FloatArray],
    n_resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """Apply ``statistic``, from stacked means (n_sets, n_policies, n_objectives) to (n_sets,), to all resamples."""
    arrays = {method: _validate_scores(method, values, n_objectives) for method, values in scores.items()}
    sizes = {array.shape[1] for array in arrays.values()}
    if len(sizes) > 1:
        raise ValueError(f"a paired bootstrap needs the same prompts for every method, got {sorted(sizes)} prompts")
    n = max(sizes, default=1)
    counts = resample_counts(n, n_resamples, seed)
    estimates = {}
    for method, array in arrays.items():
        means = (counts @ array.transpose(1, 0, 2).reshape(n, -1) / n).reshape(-1, len(array), n_objectives)
        value = statistic(array.mean(axis=1)[None])[0]
        estimates[method] = _estimate(float(value), statistic(means))
    return estimates


def _estimate(value: float, resamples: FloatArray) -> Estimate:
    low, high = np.quantile(resamples, [0.025, 0.975])
    return Estimate(value, float(low), float(high), float(resamples.mean() - value), resamples)


def _utility(means: FloatArray, simplex: FloatArray, signs: FloatArray) -> FloatArray:
    """Mean weighted score of stacked means (..., n_preferences, n_objectives)."""
    return np.asarray(np.mean(np.sum(simplex * signs * means, axis=-1), axis=-1))


def _volume(costs: FloatArray, bound: FloatArray) -> float:
    """Hypervolume of validated points, every objective minimised."""
    return float(moocore.hypervolume(costs, ref=bound)) if len(costs) else 0.0


def _validate_scores(method: str, scores: ArrayLike, n_objectives: int) -> FloatArray:
    array = np.array(scores, dtype=np.float64)
    if array.ndim != 3 or array.shape[2] != n_objectives or 0 in array.shape:
        raise ValueError(
            f"scores of {method!r} must have shape (n_policies, n_prompts, {n_objectives}), got {array.shape}"
        )
    _require_finite(array, f"scores of {method!r}")
    return array


def _require_finite(array: FloatArray, what: str) -> None:
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{what} contain a value that is not finite: {array[index]} at index {index}")


def _reference(reference: ArrayLike) -> FloatArray:
    bound = np.array(reference, dtype=np.float64)
    if bound.ndim != 1 or not len(bound):
        raise ValueError(f"the reference point must have shape (n_objectives,), got {bound.shape}")
    _require_finite(bound, "reference point")
    return bound


def _weights(weights: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    simplex = np.array(weights, dtype=np.float64)
    if simplex.shape != shape or not len(simplex):
        raise ValueError(f"weights must have the shape of the means {shape}, got {simplex.shape}")
    if not (np.all(simplex >= 0) and np.allclose(simplex.sum(axis=1), 1.0)):
        raise ValueError("every row of weights must be non-negative and sum to 1")
    return simplex


def _directions(maximise: Directions, n_objectives: int) -> FloatArray:
    """Return +1 per maximised and -1 per minimised objective, shape (n_objectives,)."""
    flags = np.broadcast_to(maximise, n_objectives) if np.ndim(maximise) == 0 else np.asarray(maximise)
    if flags.shape != (n_objectives,) or flags.dtype != bool:
        raise ValueError(f"maximise must be one bool or {n_objectives} bools, got {maximise!r}")
    return np.where(flags, 1.0, -1.0)
