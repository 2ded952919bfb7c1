"""What metrics.json says of a method, from a handful of answers whose numbers follow by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from peo_bench import pareto
from peo_bench.core.decoding import Decoding
from peo_bench.core.method import Objective
from peo_bench.core.preference import Preference
from peo_bench.results.judge_records import JudgeCard, JudgeMetrics
from peo_bench.results.measure import Measure, identity_of
from peo_bench.results.metrics import Beside, _fronts_of_others, run_metrics
from peo_bench.results.metrics_records import CapabilityRow, SafetyRow, SafetyZero
from peo_bench.results.operating_points import Row, Scores, point_row, point_table

OBJECTIVES = (Objective("helpful", "reward", True), Objective("harmless", "cost", False))
NAMES = ["helpful", "harmless"]
UNITS = {0: {"reward": (0.0, 1.0), "cost": (0.0, 1.0)}}
KL = {0.0: 0.5, 0.5: 3.0, 1.0: 9.0}
"""Nats by helpful weight: more helpfulness moves further, so a mirrored preference shows."""
REWARD = {0.0: 1.0, 0.5: 2.0, 1.0: 3.0}
COST = {0.0: 1.0, 0.5: 2.0, 1.0: 3.0}


def answers() -> pd.DataFrame:
    rows = [
        {
            **{"method": "peo", "seed": 0, "split": "test", "preference": w, "prompt_id": f"p{i}", "length": 5},
            **{"reward": REWARD[w] + shift, "cost": COST[w] + shift, "kl": KL[w]},
        }
        for w in KL
        for i, shift in enumerate((-0.25, 0.25))
    ]
    return pd.DataFrame(rows)


def identity(method: str, seed: int, w: float, offered: float | None = None) -> Row:
    """What a row of points.csv says of a policy asked for at helpful weight `w`; `offered` is by default the same."""
    own: Row = {"task": "t", "split": "test", "method": method, "seed": seed, "grid": "asked"}
    for what, weight in (("preference", w), ("projected", w if offered is None else offered)):
        own |= {f"{what}_helpful": weight, f"{what}_harmless": 1 - weight}
    return own | {"spec_key": f"{method} {seed} {w}"}


def test_a_kl_budget_keeps_the_policies_that_were_asked_for_its_preferences() -> None:
    """Hypervolumes by hand, reference point (0, 4): (1, 1) spans 1 x 3; (2, 2) adds 1 x 2."""
    table = answers()
    measure = Measure(
        task="t",
        version=1,
        objectives=OBJECTIVES,
        reference_point={"reward": 0.0, "cost": 4.0},
        units="raw",
        scorers={},
        judges={},
        decoding=Decoding(),
        precision="float32",
        preferences=tuple(Preference.of(NAMES, helpful=w) for w in KL),
        prompts=identity_of(table["prompt_id"]),
    )
    rows: list[Row] = []
    for w, part in table.groupby("preference"):
        rows.append(point_row(identity("peo", 0, float(w)), part, OBJECTIVES))
    points = point_table(rows, OBJECTIVES)
    task = run_metrics(points, Scores.of(table, NAMES), measure, UNITS)
    found = task.methods["peo"]
    assert task.kl_budgets == (0.5, 1.0, 2.0, 4.0, 8.0)
    assert found.points_within_kl == (1, 1, 1, 2, 2)
    assert found.front_within_kl == ((0.0,), (0.0,), (0.0,), (0.0, 0.5), (0.0, 0.5))
    assert found.hypervolume_within_kl == pytest.approx((3.0, 3.0, 3.0, 5.0, 5.0))
    assert found.hypervolume.value == pytest.approx(6.0)
    assert found.kl_mean == pytest.approx((0.5 + 3.0 + 9.0) / 3)


# ---- two methods, two seeds with scorers of their own ----------------------------------------------------------

OWN_UNITS = {0: {"reward": (10.0, 2.0), "cost": (5.0, 4.0)}, 1: {"reward": (-3.0, 1.0), "cost": (1.0, 0.5)}}
MEAN_UNITS = {"reward": (3.5, 1.5), "cost": (3.0, 2.25)}
IN_UNITS = {
    "good": {(0, 0.0): (0.0, -1.0), (1, 0.0): (0.0, -1.0), (0, 1.0): (2.0, 0.0), (1, 1.0): (3.0, 0.0)},
    "mirrored": {(0, 0.0): (1.0, 0.0), (1, 0.0): (1.0, 0.0), (0, 1.0): (0.0, -0.5), (1, 1.0): (0.0, -0.5)},
    "half-done": {(0, 0.0): (9.0, -9.0), (0, 1.0): (9.0, -9.0), (1, 0.0): (9.0, -9.0)},
}
"""Reward and cost in each seed's units, by method, seed and helpful weight."""
NATS = {
    ("good", 0.0): 0.5,
    ("mirrored", 0.0): 9.0,
    ("mirrored", 1.0): 0.5,
    ("half-done", 0.0): 0.1,
    ("half-done", 1.0): 0.1,
}
BOUNDS = {0: 3.0, 1: 5.0}
"""Upper bounds of the KL of good's second policy, a selection, by seed."""


