"""From verdicts to numbers: win rates at matched preferences with intervals, and the judge's card.

A prompt is the unit. Its two orders are averaged first, so that a preference for one position cancels; a prompt that
lacks the verdict of one order is left out, for the other alone would carry that preference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from peo_bench.files.digest import digest
from peo_bench.judges.matchups import REFERENCE
from peo_bench.pareto import crossed_interval
from peo_bench.winrates.elo import elo
from peo_bench.winrates.winrate import effective_wilson, win_rate

Floats = npt.NDArray[np.float64]


def card(rows: pd.DataFrame, *, n_calls: int, priced: bool, refused: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a reader must know of a judge before believing it.

    `position_consistency`: share of pairs shown in both orders, both with a verdict, whose verdicts name the same
    answer as better (or both a tie); None where nothing was shown. `parse_failures`: replies without a verdict;
    `empty`: those of them without a text. `ties`: replies that call a tie, or verdicts where a judge calls nobody.
    `skipped`: comparisons without a call, since the answers were equal. `usd`: what the replies used here cost, None if
    the price is not known. `refused`: parameters that the model did not take.
    """
    asked = rows[rows["asked"]]
    unread = asked[asked["verdict"].isna()]
    both = np.sign(by_order(asked).dropna() - 0.5)
    return {
        "position_consistency": float((both["ab"] == both["ba"]).mean()) if len(both) else None,
        "parse_failures": len(unread),
        "empty": (int((unread["raw"].str.strip() == "").sum()) or None) if "raw" in unread else None,
        "refused": refused or None,
        "n_calls": n_calls,
        "usd": round(float(asked["usd"].sum()), 6) if priced else None,
        "ties": int(((asked if len(asked) else rows)["verdict"] == 0.5).sum()),
        "skipped": int((~rows["asked"]).sum()) // 2,
    }


def by_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return verdicts with a row per comparison and the columns `ab`, `ba`; NaN where there is none."""
    keys = ["objective", "seed", "preference", "method_a", "method_b", "prompt_id"]
    orders = {name: rows[rows["order"] == name].set_index(keys)["verdict"] for name in ("ab", "ba")}
    return pd.DataFrame(orders, dtype=float)


def without_surplus_ties(rows: pd.DataFrame, missing: pd.DataFrame) -> pd.DataFrame:
    """Return the rows from which win rates are made: where calls failed, as large a share of the ties without a call.

    Ties of equal answers cost nothing and never fail, so all of them beside a part of the other verdicts would pull
    every rate towards 50. Of each match at each preference, the share kept is that of its asked comparisons which
    have verdicts in both orders; which ones the hash of the prompt says. A judge that answered nothing keeps none.
    `missing` is `Judged.missing`.
    """
    match, comparison = ["objective", "method_a", "method_b", "preference"], ["seed", "prompt_id"]
    calls = pd.concat([rows.loc[rows["asked"], [*match, *comparison, "verdict"]], missing[[*match, *comparison]]])
    if calls["verdict"].notna().all():
        return rows
    whole = calls["verdict"].notna().groupby([calls[key] for key in [*match, *comparison]], dropna=False).all()
    if not whole.any():
        return rows[rows["asked"]]
    share = whole.groupby(match, dropna=False).mean().rename("share").reset_index()
    ties = rows.loc[~rows["asked"], [*match, *comparison]].drop_duplicates()
    ties["hash"] = ties["prompt_id"].map(digest)
    ties = ties.sort_values(["hash", "seed"]).merge(share, on=match, how="left")
    by_match = ties.groupby(match, dropna=False)
    surplus = ties[by_match.cumcount() >= (by_match["hash"].transform("size") * ties["share"].fillna(1.0)).round()]
    marked = rows.merge(surplus.assign(surplus=True), on=[*match, *comparison], how="left")["surplus"].notna()
    return rows[rows["asked"] | ~marked.to_numpy()]


def win_rates(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the win rate of every pair at every preference, in percent for `a`; ties count half."""
    entries = []
    for (objective, a, b, preference), part in _groups(rows, ["objective", "method_a", "method_b", "preference"]):
        head = {"objective": objective, "a": a, "b": b, "preference": preference}
        entries.append(head | _rates(part))
    return entries


def overall_win_rates(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the win rate of every pair over all preferences, which are averaged within a prompt.

    Prompts count that have a verdict at every preference.
    """
    several = rows[rows["preference"].notna()]
    groups = _groups(several, ["objective", "method_a", "method_b"])
    return [{"objective": objective, "a": a, "b": b} | _rates(part) for (objective, a, b), part in groups]


def elo_ratings(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return by objective the Elo rating of every method, the reference policy at 1000 (`peo_bench.winrates.elo`).

    A game is one prompt at one preference of one seed, both orders averaged. Objectives in which the reference has no
    verdict are left out.
    """
    shares = by_order(rows).mean(axis=1, skipna=False).dropna().reset_index(name="share")
    ratings = {}
    for (objective,), part in _groups(shares, ["objective"]):
        games = list(part[["method_a", "method_b", "share"]].itertuples(index=False, name=None))
        if any(REFERENCE in game for game in games):
            ratings[objective] = elo(games, REFERENCE)
    return ratings


def _groups(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    for names, part in rows.groupby(keys, sort=False, dropna=False):
        assert isinstance(names, tuple)
        yield names, part


def _rates(part: pd.DataFrame) -> dict[str, Any]:
    """Return rate, interval and counts of one match; counts are of prompts, `unparsed` of replies."""
    table = shares(part)
    by_prompt = table.mean(axis=0)
    rate = win_rate(1.0 + by_prompt)
    same = bool((part["spec_key_a"] == part["spec_key_b"]).all())
    low, high = (50.0, 50.0) if same else interval(table)
    return {
        "win_rate": rate.win_rate,
        "ci_low": low,
        "ci_high": high,
        "n": rate.n_total,
        "n_wins": rate.n_wins,
        "n_losses": rate.n_wins_base,
        "n_ties": rate.n_draws,
        "unparsed": int(part["verdict"].isna().sum()),
    }


def shares(part: pd.DataFrame) -> Floats:
    """Return a's share of each prompt (n_seeds, n_prompts): the mean over orders, then over preferences.

    Prompts that lack a verdict in any seed, preference or order are left out.
    """
    verdicts = by_order(part)
    both = verdicts.mean(axis=1, skipna=False)
    by_preference = both.groupby(["seed", "prompt_id"])
    complete = by_preference.mean().where(both.isna().groupby(["seed", "prompt_id"]).sum() == 0)
    table = complete.where(by_preference.size() == by_preference.size().max())
    return np.asarray(table.unstack("seed").dropna().to_numpy(dtype=float).T)


def interval(table: Floats) -> tuple[float, float]:
    """Return the 95 % interval, in percent, of the mean of shares (n_seeds, n_prompts) in [0, 1].

    One seed: `effective_wilson` over prompts. Several: `peo_bench.pareto.crossed_interval` over seeds and prompts, cut
    to [0, 100]. NaN for fewer than two prompts.
    """
    n_seeds, n_prompts = table.shape
    if n_prompts < 2:
        return float("nan"), float("nan")
    if n_seeds == 1:
        low, high = effective_wilson(table[0])
        return 100 * low, 100 * high
    crossed = crossed_interval(table)
    return max(0.0, 100 * crossed.ci_low), min(100.0, 100 * crossed.ci_high)
