"""Strategies of phase 3: budgets, constraints, repeats, and the expected improvement against sampling."""

import math

import numpy as np
import pytest

from peo_bench.core.method import Objective
from peo_bench.evaluation.kl_budget import FURTHEST, keeps, kl_budget, times_until
from peo_bench.evaluation.validation import Candidates, Point
from peo_bench.pareto import hypervolume
from peo_bench.training.extrapolation import beyond_the_generalist, beyond_the_soup
from peo_bench.training.search import STRATEGIES, Known, drive, expected_improvement

OBJECTIVES = (Objective("helpful", "reward", True), Objective("harmless", "cost", False))
NOTHING = Known(np.empty((0, 2)), np.empty((0, 3)))


def world(points: np.ndarray) -> np.ndarray:
    """Both utilities rise with y until .8, KL = 2 y^2 with a budget of .5: feasible up to y = .5."""
    x, y = points.T
    gain = y * (1.6 - y)
    return np.column_stack([x + gain, 1 - x + gain, 2 * y**2 - 0.5])


def run(name: str, budget: int, known: Known = NOTHING, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    asked: list[np.ndarray] = []

    def evaluate(done: int, batch: np.ndarray) -> np.ndarray:
        assert done == sum(len(points) for points in asked)
        asked.append(batch)
        return world(batch)

    drive(STRATEGIES[name](budget, seed, known), evaluate)
    return np.vstack(asked), [len(points) for points in asked]


def line(n: int) -> Known:
    points = np.column_stack([np.linspace(0, 1, n), np.zeros(n)])
    return Known(points, world(points))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("known", [NOTHING, line(3)], ids=["nothing known", "a line known"])
def test_a_strategy_stays_in_the_square_and_in_its_budget(name, known):
    points, batches = run(name, 13, known)
    assert len(points) <= 13
    assert len(points) == 13 or name == "grid"
    assert max(batches) > 1, "points are asked for in batches"
    assert points.min() >= 0
    assert points.max() <= 1
    assert np.array_equal(points, run(name, 13, known)[0]), "a search replays from its journal"


@pytest.mark.parametrize("name", ["gp", "surrogate", "grid"])
def test_no_evaluation_is_spent_on_what_is_known(name):
    points = np.vstack([line(3).points, run(name, 17, line(3))[0]])
    assert len(np.unique(points.round(6), axis=0)) == len(points)


@pytest.mark.parametrize("name", ["gp", "surrogate"])
def test_searches_that_know_the_constraint_end_at_it(name):
    """The best feasible points lie at y = .5; without the constraint they would lie at .8."""
    points, _ = run(name, 20, line(5))
    late = points[9:]
    assert np.mean(np.abs(late[:, 1] - 0.5) < 0.15) > 0.6
    assert np.mean(late[:, 1] > 0.65) < 0.2


def test_cma_es_moves_to_where_something_is_gained():
    """Towards the top of one hill in both utilities; what others draw from numpy's global generator changes nothing."""

    def distances(seed: int) -> list[float]:
        asked: list[np.ndarray] = []

        def hill(done: int, batch: np.ndarray) -> np.ndarray:
            np.random.seed(seed)
            asked.append(batch)
            height = -((batch - (0.9, 0.4)) ** 2).sum(axis=1)
            return np.column_stack([height, height, np.full(len(batch), -1.0)])

        drive(STRATEGIES["cma-es"](48, 0, NOTHING), hill)
        assert [len(batch) for batch in asked] == [6] * 8
        return [float(np.linalg.norm(batch - (0.9, 0.4), axis=1).mean()) for batch in asked]

    distance = distances(1)
    assert np.mean(distance[-2:]) < 0.5 * np.mean(distance[:2])
    assert distance == distances(2)


def test_the_gp_has_more_of_the_dense_front_than_a_grid():
    """Hypervolume of the feasible points, of what a 41 x 41 grid of the square has."""
    side = np.linspace(0, 1, 41)
    dense = world(np.array([(x, y) for x in side for y in side]))

    def volume(values: np.ndarray) -> float:
        return float(hypervolume(values[values[:, 2] <= 0, :2], (0, 0), maximise=(True, True)))

    share = {name: volume(np.vstack([line(3).values, world(run(name, 16, line(3))[0])])) for name in ("gp", "grid")}
    assert share["gp"] > share["grid"]
    assert share["gp"] > 0.93 * volume(dense)


@pytest.mark.parametrize("seed", range(4))
def test_expected_improvement_against_sampling(seed):
    """A second way: the mean gain of sampled values, by the library's hypervolume."""
    rng = np.random.default_rng(seed)
    front, reference = rng.random((4, 2)), np.array([-0.2, -0.1])
    means, errors = rng.random((3, 2)) * 1.2, 0.05 + 0.3 * rng.random((3, 2))
    expected = expected_improvement(means, errors, front, reference)
    plain = hypervolume(front, reference, maximise=(True, True))
    for mean, error, value in zip(means, errors, expected, strict=True):
        gains = [
            hypervolume(np.vstack([front, sample]), reference, maximise=(True, True)) - plain
            for sample in mean + error * rng.standard_normal((3000, 2))
        ]
        assert value == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / math.sqrt(3000) + 1e-9)


