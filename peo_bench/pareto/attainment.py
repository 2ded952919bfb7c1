"""Attainment: how often, over several fronts of one method (seeds or resamples), a region is reached.

A front attains z if one of its points is at least as good as z everywhere. Computed by moocore (Fonseca et al. 2011,
"On the computation of the empirical attainment function").
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike

from peo_bench.pareto.checks import Directions, FloatArray, directions, validate_points


def attainment_surface(fronts: Sequence[ArrayLike], level: float, maximise: Directions) -> FloatArray:
    """Return the corners (n_points, n_objectives) of the region that at least ``level`` of the fronts attain.

    ``fronts``: sets of points (n_points, n_objectives) with 2 or 3 objectives, none empty; ``level`` in (0, 1]: 0.5 is
    the median front, 0.025 and 0.975 bound the middle 95 %. O(m log m + n m) for m points in n fronts of 2 objectives.

    >>> attainment_surface([[[1, 2]], [[2, 1]]], 1.0, maximise=True).tolist()
    [[1.0, 1.0]]
    >>> attainment_surface([[[1, 2]], [[2, 1]]], 0.5, maximise=True).tolist()
    [[1.0, 2.0], [2.0, 1.0]]
    """
    if not 0 < level <= 1:
        raise ValueError(f"level must lie in (0, 1], got {level}")
    points, sets, signs = _stack(fronts, maximise)
    corners = moocore.eaf(points * -signs, sets, percentiles=[100.0 * level])
    return np.asarray(corners[np.lexsort(corners[:, ::-1].T)][:: int(signs[0]) * -1, :-1] * -signs)


def attainment_difference(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], bounds: ArrayLike, maximise: Directions
) -> FloatArray:
    """Return where two methods' attainment differs: rectangles (n, 5) of x1, y1, x2, y2 and the share of a minus b.

    ``a``, ``b``: as many fronts each, two objectives; the share is in [-1, 1], positive where more fronts of ``a``
    reach the rectangle. ``bounds`` (2, 2): its first row is the worst corner shown, its second the best; rectangles are
    cut there. Rectangles without a difference are left out. O(m log m + n m) for m points in n fronts.
    López-Ibáñez, Paquete & Stützle 2010.

    >>> attainment_difference([[[2, 2]]], [[[1, 1]]], bounds=[[0, 0], [3, 3]], maximise=True).tolist()
    [[1.0, 0.0, 2.0, 1.0, 1.0], [0.0, 1.0, 2.0, 2.0, 1.0]]
    """
    if len(a) != len(b):
        raise ValueError(f"an attainment difference needs as many fronts on both sides, got {len(a)} and {len(b)}")
    worst, best = validate_points(bounds, n_objectives=2)
    left, right = (_stack(fronts, maximise) for fronts in (a, b))
    signs = left[2]
    if len(signs) != 2 or right[0].shape[1] != 2:
        raise ValueError(f"an attainment difference needs two objectives, got {len(signs)} and {right[0].shape[1]}")
    if not (worst * signs < best * signs).all():
        raise ValueError(f"bounds must be the worst corner and then the best, got {worst} and {best}")
    tables = [np.column_stack([points * -signs, sets]) for points, sets, _ in (left, right)]
    surfaces = [moocore.eaf(table[:, :2], table[:, 2]) for table in tables]
    if np.array_equal(*surfaces):
        return np.empty((0, 5))  # moocore fails where there is no rectangle to return
    boxes = moocore.eafdiff(*tables, intervals=len(a), rectangles=True)
    boxes = boxes[boxes[:, 4] != 0]
    lower, upper = best * -signs, worst * -signs
    near, far = np.clip(boxes[:, :2], lower, upper), np.clip(boxes[:, 2:4], lower, upper)
    kept = np.all(far > near, axis=1)
    corners = np.stack([near[kept] * -signs, far[kept] * -signs])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return np.column_stack([low, high, boxes[kept, 4] / len(a)])


def attainment_shares(fronts: ArrayLike, x: ArrayLike, y: ArrayLike, maximise: Directions) -> FloatArray:
    """Return the share of fronts that attain each point of a grid, (n_y, n_x), for the points (x, y).

    ``fronts`` (n_fronts, n_points, 2); ``x`` (n_x,), ``y`` (n_y,) in any order. For maps on which any two methods are
    to be subtracted; `attainment_difference` has the exact rectangles of one pair. O(n_fronts (n_points + n_y) n_x).

    >>> attainment_shares([[[2, 2]], [[1, 3]]], x=[1, 2], y=[2, 3], maximise=True).tolist()
    [[1.0, 0.5], [0.5, 0.0]]
    """
    stacked = np.asarray(fronts, dtype=float)
    signs = directions(maximise, 2)
    points = stacked * signs
    shares = np.zeros((len(np.asarray(y)), len(np.asarray(x))))
    up = np.asarray(y, dtype=float) * signs[1]
    for column, at in enumerate(np.asarray(x, dtype=float) * signs[0]):
        best = np.where(points[:, :, 0] >= at, points[:, :, 1], -np.inf).max(
            axis=1
        )  # highest y that each front reaches
        shares[:, column] = (best[None, :] >= up[:, None]).mean(axis=1)
    return shares


def _stack(fronts: Sequence[ArrayLike], maximise: Directions) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return all points, the number of the front that each belongs to, and the objectives' signs."""
    arrays = [validate_points(front) for front in fronts]
    if not arrays or not all(map(len, arrays)):
        raise ValueError("attainment needs at least one front, and at least one point in each")
    objectives = {array.shape[1] for array in arrays}
    if not (len(objectives) == 1 and objectives <= {2, 3}):
        raise ValueError(f"all fronts must have the same 2 or 3 objectives, got {sorted(objectives)}")
    sets = np.repeat(np.arange(1.0, len(arrays) + 1), [len(array) for array in arrays])
    return np.concatenate(arrays), sets, directions(maximise, arrays[0].shape[1])
