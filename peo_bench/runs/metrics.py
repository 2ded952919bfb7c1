"""Indicators of the fronts: what `metrics.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from peo_bench.core.space import Preference
from peo_bench.pareto import (
    bootstrap_hypervolume,
    bootstrap_steered_utility,
    distance_to_front,
    n_beyond_reference,
    paired_difference,
)
from peo_bench.runs.points import Floats, Scores, Units
from peo_bench.suites.config import TaskConfig


def run_metrics(
    points: pd.DataFrame,
    scores: Scores,
    task: TaskConfig,
    preferences: tuple[Preference, ...],
    units: Units,
    chosen: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the task's part of `metrics.json`.

    Hypervolume is taken in raw scores, or in the reference's `units` where the task says so; steered utility always in
    them, since it adds objectives up. A method whose every seed is complete takes part.
    """
    columns = [objective.column for objective in task.objectives]
    maximise = [objective.maximise for objective in task.objectives]
    by_reference = task.units == "reference"
    bound = np.array([task.reference_point[column] for column in columns])
    seeds = sorted(units)
    names = dict.fromkeys(method for method, _ in scores.tables)
    complete = [method for method in names if _complete(scores, method, seeds, preferences)]
    raw = {method: scores.array(method, seeds, columns) for method in complete}
    scaled = {method: scores.array(method, seeds, columns, units) for method in complete}
    volumes = bootstrap_hypervolume(scaled if by_reference else raw, bound, maximise)
    utilities = bootstrap_steered_utility(scaled, preferences, maximise)
    oracle = _oracle(points, columns, units)

    def indicators(method: str) -> dict[str, Any]:
        rows = points[(points["method"] == method) & (points["split"] == "test") & (points["grid"] == "asked")]
        means = scaled[method].mean(axis=1)
        inside = means if by_reference else raw[method].mean(axis=1)
        return {
            "hypervolume": volumes[method].as_dict(),
            "steered_utility": utilities[method].as_dict(),
            "n_nondominated": int(rows["nondominated"].sum()),
            "n_points": len(rows),
            "n_beyond_reference": n_beyond_reference(inside, bound, maximise),
            "oracle_distance": distance_to_front(means, oracle, maximise) if len(oracle) else None,
            "kl_mean": float(rows["kl"].mean()),
            "length_mean": float(rows["length"].mean()),
            "chosen": dict(chosen.get(method, {})),
        }

    mean_units = {c: [float(np.mean([units[seed][c][k] for seed in seeds])) for k in (0, 1)] for c in columns}
    return {
        "reference_point": task.reference_point,
        "reference_units": mean_units,
        "hypervolume_units": task.units,
        "normalisation": mean_units if by_reference else None,
        "methods": {method: indicators(method) for method in complete},
        "comparisons": [
            {"a": a, "b": b, "difference": d.value, "ci_low": d.ci_low, "ci_high": d.ci_high}
            for a, b in combinations(complete, 2)
            for d in [paired_difference(utilities[a], utilities[b])]
        ],
    }


def _complete(scores: Scores, method: str, seeds: list[int], preferences: tuple[Preference, ...]) -> bool:
    return all(len(scores.tables.get((method, seed), ())) == len(preferences) for seed in seeds)


def _oracle(points: pd.DataFrame, columns: list[str], units: Units) -> Floats:
    """Return the oracle's sound points (k, m), each in its seed's reference units."""
    rows = points[(points["method"] == "oracle") & ~points["hollow"].fillna(False).astype(bool)]
    shift, scale = (np.array([[units[int(s)][c][k] for c in columns] for s in rows["seed"]]) for k in (0, 1))
    return (
        np.asarray((rows[columns].to_numpy(dtype=float) - shift) / scale) if len(rows) else np.empty((0, len(columns)))
    )
