"""What every function of the library checks first: shapes, finite values, directions.

pymoo and moocore drop NaN rows silently and turn -inf into an infinite hypervolume, so nothing reaches them unchecked.
Arrays passed in are copied, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Directions = bool | Sequence[bool] | BoolArray
"""One bool per objective, True: higher is better; a single bool stands for all objectives."""


def validate_points(points: ArrayLike, *, n_objectives: int | None = None) -> FloatArray:
    """Return ``points`` as a new float64 array of shape (n_points, n_objectives).

    An empty set is valid. Raises ValueError for other shapes and for NaN or infinite values, naming the first. O(n).

    >>> validate_points([[1, 2]]).tolist()
    [[1.0, 2.0]]
    """
    array = np.array(points, dtype=np.float64)
    if array.ndim <= 2 and array.shape[0] == 0:
        columns = array.shape[1] if array.ndim == 2 and array.shape[1] else n_objectives or 0
        array = np.empty((0, columns))
    if array.ndim != 2 or (len(array) and not array.shape[1]):
        raise ValueError(f"points must have shape (n_points, n_objectives), got shape {array.shape}")
    if n_objectives is not None and array.shape[1] != n_objectives:
        raise ValueError(f"points have {array.shape[1]} objectives, expected {n_objectives}")
    require_finite(array, "points")
    return array


def require_finite(array: FloatArray, what: str) -> None:
    """Raise ValueError at the first NaN or infinite value, naming its index."""
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{what} contain a value that is not finite: {array[index]} at index {index}")


def validate_reference(reference: ArrayLike) -> FloatArray:
    """Return a reference point as a new array (n_objectives,)."""
    bound = np.array(reference, dtype=np.float64)
    if bound.ndim != 1 or not len(bound):
        raise ValueError(f"the reference point must have shape (n_objectives,), got {bound.shape}")
    require_finite(bound, "reference point")
    return bound


def validate_weights(weights: ArrayLike, n_objectives: int) -> FloatArray:
    """Return preferences as a new array (n_preferences, n_objectives): non-negative, every row sums to 1."""
    simplex = np.array(weights, dtype=np.float64)
    if simplex.ndim != 2 or simplex.shape[1] != n_objectives or not len(simplex):
        raise ValueError(f"weights must have shape (n_preferences, {n_objectives}), got {simplex.shape}")
    if not (np.all(simplex >= 0) and np.allclose(simplex.sum(axis=1), 1.0)):
        raise ValueError("every row of weights must be non-negative and sum to 1")
    return simplex


def directions(maximise: Directions, n_objectives: int) -> FloatArray:
    """Return +1 per maximised and -1 per minimised objective, shape (n_objectives,)."""
    flags = np.broadcast_to(maximise, n_objectives) if np.ndim(maximise) == 0 else np.asarray(maximise)
    if flags.shape != (n_objectives,) or flags.dtype != bool:
        raise ValueError(f"maximise must be one bool or {n_objectives} bools, got {maximise!r}")
    return np.where(flags, 1.0, -1.0)
