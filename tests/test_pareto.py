"""The numerics of fronts against published values, hand-computed examples and properties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from peo_bench import pareto

KNOWN = Path(__file__).parents[2] / "shared/data/fronts/known_hypervolumes.json"
MIXED = [True, False]


def points_strategy(n_objectives: int) -> st.SearchStrategy[np.ndarray]:
    """Sets of 1 to 12 points with coordinates of three decimals, so that ties and duplicates occur."""
    shape = st.tuples(st.integers(1, 12), st.just(n_objectives))
    return hnp.arrays(np.float64, shape, elements=st.integers(-5000, 5000).map(lambda value: value / 1000))


def known_sets() -> list[dict[str, Any]]:
    if not KNOWN.exists():
        return []
    return [case for case in json.loads(KNOWN.read_text()) if case["points"]]


@pytest.mark.skipif(not KNOWN.exists(), reason=f"published hypervolumes are absent: {KNOWN}")
@pytest.mark.parametrize("case", known_sets(), ids=lambda case: case["name"])
def test_published_hypervolumes_and_front_sizes(case: dict[str, Any]) -> None:
    points = np.array(case["points"])
    assert pareto.hypervolume(points, case["ref"], case["maximise"]) == pytest.approx(case["hypervolume"], rel=1e-12)
    front = points[pareto.nondominated(points, case["maximise"])]
    assert len(np.unique(front, axis=0)) == case["n_nondominated"]
    negated = pareto.hypervolume(-points, -np.array(case["ref"]), not case["maximise"])
    assert negated == pytest.approx(case["hypervolume"], rel=1e-12)


def test_moocores_published_value() -> None:
    """moocore's own tests give 5 for this set: 2 + 4 minus the shared 1."""
    assert pareto.hypervolume([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [2, 2, 2], maximise=False) == 5.0


def test_two_objectives_by_hand() -> None:
    """Reward up, cost down, reference (0, 4): columns of width 1 with heights 4, 3 and 1 give 8."""
    points = [[1.0, 0.0], [2.0, 1.0], [3.0, 3.0], [1.0, 2.0]]
    assert pareto.hypervolume(points, [0, 4], MIXED) == 8.0
    assert pareto.nondominated(points, MIXED).tolist() == [True, True, True, False]


def test_three_objectives_by_hand() -> None:
    """Boxes 2*2*1 and 1*1*3 from the origin overlap in 1*1*1: 4 + 3 - 1 = 6."""
    assert pareto.hypervolume([[2, 2, 1], [1, 1, 3]], [0, 0, 0], maximise=True) == 6.0
    assert pareto.hypervolume([[2, 2, -1], [1, 1, -3]], [0, 0, 0], maximise=[True, True, False]) == 6.0


def test_rewarded_soups_front_is_undominated() -> None:
    """The five points of the news-summary front (arXiv 2306.04488, read off in peo.md) trade off monotonically."""
    front = [[0.98, -0.444], [1.20, -0.443], [1.46, -0.463], [1.65, -0.479], [1.78, -0.490]]
    assert pareto.nondominated(front, maximise=True).tolist() == [False, True, True, True, True]


def test_empty_sets_one_point_and_duplicates() -> None:
    assert pareto.hypervolume([], [0, 0], True) == 0.0
    assert pareto.hypervolume(np.empty((0, 2)), [0, 0], True) == 0.0
    assert pareto.nondominated([], True).tolist() == []
    assert pareto.nondominated([[3.0, 1.0]], True).tolist() == [True]
    assert pareto.hypervolume([[2, 3]], [0, 0], True) == 6.0
    assert pareto.nondominated([[1, 1], [1, 1], [0, 1]], True).tolist() == [True, True, False]
    assert pareto.hypervolume([[2, 3], [2, 3]], [0, 0], True) == 6.0
    assert pareto.staircase([], [0, 0], True).shape == (0, 2)


def test_points_beyond_the_reference_add_nothing_and_are_counted() -> None:
    points = [[2.0, 1.0], [5.0, 3.0], [-1.0, 0.0], [0.0, 0.0]]
    assert pareto.n_beyond_reference(points, [0, 2], MIXED) == 3
    assert pareto.hypervolume(points, [0, 2], MIXED) == pareto.hypervolume(points[:1], [0, 2], MIXED) == 2.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "call",
    [
        lambda bad: pareto.validate_points(bad),
        lambda bad: pareto.nondominated(bad, True),
        lambda bad: pareto.hypervolume(bad, [0, 0], True),
        lambda bad: pareto.hypervolume([[1, 1]], bad[0], True),
        lambda bad: pareto.distance_to_front(bad, [[1, 1]], True),
        lambda bad: pareto.bootstrap_hypervolume({"peo": bad[None]}, [0, 0], True),
        lambda bad: pareto.steered_utility(bad, [[1, 0], [0, 1]], True),
    ],
)
def test_values_that_are_not_finite_are_refused(call: Any, value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        call(np.array([[value, 1.0], [1.0, 1.0]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto.validate_points([1.0, 2.0]), "shape"),
        (lambda: pareto.hypervolume([[1, 2, 3]], [0, 0], True), "3 objectives, expected 2"),
        (lambda: pareto.hypervolume([[1, 2]], [0, 0], [True]), "2 bools"),
        (lambda: pareto.hypervolume([[1, 2]], 0, True), "reference"),
        (lambda: pareto.staircase([[1, 2, 3]], [0, 0, 0], True), "two objectives"),
        (lambda: pareto.distance_to_front([], [[1, 2]], True), "at least one point"),
        (lambda: pareto.steered_utility([[1, 2]], [[0.7, 0.7]], True), "sum to 1"),
        (lambda: pareto.steered_utility([[1, 2]], [[1, 0], [0, 1]], True), "shape of the means"),
        (lambda: pareto.bootstrap_hypervolume({"a": np.ones((2, 3))}, [0, 0], True), "n_policies"),
    ],
)
def test_malformed_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_inputs_are_never_mutated() -> None:
    rng = np.random.default_rng(0)
    arrays = {"points": rng.normal(size=(6, 2)), "scores": rng.normal(size=(3, 9, 2)), "reference": np.array([-3.0, 3])}
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    pareto.hypervolume(arrays["points"], arrays["reference"], MIXED)
    pareto.nondominated(arrays["points"], MIXED)
    pareto.staircase(arrays["points"], arrays["reference"], MIXED)
    pareto.distance_to_front(arrays["points"], arrays["points"], MIXED)
    pareto.bootstrap_hypervolume({"a": arrays["scores"]}, arrays["reference"], MIXED, n_resamples=5)
    pareto.bootstrap_steered_utility({"a": arrays["scores"]}, np.full((3, 2), 0.5), MIXED, n_resamples=5)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_validated_points_are_a_copy() -> None:
    points = np.ones((2, 2))
    assert not np.shares_memory(pareto.validate_points(points), points)


@given(points_strategy(3))
def test_non_dominance_is_its_definition(points: np.ndarray) -> None:
    signed = points * [1, -1, 1]
    dominated = [any((b >= a).all() and (b > a).any() for b in signed) for a in signed]
    assert pareto.nondominated(points, [True, False, True]).tolist() == [not flag for flag in dominated]


@given(points_strategy(2), st.integers(0, 2**31))
def test_hypervolume_ignores_order_and_a_common_shift(points: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, shift = np.array([-4.0, 4.0]), rng.normal(size=2)
    value = pareto.hypervolume(points, reference, MIXED)
    assert pareto.hypervolume(rng.permutation(points), reference, MIXED) == pytest.approx(value, abs=1e-12)
    assert pareto.hypervolume(points + shift, reference + shift, MIXED) == pytest.approx(value, abs=1e-9)


@given(points_strategy(3), points_strategy(3))
def test_adding_points_never_lowers_hypervolume(points: np.ndarray, more: np.ndarray) -> None:
    value = pareto.hypervolume(points, [-4, -4, -4], True)
    assert pareto.hypervolume(np.vstack([points, more]), [-4, -4, -4], True) >= value - 1e-12


@given(points_strategy(2))
def test_dominated_points_change_nothing(points: np.ndarray) -> None:
    mask = pareto.nondominated(points, MIXED)
    whole = pareto.hypervolume(points, [-5, 5], MIXED)
    assert pareto.hypervolume(points[mask], [-5, 5], MIXED) == pytest.approx(whole, abs=1e-12)
    worse = points[0] + [-0.5, 0.5]
    assert pareto.hypervolume(np.vstack([points, worse]), [-5, 5], MIXED) == pytest.approx(whole, abs=1e-12)
    assert pareto.distance_to_front(points[mask], points, MIXED) == 0.0


def enclosed_area(path: np.ndarray, reference: tuple[float, float]) -> float:
    """Area of the polygon of ``path`` closed through the reference point (shoelace formula)."""
    x, y = np.vstack([path, reference]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@pytest.mark.parametrize("maximise", [(True, True), (True, False), (False, True), (False, False)])
@given(points=points_strategy(2))
def test_a_staircase_encloses_exactly_the_hypervolume(maximise: tuple[bool, bool], points: np.ndarray) -> None:
    reference = tuple(-4.0 if up else 4.0 for up in maximise)
    path = pareto.staircase(points, reference, maximise)
    area = enclosed_area(path, (reference[0], reference[1])) if len(path) else 0.0
    assert area == pytest.approx(pareto.hypervolume(points, reference, maximise), abs=1e-9)


def test_distance_to_front_by_hand() -> None:
    """From (1, 1): short of (4, 5) by (3, 4), that is 5; short of (0, 3) by (0, 2), that is 2; mean 3.5."""
    assert pareto.distance_to_front([[1.0, 1.0]], [[4.0, 5.0], [0.0, 3.0]], True) == pytest.approx(3.5)
    assert pareto.distance_to_front([[1.0, -1.0]], [[4.0, -5.0]], MIXED) == pytest.approx(5.0)


def test_steered_utility_by_hand_and_linear() -> None:
    means, weights = np.array([[2.0, 1.0], [0.0, -3.0]]), np.array([[0.75, 0.25], [0.25, 0.75]])
    assert pareto.steered_utility(means, weights, MIXED) == pytest.approx((1.5 - 0.25 + 2.25) / 2)
    double = pareto.steered_utility(2 * means, weights, MIXED)
    assert double == pytest.approx(2 * pareto.steered_utility(means, weights, MIXED))


def scores(seed: int, n_prompts: int = 40, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (5, n_prompts, 2))


WEIGHTS = np.column_stack([np.linspace(0, 1, 5), 1 - np.linspace(0, 1, 5)])


def test_identical_methods_differ_by_exactly_zero() -> None:
    same = {"a": scores(1), "b": scores(1)}
    for estimates in (
        pareto.bootstrap_steered_utility(same, WEIGHTS, MIXED),
        pareto.bootstrap_hypervolume(same, [-3, 3], MIXED, n_resamples=200),
    ):
        gap = pareto.paired_difference(estimates["a"], estimates["b"])
        assert (gap.value, gap.ci_low, gap.ci_high, gap.bias) == (0.0, 0.0, 0.0, 0.0)


def test_a_constant_advantage_has_an_interval_of_no_width() -> None:
    """Prompts are resampled together: adding 0.5 reward to every answer adds 0.5 * mean(w) in every resample."""
    base = scores(2)
    estimates = pareto.bootstrap_steered_utility({"a": base + np.array([0.5, 0.0]), "b": base}, WEIGHTS, MIXED)
    gap = pareto.paired_difference(estimates["a"], estimates["b"])
    assert gap.value == pytest.approx(0.25)
    assert gap.ci_high - gap.ci_low < 1e-12 < estimates["a"].ci_high - estimates["a"].ci_low


def test_the_bootstrap_equals_resampling_one_by_one() -> None:
    arrays = {"a": scores(3), "b": scores(4)}
    found = pareto.bootstrap_hypervolume(arrays, [-3, 3], MIXED, n_resamples=20, seed=5)
    counts = pareto.resample_counts(40, 20, 5).astype(int)
    for name, array in arrays.items():
        drawn = [array[:, np.repeat(np.arange(40), row)].mean(axis=1) for row in counts]
        expected = [pareto.hypervolume(means, [-3, 3], MIXED) for means in drawn]
        np.testing.assert_allclose(found[name].resamples, expected, rtol=1e-12)
        assert found[name].bias == pytest.approx(np.mean(expected) - found[name].value)
        assert found[name].value == pareto.hypervolume(array.mean(axis=1), [-3, 3], MIXED)


def test_the_bootstrap_is_seeded() -> None:
    first, again, other = (
        pareto.bootstrap_steered_utility({"a": scores(1)}, WEIGHTS, MIXED, seed=seed)["a"] for seed in (1, 1, 2)
    )
    assert first.as_dict() == again.as_dict() != other.as_dict()


def test_noise_inflates_the_hypervolume_of_a_collapsed_front() -> None:
    collapsed = np.random.default_rng(0).normal(0, 1, (20, 50, 2))
    assert pareto.bootstrap_hypervolume({"a": collapsed}, [-3, 3], MIXED)["a"].bias > 0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_the_interval_of_steered_utility_covers_the_truth(seed: int) -> None:
    """Of 60 data sets with true utility 0, at least 45 of the 95 % intervals contain it (by chance fewer: < 1e-6)."""
    hits = 0
    for repeat in range(60):
        array = scores(seed * 100 + repeat)
        found = pareto.bootstrap_steered_utility({"a": array}, WEIGHTS, MIXED, n_resamples=200, seed=repeat)["a"]
        hits += found.ci_low <= 0 <= found.ci_high
    assert hits >= 45


def test_methods_with_other_prompts_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same prompts"):
        pareto.bootstrap_hypervolume({"a": scores(1), "b": scores(1, n_prompts=39)}, [-3, 3], MIXED)
    few, many = (
        pareto.bootstrap_steered_utility({"a": scores(1)}, WEIGHTS, MIXED, n_resamples=n)["a"] for n in (10, 20)
    )
    with pytest.raises(ValueError, match="cannot pair"):
        pareto.paired_difference(few, many)
    assert pareto.bootstrap_hypervolume({}, [-3, 3], MIXED) == {}