def test_the_budget_is_what_was_asked_else_that_of_the_experts():
    points = [Point({}, 1.0, 1.2), Point({}, 1.9, 2.1)]
    assert kl_budget(0.4, points) == 0.4
    assert kl_budget(None, points) == 1.9
    assert kl_budget(None, points[:1]) == 1.5


def test_what_was_searched_for_keeps_the_budget_with_its_upper_end():
    points = [Point({}, 1.0, 1.2), Point({}, 1.9, 2.1)]
    assert keeps(2.0, points, starts=0).tolist() == [True, False]
    assert keeps(2.0, points, starts=2).tolist() == [True, True]


def test_how_far_the_square_law_lets_a_search_go():
    """Four times the KL is twice as far, a quarter more is looked at; inwards too; no end where nothing moved."""
    assert times_until(2.0, 0.5) == pytest.approx(2 * 1.25)
    assert times_until(0.5, 2.0) == pytest.approx(0.5 / 1.25)
    assert times_until(1.0, 0.0) == times_until(1.0, 1e-9) == FURTHEST


PHIS = np.array([(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])


def soups(kl: tuple[float, ...]) -> Candidates:
    points = tuple(Point({"reward": [w, w], "cost": [w, w]}, nats, nats) for (w, _), nats in zip(PHIS, kl, strict=True))
    return Candidates({"reward": [0.0, 1.0], "cost": [0.0, 1.0]}, points)


def test_the_region_beyond_the_soup_holds_experts_and_soups():
    line = soups((1.0, 0.25, 4.0))
    region = beyond_the_soup(PHIS, line, line.utilities(OBJECTIVES), 4.0)
    assert np.allclose(region.coefficients(region.known.points), PHIS), "phase 2 is known: the edge where lambda is 0"
    assert region.known.values[:, 2] == pytest.approx([-3.0, -3.75, 0.0])
    far = region.coefficients(np.array([(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (0.25, 0.0)]))
    assert far == pytest.approx(np.array([(0, 2.5), (2.5, 2.5), (1.25, 0), (0.25, 0.75)]))


def test_the_region_beyond_one_generalist_is_its_box():
    line = soups((1.0, 0.25, 4.0))
    region = beyond_the_generalist(PHIS, line, np.array([[0, 0], [2, 2], [0, 0]]), 2.25)
    assert region.coefficients(np.zeros((1, 2))) == pytest.approx(np.array([[0.5, 0.5]]))
    assert region.coefficients(np.ones((1, 2))) == pytest.approx(np.array([[0.5 + 1.25 / 2, 0.5 + 1.25]]))


def test_where_the_soup_exceeds_the_budget_the_search_looks_between_it_and_the_reference():
    """The far edge keeps it with room for the interval; the box is no point, and holds the reference policy."""
    line = soups((8.0, 2.0, 8.0))
    utilities = line.utilities(OBJECTIVES)
    region = beyond_the_soup(PHIS, line, utilities, 0.5)
    far = region.coefficients(np.column_stack([PHIS[:, 0], np.ones(len(PHIS))]))
    shares = far.sum(axis=1)
    assert (shares**2 * (8.0, 2.0, 8.0) < 0.5 / 4).all(), "KL by the square law"
    box = beyond_the_generalist(PHIS, line, np.array([[0, 0], [2, 2], [0, 0]]), 0.5)
    assert box.coefficients(np.array([(0.0, 0.0), (1.0, 1.0)])) == pytest.approx(np.array([(0.5, 0.5), (0.0, 0.0)]))
