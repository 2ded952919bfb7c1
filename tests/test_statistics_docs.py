"""The recorded null simulations are those of docs/statistics.md, and they keep what it claims."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def simulations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("null_simulations", ROOT / "benchmarks" / "null_simulations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documented_tables_are_the_recorded_ones_and_keep_their_promise(simulations):
    result = json.loads(simulations.RESULT.read_text())
    assert simulations.tables(result) in simulations.DOCS.read_text()
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


def test_a_fresh_chunk_of_the_simulation_agrees(simulations):
    """25 runs of the first row: false positives are rare, and equal fronts are equal by construction."""
    pair = simulations.PAIRS[0]
    count = simulations.chunk(("utility", pair, 200, True, 1, 12345))
    assert count["runs"] == simulations.CHUNK
    assert count["rejects"] <= 6  # binomial(25, 0.05): less than one in ten thousand is above
    a, b = (simulations.front(shape) for shape in ("curved", "collapsed"))
    quality = lambda x: float(np.mean(x))  # noqa: E731
    assert quality(simulations.aligned(a, b, quality)) == pytest.approx(quality(a))
