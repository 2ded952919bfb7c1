"""Indicators of the fronts: what `metrics.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from peo_bench.core.method import Objective
from peo_bench.core.space import Preference
from peo_bench.pareto import (
    bootstrap_hypervolume,
    bootstrap_steered_utility,
    distance_to_front,
    n_beyond_reference,
    paired_difference,
)
from peo_bench.runs.points import Scores
from peo_bench.suites.config import TaskConfig

Floats = npt.NDArray[np.float64]
Units = Mapping[str, tuple[float, float]]


def run_metrics(
    points: pd.DataFrame,
    scores: Scores,
    task: TaskConfig,
    preferences: tuple[Preference, ...],
    units: Units,
) -> dict[str, Any]:
    """Return the task's part of `metrics.json`.

    Hypervolume is taken in raw scores, or in `units` (mean, standard deviation of the reference policy on validation
    prompts by column) where the task says so; steered utility always in `units`, since it adds objectives up. A method
    whose every seed is complete takes part.
    """
    objectives = [Objective(o.name, o.column, o.maximise) for o in task.objectives]
    columns = [objective.column for objective in objectives]
    maximise = [objective.maximise for objective in objectives]
    shift, scale = (np.array([units[column][k] for column in columns]) for k in (0, 1))
    by_reference = task.units == "reference"
    bound = np.array([task.reference_point[column] for column in columns])

    seeds = sorted({seed for _, seed in scores.tables})
    complete = [
        m for m in dict.fromkeys(method for method, _ in scores.tables) if _complete(scores, m, seeds, preferences)
    ]
    raw = {method: scores.array(method, seeds, columns) for method in complete}
    scaled = {method: (array - shift) / scale for method, array in raw.items()}
    volumes = bootstrap_hypervolume(scaled if by_reference else raw, bound, maximise)
    utilities = bootstrap_steered_utility(scaled, preferences, maximise)

    oracle = _oracle(points, columns, shift, scale)
    methods: dict[str, Any] = {}
    for method in complete:
        rows = points[(points["method"] == method) & (points["split"] == "test") & (points["grid"] == "asked")]
        means = scaled[method].mean(axis=1)
        methods[method] = {
            "hypervolume": volumes[method].as_dict(),
            "steered_utility": utilities[method].as_dict(),
            "n_nondominated": int(rows["nondominated"].sum()),
            "n_points": len(rows),
            "n_beyond_reference": n_beyond_reference(
                means if by_reference else raw[method].mean(axis=1), bound, maximise
            ),
            "oracle_distance": distance_to_front(means, oracle, maximise) if len(oracle) else None,
            "kl_mean": float(rows["kl"].mean()),
            "length_mean": float(rows["length"].mean()),
        }
    return {
        "reference_point": task.reference_point,
        "reference_units": {column: list(units[column]) for column in columns},
        "hypervolume_units": task.units,
        "normalisation": {column: list(units[column]) for column in columns} if by_reference else None,
        "methods": methods,
        "comparisons": [
            {"a": a, "b": b, "difference": d.value, "ci_low": d.ci_low, "ci_high": d.ci_high}
            for a, b in combinations(complete, 2)
            for d in [paired_difference(utilities[a], utilities[b])]
        ],
    }


def _complete(scores: Scores, method: str, seeds: list[int], preferences: tuple[Preference, ...]) -> bool:
    return all(len(scores.tables.get((method, seed), ())) == len(preferences) for seed in seeds)


def _oracle(points: pd.DataFrame, columns: list[str], shift: Floats, scale: Floats) -> Floats:
    """Return the oracle's sound points (k, m) in reference units."""
    rows = points[(points["method"] == "oracle") & ~points["hollow"].fillna(False).astype(bool)]
    return np.asarray((rows[columns].to_numpy(dtype=float) - shift) / scale)
