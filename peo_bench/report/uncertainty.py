"""Where a method's front could as well have been: bands of the hero figure and maps of attainment.

Fronts of resampled prompts (and training seeds, where there are several), drawn as `pareto.resample` does for all
statistics. A region counts as attained where a policy is at least as good in both objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from peo_bench import pareto
from peo_bench.pareto.checks import FloatArray
from peo_bench.report.contents import TaskView
from peo_bench.report.figures import Geometry
from peo_bench.report.showings import Showing
from peo_bench.results.folder import RunFolder
from peo_bench.results.operating_points import Scores, Units

RESAMPLES = 200
GRID = 56
"""Cells per axis of the attainment maps."""
LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class Uncertainty:
    """What resampled fronts attain.

    ``bands[method]`` (n_vertices, 2) is the polygon between what 2.5 % and 97.5 % of the fronts attain;
    ``shares[method]`` (GRID, GRID) the share of fronts attaining the cell at ``y[i]``, ``x[j]``, in percent.
    """

    x: FloatArray
    y: FloatArray
    shares: Mapping[str, FloatArray]
    bands: Mapping[str, FloatArray]


def uncertainty(folder: RunFolder, view: TaskView, geometry: Geometry) -> Uncertainty | None:
    """Resample the fronts of all measured methods; None without scores by prompt or with fewer than two methods."""
    drawn = _resampled(folder, view, [axis.column for axis in view.axes])
    if drawn is None:
        return None
    maximise = [axis.maximise for axis in view.axes]
    x, y = (_centres(limits) for limits in (geometry.x_range, geometry.y_range))
    shares = {
        method: np.rint(100 * pareto.attainment_shares(fronts, x, y, maximise)) for method, fronts in drawn.items()
    }
    return Uncertainty(x, y, shares, _bands(drawn, view, geometry))


def bands(folder: RunFolder, showing: Showing, geometry: Geometry) -> Mapping[str, FloatArray]:
    """Return the bands of `Uncertainty` for another choice of scores; none where scores by prompt are missing."""
    drawn = _resampled(folder, showing.view, list(showing.columns), showing.units)
    return {} if drawn is None else _bands(drawn, showing.view, geometry)


def _bands(drawn: Mapping[str, FloatArray], view: TaskView, geometry: Geometry) -> dict[str, FloatArray]:
    maximise = [axis.maximise for axis in view.axes]
    bound = view.bound or (geometry.x_range[0], geometry.y_range[0])
    found = {}
    for method, fronts in drawn.items():
        outer, inner = (
            pareto.staircase(pareto.attainment_surface(list(fronts), level, maximise), bound, maximise)
            for level in LEVELS
        )
        found[method] = np.concatenate([outer, inner[::-1]])
    return found


def _resampled(
    folder: RunFolder, view: TaskView, columns: list[str], units: Units | None = None
) -> Mapping[str, FloatArray] | None:
    """Return fronts (RESAMPLES, n_policies, 2) by method, in raw scores or in `units`."""
    seeds = sorted(folder.run.seeds)
    table = folder.answers
    if table is None or not {*columns, "preference", "split"} <= set(table) or not seeds:
        return None
    scores = Scores.of(table, [axis.name for axis in view.axes])
    asked = {preference for tables in scores.tables.values() for preference in tables}
    complete = [m for m in scores.methods if m in view.measured and scores.complete(m, seeds, asked)]
    if not complete:
        return None
    arrays = {method: scores.array(method, seeds, columns, units) for method in complete}
    arrays = {method: array for method, array in arrays.items() if np.isfinite(array).all()}
    if not arrays:
        return None
    return pareto.resample(arrays, n_resamples=RESAMPLES).drawn


def _centres(limits: tuple[float, float]) -> FloatArray:
    edges = np.linspace(min(limits), max(limits), GRID + 1)
    return np.asarray((edges[1:] + edges[:-1]) / 2)
