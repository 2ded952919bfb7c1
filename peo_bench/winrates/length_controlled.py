"""Length-controlled win rates: AlpacaEval 2's regression (arXiv 2404.04475), computed offline from given verdicts.

A logistic regression without intercept explains each prompt's share s (0 lost, 1 won, graded between):

    P(model wins) = sigmoid(b1 tanh(z) + b2 difficulty + b3),    z = (baseline's length - model's length) / its sd,

and the length-controlled win rate is the mean prediction at z = 0. Lengths are in characters; the sd is over all
prompts, ddof 1. As upstream does it (alpaca_eval 0.6.6, `length_controlled_v1`): L1 penalty, strength C chosen from ten
values between 1e-4 and 1e4 by 5-fold cross-validation, a graded share as one row per outcome weighted by it, and both
rows of a prompt in one fold. Verdicts on a verbose and a concise version of the baseline against itself, weighted 0.1
per row, keep b1 and b2 sensible where a model nearly always loses; they do not inform b3.

The published values were fitted on rows in file order, and folds depend on it: keep the order. Measured against 26
published values: see docs/winrate.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import expit

from peo_bench.winrates.winrate import FloatArray, graded

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = np.logspace(-4, 4, 10)
"""Values of C (inverse penalty) that cross-validation chooses from."""
FOLDS = 5
REGULARISER_WEIGHT = 0.2 / 2
"""Weight of one regulariser row: 0.2, shared by the verbose and the concise baseline."""


@dataclass(frozen=True)
class Regulariser:
    """Verdicts on versions of the baseline against itself: share (n_rows,), z (n_rows,), difficulty (n_rows,)."""

    share: FloatArray
    z: FloatArray
    difficulty: FloatArray


@dataclass(frozen=True)
class Weights:
    """The regression's coefficients b1 (length), b2 (difficulty, 0 where unused) and b3 (the model)."""

    length: float
    difficulty: float
    model: float


@dataclass(frozen=True)
class LengthControlled:
    """A win rate in percent at equal lengths, its standard error over prompts, the fit and its strength C.

    The standard error is upstream's: the spread of predictions over prompts, nothing about the fit itself; 0 where all
    prompts get the same prediction.
    """

    win_rate: float
    standard_error: float
    weights: Weights
    strength: float


ITSELF = LengthControlled(50.0, 0.0, Weights(0.0, 0.0, 0.0), float("nan"))
"""A model against itself: 50 by definition, nothing is fitted."""


def standardised_gap(length_baseline: ArrayLike, length_model: ArrayLike) -> FloatArray:
    """Return z (n_prompts,), positive where the model is the shorter one; zeros if the gap never varies.

    >>> standardised_gap([100, 300], [100, 100]).round(3).tolist()
    [0.0, 1.414]
    """
    gap = np.subtract(length_baseline, length_model, dtype=np.float64)
    spread = gap.std(ddof=1) if len(gap) > 1 else 0.0
    return gap / spread if spread else np.zeros_like(gap)


def length_controlled(
    preferences: ArrayLike, z: ArrayLike, difficulty: ArrayLike, regulariser: Regulariser
) -> LengthControlled:
    """Return the length-controlled win rate of preferences (n_prompts,) as `win_rate` takes them.

    Prompts without a verdict (NaN) are not fitted but predicted, as upstream does. Raises ValueError for fewer than
    five verdicts, or none for one of the sides.
    """
    share, hard = _shares(preferences), np.asarray(difficulty, dtype=np.float64)
    own = _features(z, hard, 1.0)
    others = _features(regulariser.z, regulariser.difficulty, 0.0)
    weight = np.repeat([REGULARISER_WEIGHT, 1.0], [len(others), len(own)])
    shares = np.concatenate([regulariser.share, share])
    coefficients, strength = _fit(np.concatenate([others, own]), shares, weight)
    return _predicted(Weights(*coefficients), strength, hard)


