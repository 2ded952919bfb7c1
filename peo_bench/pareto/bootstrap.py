"""Uncertainty: paired cluster bootstrap over prompts and seeds, paired differences, rank ranges, Holm, power.

Scores of a method have shape (n_seeds, n_policies, n_prompts, n_objectives), or (n_policies, n_prompts, n_objectives)
for one seed. A prompt is a cluster: all policies, methods and seeds answer the same prompts, so one draw of prompts
serves them all and what prompts have in common cancels in differences. Seeds are the second, crossed cluster; with one
there is nothing to draw, and an interval says nothing about training variance. Of n units n - 1 are drawn (Rao & Wu
1988), which makes the variance of a mean right on average: it matters for few seeds.

Percentile intervals over two to five seeds are still too narrow, as any that treats so few as many: `crossed_interval`
is the one for a verdict over several seeds. docs/statistics.md has the simulations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from peo_bench.pareto.checks import (
    Directions,
    FloatArray,
    directions,
    require_finite,
    validate_reference,
    validate_weights,
)
from peo_bench.pareto.indicators import best_utility, utility, volume

LEVEL = 0.95
RESAMPLES = 2000
CHUNK = 2000
"""Resamples whose draws are held at once."""
K = TypeVar("K")


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval.

    ``bias`` is mean(resamples) - value: clearly positive for a hypervolume whose front owes its points to noise.
    ``resamples`` (n_resamples,) are kept so that differences can be paired.
    """

    value: float
    ci_low: float
    ci_high: float
    bias: float
    resamples: FloatArray

    @classmethod
    def of(cls, value: float, resamples: FloatArray) -> Estimate:
        """Return the percentile interval of ``resamples`` (n_resamples,) around ``value``."""
        low, high = np.quantile(resamples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(float(value), float(low), float(high), float(resamples.mean() - value), resamples)

    def as_dict(self) -> dict[str, float]:
        """Return value, ci_low, ci_high and bias, ready for ``metrics.json``."""
        return {"value": self.value, "ci_low": self.ci_low, "ci_high": self.ci_high, "bias": self.bias}


@dataclass(frozen=True)
class Resamples:
    """Mean scores of every method: observed and in each resample, all from the same draws.

    ``observed[method]`` (n_policies, n_objectives), ``drawn[method]`` (n_resamples, n_policies, n_objectives).
    """

    observed: Mapping[str, FloatArray]
    drawn: Mapping[str, FloatArray]

    def estimate(self, statistic: Callable[[FloatArray], FloatArray]) -> dict[str, Estimate]:
        """Apply ``statistic``, from stacked means (n_sets, n_policies, n_objectives) to (n_sets,), to each method.

        >>> drawn = resample({"a": np.ones((1, 5, 2))}, n_resamples=9)
        >>> drawn.estimate(lambda means: means[:, 0].sum(axis=1))["a"].as_dict()
        {'value': 2.0, 'ci_low': 2.0, 'ci_high': 2.0, 'bias': 0.0}
        """
        return {
            method: Estimate.of(float(statistic(self.observed[method][None])[0]), statistic(means))
            for method, means in self.drawn.items()
        }

    def estimate_jointly(self, statistic: Callable[[Mapping[str, FloatArray]], Mapping[K, float]]) -> dict[K, Estimate]:
        """Apply ``statistic``, from all methods' means to a value per method or other key, to every resample.

        For what measures a method against the others, such as the distance to the union of their fronts.
        """
        value = statistic(self.observed)
        size = len(next(iter(self.drawn.values())))
        rows = [statistic({method: means[i] for method, means in self.drawn.items()}) for i in range(size)]
        return {key: Estimate.of(value[key], np.array([row[key] for row in rows])) for key in value}


def resample(scores: Mapping[str, ArrayLike], *, n_resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
    """Draw prompts, and seeds where there are several, for all methods at once.

    ``scores[method]``: see the module; n_policies may differ between methods, prompt j and seed s must be the same in
    all of them. Raises ValueError for shapes that do not fit and for values that are not finite. Time and memory are
    O(n_resamples n_policies n_objectives) beside one matrix product with the scores. Crossed clusters are drawn
    independently of each other: the pigeonhole bootstrap (Owen 2007, Annals of Applied Statistics 1).

    >>> drawn = resample({"a": np.zeros((3, 40, 2)), "b": np.zeros((1, 40, 2))}, n_resamples=7)
    >>> drawn.drawn["a"].shape, drawn.drawn["b"].shape, drawn.observed["b"].shape
    ((7, 3, 2), (7, 1, 2), (1, 2))
    """
    arrays = {method: _validate_scores(method, values) for method, values in scores.items()}
    shapes = {(array.shape[0], *array.shape[2:]) for array in arrays.values()}
    if len(shapes) != 1:
        raise ValueError(
            "a paired bootstrap needs the same seeds, prompts and objectives for every method, at least one method; "
            f"got (n_seeds, n_prompts, n_objectives) in {sorted(shapes)}"
        )
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples}")
    n_seeds, n_prompts, _ = shapes.pop()
    random = np.random.default_rng(seed)
    prompts, seeds = _draws(random, n_prompts, n_resamples), _draws(random, n_seeds, n_resamples)
    drawn = {}
    for method, array in arrays.items():
        flat = array.transpose(2, 0, 1, 3).reshape(n_prompts, -1)
        means = (prompts @ flat).reshape(n_resamples, n_seeds, array.shape[1], -1)
        drawn[method] = np.einsum("rs,rspk->rpk", seeds, means)
    return Resamples({method: array.mean(axis=(0, 2)) for method, array in arrays.items()}, drawn)


def resample_means(values: ArrayLike, *, n_resamples: int, seed: int = 0) -> FloatArray:
    """Return the means (n_resamples, n_methods) of ``values`` (n_prompts, n_methods) in resamples of the prompts.

    For one number per prompt and one seed, such as `utility_by_prompt`, where `resample` would be slow: a matrix
    product, with memory for a chunk of draws and the result. Equal columns have equal means.

    >>> resample_means(np.ones((40, 2)), n_resamples=3).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    """
    table = np.array(values, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape or n_resamples < 1:
        raise ValueError(f"values must be (n_prompts, n_methods), got {table.shape}, and n_resamples at least 1")
    require_finite(table, "values")
    distinct, column = np.unique(table, axis=1, return_inverse=True)
    random, means = np.random.default_rng(seed), np.empty((n_resamples, distinct.shape[1]))
    for start in range(0, n_resamples, CHUNK):
        part = means[start : start + CHUNK]
        part[:] = _draws(random, len(table), len(part)) @ distinct
    return means[:, column]


def bootstrap_hypervolume(resamples: Resamples, reference: ArrayLike, maximise: Directions) -> dict[str, Estimate]:
    """Estimate each method's hypervolume within ``reference`` (n_objectives,).

    A hypervolume is a maximum over noisy points and favours fronts that collapse to many points in one place: read
    ``bias``, and rest no verdict on it. One `hypervolume` per resample and method.

    >>> collapsed = np.random.default_rng(0).normal(size=(20, 50, 2))
    >>> estimate = bootstrap_hypervolume(resample({"a": collapsed}), [-3, 3], [True, False])["a"]
    >>> estimate.bias > 0, estimate.value > 9
    (True, True)
    """
    bound = validate_reference(reference)
    n_objectives = next(iter(resamples.observed.values())).shape[1]
    if len(bound) != n_objectives:
        raise ValueError(f"the reference point has {len(bound)} objectives, the scores {n_objectives}")
    signs = directions(maximise, n_objectives)
    return resamples.estimate(lambda sets: np.array([volume(points, bound * -signs) for points in sets * -signs]))


def bootstrap_steered_utility(resamples: Resamples, weights: ArrayLike, maximise: Directions) -> dict[str, Estimate]:
    """Estimate each method's steered utility; policy i is the one offered for row i of ``weights``.

    O(n_resamples n_preferences n_objectives) per method.

    >>> scores = np.array([[[1.0, 0.0]] * 30, [[0.0, 1.0]] * 30])
    >>> bootstrap_steered_utility(resample({"a": scores}), [[1, 0], [0, 1]], True)["a"].value
    1.0
    """
    n_policies = {len(means) for means in resamples.observed.values()}
    simplex = validate_weights(weights, next(iter(resamples.observed.values())).shape[1])
    if n_policies != {len(simplex)}:
        raise ValueError(f"every method must offer one policy for each of the {len(simplex)} rows of weights")
    signs = directions(maximise, simplex.shape[1])
    return resamples.estimate(lambda sets: utility(sets, simplex, signs))


def bootstrap_expected_utility(resamples: Resamples, weights: ArrayLike, maximise: Directions) -> dict[str, Estimate]:
    """Estimate each method's expected utility over the rows of ``weights`` (n_preferences, n_objectives).

    O(n_resamples n_policies n_preferences) per method.

    >>> scores = np.array([[[1.0, 0.0]] * 30, [[0.0, 1.0]] * 30])
    >>> bootstrap_expected_utility(resample({"a": scores}), [[1, 0], [0, 1]], True)["a"].value
    1.0
    """
    simplex = validate_weights(weights, next(iter(resamples.observed.values())).shape[1])
    signs = directions(maximise, simplex.shape[1])
    return resamples.estimate(lambda sets: best_utility(sets, simplex, signs))


def paired_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return the estimate of a - b; both must come from the same `Resamples`.

    Raises ValueError if the numbers of resamples differ (then they cannot be paired). O(n_resamples log n_resamples).

    >>> a, b = (Estimate.of(value, value + np.zeros(9)) for value in (0.5, 0.2))
    >>> round(paired_difference(a, b).value, 9)
    0.3
    """
    if a.resamples.shape != b.resamples.shape:
        raise ValueError(f"cannot pair {len(a.resamples)} resamples with {len(b.resamples)}")
    return Estimate.of(a.value - b.value, a.resamples - b.resamples)


def tail_probability(draws: FloatArray) -> float:
    """Return 2 min(tail), the two-sided bootstrap p-value of "no difference", in [2 / (n_resamples + 1), 1].

    ``draws`` (n_resamples,) are those of a difference. The tails are the shares at or below 0 and at or above 0, the
    observed sample counted among them, so that no p-value is 0. The share of resamples in which A exceeds B is no
    p-value by itself. O(n_resamples).

    >>> tail_probability(np.array([-0.1] + 78 * [0.1]))
    0.05
    """
    tail = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(draws) + 1)))


@dataclass(frozen=True)
class CrossedInterval:
    """Mean, 95 % interval and two-sided p-value of a difference over crossed prompts and seeds."""

    value: float
    ci_low: float
    ci_high: float
    p: float


def crossed_interval(differences: ArrayLike) -> CrossedInterval:
    """Return the interval of a mean over ``differences`` (n_seeds, n_prompts), both of them random.

    Two-way analysis of variance without replication splits Var(mean) into what seeds add, MS_seeds / (S N) with S - 1
    degrees of freedom, and what prompts add, max(0, MS_prompts - MS_rest) / (S N) with N - 1. Each part gets the
    quantile of its own degrees of freedom, half^2 = sum t^2 Var, in the manner of Cochran & Cox (1950): with 2 to 5
    seeds a single approximate number of degrees of freedom (Satterthwaite's, or Hillis 2007) let up to 13 % false
    positives through in simulation, this 1 to 5 %. The p-value is the level at which the interval reaches 0. Raises
    ValueError with fewer than 2 seeds or prompts. O(n_seeds n_prompts).

    >>> found = crossed_interval([[0.1, 0.3, 0.2], [0.3, 0.5, 0.4]])
    >>> round(found.value, 9), found.ci_low < 0 < found.ci_high
    (0.3, True)
    """
    table = np.array(differences, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"differences must have shape (n_seeds, n_prompts), at least 2 of each, got {table.shape}")
    require_finite(table, "differences")
    n_seeds, n_prompts = table.shape
    mean, by_seed, by_prompt = float(table.mean()), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_prompt[None] + mean
    ms_rest = (rest**2).sum() / ((n_seeds - 1) * (n_prompts - 1))
    of_seeds = by_seed.var(ddof=1) / n_seeds
    of_prompts = max(0.0, n_seeds * by_prompt.var(ddof=1) - ms_rest) / table.size

    def half(p: float) -> float:
        seeds, prompts = stats.t.isf(p / 2, n_seeds - 1), stats.t.isf(p / 2, n_prompts - 1)
        return float(np.sqrt(seeds**2 * of_seeds + prompts**2 * of_prompts))

    least = 1e-12
    if half(least) <= abs(mean):
        p = 0.0 if mean else 1.0
    else:
        p = float(brentq(lambda level: half(level) - abs(mean), least, 1.0))
    width = half(1 - LEVEL)
    return CrossedInterval(mean, mean - width, mean + width, p)


def utility_by_prompt(scores: ArrayLike, weights: ArrayLike, maximise: Directions) -> FloatArray:
    """Return the steered utility of each seed and prompt (n_seeds, n_prompts); its mean is that of the means.

    ``scores``: (n_seeds, n_preferences, n_prompts, n_objectives) or without seeds; ``weights``: (n_preferences,
    n_objectives). O of the size of ``scores``.

    >>> utility_by_prompt([[[1.0, 5.0]], [[7.0, 0.5]]], [[1, 0], [0, 1]], [True, False]).tolist()
    [[0.25]]
    """
    array = _validate_scores("one method", scores)
    simplex = validate_weights(weights, array.shape[3])
    if len(simplex) != array.shape[1]:
        raise ValueError(f"{array.shape[1]} policies do not fit {len(simplex)} preferences")
    signs = directions(maximise, array.shape[3])
    return np.asarray(np.einsum("spnk,pk->sn", array, simplex * signs) / len(simplex))


def detectable_difference(differences: ArrayLike, *, power: float = 0.8, level: float = 0.05) -> float:
    """Return the least true difference that this many prompts reveal with probability ``power`` at ``level``.

    ``differences`` (n_prompts,) between two methods, prompt by prompt; normal approximation of the paired t test,
    (z_{1 - level / 2} + z_power) sd / sqrt(n) (Cohen 1988, chapter 2). NaN with fewer than 2 prompts. O(n_prompts).

    >>> round(detectable_difference([-1.0, 1.0] * 350), 4)
    0.106
    """
    values = np.array(differences, dtype=np.float64)
    if values.ndim != 1 or not 0 < power < 1 or not 0 < level < 1:
        raise ValueError(f"differences must be one-dimensional and power and level in (0, 1), got {values.shape}")
    require_finite(values, "differences")
    if len(values) < 2:
        return float("nan")
    z = stats.norm.isf(level / 2) + stats.norm.ppf(power)
    return float(z * values.std(ddof=1) / np.sqrt(len(values)))


def rank_ranges(estimates: Mapping[str, Estimate]) -> dict[str, tuple[int, int]]:
    """Return for each method the ranks (best, worst) of the middle 95 % of resamples; rank 1 has the highest value.

    Methods that are equal in a resample share their best rank there. O(n_methods log n_methods) per resample.
    Goldstein & Spiegelhalter 1996, JRSS A 159.

    >>> rank_ranges({"a": Estimate.of(1.0, np.array([1.0, 1.0])), "b": Estimate.of(0.5, np.array([0.0, 2.0]))})
    {'a': (1, 2), 'b': (1, 2)}
    """
    if not estimates:
        return {}
    values = np.stack([estimate.resamples for estimate in estimates.values()])
    ranks = stats.rankdata(-values, method="min", axis=0)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    bounds = np.quantile(ranks, tails, axis=1, method="inverted_cdf").astype(int)
    return {method: (int(bounds[0, i]), int(bounds[1, i])) for i, method in enumerate(estimates)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: reject those at most 0.05 and the family-wise error stays at most 5 %.

    Holm 1979, Scandinavian Journal of Statistics 6. O(n log n).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie in [0, 1], got {list(p_values)}")
    order = np.argsort(p_values, kind="stable")
    scaled = np.array(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def _draws(random: np.random.Generator, size: int, n_resamples: int) -> FloatArray:
    """Return by resample the share of each of ``size`` units among its draws: rows (n_resamples, size) sum to 1.

    Counts of a multinomial, written as draws and a histogram, which is several times faster for many units.
    """
    drawn = max(1, size - 1)
    picks = random.integers(0, size, (n_resamples, drawn)) + size * np.arange(n_resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=n_resamples * size).reshape(n_resamples, size) / drawn


def _validate_scores(method: str, scores: ArrayLike) -> FloatArray:
    array = np.array(scores, dtype=np.float64)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or 0 in array.shape:
        raise ValueError(
            f"scores of {method!r} must have shape ([n_seeds,] n_policies, n_prompts, n_objectives), got {array.shape}"
        )
    require_finite(array, f"scores of {method!r}")
    return array
