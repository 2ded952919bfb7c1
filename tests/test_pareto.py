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
from peo_bench.report.board import published

KNOWN = Path(__file__).parents[2] / "shared/data/fronts/known_hypervolumes.json"
MIXED = [True, False]
WEIGHTS = np.column_stack([np.linspace(0, 1, 5), 1 - np.linspace(0, 1, 5)])


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
        lambda bad: pareto.igd_plus(bad, [[1, 1]], True),
        lambda bad: pareto.resample({"peo": bad[None]}),
        lambda bad: pareto.exclusive_contributions(bad, [0, 0], True),
        lambda bad: pareto.additive_epsilon([[1, 1]], bad, True),
        lambda bad: pareto.coverage(bad, [[1, 1]], True),
        lambda bad: pareto.expected_utility(bad, [[1, 0]], True),
        lambda bad: pareto.r2(bad, [9, 9], [[1, 0]], True),
        lambda bad: pareto.spacing(bad, True),
        lambda bad: pareto.sparsity(bad, True),
        lambda bad: pareto.hypervolume_within([[1, 1], [1, 1]], bad[:, 0], [1], [0, 0], True),
        lambda bad: pareto.attainment_surface([bad], 1.0, True),
        lambda bad: pareto.crossed_interval(bad),
        lambda bad: pareto.steerability([[1, 0], [0, 1]], [[1, 0], [0, 1]], bad, True),
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
        (lambda: pareto.igd_plus([], [[1, 2]], True), "at least one point"),
        (lambda: pareto.steered_utility([[1, 2]], [[0.7, 0.7]], True), "sum to 1"),
        (lambda: pareto.steered_utility([[1, 2]], [[1, 0], [0, 1]], True), "shape of the means"),
        (lambda: pareto.resample({"a": np.ones((2, 3))}), "n_policies"),
        (lambda: pareto.expected_utility([], [[1, 0]], True), "at least one point"),
        (lambda: pareto.coverage([[1, 2]], [], True), "at least one point"),
        (lambda: pareto.r2([[2, 0]], [1, 1], [[1, 0]], True), "ideal point"),
        (lambda: pareto.hypervolume_within([[1, 2]], [1, 2], [3], [0, 0], True), "one value for each"),
        (lambda: pareto.attainment_surface([[[1, 2]], []], 0.5, True), "at least one point"),
        (lambda: pareto.attainment_surface([[[1, 2]]], 0.0, True), "level"),
        (lambda: pareto.attainment_surface([[[1, 2]]], 1.5, True), "level"),
        (lambda: pareto.steered_utility([[1, 2]], [1, 0], True), r"weights must have shape \(n_preferences, 2\)"),
        (lambda: pareto.steered_utility([[1, 2]], [[1, 0, 0]], True), r"weights must have shape .* got \(1, 3\)"),
        (lambda: pareto.expected_utility([[1, 2]], np.empty((0, 2)), True), r"got \(0, 2\)"),
        (lambda: pareto.attainment_difference([[[1, 2]]], [], [[0, 0], [9, 9]], True), "as many fronts"),
        (lambda: pareto.crossed_interval(np.ones((1, 9))), "at least 2"),
        (lambda: pareto.steerability([[1, 0]], [[1, 0]], [[1, 2]], True), "at least 2"),
        (lambda: pareto.n_beyond_reference([[1, 2, 3]], [0, 0], True), "3 objectives, expected 2"),
        (lambda: pareto.hypervolume_within([[1, 2]], [float("nan")], [3], [0, 0], True), "spent contain"),
        (lambda: pareto.hypervolume_within([[1, 2]], [1], [float("nan")], [0, 0], True), "budgets contain"),
        (lambda: pareto.exclusive_contributions([[1, 2, 3]], [0, 0], True), "3 objectives, expected 2"),
        (lambda: pareto.r2([[1, 2, 3]], [9, 9], [[1, 0]], True), "3 objectives, expected 2"),
        (lambda: pareto.r2([], [9, 9], [[1, 0]], True), "^R2 needs at least one point$"),
        (lambda: pareto.holm([0.5, 1.5]), r"got \[0.5, 1.5\]"),
        (lambda: pareto.holm([-0.1]), r"in \[0, 1\]"),
        (lambda: pareto.utility_by_prompt(np.ones((2, 9, 2)), [[0, 1]], True), "2 policies do not fit 1 preferences"),
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
    pareto.igd_plus(arrays["points"], arrays["points"], MIXED)
    pareto.exclusive_contributions(arrays["points"], arrays["reference"], MIXED)
    pareto.spacing(arrays["points"], MIXED)
    pareto.attainment_difference([arrays["points"]], [arrays["points"][:2]], [[-3, 3], [3, -3]], MIXED)
    pareto.bootstrap_hypervolume(pareto.resample({"a": arrays["scores"]}, n_resamples=5), arrays["reference"], MIXED)
    pareto.utility_by_prompt(arrays["scores"], np.full((3, 2), 0.5), MIXED)
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
    assert pareto.igd_plus(points[mask], points, MIXED) == 0.0


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