def length_adjusted(preferences: ArrayLike, z: ArrayLike) -> LengthControlled:
    """Return the win rate at equal lengths on any prompts: b1 and b3 only, no difficulty and no regulariser.

    Not comparable with length-controlled values of a leaderboard. Raises ValueError for fewer than five verdicts, and
    where the penalty shrinks b3 to 0: nothing is left of the model then, and 50 would be said of anyone.
    """
    share = _shares(preferences)
    features = _features(z, None, 1.0)
    coefficients, strength = _fit(features, share, np.ones(len(share)))
    if coefficients[1] == 0:
        n = int(np.isfinite(share).sum())
        raise ValueError(f"{n} verdicts do not settle a fit: its penalty shrinks the model's coefficient to 0")
    return _predicted(Weights(coefficients[0], 0.0, coefficients[1]), strength, np.zeros(len(share)))


def rate_between(model: Weights, other: Weights, difficulty: ArrayLike) -> float:
    """Return the length-controlled win rate in percent of a model over another that had the same baseline.

    At equal lengths their logits subtract, so a model against itself gets 50 and exchanging the two 100 minus it.
    ``difficulty`` (n_prompts,) is of the prompts that the mean runs over.
    """
    hard = np.asarray(difficulty, dtype=np.float64)
    return 100 * float(expit((model.model - other.model) + (model.difficulty - other.difficulty) * hard).mean())


def _features(z: ArrayLike, difficulty: ArrayLike | None, own: float) -> FloatArray:
    bounded = np.tanh(np.asarray(z, dtype=np.float64))
    columns = [bounded, np.full_like(bounded, own)]
    return np.column_stack(columns if difficulty is None else [bounded, difficulty, columns[1]])


def _shares(preferences: ArrayLike) -> FloatArray:
    share = graded(preferences)
    n = int(np.isfinite(share).sum())
    if n < FOLDS:
        raise ValueError(f"{n} verdicts are too few for {FOLDS}-fold cross-validation")
    rated = share[np.isfinite(share)]
    if rated.max() == 0 or rated.min() == 1:
        raise ValueError(f"all {n} verdicts are for one side: a logistic fit has no end then")
    return share


def _fit(features: FloatArray, share: FloatArray, weight: FloatArray) -> tuple[list[float], float]:
    """Return the coefficients, one per feature, and C of the best cross-validated fit to rows that have a verdict."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GroupKFold

    rated = np.isfinite(share)
    features, share, weight = features[rated], share[rated], weight[rated]
    x, outcome = np.concatenate([features, features]), np.repeat([1, 0], len(share))
    mass, prompt = np.concatenate([share, 1 - share]) * np.tile(weight, 2), np.tile(np.arange(len(share)), 2)
    folds = list(GroupKFold(FOLDS).split(x, outcome, prompt))
    if any(not mass[train][outcome[train] == side].any() for train, _ in folds for side in (0, 1)):
        raise ValueError(
            f"of {len(share)} verdicts too few are for one of the sides: cross-validation needs both in every fold"
        )
    model = LogisticRegressionCV(
        Cs=STRENGTHS,
        cv=folds,
        scoring=_held_out,
        l1_ratios=(1,),
        solver="liblinear",
        fit_intercept=False,
        random_state=123,
        use_legacy_attributes=False,
    ).fit(x, outcome, sample_weight=mass)
    return model.coef_[0].tolist(), float(model.C_)


def _held_out(model: LogisticRegression, x: FloatArray, outcome: FloatArray, sample_weight: FloatArray) -> float:
    """Return the mean weighted log likelihood (nats) of held-out rows; higher is better."""
    p = np.clip(model.predict_proba(x)[:, 1], 1e-15, 1 - 1e-15)
    return float(np.mean(sample_weight * np.log(np.where(outcome == 1, p, 1 - p))))


def _predicted(weights: Weights, strength: float, difficulty: FloatArray) -> LengthControlled:
    p = 100 * expit(weights.model + weights.difficulty * difficulty)
    error = float(stats.sem(p)) if np.ptp(p) else 0.0
    return LengthControlled(float(p.mean()), error, weights, strength)