def raw(seed: int, column: str, value: float) -> float:
    shift, scale = OWN_UNITS[seed][column]
    return shift + scale * value


def two_seeds() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers to two prompts half a unit apart, and the points they make; with rows that metrics must leave alone."""
    rows, kept = [], []
    for method, policies in IN_UNITS.items():
        for (seed, w), (reward, cost) in policies.items():
            part = pd.DataFrame({
                "method": method, "seed": seed, "split": "test", "preference": w, "prompt_id": ["p0", "p1"],
                "reward": [raw(seed, "reward", reward + shift) for shift in (-0.25, 0.25)],
                "cost": [raw(seed, "cost", cost + shift) for shift in (-0.25, 0.25)],
                "kl": NATS.get((method, w), np.nan), "kl_bound": BOUNDS[seed] if method == "good" and w else np.nan,
                "length": 4 + 2 * w + seed,
            })  # fmt: skip
            kept.append(part)
            offered = 0.25 + w / 2 if method == "mirrored" else w
            own = identity(method, seed, w, offered)
            rows.append(point_row(own, part, OBJECTIVES))
            others = ({"split": "validation"}, {"grid": "beyond"})
            rows += [point_row(own | other, part.assign(kl=99.0, length=99), OBJECTIVES) for other in others]
    for reward, cost, hollow in ((2.5, -1.0, False), (99.0, -99.0, True)):
        own = {"task": "t", "split": "test", "method": "oracle", "seed": 1, "grid": "asked", "hollow": hollow}
        rows.append({**own, "reward": raw(1, "reward", reward), "cost": raw(1, "cost", cost), "kl": 99.0})
    return pd.concat(kept, ignore_index=True), point_table(rows, OBJECTIVES)


def measure_of_two(units: str, bound: tuple[float, float], weights: tuple[float, ...] = (0.0, 1.0)) -> Measure:
    return Measure(
        task="t",
        version=1,
        objectives=OBJECTIVES,
        reference_point=dict(zip(("reward", "cost"), bound, strict=True)),
        units=units,
        scorers={},
        judges={},
        decoding=Decoding(),
        precision="float32",
        preferences=tuple(Preference.of(NAMES, helpful=w) for w in weights),
        prompts=identity_of(["p0", "p1"]),
    )


def test_metrics_of_two_methods_in_the_units_of_each_seed() -> None:
    """Means in units: good (0, -1) and (2.5, 0), mirrored (1, 0) and (0, -0.5), oracle (2.5, -1); bound (-1, 1)."""
    answers, points = two_seeds()
    beside = Beside(chosen={"good": {"phi": 0.5}}, evaluations={"good": 36})
    task = run_metrics(points, Scores.of(answers, NAMES), measure_of_two("reference", (-1.0, 1.0)), OWN_UNITS, beside)
    assert task.units == OWN_UNITS
    assert task.reference_units == task.normalisation == MEAN_UNITS
    assert task.hypervolume_units == "reference"
    assert list(task.methods) == ["good", "mirrored"], "a method without one of its policies takes no part"
    good, mirrored = task.methods["good"], task.methods["mirrored"]
    assert good.hypervolume.value == pytest.approx(1 * 2 + 3.5 * 1 - 1)
    assert mirrored.hypervolume.value == pytest.approx(1 * 1.5 + 2 * 1 - 1)
    assert good.steered_utility.value == good.expected_utility.value == pytest.approx((1 + 2.5) / 2)
    assert (mirrored.steered_utility.value, mirrored.expected_utility.value) == pytest.approx((0, (0.5 + 1) / 2))
    assert (good.igd_plus.value, mirrored.igd_plus.value) == pytest.approx((0, (0.5 + 1.5) / 2))
    assert (good.additive_epsilon.value, mirrored.additive_epsilon.value) == pytest.approx((0, 1.5))
    assert (good.oracle_distance, mirrored.oracle_distance) == pytest.approx((1.0, np.hypot(1.5, 1.0)))
    assert (good.rank.best, good.rank.worst, mirrored.rank.best, mirrored.rank.worst) == (1, 1, 2, 2)
    assert (good.sparsity, mirrored.sparsity) == pytest.approx((2.5**2 + 1, 1 + 0.5**2))
    assert (good.spacing, good.n_nondominated, good.n_points, good.n_beyond_reference) == (0, 4, 4, 0)
    assert (good.chosen, good.validation_evaluations) == ({"phi": 0.5}, 36)
    assert (mirrored.chosen, mirrored.validation_evaluations) == ({}, None)
    assert (good.length_mean, mirrored.length_mean) == (5.5, 5.5)
    references = [[-0.5, 0.5], [-0.75, 0.75], [-1.0, 1.0], [-1.25, 1.25], [-1.5, 1.5]]
    assert task.reference_sensitivity.references == tuple(map(tuple, references))
    swept = task.reference_sensitivity.hypervolume["good"]
    assert swept[::2] == pytest.approx((0.5 * 1.5 + 3 * 0.5 - 0.25, 4.5, 1.5 * 2.5 + 4 * 1.5 - 2.25))


def test_metrics_within_a_budget_take_the_bound_of_what_has_no_kl() -> None:
    """Nats: good 0.5 and at most 4, mirrored 9 and 0.5; what other splits and grids spend counts nowhere."""
    answers, points = two_seeds()
    task = run_metrics(points, Scores.of(answers, NAMES), measure_of_two("reference", (-1.0, 1.0)), OWN_UNITS)
    good, mirrored = task.methods["good"], task.methods["mirrored"]
    assert task.kl_budgets == (0.5, 1.0, 2.0, 4.0, 8.0), "0.1 nats of a method that takes no part make no budget"
    assert good.points_within_kl == (1, 1, 1, 2, 2)
    assert good.front_within_kl == ((0.0,), (0.0,), (0.0,), (0.0, 1.0), (0.0, 1.0))
    assert good.hypervolume_within_kl == pytest.approx((2, 2, 2, 4.5, 4.5))
    assert (mirrored.points_within_kl, mirrored.front_within_kl) == ((1,) * 5, ((1.0,),) * 5)
    assert mirrored.hypervolume_within_kl == pytest.approx((1.5,) * 5)
    assert (good.kl_mean, good.kl_bound_mean) == (None, (0.5 + 0.5 + 3 + 5) / 4)
    assert (mirrored.kl_mean, mirrored.kl_bound_mean) == ((9 + 0.5) / 2, None)


def test_steerability_takes_what_was_asked_and_what_was_offered() -> None:
    answers, points = two_seeds()
    task = run_metrics(points, Scores.of(answers, NAMES), measure_of_two("reference", (-1.0, 1.0)), OWN_UNITS)
    good, mirrored = task.methods["good"].steerability, task.methods["mirrored"].steerability
    assert good is not None
    assert mirrored is not None
    assert (good.span, good.violations, good.rank_correlation) == ((2.5, 1.0), (0, 0), pytest.approx((1, 1)))
    assert (mirrored.span, mirrored.violations) == ((-1.0, -0.5), (1, 1))
    assert mirrored.rank_correlation == pytest.approx((-1, -1))
    assert (good.coverage, mirrored.coverage) == (1.0, 0.5)


def test_a_comparison_is_of_the_differences_in_each_seeds_units() -> None:
    """Steered utilities of good: 1.5 with the first seed's units, 2 with the second's; mirrored 0."""
    answers, points = two_seeds()
    measure = measure_of_two("reference", (-1.0, 1.0))
    (found,) = run_metrics(points, Scores.of(answers, NAMES), measure, OWN_UNITS).comparisons
    expected = pareto.crossed_interval(np.array([[1.5, 1.5], [2.0, 2.0]]))
    assert (found.a, found.b, found.difference) == ("good", "mirrored", 1.75)
    assert (found.ci_low, found.ci_high, found.p) == pytest.approx((expected.ci_low, expected.ci_high, expected.p))
    assert found.p_holm == found.p
    assert (found.covers, found.detectable, found.hypervolume_share) == ("prompts and training seeds", None, 1.0)


def test_with_one_seed_a_comparison_covers_prompts_and_tells_what_they_could_detect() -> None:
    """Gaps by prompt: 1.5 and 1.5 + 0.5; three methods, so Holm's first step is at 0.05 / 3."""
    answers, points = two_seeds()
    answers, points = answers[answers["seed"] == 0], points[points["seed"] == 0]
    shift = {"p0": 0.0, "p1": 2.0}
    higher = answers["reward"] + answers["prompt_id"].map(shift) * (answers["method"] == "good")
    scores = Scores.of(answers.assign(reward=higher), NAMES)
    measure, own = measure_of_two("reference", (-1.0, 1.0)), {0: OWN_UNITS[0]}
    task = run_metrics(points, scores, measure, own)
    assert list(task.methods) == ["good", "mirrored", "half-done"]
    found = {(one.a, one.b): one for one in task.comparisons}["good", "mirrored"]
    gap = np.array([1.5, 1.5 + 0.5])
    assert found.difference == pytest.approx(1.75)
    assert (found.ci_low, found.ci_high) == pytest.approx((1.5, 2.0)), "two prompts, each at times drawn alone"
    assert (found.covers, found.detectable) == ("prompts", pareto.detectable_difference(gap, level=0.05 / 3))
    assert [one.p_holm for one in task.comparisons] == pytest.approx(pareto.holm([one.p for one in task.comparisons]))
    assert task.resamples == pareto.RESAMPLES