def test_igd_plus_by_hand() -> None:
    """From (1, 1): short of (4, 5) by (3, 4), that is 5; short of (0, 3) by (0, 2), that is 2; mean 3.5."""
    assert pareto.igd_plus([[1.0, 1.0]], [[4.0, 5.0], [0.0, 3.0]], True) == pytest.approx(3.5)
    assert pareto.igd_plus([[1.0, -1.0]], [[4.0, -5.0]], MIXED) == pytest.approx(5.0)


def test_steered_utility_by_hand_and_linear() -> None:
    means, weights = np.array([[2.0, 1.0], [0.0, -3.0]]), np.array([[0.75, 0.25], [0.25, 0.75]])
    assert pareto.steered_utility(means, weights, MIXED) == pytest.approx((1.5 - 0.25 + 2.25) / 2)
    double = pareto.steered_utility(2 * means, weights, MIXED)
    assert double == pytest.approx(2 * pareto.steered_utility(means, weights, MIXED))


def test_exclusive_contributions_are_differences_of_hypervolumes() -> None:
    """Of [0, 0]-bounded boxes (1, 3), (2, 2), (3, 1): each adds one unit square of its own."""
    points = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 1.0], [4.0, 0.5]])
    found = pareto.exclusive_contributions(points, [0, 0], True)
    front = points[[0, 1, 2, 4]]
    without = [pareto.hypervolume(np.delete(front, i, axis=0), [0, 0], True) for i in range(4)]
    np.testing.assert_allclose(found[[0, 1, 2, 4]], pareto.hypervolume(front, [0, 0], True) - np.array(without))
    assert found[3] == 0
    assert pareto.exclusive_contributions([[1, 1], [1, 1]], [0, 0], True).tolist() == [0, 0], "duplicates share theirs"
    assert pareto.exclusive_contributions([], [0, 0], True).tolist() == []
    # Above (0.5, 1): 0.5 wide and 1 high on the left, 1 by 1 on the right; the same with the second turned into a cost.
    assert pareto.exclusive_contributions([[1, 3], [2, 2]], [0.5, 1], True).tolist() == [0.5, 1.0]
    assert pareto.exclusive_contributions([[1, -3], [2, -2]], [0.5, -1], MIXED).tolist() == [0.5, 1.0]


def test_epsilon_coverage_and_utilities_by_hand() -> None:
    a, b = [[3.0, 1.0], [1.0, 3.0]], [[2.0, 2.0], [0.5, 0.5]]
    assert pareto.additive_epsilon(a, b, True) == 1.0
    assert pareto.additive_epsilon(b, a, True) == 1.0
    assert pareto.additive_epsilon([[1.0, 1.0]], [[0.5, 2.0]], MIXED) == -0.5
    assert (pareto.coverage(a, b, True), pareto.coverage(b, a, True)) == (0.5, 0.0)
    weights = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    assert pareto.expected_utility(a, weights, True) == pytest.approx((3 + 2 + 3) / 3)
    assert pareto.expected_utility([[3.0, 1.0]], weights, MIXED) == pytest.approx((3 + 1 - 1) / 3)
    assert pareto.mean_inner_product is pareto.steered_utility


def test_the_steered_utility_never_exceeds_the_expected_utility() -> None:
    means = np.random.default_rng(3).normal(size=(5, 2))
    assert pareto.steered_utility(means, WEIGHTS, True) <= pareto.expected_utility(means, WEIGHTS, True)


