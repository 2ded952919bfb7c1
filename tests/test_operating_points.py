"""Rows of points.csv, answers and scores of single policies, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_closed_form import world

from peo_bench.core.decoding import Decoding
from peo_bench.core.method import Objective
from peo_bench.core.preference import Preference
from peo_bench.core.spec import policy
from peo_bench.jobs.job import Job
from peo_bench.results.measure import Measure, identity_of
from peo_bench.results.operating_points import (
    Offer,
    Scores,
    answer_table,
    point_columns,
    point_row,
    point_table,
    reference_units,
)

OBJECTIVES = (Objective("helpful", "reward", True), Objective("harmless", "cost", False))
NAMES = ["helpful", "harmless"]
SPEC = policy("base", [("one", 0.7)])
OFFER = Offer(
    "peo", 3, SPEC, Job("answers"), Preference.of(NAMES, helpful=0.7), Preference.of(NAMES, helpful=0.5), (1.5, -0.25)
)
TABLE = pd.DataFrame({
    "prompt_id": ["p0", "p1", "p2"], "prompt": ["a", "b", "c"], "category": "all", "answer": ["x", "y", "z"],
    "reward": [1.0, 2.0, 6.0], "cost": [0.0, 0.0, 3.0], "reward_proxy": [1.0, 1.0, 4.0],
    "kl": [0.5, 1.0, 3.0], "kl_bound": np.nan, "length": [4, 5, 9], "truncated": [0.0, 1.0, 0.0],
})  # fmt: skip


def test_an_offer_says_which_policy_it_is() -> None:
    assert OFFER.identity(OBJECTIVES) == {
        "split": "test", "method": "peo", "seed": 3, "grid": "asked", "spec_key": SPEC.key,
        "preference_helpful": 0.7, "preference_harmless": 0.3, "projected_helpful": 0.5, "projected_harmless": 0.5,
        "coef_helpful": 1.5, "coef_harmless": -0.25,
    }  # fmt: skip
    single = Offer("reference", 3, policy("base"), Job("answers"), split="benign", grid="none")
    key = policy("base").key
    assert single.identity(OBJECTIVES) == {
        "split": "benign", "method": "reference", "seed": 3, "grid": "none", "spec_key": key,
    }  # fmt: skip


def test_a_point_has_means_and_standard_errors_over_prompts() -> None:
    """Reward 1, 2, 6: mean 3, squared gaps 4 + 1 + 9, so the error is sqrt(14 / 2 / 3)."""
    row = point_row({"method": "peo"}, TABLE, OBJECTIVES)
    assert (row["method"], row["n"], row["reward"], row["cost"]) == ("peo", 3, 3.0, 1.0)
    assert row["reward_se"] == pytest.approx(np.sqrt(14 / 2 / 3))
    assert row["cost_se"] == pytest.approx(np.sqrt((1 + 1 + 4) / 2 / 3))
    assert (row["kl"], row["length"], row["truncated"]) == pytest.approx((1.5, 6.0, 1 / 3))
    assert row["kl_se"] == pytest.approx(np.sqrt((1 + 0.25 + 2.25) / 2 / 3))
    assert row["reward_proxy"] == 2.0
    assert "cost_proxy" not in row
    assert np.isnan(row["kl_bound"])


def test_a_table_of_points_tells_fronts_apart_and_rounds() -> None:
    """A policy is dominated by its own method, seed, split, task and grid only, and never by a hollow point."""
    plain = {"task": "t", "split": "test", "method": "a", "seed": 0, "grid": "asked", "reward": 1.0, "cost": 1.0}
    better = plain | {"reward": 2.0, "cost": 0.1234567}
    rows = [
        plain, better, plain | {"cost": 0.0},
        *(better | {key: value} for key, value in (("task", "u"), ("split", "v"), ("method", "b"), ("seed", 1))),
        *(plain | {key: value} for key, value in (("task", "u"), ("split", "v"), ("method", "b"), ("seed", 1))),
        plain | {"grid": "more"},
        plain | {"method": "oracle", "hollow": False},
        better | {"method": "oracle", "hollow": True},
    ]  # fmt: skip
    found = point_table([row | {"extra": 5} for row in rows], OBJECTIVES)
    expected = [False, True, True, *[True] * 4, *[False] * 4, True, True, False]
    assert found["nondominated"].tolist() == expected
    assert list(found) == [*point_columns(OBJECTIVES), "extra"]
    assert found["cost"].tolist()[1] == 0.123457


def test_columns_are_in_the_order_of_the_objectives() -> None:
    assert point_columns(OBJECTIVES) == [
        "task", "split", "method", "seed", "grid", "preference_helpful", "preference_harmless", "projected_helpful",
        "projected_harmless", "spec_key", "coef_helpful", "coef_harmless", "reward", "reward_se", "cost", "cost_se",
        "reward_proxy", "cost_proxy", "kl", "kl_se", "kl_bound", "length", "truncated", "n", "nondominated", "ess",
        "hollow",
    ]  # fmt: skip


def test_answers_are_told_apart_by_policy_and_read_back_as_scores() -> None:
    """Prompts are matched by their id and preferences come by rising weight, whatever the order of the rows."""
    lower = Offer("peo", 3, policy("base"), Job("answers"), Preference.of(NAMES, helpful=0.0))
    single = Offer("reference", 3, policy("base"), Job("answers"))
    other = Offer("peo", 3, SPEC, Job("answers"), Preference.of(NAMES, helpful=0.7), split="validation")
    low = TABLE.assign(reward=[10.0, 20.0, 60.0])
    found = answer_table([(OFFER, TABLE[::-1]), (lower, low), (single, TABLE), (other, TABLE.assign(reward=99.0))])
    assert list(found)[:8] == ["prompt_id", "prompt", "category", "method", "seed", "split", "preference", "spec_key"]
    assert "truncated" not in found
    assert found["preference"].tolist()[:6] == [0.7] * 3 + [0.0] * 3
    assert found["preference"].isna().tolist() == [False] * 6 + [True] * 3 + [False] * 3
    assert found["spec_key"].tolist()[:4:3] == [SPEC.key, policy("base").key]
    scores = Scores.of(found, NAMES)
    assert scores.methods == ["peo"]
    assert scores.array("peo", [3], ["reward", "cost"])[0].tolist() == [
        [[10.0, 0.0], [20.0, 0.0], [60.0, 3.0]],
        [[1.0, 0.0], [2.0, 0.0], [6.0, 3.0]],
    ]
    units = {3: {"reward": (1.0, 2.0), "cost": (3.0, 0.5)}}
    in_units = scores.array("peo", [3], ["reward", "cost"], units)
    assert in_units[0, 1].tolist() == [[0.0, -6.0], [0.5, -6.0], [2.5, 0.0]]
    asked = [Preference.of(NAMES, helpful=w) for w in (0.0, 0.7)]
    assert scores.complete("peo", [3], asked)
    assert not scores.complete("peo", [3, 4], asked)
    assert not scores.complete("peo", [3], [*asked, Preference.of(NAMES, helpful=1.0)])


def test_reference_units_are_mean_and_standard_deviation_over_prompts() -> None:
    units = reference_units(TABLE, world())
    assert units["reward"] == pytest.approx((3.0, np.sqrt(14 / 2)))
    assert units["cost"] == pytest.approx((1.0, np.sqrt(6 / 2)))


# ---- what must agree -------------------------------------------------------------------------------------------

MEASURE = Measure(
    task="t",
    version=2,
    objectives=OBJECTIVES,
    reference_point={"cost": 4.0, "reward": -1.0},
    units="raw",
    scorers={"reward": ("a v1",)},
    judges={},
    decoding=Decoding(),
    precision="float32",
    preferences=(Preference.of(NAMES, helpful=0.7),),
    prompts=identity_of(["b", "a", "b"]),
)


def test_a_measure_reads_its_own_json_and_lists_by_objective() -> None:
    assert MEASURE.to_json()["objectives"] == [["helpful", "reward", True], ["harmless", "cost", False]]
    assert MEASURE.to_json()["preferences"] == [[0.7, 0.3]]
    assert Measure.model_validate(MEASURE.to_json()) == MEASURE
    assert (MEASURE.names, MEASURE.columns, MEASURE.maximise) == (NAMES, ["reward", "cost"], [True, False])
    assert (MEASURE.bound, MEASURE.weights) == ([-1.0, 4.0], [(0.7, 0.3)])


def test_prompts_are_one_set_whatever_their_order_and_repetitions() -> None:
    assert MEASURE.prompts == identity_of(["a", "b"]) != identity_of(["a", "c"])
    assert MEASURE.prompts.n == 2
    assert MEASURE.prompts.sha256 == "7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78"


OTHER = {
    "task": "u", "version": 3, "reference_point": {"cost": 5.0, "reward": -1.0}, "units": "reference",
    "scorers": {"reward": ("b v1",)}, "judges": {"j": "k"}, "decoding": Decoding(temperature=0.5),
    "preferences": (Preference.of(NAMES, helpful=0.5),), "prompts": identity_of(["a"]),
    "objectives": (OBJECTIVES[0], Objective("harmless", "cost", True)),
}  # fmt: skip


@pytest.mark.parametrize("key", OTHER)
def test_any_difference_is_named_and_makes_another_leaderboard(key: str) -> None:
    other = MEASURE.model_copy(update={key: OTHER[key]})
    mine, theirs = MEASURE.to_json()[key], other.to_json()[key]
    text = [str(value) if len(str(value)) <= 100 else str(value)[:97] + "..." for value in (mine, theirs)]
    assert MEASURE.differences(other) == [f"{key}: {text[0]} against {text[1]}"]
    assert other.name != MEASURE.name == MEASURE.model_copy().name
    assert MEASURE.name.startswith("t-v2-")
