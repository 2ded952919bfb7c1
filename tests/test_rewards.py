"""Reward combiners: literal formulas, and their fixed points on an exact bandit against solvers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from peo_bench.training.rewards import Combiner, Lagrangian, Transform, Worst

BETA = 0.5
RNG = np.random.default_rng(3)
LOG_REF = np.log(RNG.dirichlet(np.full(7, 2.0)))
UTILITY = np.column_stack([np.linspace(-1, 1.5, 7), np.linspace(1.2, -2.0, 7)]) + 0.2 * RNG.normal(size=(7, 2))
REFERENCE = UTILITY[RNG.choice(7, size=500, p=np.exp(LOG_REF))]


def optimum(reward: np.ndarray) -> np.ndarray:
    """pi_ref exp(reward / beta) / Z, the KL-regularised optimum of a fixed reward."""
    return np.asarray(softmax(LOG_REF + reward / BETA))


def train(combiner: Combiner, steps: int = 6000, rate: float = 0.01) -> np.ndarray:
    """Mirror ascent with exact expectations: the limit of online training with many answers and small steps."""
    log_pi = LOG_REF.copy()
    for step in range(steps):
        pi = softmax(log_pi)
        combiner.observe(pi @ UTILITY)
        reward = combiner.combine(UTILITY, np.zeros_like(UTILITY))
        eta = rate / (1 + 3 * step / steps)
        log_pi = (1 - eta) * log_pi + eta * (LOG_REF + reward / BETA)
    return np.asarray(softmax(log_pi))


def dual(goals: np.ndarray) -> np.ndarray:
    """argmax_pi min_k (E u_k - z_k) - beta KL, by its dual over the simplex of two."""

    def value(a: float) -> float:
        weights = np.array([a, 1 - a])
        return float(BETA * logsumexp(LOG_REF + UTILITY @ weights / BETA) - weights @ goals)

    best = minimize_scalar(value, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
    return optimum(UTILITY @ np.array([best, 1 - best]))


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_linear_is_the_weighted_sum(w: float, seed: int) -> None:
    utilities = np.random.default_rng(seed).normal(size=(9, 2))
    got = Combiner([w, 1 - w], REFERENCE).combine(utilities, np.zeros_like(utilities))
    np.testing.assert_allclose(got, [w * a + (1 - w) * b for a, b in utilities])


def test_linear_reaches_the_closed_form() -> None:
    np.testing.assert_allclose(train(Combiner([0.3, 0.7], REFERENCE)), optimum(UTILITY @ [0.3, 0.7]), atol=1e-8)


def test_transform_is_the_log_probability_of_being_good_in_every_respect() -> None:
    combiner = Transform([0.5, 0.5], REFERENCE, 0.85)
    scores, anchors = np.array([[1.0, -2.0], [30.0, -30.0], [-40.0, 5.0]]), np.array([[0.5, 0.5]] * 3)
    literal = [
        sum(0.5 * np.log(1 / (1 + np.exp(-(r - a)))) for r, a in zip(*rows, strict=True))
        for rows in zip(scores, anchors, strict=True)
    ]
    np.testing.assert_allclose(combiner.combine(scores, anchors), literal, rtol=1e-12)
    far = np.array([[-30.0, 9.0], [-31.0, 9.0]]), np.zeros((2, 2))
    good = np.array([[30.0, 9.0], [31.0, 9.0]]), np.zeros((2, 2))
    assert -np.diff(combiner.combine(*far))[0] == pytest.approx(0.5, abs=1e-6), "slope w far below the anchor"
    assert np.diff(combiner.combine(*good))[0] == pytest.approx(0, abs=1e-6), "slope 0 far above it"


def test_maxmin_ends_at_the_saddle_where_rewards_are_equal() -> None:
    pi = train(Worst([0.5, 0.5], REFERENCE))
    np.testing.assert_allclose(pi, dual(np.zeros(2)), atol=0.01)
    assert np.ptp(pi @ UTILITY) < 0.03
    assert np.ptp(optimum(UTILITY @ [0.5, 0.5]) @ UTILITY) > 0.2, "which equal weights do not give"


def test_tchebycheff_ends_where_weighted_regrets_are_equal() -> None:
    combiner = Worst([0.7, 0.3], REFERENCE, 0.95)
    np.testing.assert_allclose(combiner.state["ideal"], np.quantile(REFERENCE, 0.95, axis=0))
    regrets = combiner.weights * (combiner.state["ideal"] - train(combiner) @ UTILITY)
    assert np.ptp(regrets) < 0.03
    assert (regrets > 0.1).all()


def test_means_beyond_the_ideal_point_do_not_turn_the_preference_round() -> None:
    combiner = Worst([0.9, 0.1], REFERENCE, 0.6)
    beyond = np.quantile(REFERENCE, 0.95, axis=0) + 1
    combiner.observe(beyond)
    assert combiner.chosen == 0
    np.testing.assert_allclose(combiner.state["ideal"], beyond + 0.1)
    combiner.observe(beyond - 5.0)
    assert combiner.state["ideal"] == pytest.approx(beyond + 0.1), "it never comes back"


def test_an_objective_without_weight_is_never_chosen() -> None:
    combiner = Worst([1.0, 0.0], REFERENCE, 0.6)
    combiner.observe(np.array([99.0, -99.0]))
    assert combiner.chosen == 0
    np.testing.assert_allclose(train(combiner), optimum(UTILITY[:, 0]), atol=1e-8)


def test_the_multiplier_meets_the_threshold_or_vanishes() -> None:
    """KKT: either the constraint holds with equality, or its multiplier goes to 0 and nothing is traded for it."""
    active = Lagrangian([0.4, 0.6], REFERENCE, quantile=0.4, rate=0.1, most=50.0, constrained=1)
    pi = train(active, steps=40_000)
    assert pi @ UTILITY[:, 1] == pytest.approx(active.threshold, abs=0.02)
    mu = active.state["multiplier"]
    np.testing.assert_allclose(pi, optimum((UTILITY[:, 0] + mu * UTILITY[:, 1]) / (1 + mu)), atol=0.02)
    idle = Lagrangian([1.0, 0.0], REFERENCE, quantile=0.0, rate=0.1, most=5.0, constrained=1)
    np.testing.assert_allclose(train(idle, steps=20_000), optimum(UTILITY[:, 0]), atol=0.02)
    assert idle.state["multiplier"] < 0.01
    hopeless = Lagrangian([0.0, 1.0], REFERENCE, quantile=1.0, rate=0.1, most=5.0, constrained=1)
    train(hopeless)
    assert hopeless.state["multiplier"] == 5.0, "never above its limit"


def test_one_step_of_dual_ascent_by_hand() -> None:
    combiner = Lagrangian([0.5, 0.5], np.zeros((3, 2)), quantile=0.5, rate=0.1, most=5.0, constrained=1)
    combiner.observe(np.array([0.0, -2.0]))  # threshold 0, shortfall 2: ln lambda = 0 + 0.1 * 1 * 2
    assert combiner.state["multiplier"] == pytest.approx(np.exp(0.2))
    mu = np.exp(0.2)
    assert combiner.combine(np.array([[1.0, -3.0]]), np.zeros((1, 2)))[0] == pytest.approx((1 - 3 * mu) / (1 + mu))
    first = Lagrangian([0.5, 0.5], np.zeros((3, 2)), quantile=0.5, rate=0.1, most=5.0, constrained=0)
    first.observe(np.array([-2.0, 0.0]))
    assert first.combine(np.array([[-3.0, 1.0]]), np.zeros((1, 2)))[0] == pytest.approx((1 - 3 * mu) / (1 + mu))


@pytest.mark.parametrize(
    "make", [lambda: Worst([0.5, 0.5], REFERENCE), lambda: Lagrangian([0.5, 0.5], REFERENCE, 0.6, 0.1, 5.0, 1)]
)
def test_the_memory_survives_json(make) -> None:
    whole, first, second = make(), make(), make()
    batches = RNG.normal(size=(6, 2))
    for means in batches:
        whole.observe(means)
    for means in batches[:3]:
        first.observe(means)
    second.state = json.loads(json.dumps(first.state))
    for means in batches[3:]:
        second.observe(means)
    assert second.state == whole.state
