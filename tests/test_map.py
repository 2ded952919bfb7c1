"""MAP: planted quadratics are recovered, and the family believes its fit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from preferences import asked
from test_closed_form import PREFERENCES, Tabular, world

from peo_bench.core.method import World
from peo_bench.errors import UsageError
from peo_bench.methods import make_method
from peo_bench.methods.map import box_sample
from peo_bench.pareto import hypervolume
from peo_bench.training.search import fit_quadratic, surrogate_front


def planted(c: np.ndarray) -> np.ndarray:
    """Two bowls around (1, 0) and (0, 1): the Pareto set is the segment between their bottoms."""
    return np.column_stack([-((c - [1, 0]) ** 2).sum(1), -((c - [0, 1]) ** 2).sum(1)])


def within(fit, excess=lambda c: np.full(len(c), -1.0)):
    """Return `fit` with a last value, the excess over the KL budget."""
    return lambda c: np.column_stack([fit(c), excess(c)])


@pytest.mark.parametrize("optimiser", ["nsga2", "nsga3", "moead"])
def test_the_front_keeps_the_budget(optimiser):
    """The front is the segment from (1, 0) to (0, 1); a budget on |c|^2 of 0.6 leaves its middle part and an arc."""
    front = surrogate_front(within(planted, lambda c: (c**2).sum(1) - 0.6), 2, 0, optimiser)
    assert (front**2).sum(1).max() <= 0.6
    assert (front**2).sum(1).max() > 0.5
    assert planted(front)[:, 0].max() > -0.3


@pytest.mark.parametrize("optimiser", ["nsga2", "nsga3", "moead"])
def test_the_front_of_planted_quadratics_is_found(optimiser):
    sample = box_sample(2, 6 if optimiser == "nsga2" else 12, seed=0)
    fit = fit_quadratic(sample, planted(sample))
    fresh = np.random.default_rng(0).uniform(size=(50, 2))
    np.testing.assert_allclose(fit(fresh), planted(fresh), atol=1e-9)
    front = surrogate_front(within(fit), 2, 0, optimiser)
    assert abs(front.sum(axis=1) - 1).max() < 0.2
    t = np.linspace(0, 1, 101)[:, None]
    best = hypervolume(planted(np.hstack([t, 1 - t])), [-2, -2], True)
    assert hypervolume(planted(front), [-2, -2], True) > 0.98 * best


def test_three_objectives():
    sample = box_sample(3, 20, seed=1)
    bowls = lambda c: -((c[:, None] - np.eye(3)[None]) ** 2).sum(2)  # noqa: E731
    front = surrogate_front(within(fit_quadratic(sample, bowls(sample))), 3, 0, "nsga3")
    triangle = np.random.default_rng(0).dirichlet(np.ones(3), 2000)
    best = hypervolume(bowls(triangle), [-2, -2, -2], True)
    assert hypervolume(bowls(front), [-2, -2, -2], True) > 0.88 * best  # 100 points against 2,000


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="do not determine"):
        fit_quadratic(np.zeros((5, 2)), np.zeros((5, 2)))
    three = World(**{**vars(world()), "objectives": (*world().objectives, world().objectives[0])})
    with pytest.raises(UsageError, match="need 13 evaluations"):
        next(make_method("map", {"map": {"budget": 12}}).build(three))


@cache
def oracle() -> Tabular:
    return Tabular()


@pytest.mark.parametrize("w", PREFERENCES)
def test_a_preference_takes_the_best_fitted_point(w):
    """On the bandit utilities grow with strength, and the budget leaves room: MAP is at least as good as the soup."""
    tabular = oracle()
    family, soup = tabular.build("map", {"max_kl": 6.0}), tabular.build("soup")
    utility = []
    for one in (family, soup):
        point = tabular.point(one.resolve(asked(w)))
        utility.append(w[0] * point.mean("reward") - w[1] * point.mean("cost"))
    assert utility[0] >= utility[1]
    assert all(0 <= c <= 5 for c in family.coefficients(asked(w)))


def test_samples_begin_with_the_corners_and_fill_the_box():
    sample = box_sample(2, 36, seed=3)
    assert sample[:4].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert len(np.unique(sample, axis=0)) == 36
    assert (sample == box_sample(2, 36, seed=3)).all()
    counts = np.histogram2d(*sample[4:].T, bins=2, range=[[0, 1], [0, 1]])[0]
    assert counts.min() >= 7
