"""The sandbox's oracle: the best trade-off any policy can offer at its KL divergence from the reference policy.

The KL-regularised optimum for a preference w is pi*(y|x) proportional to pi_ref(y|x) exp(w . (reward, -cost) / beta).
It maximises w . (reward, -cost) among all policies with the same mean KL, so it bounds every method there.
Expectations under it are taken by self-normalised importance weighting of samples of the reference policy.
Arrays are (n_prompts, n_samples), float64; nothing here knows of files, models or texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import logsumexp, xlogy

Floats = npt.NDArray[np.float64]
HOLLOW_BELOW = 50.0  # effective samples per prompt


@dataclass(frozen=True)
class OraclePoint:
    """An operating point of the oracle; means are over prompts.

    Attributes:
        weight: preference (of reward, of -cost).
        beta: strength of the KL penalty, in score units per nat; inf is the reference policy, 0 its best answers.
        reward: mean gold reward, higher is better.
        cost: mean gold cost, lower is better.
        kl: mean KL(pi* || pi_ref) per answer, nats.
        reward_se: standard error of `reward` over prompts; nan for a single prompt.
        cost_se: standard error of `cost` over prompts; nan for a single prompt.
        ess: harmonic mean over prompts of the effective sample size 1 / sum(weights^2). A self-normalised mean
            has a bias of O(1/ESS) at each prompt, and biases average over prompts: the harmonic mean is the one
            sample size with that average bias, where an arithmetic mean would let easy prompts hide hard ones.
    """

    weight: tuple[float, float]
    beta: float
    reward: float
    cost: float
    kl: float
    reward_se: float
    cost_se: float
    ess: float

    @property
    def hollow(self) -> bool:
        """Whether too few samples carry the point; hollow points are left out of indicators."""
        return self.ess < HOLLOW_BELOW


def oracle_point(reward: npt.ArrayLike, cost: npt.ArrayLike, weight: tuple[float, float], beta: float) -> OraclePoint:
    """Return the optimum for a preference and a KL penalty `beta` in [0, inf].

    `reward` and `cost` hold the gold scores of samples of the reference policy, each (n_prompts, n_samples).
    KL is estimated from the same weights, so it cannot exceed log(n_samples). Raises `ValueError` for arrays that
    are not two finite matrices of one shape, a negative weight, or a `beta` outside its range.
    """
    rewards, costs, utility = _validate(reward, cost, weight)
    if not beta >= 0:
        raise ValueError(f"beta must be within [0, inf], got {beta}")
    weights = _importance_weights(utility, beta)
    mean_rewards, mean_costs = (weights * rewards).sum(axis=1), (weights * costs).sum(axis=1)
    return OraclePoint(
        weight=(float(weight[0]), float(weight[1])),
        beta=float(beta),
        reward=float(mean_rewards.mean()),
        cost=float(mean_costs.mean()),
        kl=_mean_kl(weights),
        reward_se=_standard_error(mean_rewards),
        cost_se=_standard_error(mean_costs),
        ess=float(1.0 / np.mean(np.sum(weights**2, axis=1))),
    )


def solve_beta(
    reward: npt.ArrayLike, cost: npt.ArrayLike, weight: tuple[float, float], kl_budget: float
) -> OraclePoint:
    """Return the optimum whose mean KL is `kl_budget` nats, with the `beta` that yields it.

    KL decreases from its limit at beta = 0 (log n_samples minus the log of the number of ties for the best answer,
    mean over prompts) to 0 at beta = inf. A budget at or above the limit is slack: the best answers cost less
    than it allows, or more samples are needed to spend it; the point at beta = 0 is returned, and its `kl` and `ess`
    say so. Raises `ValueError` for a negative or NaN budget, and as `oracle_point` does.
    """
    if not kl_budget >= 0:
        raise ValueError(f"the KL budget must be at least 0 nats, got {kl_budget}")
    _, _, utility = _validate(reward, cost, weight)
    return oracle_point(reward, cost, weight, _beta_of(utility, kl_budget))


def oracle_front(
    reward: npt.ArrayLike,
    cost: npt.ArrayLike,
    weights: Iterable[tuple[float, float]],
    kl_budgets: Iterable[float],
) -> list[OraclePoint]:
    """Return the optimum of every preference at every KL budget (nats), budget by budget."""
    preferences = list(weights)
    return [solve_beta(reward, cost, weight, budget) for budget in kl_budgets for weight in preferences]


def _validate(reward: npt.ArrayLike, cost: npt.ArrayLike, weight: tuple[float, float]) -> tuple[Floats, Floats, Floats]:
    """Return rewards, costs and utilities w . (reward, -cost) as matrices."""
    rewards, costs = np.asarray(reward, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape != costs.shape or rewards.size == 0:
        raise ValueError(f"reward and cost must be (n_prompts, n_samples) alike: {rewards.shape}, {costs.shape}")
    if not (np.isfinite(rewards).all() and np.isfinite(costs).all()):
        raise ValueError("reward and cost must be finite")
    if not (min(weight) >= 0 and math.isfinite(sum(weight))):
        raise ValueError(f"weights must be finite and not negative, got {tuple(weight)}")
    return rewards, costs, weight[0] * rewards - weight[1] * costs


def _importance_weights(utility: Floats, beta: float) -> Floats:
    """Return self-normalised weights (n_prompts, n_samples); at beta = 0, uniform over the best samples."""
    gaps = utility - utility.max(axis=1, keepdims=True)
    if beta == 0:
        best = (gaps == 0).astype(np.float64)
        return np.asarray(best / best.sum(axis=1, keepdims=True))
    with np.errstate(over="ignore"):  # a gap that overflows to -inf has weight 0
        logits = gaps / beta
    return np.asarray(np.exp(logits - logsumexp(logits, axis=1, keepdims=True)))


def _mean_kl(weights: Floats) -> float:
    """Return the mean over prompts of KL(weights || uniform), in nats."""
    return float(np.mean(xlogy(weights, weights).sum(axis=1) + math.log(weights.shape[1])))


def _beta_of(utility: Floats, kl_budget: float) -> float:
    """Return the beta at which the mean KL is `kl_budget`, 0 if the budget is slack."""
    if kl_budget == 0:
        return math.inf

    def excess(log_beta: float) -> float:
        return _mean_kl(_importance_weights(utility, math.exp(log_beta))) - kl_budget

    if _mean_kl(_importance_weights(utility, 0.0)) <= kl_budget + 1e-9:
        return 0.0
    low = high = math.log(np.ptp(utility, axis=1).max())
    while excess(low) < 0:
        low -= 1.0
    while excess(high) > 0:
        high += 1.0
    return math.exp(low if low == high else float(brentq(excess, low, high, xtol=1e-13)))


def _standard_error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
