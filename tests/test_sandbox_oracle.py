"""The sandbox's oracle against a tabular reference whose optimum is known in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from peo_bench.sandbox.oracle import HOLLOW_BELOW, oracle_front, oracle_point, solve_beta

# Two prompts with three and four outcomes; samples occur in exact proportions, so sample means are expectations.
OUTCOMES = (
    {"count": np.array([50, 30, 20]), "reward": np.array([0.0, 1.0, 2.5]), "cost": np.array([-1.0, 0.5, 3.0])},
    {"count": np.array([10, 20, 30, 40]), "reward": np.array([2.0, -1.0, 0.3, 0.0]), "cost": np.array([1, -2, 0, 0.2])},
)
REWARD = np.array([np.repeat(prompt["reward"], prompt["count"]) for prompt in OUTCOMES])
COST = np.array([np.repeat(prompt["cost"], prompt["count"]) for prompt in OUTCOMES])
N = REWARD.shape[1]
WEIGHTS = ((1.0, 0.0), (0.7, 0.3), (0.5, 0.5), (0.0, 1.0))


def closed_form(weight: tuple[float, float], beta: float) -> dict[str, float]:
    """Enumerate pi* = p exp(u / beta) / Z per prompt; KL = E*[u] / beta - log Z."""
    rows = []
    for prompt in OUTCOMES:
        p = prompt["count"] / prompt["count"].sum()
        utility = weight[0] * prompt["reward"] - weight[1] * prompt["cost"]
        z = float(np.sum(p * np.exp(utility / beta)))
        q = p * np.exp(utility / beta) / z
        kl = float(q @ utility) / beta - math.log(z)
        rows.append((q @ prompt["reward"], q @ prompt["cost"], kl, float(np.sum(q**2 / prompt["count"]))))
    reward, cost, kl, inverse_ess = np.array(rows).mean(axis=0)
    return {"reward": reward, "cost": cost, "kl": kl, "ess": 1 / inverse_ess}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0, 7.0])
def test_point_equals_the_enumerated_optimum(weight, beta):
    point = oracle_point(REWARD, COST, weight, beta)
    for name, value in closed_form(weight, beta).items():
        assert getattr(point, name) == pytest.approx(value, rel=1e-11, abs=1e-12), name


def test_standard_errors_are_over_prompts():
    point = oracle_point(REWARD, COST, (1.0, 0.0), 1.0)
    means = [oracle_point(REWARD[[i]], COST[[i]], (1.0, 0.0), 1.0) for i in range(2)]
    assert point.reward_se == pytest.approx(abs(means[0].reward - means[1].reward) / 2)
    assert point.cost_se == pytest.approx(abs(means[0].cost - means[1].cost) / 2)
    assert math.isnan(means[0].reward_se)


def test_infinite_beta_is_the_reference_policy():
    point = oracle_point(REWARD, COST, (0.5, 0.5), math.inf)
    assert (point.reward, point.cost) == pytest.approx((REWARD.mean(), COST.mean()))
    assert point.kl == pytest.approx(0.0, abs=1e-12)
    assert point.ess == pytest.approx(N)


def test_beta_zero_is_the_best_answers():
    point = oracle_point(REWARD, COST, (1.0, 0.0), 0.0)
    assert point.reward == pytest.approx((2.5 + 2.0) / 2)
    assert point.kl == pytest.approx((math.log(N / 20) + math.log(N / 10)) / 2)
    assert point.ess == pytest.approx(2 / (1 / 20 + 1 / 10))  # harmonic, not 15
    assert point.hollow
    assert point.ess < HOLLOW_BELOW


def test_tiny_beta_neither_overflows_nor_differs_from_its_limit():
    limit = oracle_point(REWARD, COST, (1.0, 0.0), 0.0)
    point = oracle_point(1e6 * REWARD, COST, (1.0, 0.0), 1e-300)
    assert point.kl == pytest.approx(limit.kl)
    assert point.reward == pytest.approx(1e6 * limit.reward)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_kl_falls_and_utility_falls_as_beta_grows(weight):
    points = [oracle_point(REWARD, COST, weight, beta) for beta in (0.05, 0.2, 1.0, 5.0, math.inf)]
    utilities = [weight[0] * point.reward - weight[1] * point.cost for point in points]
    assert all(near.kl > far.kl for near, far in itertools.pairwise(points))
    assert all(near > far for near, far in itertools.pairwise(utilities))


def test_pure_preferences_improve_their_own_objective():
    assert oracle_point(REWARD, COST, (1.0, 0.0), 1.0).reward > REWARD.mean() + 0.1
    assert oracle_point(REWARD, COST, (0.0, 1.0), 1.0).cost < COST.mean() - 0.1


def test_constant_added_per_prompt_changes_nothing_but_the_mean():
    shift = np.array([[3.0], [-50.0]])
    point, shifted = (oracle_point(reward, COST, (0.7, 0.3), 0.4) for reward in (REWARD, REWARD + shift))
    assert shifted.kl == pytest.approx(point.kl)
    assert shifted.reward == pytest.approx(point.reward + shift.mean())


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("budget", [1e-3, 0.1, 0.5])
def test_solved_beta_spends_the_budget(weight, budget):
    point = solve_beta(REWARD, COST, weight, budget)
    assert point.kl == pytest.approx(budget, rel=1e-9)
    assert closed_form(weight, point.beta)["kl"] == pytest.approx(budget, rel=1e-9)


def test_solved_beta_inverts_the_closed_form():
    budget = closed_form((0.7, 0.3), 0.8)["kl"]
    assert solve_beta(REWARD, COST, (0.7, 0.3), budget).beta == pytest.approx(0.8, rel=1e-9)


def test_no_budget_is_the_reference_policy():
    point = solve_beta(REWARD, COST, (0.5, 0.5), 0.0)
    assert point.beta == math.inf
    assert point.kl == pytest.approx(0.0, abs=1e-12)


def test_budget_beyond_the_samples_is_slack():
    point = solve_beta(REWARD, COST, (1.0, 0.0), 100.0)
    assert point.beta == 0.0
    assert point.kl == pytest.approx((math.log(N / 20) + math.log(N / 10)) / 2)
    assert point.hollow


def test_objective_without_differences_leaves_the_reference():
    point = solve_beta(np.zeros((3, 100)), COST[[0, 1, 0]], (1.0, 0.0), 1.0)
    assert point.kl == pytest.approx(0.0, abs=1e-12)
    assert point.ess == pytest.approx(100)


def test_no_other_policy_of_the_same_kl_has_more_utility():
    """Optimality: tilt the reference in random directions, to the same KL, and compare."""
    weight, budget, rng = (0.6, 0.4), 0.3, np.random.default_rng(0)
    best = solve_beta(REWARD, COST, weight, budget)
    for _ in range(50):
        direction = rng.normal(size=REWARD.shape)
        rival_beta = solve_beta(direction, COST, (1.0, 0.0), budget).beta
        tilt = np.exp((direction - direction.max(axis=1, keepdims=True)) / rival_beta)
        tilt /= tilt.sum(axis=1, keepdims=True)
        rival = np.sum(tilt * (weight[0] * REWARD - weight[1] * COST), axis=1).mean()
        assert rival < weight[0] * best.reward - weight[1] * best.cost


def test_estimate_from_random_samples_agrees_with_the_enumeration():
    rng = np.random.default_rng(0)
    drawn = [rng.choice(N, size=40_000) for _ in OUTCOMES]
    reward = np.array([REWARD[i][d] for i, d in enumerate(drawn)])
    cost = np.array([COST[i][d] for i, d in enumerate(drawn)])
    point, exact = oracle_point(reward, cost, (0.5, 0.5), 1.0), closed_form((0.5, 0.5), 1.0)
    assert point.reward == pytest.approx(exact["reward"], abs=0.03)
    assert point.kl == pytest.approx(exact["kl"], abs=0.02)
    assert not point.hollow


def test_front_has_a_point_per_budget_and_preference_and_mutates_nothing():
    before = REWARD.copy(), COST.copy()
    front = oracle_front(REWARD, COST, iter(WEIGHTS), [0.1, 0.2])
    assert [point.weight for point in front] == [*WEIGHTS, *WEIGHTS]
    assert [point.kl for point in front] == pytest.approx([0.1] * 4 + [0.2] * 4)
    assert [point.reward for point in front[:4]] == sorted((p.reward for p in front[:4]), reverse=True)
    assert [point.cost for point in front[:4]] == sorted((p.cost for p in front[:4]), reverse=True)
    assert np.array_equal(REWARD, before[0])
    assert np.array_equal(COST, before[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((REWARD, COST[:1], (1, 0), 1.0), "alike"),
        ((REWARD[0], COST[0], (1, 0), 1.0), "alike"),
        ((REWARD * math.nan, COST, (1, 0), 1.0), "finite"),
        ((REWARD, COST, (1.5, -0.5), 1.0), "not negative"),
        ((REWARD, COST, (1, 0), -1.0), "beta|budget"),
        ((REWARD, COST, (1, 0), math.nan), "beta|budget"),
    ],
)
@pytest.mark.parametrize("function", [oracle_point, solve_beta])
def test_invalid_input_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
