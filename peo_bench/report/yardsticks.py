"""What methods are held against: the model before alignment, and the best that any policy can do at a given KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from peo_bench.report.points import AIDS, ORACLE, REFERENCE, Axis, Point
from peo_bench.report.wording import decimal, interval, method_name
from peo_bench.results.metrics_records import TaskMetrics


@dataclass(frozen=True)
class Yardstick:
    """A policy that nobody can take: its name and its steered utility, `at_least` where samples are too few to know."""

    method: str
    label: str
    utility: float
    at_least: bool = False


def yardsticks(
    points: Sequence[Point], axes: tuple[Axis, Axis], metrics: TaskMetrics, weights: Sequence[float]
) -> tuple[Yardstick, ...]:
    """Return the reference policy and the oracle of each KL budget, as far as they have points and units.

    ``weights``: those of the first objective that methods were asked for. Of the oracle the best point for each counts.
    """
    scaled = [(point, _in_units(point, axes, metrics)) for point in points if point.method in AIDS]
    known = [(point, values) for point, values in scaled if values is not None]
    if not weights:
        return ()
    found = []
    own = [values for point, values in known if point.method == REFERENCE]
    if own:
        found.append(Yardstick(REFERENCE, method_name(REFERENCE), _utility([np.mean(own, axis=0)], weights)))
    budgets = sorted({point.kl for point, _ in known if point.method == ORACLE and point.kl is not None})
    for budget in budgets:
        there = [(point, values) for point, values in known if point.method == ORACLE and point.kl == budget]
        solid = [values for point, values in there if not point.hollow]
        if solid:
            label = f"oracle, KL ≤ {budget:.3g}"
            found.append(Yardstick(ORACLE, label, _utility(solid, weights), at_least=len(solid) < len(there)))
    return tuple(found)


def worse_than_reference(
    points: Sequence[Point], axes: tuple[Axis, Axis], answers: pd.DataFrame | None
) -> tuple[str, ...]:
    """Say which methods, asked for all of one objective, are worse at it than the reference policy.

    Paired by prompt and averaged over training seeds where ``answers`` has scores; else by mean scores alone.
    """
    found = []
    for i, axis in enumerate(axes):
        before = [point for point in points if point.method == REFERENCE]
        sign, whole = 1 if axis.maximise else -1, 1.0 if i == 0 else 0.0
        asked = [p for p in points if p.weight == whole and p.grid == "asked" and p.method != ORACLE]
        for method in dict.fromkeys(point.method for point in asked if before):
            mine = float(np.mean([_score(p, i) for p in asked if p.method == method]))
            base = float(np.mean([_score(p, i) for p in before]))
            if sign * (mine - base) >= 0:
                continue
            ends = _paired(answers, method, whole, axis.column)
            sure = ends is None or ends[1] > 0 or ends[2] < 0
            shown = f"{axis.column} {decimal(mine)} against {decimal(base)}"
            shown += f", difference {interval(ends, signed=True)}" if ends else ""
            found.append(
                f"Asked for 100 % {axis.name}, {method_name(method)} is worse at it than the reference policy"
                f"{'' if sure else ', though not surely'} ({shown})."
            )
    return tuple(found)


def _score(point: Point, i: int) -> float:
    return point.x if i == 0 else point.y


def _in_units(point: Point, axes: tuple[Axis, Axis], metrics: TaskMetrics) -> tuple[float, float] | None:
    """Return a point's scores as steered utility adds them up: in the reference policy's units, higher is better."""
    by_seed = metrics.units.get(point.seed) if metrics.normalisation else None
    units = by_seed or metrics.reference_units
    values = []
    for i, axis in enumerate(axes):
        mean, sd = units.get(axis.column, (None, None))
        if mean is None or not sd:
            return None
        values.append((1 if axis.maximise else -1) * (_score(point, i) - mean) / sd)
    return values[0], values[1]


def _utility(offered: Sequence[Sequence[float]], weights: Sequence[float]) -> float:
    """Return the mean over ``weights`` of the best weighted sum that is on offer."""
    return float(np.mean([max(w * x + (1 - w) * y for x, y in offered) for w in weights]))


def _paired(answers: pd.DataFrame | None, method: str, weight: float, column: str) -> tuple[float, float, float] | None:
    """Return the mean paired difference to the reference policy with its 95 % interval over prompts, None without."""
    if answers is None or column not in answers:
        return None
    test = answers[answers["split"] == "test"] if "split" in answers else answers
    own = test[(test["method"] == method) & (test["preference"] == weight)]
    base = test[test["method"] == REFERENCE]
    keys = ["prompt_id", "seed"]
    both = own.merge(base, on=keys, suffixes=("", "_base")) if set(base["seed"]) >= set(own["seed"]) else None
    if both is None or both.empty:
        return None
    gaps = (both[column] - both[f"{column}_base"]).groupby(both["prompt_id"]).mean()
    error = 1.96 * float(gaps.std(ddof=1)) / float(np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
    mean = float(gaps.mean())
    return (mean, mean - error, mean + error) if np.isfinite(mean) and np.isfinite(error) else None