def test_r2_agrees_with_moocores_exact_value() -> None:
    """With 20,001 evenly spread weights the mean of the Tchebycheff gaps is moocore's integral (two objectives)."""
    points = np.array([[5.0, 5.0], [4.0, 6.0], [2.0, 7.0], [7.0, 4.0]])
    grid = np.linspace(0, 1, 20_001)
    weights = np.column_stack([grid, 1 - grid])
    assert pareto.r2(points, [0, 0], weights, maximise=False) == pytest.approx(2.594191919, rel=1e-4)
    assert pareto.r2(points, [10, 10], weights, maximise=True) == pytest.approx(2.519696969, rel=1e-4)
    assert pareto.r2([[2.0, 1.0]], [2.5, 1.0], [[0.5, 0.5], [0, 1]], True) == 0.125, "0.25 and, at the ideal, 0"


def test_spacing_and_sparsity_by_hand() -> None:
    """Nearest L1 distances 2, 2 and 4 have the standard deviation sqrt(8 / 9); squared gaps 2 + 8 over 2 are 5."""
    points = [[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [0.0, 0.0]]
    assert pareto.spacing(points, True) == pytest.approx(np.sqrt(8 / 9))
    assert pareto.sparsity(points, True) == pytest.approx(5.0)
    assert pareto.sparsity([[0, 4], [3, 1]], True) > pareto.sparsity([[1.49, 2.5], [1.5, 2.49]], True), "it misleads"
    assert np.isnan(pareto.spacing([[1, 1], [1, 1]], True))
    assert np.isnan(pareto.sparsity([], True))
    assert pareto.spacing([[0, 1], [1, 0]], True) == 0.0
    assert pareto.sparsity([[0, 2], [0, 2], [1, 1], [2, 0]], True) == 2.0, "of distinct points"


def test_budgets_and_references() -> None:
    points, kl = [[1.0, 1.0], [2.0, 2.0], [3.0, 0.5]], [0.5, 2.0, 1.0]
    assert pareto.hypervolume_within(points, kl, [0.1, 0.5, 1.0, 2.0], [0, 0], True).tolist() == [0, 1, 2, 4.5]
    volumes = pareto.hypervolume_by_reference(points, [[0, 0], [1, 1], [5, 5]], True)
    assert volumes.tolist() == [4.5, 1.0, 0.0]


@given(points_strategy(3), points_strategy(3))
def test_a_front_reaches_itself(points: np.ndarray, more: np.ndarray) -> None:
    both = np.vstack([points, more])
    assert pareto.additive_epsilon(both, points, True) <= 0
    assert pareto.igd_plus(both, points, True) == 0
    assert pareto.coverage(both, points, True) == 1
    assert pareto.additive_epsilon(points, both, True) >= 0


# ---- published fronts (leaderboards/published.yaml, figures of peo.md) ----


def published_points(title: str, columns: tuple[str, str]) -> np.ndarray:
    (table,) = [entry for entry in published() if title in entry.title]
    names = list(table.columns)
    return np.array([[row[names.index(column)] for column in columns] for row in table.rows], dtype=float)


def test_rewarded_soups_front_by_hand() -> None:
    """Both rewards up. (.98, -.444) is dominated by (1.20, -.443), the other four trade off.

    Above the reference (0.9, -0.5), by columns: .30 x .057, .26 x .037, .19 x .021, .13 x .010.
    """
    points = published_points("news summaries", ("summary reward", "faithfulness reward"))
    assert pareto.nondominated(points, True).tolist() == [False, True, True, True, True]
    by_hand = 0.30 * 0.057 + 0.26 * 0.037 + 0.19 * 0.021 + 0.13 * 0.010
    assert pareto.hypervolume(points, [0.9, -0.5], True) == pytest.approx(by_hand, abs=1e-12)


def test_the_preference_vector_grid_collapses_to_a_point() -> None:
    """Of 25 strengths (1, 1) has both the highest helpful (1.99) and harmless (3.20) score: it dominates all."""
    points = published_points("a grid of strengths", ("helpful", "harmless"))
    assert len(points) == 25
    front = points[pareto.nondominated(points, True)]
    assert front.tolist() == [[1.99, 3.20]]
    assert pareto.hypervolume(points, [-2, -4], True) == pytest.approx(3.99 * 7.20)
    assert pareto.coverage(front, points, True) == 1.0


# ---- attainment ----


@settings(max_examples=25, deadline=None)
@given(st.lists(points_strategy(2), min_size=2, max_size=4), st.integers(1, 4))
def test_attainment_surfaces_are_their_definition(fronts: list[np.ndarray], wanted: int) -> None:
    """On a grid around all points: inside the surface exactly where at least `wanted` fronts attain."""
    wanted = min(wanted, len(fronts))
    surface = pareto.attainment_surface(fronts, wanted / len(fronts), MIXED)
    signs = np.array([1, -1])
    for z in np.random.default_rng(0).uniform(-5.5, 5.5, (60, 2)):
        attained = sum(bool(np.all(front * signs >= z * signs, axis=1).any()) for front in fronts)
        inside = bool(len(surface)) and bool(np.all(surface * signs >= z * signs, axis=1).any())
        assert inside == (attained >= wanted)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(points_strategy(2), points_strategy(2)), min_size=1, max_size=3))
