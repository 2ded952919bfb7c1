"""Win rates from preferences, as AlpacaEval defines them: arrays in, numbers out.

A preference is what a judge says of one prompt: 1 the baseline's answer is better, 2 the model's is, 1.5 (or 0, the
older convention) a draw, anything between graded; NaN is a prompt without a verdict. Prompts without one are left out
of every number, as alpaca_eval 0.6.6 does; what is no preference at all (a 7) is left out too and counted apart.

Rates are in percent, higher is better for the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]
LEVEL = 0.95
DRAW = 1.5


@dataclass(frozen=True)
class WinRate:
    """How often a model beats the baseline, in percent.

    ``win_rate`` is the mean of preference - 1, ``discrete_win_rate`` counts a win as 1 and a draw as a half;
    ``standard_error`` belongs to ``win_rate``; NaN for fewer than two verdicts (all rates are NaN for none).
    ``n_total`` counts verdicts, ``n_missing`` prompts without one, ``n_invalid`` values that are no preference.
    """

    win_rate: float
    standard_error: float
    discrete_win_rate: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    n_missing: int
    n_invalid: int


@dataclass(frozen=True)
class Interval:
    """A mean in percent (points of win rate) with its 95 % interval; bounds are NaN for fewer than two prompts."""

    value: float
    ci_low: float
    ci_high: float
    n: int


def win_rate(preferences: ArrayLike) -> WinRate:
    """Return the win rate of preferences (n_prompts,) in [1, 2], 1.5 or 0 = draw, NaN = missing.

    >>> rate = win_rate([2, 1, 1.5, 1.75, float("nan")])
    >>> rate.win_rate, rate.discrete_win_rate, rate.n_total, rate.n_missing
    (56.25, 62.5, 4, 1)
    """
    given = _vector(preferences)
    rated = graded(given)
    kept = rated[~np.isnan(rated)]
    n = len(kept)
    wins, losses, draws = (int(mask.sum()) for mask in (kept > 0.5, kept < 0.5, kept == 0.5))
    missing = int(np.isnan(given).sum())
    return WinRate(
        win_rate=100 * float(kept.mean()) if n else np.nan,
        standard_error=100 * float(stats.sem(kept)) if n > 1 else np.nan,
        discrete_win_rate=100 * (wins + draws / 2) / n if n else np.nan,
        n_wins=wins,
        n_wins_base=losses,
        n_draws=draws,
        n_total=n,
        n_missing=missing,
        n_invalid=len(given) - n - missing,
    )


def graded(preferences: ArrayLike) -> FloatArray:
    """Return the model's share of each prompt (n_prompts,): 0 lost, 0.5 drawn, 1 won; NaN where there is no verdict.

    >>> graded([0, 1, 2, 7]).tolist()
    [0.5, 0.0, 1.0, nan]
    """
    given = _vector(preferences)
    given = np.where(given == 0, DRAW, given)
    return np.where((given >= 1) & (given <= 2), given - 1, np.nan)


def swapped(preferences: ArrayLike) -> FloatArray:
    """Return the same verdicts from the baseline's side: its win rate against the model is 100 minus the model's."""
    return 2 - graded(preferences)


def rate_interval(shares: ArrayLike) -> Interval:
    """Return 100 times the mean of per-prompt shares (n_prompts,) in [0, 1]; bounds by `effective_wilson`.

    A prompt is the unit: average orders, seeds and samples of one prompt first. NaN is left out.

    >>> rate_interval([1, 1, 1]).ci_high
    100.0
    """
    values = _vector(shares)
    values = values[~np.isnan(values)]
    n = len(values)
    if n < 2:
        return Interval(100 * float(values[0]) if n else np.nan, np.nan, np.nan, n)
    low, high = effective_wilson(values)
    return Interval(100 * float(values.mean()), 100 * low, 100 * high, n)


def effective_wilson(values: FloatArray) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values` (n,) in [0, 1].

    Wilson's score interval (1927) with the effective sample size p (1 - p) / Var(mean) in place of n, as survey
    statistics does for clustered shares (Korn & Graubard 1998), and Student's quantile in place of the normal one. It
    stays inside [0, 1] and does not shrink to a point when every prompt was won; where values do not vary, n is used.

    >>> [round(bound, 3) for bound in effective_wilson(np.ones(50))]
    [0.925, 1.0]
    """
    n, p, variance = len(values), float(np.mean(values)), float(np.var(values, ddof=1))
    effective = n * p * (1 - p) / variance if variance > 1e-12 else float(n)
    t = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    centre = (p + t**2 / (2 * effective)) / (1 + t**2 / effective)
    half = t / (1 + t**2 / effective) * np.sqrt(p * (1 - p) / effective + t**2 / (4 * effective**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def paired_difference(preferences_a: ArrayLike, preferences_b: ArrayLike) -> Interval:
    """Return win rate of A minus win rate of B against one baseline, over the prompts that both have a verdict on.

    Prompts are in the same order in both. The interval is Student's t over the prompts' differences, so what makes a
    prompt easy for both cancels, cut to -100 and 100. It covers the choice of prompts, nothing about training.

    >>> paired_difference([2, 2, 1, 1.5], [1, 2, 1, 1]).value
    37.5
    """
    a, b = graded(preferences_a), graded(preferences_b)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} preferences of A and {len(b)} of B: give one per prompt, in the same order")
    values = 100 * (a - b)[~np.isnan(a - b)]
    n = len(values)
    if n < 2:
        return Interval(float(values[0]) if n else np.nan, np.nan, np.nan, n)
    mean, half = float(values.mean()), float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * stats.sem(values))
    return Interval(mean, max(-100.0, mean - half), min(100.0, mean + half), n)


def _vector(values: ArrayLike) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"one preference per prompt is expected, got shape {array.shape}")
    return array