def test_a_reference_point_in_raw_scores_measures_the_raw_means() -> None:
    """Raw means of good: (3.5, 0.75) and (7, 3), bound (5, 4); utilities stay in the mean units, (0, -1), (7/3, 0)."""
    answers, points = two_seeds()
    task = run_metrics(points, Scores.of(answers, NAMES), measure_of_two("raw", (5.0, 4.0)), OWN_UNITS)
    good = task.methods["good"]
    assert (task.hypervolume_units, task.normalisation, task.reference_units) == ("raw", None, MEAN_UNITS)
    assert (good.hypervolume.value, good.n_beyond_reference) == (pytest.approx(2 * 1), 1)
    assert good.steered_utility.value == pytest.approx((1 + 7 / 3) / 2)
    assert good.oracle_distance == pytest.approx(2.5 / 2.25 - 1), "(-0.5, 0.5) is 2.5 below the mean cost of 3"
    sensitivity = task.reference_sensitivity
    assert sensitivity.references[0] == pytest.approx((4.25, 3.5)), "half the way from (3.5, 3)"
    assert sensitivity.hypervolume["good"][::2] == pytest.approx((2.75 * 0.5, 2 * 1, 1.25 * 1.5))


def test_what_was_not_evaluated_has_no_metrics_but_its_units() -> None:
    answers, points = two_seeds()
    measure = measure_of_two("reference", (-1.0, 1.0), weights=(0.0, 0.5, 1.0))
    task = run_metrics(points, Scores.of(answers, NAMES), measure, OWN_UNITS, Beside(evaluations={"good": 36}))
    assert (task.methods, task.comparisons, task.resamples) == ({}, (), None)
    assert (task.reference_units, task.reference_point) == (MEAN_UNITS, {"reward": -1.0, "cost": 1.0})


