"""Which answers are compared, and how several seeds become one win rate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from peo_bench import pareto
from peo_bench.core.method import Objective
from peo_bench.judges.card import card, interval, overall_win_rates, shares, win_rates, without_surplus_ties
from peo_bench.judges.judge import Judged
from peo_bench.judges.matchups import n_matches, pair_table
from peo_bench.runs.judging import judge_metrics

OBJECTIVES = (Objective("helpful", "reward", True), Objective("harmless", "cost", False))


def answers(seeds=(0,), methods=("peo", "modpo", "soup"), weights=(0.0, 0.5, 1.0), n=8, given=None):
    """Answers whose reward is the prompt's number plus the weight; a given policy is one for every weight."""
    offers = [(m, w) for m in methods for w in weights] + [("reference", np.nan)]
    offers += [(given, w) for w in weights] if given else []
    rows = [
        {"split": split, "seed": seed, "method": m, "preference": w, "prompt_id": f"p{j}",
         "spec_key": m if m == given else f"{m}{w}",
         "prompt": f"q{j}", "answer": f"{m} {w} {j}", "reward": j + (0 if w != w else w), "cost": -j}
        for split in ("validation", "test") for seed in seeds for m, w in offers for j in range(n)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_every_match_once_on_the_same_prompts():
    table = pair_table(answers(given="mine"), ("peo", "modpo", "mine"), OBJECTIVES, 5)
    matches = table.groupby(["objective", "method_a", "method_b", "preference"], dropna=False).size()
    assert set(matches) == {5}
    different = table.groupby(["objective", "spec_key_a", "spec_key_b"]).ngroups
    assert different == 2 * n_matches(2, 1, 3) == 2 * (3 * (2 + 1 + 2) + 1)
    assert table["prompt_id"].nunique() == 5
    assert "soup" not in set(table["method_a"]) | set(table["method_b"]), "a control that was not asked for"
    rivals = table.loc[table["method_b"] == "mine", ["method_a", "preference"]].drop_duplicates()
    assert sorted(rivals["preference"]) == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0], "each method, at each preference"
    pairs = table[table["method_b"] == "modpo"]
    assert (pairs["spec_key_a"].str.removeprefix("peo") == pairs["spec_key_b"].str.removeprefix("modpo")).all()


def test_more_prompts_keep_the_first_ones():
    few, many = (set(pair_table(answers(), ("peo",), OBJECTIVES, n)["prompt_id"]) for n in (3, 6))
    assert few < many


def test_scores_are_turned_so_that_higher_is_better():
    table = pair_table(answers(), ("peo",), OBJECTIVES, 8)
    number = table["prompt_id"].str[1:].astype(float)
    harmless = table["objective"] == "harmless"
    assert (table.loc[harmless, "score_a"] == number[harmless]).all()
    assert (table.loc[~harmless, "score_a"] == (number + table["preference"])[~harmless]).all()


def test_what_was_not_evaluated_is_not_compared():
    without = answers()
    without = without[~((without["method"] == "modpo") & (without["preference"] == 0.5))]
    table = pair_table(without, ("peo", "modpo"), OBJECTIVES, 4)
    assert set(table.loc[table["method_b"] == "modpo", "preference"]) == {0.0, 1.0}
    assert not len(pair_table(without, ("dpo-lw",), OBJECTIVES, 4))