def test_attainment_differences_are_their_definition(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    boxes = pareto.attainment_difference(a, b, [[-6, 6], [6, -6]], MIXED)
    signs = np.array([1, -1])
    for z in np.random.default_rng(1).uniform(-5.9, 5.9, (60, 2)):
        share = [np.mean([np.all(f * signs >= z * signs, axis=1).any() for f in fronts]) for fronts in (a, b)]
        hit = boxes[np.all((boxes[:, :2] <= z) & (z <= boxes[:, 2:4]), axis=1), 4]
        assert (hit[0] if len(hit) else 0.0) == pytest.approx(share[0] - share[1])


# ---- steering ----


def test_steerability_by_hand() -> None:
    """Reward 0, 2, 1 for helpful weight 0, .5, 1: one step down of two, rank correlation 0.5; cost only rises."""
    asked = [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]
    found = pareto.steerability(asked, [[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]], [[0, -1], [2, 0], [1, 3]], MIXED)
    assert found.rank_correlation == pytest.approx((0.5, 1.0))
    assert (found.violations, found.steps, found.span) == ((1, 0), (2, 2), (1.0, 4.0))
    assert found.distinct == pytest.approx(2 / 3)
    assert found.coverage == pytest.approx(0.25)
    flat = pareto.steerability(asked, asked, [[1, 1]] * 3, MIXED)
    assert flat.rank_correlation == (None, None)
    assert (flat.violations, flat.span, flat.coverage) == ((0, 0), (0.0, 0.0), 1.0)


def test_steerability_between_two_preferences_short_of_the_vertices() -> None:
    """Asked 0.25 and 0.75, offered 0.4 and 0.6: 0.2 of 0.5. Reward rises by 1; cost is 1 worse where it weighs more."""
    asked, offered = [[0.25, 0.75], [0.75, 0.25]], [[0.4, 0.6], [0.6, 0.4]]
    found = pareto.steerability(asked, offered, [[0, 1], [1, 0]], MIXED)
    assert found.rank_correlation == pytest.approx((1.0, -1.0))
    assert (found.violations, found.steps, found.span) == ((0, 1), (1, 1), (1.0, -1.0))
    assert found.coverage == pytest.approx(0.4)


def test_an_objective_that_nobody_weighs_differently_has_no_coverage() -> None:
    """The first of three always weighs 0.5; the others are offered half of the range that was asked for."""
    asked, offered = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]], [[0.5, 0.5, 0.0], [0.5, 0.25, 0.25]]
    found = pareto.steerability(asked, offered, [[0, 1, 2], [0, 2, 1]], True)
    assert found.coverage == pytest.approx(0.5)
    assert (found.rank_correlation[0], found.steps) == (None, (0, 1, 1))


def test_attainment_on_a_grid_agrees_with_the_exact_rectangles() -> None:
    """At the centre of every rectangle of the difference the two grids differ by its share."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.3, 1, (6, 4, 2)), rng.normal(0, 1, (6, 4, 2))
    for maximise in ([True, True], [True, False], [False, True]):
        signs = np.where(maximise, 1, -1)
        boxes = pareto.attainment_difference(list(a), list(b), [-4 * signs, 4 * signs], maximise)
        assert len(boxes) > 3
        for x1, y1, x2, y2, share in boxes:
            x, y = [(x1 + x2) / 2], [(y1 + y2) / 2]
            grids = [pareto.attainment_shares(fronts, x, y, maximise)[0, 0] for fronts in (a, b)]
            assert grids[0] - grids[1] == pytest.approx(share)
