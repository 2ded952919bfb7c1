"""What metrics.json says of a method, from a handful of answers whose numbers follow by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from peo_bench.core.method import Objective
from peo_bench.core.preference import Preference
from peo_bench.results.measure import Measure, identity_of
from peo_bench.results.metrics import run_metrics
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
        decoding={},
        preferences=tuple(Preference.of(NAMES, helpful=w) for w in KL),
        prompts=identity_of(table["prompt_id"]),
    )
    rows: list[Row] = []
    for w, part in table.groupby("preference"):
        identity: Row = {"task": "t", "split": "test", "method": "peo", "seed": 0, "grid": "asked", "spec_key": str(w)}
        for what in ("preference", "projected"):
            identity |= {f"{what}_helpful": float(w), f"{what}_harmless": 1 - float(w)}
        rows.append(point_row(identity, part, OBJECTIVES))
    points = point_table(rows, OBJECTIVES)
    task = run_metrics(points, Scores.of(table, NAMES), measure, UNITS)
    found = task.methods["peo"]
    assert task.kl_budgets == (0.5, 1.0, 2.0, 4.0, 8.0)
    assert found.points_within_kl == (1, 1, 1, 2, 2)
    assert found.front_within_kl == ((0.0,), (0.0,), (0.0,), (0.0, 0.5), (0.0, 0.5))
    assert found.hypervolume_within_kl == pytest.approx((3.0, 3.0, 3.0, 5.0, 5.0))
    assert found.hypervolume.value == pytest.approx(6.0)
    assert found.kl_mean == pytest.approx((0.5 + 3.0 + 9.0) / 3)
