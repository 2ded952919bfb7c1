"""The scores that the hero figure can show: reported or proxies', raw or in units of the reference policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from peo_bench import pareto
from peo_bench.report.contents import TaskView
from peo_bench.report.points import ORACLE, Point
from peo_bench.results.folder import RunFolder
from peo_bench.results.metrics_records import MeanSd, TaskMetrics
from peo_bench.results.operating_points import Units

Scale = Mapping[int, Sequence[tuple[float, float]]]
"""By training seed: (mean, standard deviation) of the reference policy for each of two score columns."""


@dataclass(frozen=True)
class Showing:
    """One choice of scores: the task with its points, axes and reference point in them.

    ``columns`` are those of answers.parquet, ``scale`` what they were expressed in (None: raw).
    """

    label: str
    view: TaskView
    columns: tuple[str, str]
    scale: Scale | None = None

    @property
    def units(self) -> Units | None:
        """The scale by seed and column."""
        if self.scale is None:
            return None
        return {seed: dict(zip(self.columns, pair, strict=True)) for seed, pair in self.scale.items()}


def showings(view: TaskView, folder: RunFolder) -> list[Showing]:
    """Return what there is to choose from, the reported raw scores first."""
    metrics, (x, y) = folder.metrics.tasks[view.task], view.axes
    found = [Showing("reported scores", view, (x.column, y.column))]
    scale = _reported_scale(metrics, found[0].columns)
    if scale:
        exact = [metrics.reference_point.get(axis.column) for axis in view.axes] if metrics.normalisation else None
        found.append(_scaled(found[0], scale, exact))
    training = _training(view)
    if training:
        found.append(training)
        scale = _training_scale(folder, training.columns, {p.seed for p in view.points})
        found += [_scaled(training, scale)] if scale else []
    return found


def _training(view: TaskView) -> Showing | None:
    """Return the same policies under the scorers that training and selection saw, where others reported.

    The task's reference point belongs to the reported scores, so there is none here.
    """
    other = [any(p.x_proxy is not None for p in view.points), any(p.y_proxy is not None for p in view.points)]
    if not any(other):
        return None
    moved = []
    for point in view.points:
        new = [proxy if has else value for has, proxy, value in zip(other, _proxies(point), _at(point), strict=True)]
        if new[0] is not None and new[1] is not None and point.method != ORACLE:
            errors = [None if has else error for has, error in zip(other, (point.x_se, point.y_se), strict=True)]
            moved.append(replace(point, x=new[0], y=new[1], x_se=errors[0], y_se=errors[1]))
    axes = [
        replace(axis, column=f"training {axis.column}") if has else axis
        for axis, has in zip(view.axes, other, strict=True)
    ]
    columns = [f"{axis.column}_proxy" if has else axis.column for axis, has in zip(view.axes, other, strict=True)]
    points = _with_fronts(moved, [axis.maximise for axis in axes])
    changed = replace(view, axes=(axes[0], axes[1]), points=points, bound=None)
    return Showing("proxies", changed, (columns[0], columns[1]))


def _scaled(showing: Showing, scale: Scale, bound: Sequence[float | None] | None = None) -> Showing:
    """Express a showing in `scale`, each seed in its own; `bound` is the reference point where it is given in it."""
    view, points = showing.view, []
    for point in (p for p in showing.view.points if p.seed in scale):
        (x_mean, x_sd), (y_mean, y_sd) = scale[point.seed]
        x_se, y_se = (None if e is None else e / sd for e, sd in ((point.x_se, x_sd), (point.y_se, y_sd)))
        points.append(replace(point, x=(point.x - x_mean) / x_sd, y=(point.y - y_mean) / y_sd, x_se=x_se, y_se=y_se))
    corner = None
    if bound is not None and bound[0] is not None and bound[1] is not None:
        corner = (float(bound[0]), float(bound[1]))
    elif bound is None and view.bound is not None:  # a raw reference point: then all seeds share their units
        pairs = zip(view.bound, next(iter(scale.values())), strict=True)
        x, y = ((value - mean) / sd for value, (mean, sd) in pairs)
        corner = (x, y)
    axes = tuple(replace(axis, column=f"{axis.column}, sd") for axis in view.axes)
    changed = replace(view, axes=(axes[0], axes[1]), points=tuple(points), bound=corner)
    return Showing(f"{showing.label}, in standard deviations of the reference policy", changed, showing.columns, scale)


def _reported_scale(metrics: TaskMetrics, columns: tuple[str, str]) -> Scale:
    """Return the units of metrics.json: each seed's own where hypervolume is measured in them, else their mean."""
    mean = metrics.reference_units
    if not mean:
        return {}
    own = {seed: units if metrics.normalisation else mean for seed, units in metrics.units.items()}
    return {seed: pairs for seed, units in own.items() if (pairs := _pairs([units.get(c) for c in columns]))}


def _training_scale(folder: RunFolder, columns: tuple[str, str], seeds: set[int]) -> Scale:
    """Measure the proxies' units on the reference's validation answers, as the reported scores' were."""
    table = folder.answers
    if table is None or not {*columns, "split", "method", "seed"} <= set(table):
        return {}
    own = table[(table["method"] == "reference") & (table["split"] == "validation")]
    found = {}
    for seed in sorted(seeds):
        rows = own.loc[own["seed"] == seed, list(columns)]
        pairs = _pairs([(float(rows[c].mean()), float(rows[c].std(ddof=1))) for c in columns]) if len(rows) > 1 else []
        if not pairs:
            return {}
        found[seed] = pairs
    return found


def _pairs(units: Sequence[MeanSd | None]) -> list[tuple[float, float]]:
    """Return (mean, sd) per column, nothing where one is unknown or does not vary."""
    found = [(unit[0], unit[1]) for unit in units if unit is not None and unit[0] is not None and unit[1] is not None]
    usable = len(found) == len(units) and all(np.isfinite(mean) and np.isfinite(sd) and sd > 0 for mean, sd in found)
    return found if usable else []


def _with_fronts(points: Sequence[Point], maximise: Sequence[bool]) -> tuple[Point, ...]:
    """Say anew which policies of each method and seed nothing dominates."""
    groups: dict[tuple[str, int, str], list[int]] = {}
    for i, point in enumerate(points):
        groups.setdefault((point.method, point.seed, point.grid), []).append(i)
    found = list(points)
    for members in groups.values():
        mask = pareto.nondominated([_at(points[i]) for i in members], maximise)
        for i, keep in zip(members, mask, strict=True):
            found[i] = replace(points[i], nondominated=bool(keep))
    return tuple(found)


def _at(point: Point) -> tuple[float, float]:
    return point.x, point.y


def _proxies(point: Point) -> tuple[float | None, float | None]:
    return point.x_proxy, point.y_proxy