def test_one_preference_and_one_method_have_no_steering_and_nobody_to_be_compared_with() -> None:
    answers, points = two_seeds()
    answers = answers[(answers["method"] == "good") & (answers["preference"] == 1)]
    points = points[(points["method"] == "good") & (points["preference_helpful"] == 1)]
    measure = measure_of_two("reference", (-1.0, 1.0), weights=(1.0,))
    task = run_metrics(points, Scores.of(answers, NAMES), measure, OWN_UNITS)
    good = task.methods["good"]
    assert (good.steerability, good.igd_plus, good.additive_epsilon, good.oracle_distance) == (None,) * 4
    assert (task.comparisons, task.kl_budgets, good.points_within_kl) == ((), (4.0,), (1,))
    assert good.steered_utility.value == pytest.approx(2.5)


def several_methods(gaps: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One seed in units (0, 1), two preferences, two prompts: method k is better by gaps[k], on one prompt by more."""
    rows, points = [], []
    for k, gap in enumerate(gaps):
        for w in (0.0, 1.0):
            part = pd.DataFrame({
                "method": f"m{k}", "seed": 0, "split": "test", "preference": w, "prompt_id": ["p0", "p1"],
                "reward": [gap + w, w], "cost": [w, w], "kl": 1.0, "length": 5,
            })  # fmt: skip
            rows.append(part)
            points.append(point_row(identity(f"m{k}", 0, w), part, OBJECTIVES))
    return pd.concat(rows, ignore_index=True), point_table(points, OBJECTIVES)


def test_a_comparison_of_two_pairs_differences_subtracts() -> None:
    """Both have prompt gaps, of 1 and of 2: their difference by prompt is (-0.5, 0), their sum (1.5, 0)."""
    table, points = several_methods([1.0, 2.0])
    task = run_metrics(points, Scores.of(table, NAMES), measure_of_two("reference", (-1.0, 3.0)), UNITS)
    (found,) = task.comparisons
    assert found.difference == pytest.approx(-0.25)
    assert found.detectable == pytest.approx(pareto.detectable_difference([-0.5, 0.0], level=0.05))
    assert 0 < found.hypervolume_share < 0.5, "less in every draw that holds the first prompt, else equal"
    ranks = [task.methods[name].rank for name in ("m0", "m1")]
    assert ranks[0].best < ranks[0].worst == 2, "equal where only the second prompt is drawn"


def test_many_pairs_are_resampled_often_enough_for_holms_correction() -> None:
    """Each is better than the last on both prompts, so that every draw says so: the least p-value of 40 x 66 draws."""
    gaps = [k / 10 for k in range(12)]
    table, points = several_methods(gaps)
    table.loc[table["prompt_id"] == "p1", "reward"] += np.repeat(gaps, 2) * 3
    task = run_metrics(points, Scores.of(table, NAMES), measure_of_two("raw", (-1.0, 3.0)), UNITS)
    assert task.resamples == pareto.RESAMPLES
    assert {found.p for found in task.comparisons} == {2 / (40 * 66 + 1)}
    assert max(found.p_holm for found in task.comparisons) < 0.05 < 66 * 2 / (pareto.RESAMPLES + 1)


def test_a_method_is_measured_against_the_front_of_all_others() -> None:
    """Also one whose points are duplicates of another's, and one that alone keeps others off the front."""
    random = np.random.default_rng(0)
    fronts = {f"m{i}": random.normal(size=(4, 2)) + i / 4 for i in range(6)}
    fronts |= {"twin": fronts["m5"], "best": np.array([[5.0, -5.0]])}
    for maximise in ([True, False], [True, True]):
        for method, front in _fronts_of_others(fronts, maximise):
            rest = np.concatenate([other for name, other in fronts.items() if name != method])
            np.testing.assert_array_equal(front, rest[pareto.nondominated(rest, maximise)])


def test_what_was_measured_beside_the_fronts_stands_beside_them() -> None:
    table, points = several_methods([0.0, 1.0])
    policy = {"method": "m0", "seed": 0, "preference": 1.0, "spec_key": "0 1.0"}
    card = JudgeCard(position_consistency=1.0, parse_failures=0, n_calls=2, usd=None, ties=0, skipped=0)
    beside = Beside(
        safety=(SafetyRow(**policy, length_mean=5.0),),
        safety_zero=SafetyZero(source="scorer"),
        capabilities=(CapabilityRow(**policy, capability="arc", metric="acc", value=0.5, se=None),),
        judges={"judge": JudgeMetrics(card=card, win_rates=(), overall=(), elo={})},
    )
    measure = measure_of_two("reference", (-1.0, 3.0))
    task = run_metrics(points, Scores.of(table, NAMES), measure, UNITS, beside)
    told = (task.safety, task.safety_zero, task.capabilities, task.judges)
    assert told == (beside.safety, beside.safety_zero, beside.capabilities, beside.judges)