def verdicts(table: np.ndarray) -> pd.DataFrame:
    """Rows of judgements.parquet for shares (n_seeds, n_preferences, n_prompts), both orders alike."""
    rows = [
        {"objective": "helpful", "seed": seed, "preference": weight / 10, "method_a": "peo", "method_b": "reference",
         "spec_key_a": "a", "spec_key_b": "b", "prompt_id": f"p{j}", "order": order, "verdict": value, "asked": True,
         "usd": 0.0}
        for (seed, weight, j), value in np.ndenumerate(table) for order in ("ab", "ba")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_preferences_are_averaged_within_a_prompt():
    table = np.random.default_rng(0).choice([0.0, 0.5, 1.0], (1, 3, 20))
    (entry,) = overall_win_rates(verdicts(table))
    assert entry["win_rate"] == pytest.approx(100 * table.mean())
    assert entry["n"] == 20
    by_prompt = table.mean(axis=(0, 1))
    assert entry["n_wins"] == int((by_prompt > 0.5).sum())
    low, high = interval(by_prompt[None])
    assert (entry["ci_low"], entry["ci_high"]) == pytest.approx((low, high))


def test_ties_of_a_judge_without_calls_are_those_of_its_verdicts():
    rows = verdicts(np.array([[[1.0, 0.5, 0.5, 0.0]]]))
    assert card(rows.assign(asked=False), n_calls=0, priced=True)["ties"] == 4  # two prompts in two orders
    asked = rows.assign(asked=rows["prompt_id"] != "p1")
    assert card(asked, n_calls=6, priced=True)["ties"] == 2  # equal answers that nobody was asked about are "skipped"


def test_several_seeds_share_one_interval_over_both():
    table = np.random.default_rng(1).choice([0.0, 0.5, 1.0], (3, 1, 30))
    (entry,) = win_rates(verdicts(table))
    expected = pareto.crossed_interval(table[:, 0])
    assert (entry["ci_low"], entry["ci_high"]) == pytest.approx((100 * expected.ci_low, 100 * expected.ci_high))
    assert entry["n"] == 30


def test_a_prompt_that_lacks_a_verdict_anywhere_is_left_out():
    rows = verdicts(np.ones((2, 2, 4)))
    gap = (rows["prompt_id"] == "p1") & (rows["seed"] == 1) & (rows["preference"] == 0.1) & (rows["order"] == "ba")
    assert shares(rows[~gap]).shape == (2, 3), "its row is missing"
    rows.loc[gap, "verdict"] = np.nan
    assert shares(rows).shape == (2, 3), "its reply was unparseable"
    assert card(rows, n_calls=32, priced=True)["parse_failures"] == 1
    gone = rows[~((rows["seed"] == 1) & (rows["preference"] == 0.1) & (rows["prompt_id"] == "p0"))]
    assert shares(gone).shape == (2, 2), "both orders of one preference are missing"


def test_no_verdicts_at_all():
    rows = verdicts(np.full((1, 1, 3), np.nan))
    (entry,) = win_rates(rows)
    assert (entry["n"], entry["unparsed"]) == (0, 6)
    assert np.isnan(entry["win_rate"])
    assert card(rows, n_calls=6, priced=False)["position_consistency"] is None


def half_equal(n: int = 40) -> pd.DataFrame:
    """Even prompts are ties of equal answers; the others are won and were asked for."""
    rows = verdicts(np.tile([0.5, 1.0], n // 2)[None, None])
    return rows.assign(asked=rows["verdict"] == 1.0)


@pytest.mark.parametrize("failed", [0, 5, 10, 19])
def test_ties_without_a_call_do_not_pull_a_partly_failed_judge_to_50(failed):
    """20 ties, 20 wins: 75 %, whatever share of the calls failed - in one order, which is enough."""
    rows = half_equal()
    lost = rows["prompt_id"].isin([f"p{2 * j + 1}" for j in range(failed)]) & (rows["order"] == "ba")
    unparsed = rows.assign(verdict=rows["verdict"].where(~lost))
    for counted in (
        without_surplus_ties(rows[~lost], rows[lost].drop(columns="verdict")),
        without_surplus_ties(unparsed, rows.head(0)),
    ):
        (entry,), (over,) = win_rates(counted), overall_win_rates(counted)
        assert entry["win_rate"] == over["win_rate"] == 75.0
        assert (entry["n"], entry["n_ties"]) == (2 * (20 - failed), 20 - failed)


def test_a_judge_that_never_answered_has_no_rate():
    rows = half_equal()
    judged = Judged(rows[~rows["asked"]], rows[rows["asked"]], n_calls=0, n_new=0, priced=True)
    found = judge_metrics(judged, None)
    assert (found.win_rates, found.overall, found.elo) == ((), (), {})
    assert found.card.skipped == 20


def test_ties_of_matches_in_which_nothing_failed_are_kept():
    """Another match, and the scorers, which are never asked."""
    rows = half_equal()
    other = rows.assign(preference=np.nan)
    lost = rows.iloc[[2, 3]].drop(columns="verdict")
    assert rows.iloc[[2, 3]]["asked"].all()
    counted = without_surplus_ties(pd.concat([rows.drop(index=[2, 3]), other]), lost)
    assert counted["preference"].isna().sum() == len(other)
    free = rows.assign(asked=False)
    assert without_surplus_ties(free, rows.head(0)).equals(free)
