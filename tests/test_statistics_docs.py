"""The recorded null simulations are those of docs/statistics.md, and they keep what it claims."""

from __future__ import annotations

import json

import null_simulations
import numpy as np
import pytest


def test_the_documented_tables_are_the_recorded_ones_and_keep_their_promise():
    result = json.loads(null_simulations.RESULT.read_text())
    assert null_simulations.tables(result) in null_simulations.DOCS.read_text()
    assert {(row["n"], row["common"]) for row in result["utility"]} == {
        (n, c) for n in (200, 700) for c in (True, False)
    }
    for row in result["utility"]:
        assert row["runs"] >= 1000
        assert row["rejects"] <= 0.06
        assert 0.92 <= row["covers"] <= 0.98
    assert all(row["crossed_rejects"] <= 0.06 for row in result["seeds"])
    collapsed = [
        row for row in result["hypervolume"] if row["fronts"].endswith("/ collapsed") and "c" not in row["fronts"][:1]
    ]
    assert min(row["b_better"] for row in collapsed) > 0.5, "no verdict on hypervolume is printed for a reason"


def test_a_fresh_chunk_of_the_simulation_agrees():
    """25 runs of the first row: false positives are rare, and equal fronts are equal by construction."""
    pair = null_simulations.PAIRS[0]
    count = null_simulations.chunk(("utility", pair, 200, True, 1, 12345))
    assert count["runs"] == null_simulations.CHUNK
    assert count["rejects"] <= 6  # binomial(25, 0.05): less than one in ten thousand is above
    a, b = (null_simulations.front(shape) for shape in ("curved", "collapsed"))
    quality = lambda x: float(np.mean(x))  # noqa: E731
    assert quality(null_simulations.aligned(a, b, quality)) == pytest.approx(quality(a))
