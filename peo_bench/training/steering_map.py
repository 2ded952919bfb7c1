"""From a searched plane to a family: maps from preference to coefficients on the experts' task vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from peo_bench.evaluation.kl_budget import keeps
from peo_bench.evaluation.validation import Point, point_from_json
from peo_bench.files.json_types import JsonObject
from peo_bench.pareto import nondominated

Floats = npt.NDArray[np.float64]
LOWER = 1.645
"""Standard errors below the mean: the lower end of a one-sided 95 % interval."""


@dataclass(frozen=True)
class Evaluated:
    """A policy of the plane, its coefficients (m,), and what validation says of it."""

    coefficients: tuple[float, ...]
    point: Point

    def to_json(self) -> JsonObject:
        """Return the record that a search keeps."""
        return {"coefficients": list(self.coefficients), **vars(self.point)}


def evaluated_from_json(values: Mapping[str, Any]) -> Evaluated:
    """Return the record that a search kept."""
    return Evaluated(tuple(values["coefficients"]), point_from_json(values))


def evaluated_line(phis: Iterable[Sequence[float]], points: Iterable[Point]) -> list[Evaluated]:
    """Return phase 2's line of soups: the coefficients `phis` with what validation says of each."""
    return [Evaluated(tuple(phi), point) for phi, point in zip(phis, points, strict=True)]


@dataclass(frozen=True)
class SteeringMap:
    """A map from the weight of the first objective to coefficients.

    `positions` (k,) are weights that rise; `coefficients` (k, m) belong to these weights and are interpolated linearly
    between them.
    """

    positions: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]

    def __call__(self, weight: float) -> tuple[float, ...]:
        """Return the coefficients (m,) for the first objective's weight in [0, 1]."""
        table = np.asarray(self.coefficients)
        return tuple(float(np.interp(weight, self.positions, column)) for column in table.T)


def cautious_map(
    line: Sequence[Evaluated], others: Sequence[Evaluated], utilities: Floats, budget: float
) -> SteeringMap:
    """Follow the interpolation `line`, leaving it only where that surely pays and stays within the KL `budget`, nats.

    `utilities` (n, n_prompts, 2) belong to `line` and then `others`, higher is better. At the weight w of a point of
    the line (its first coefficient) the policy is the one whose gain in w u_1 + (1 - w) u_2 over that point, paired
    over prompts, has the highest lower bound, if that is positive; else the point itself. Where the line itself
    exceeds the budget, the best policy that keeps it; where none does, the reference policy.
    """
    points = [*line, *others]
    allowed = keeps(budget, [item.point for item in points], len(line))
    knots: list[tuple[float, ...]] = []
    for k, start in enumerate(line):
        weight = start.coefficients[0]
        values = utilities @ (weight, 1 - weight)
        if allowed[k]:
            gains = values - values[k]
            bounds = gains.mean(axis=1) - LOWER * gains.std(axis=1, ddof=1) / np.sqrt(gains.shape[1])
        else:
            bounds = values.mean(axis=1)
        best = int(np.argmax(np.where(allowed, bounds, -np.inf)))
        if allowed[k] and bounds[best] <= 0:
            best = k
        knots.append(points[best].coefficients if allowed[best] else tuple(0.0 for _ in start.coefficients))
    return SteeringMap(tuple(item.coefficients[0] for item in line), tuple(knots))


def supported_map(points: Sequence[Evaluated], utilities: Floats, budget: float, starts: int) -> SteeringMap:
    """Order the front's supported points by the first objective and give each the weights for which it is best.

    `utilities` (n, 2), higher is better. Points beyond the KL `budget`, nats, do not count (the search began with the
    first `starts`); where all are, the reference policy is left. A non-dominated point is supported if it maximises
    w u_1 + (1 - w) u_2 for some w; it then does so on an interval of weights, whose middle is its position (the
    outermost points sit at 0 and 1). Points that owe their place on the front to noise are rarely supported. Along the
    knots u_1 rises and u_2 falls.
    """
    allowed = keeps(budget, [item.point for item in points], starts)
    if not allowed.any():
        return SteeringMap((0.0,), (tuple(0.0 for _ in points[0].coefficients),))
    candidates = np.flatnonzero(allowed)
    mask = candidates[nondominated(utilities[candidates], maximise=(True, True))]
    hull: list[int] = []
    for i in mask[np.lexsort((-utilities[mask, 1], utilities[mask, 0]))]:
        if hull and utilities[i, 0] <= utilities[hull[-1], 0]:
            continue  # the same point again
        while len(hull) > 1 and _switch(utilities, hull[-2], hull[-1]) >= _switch(utilities, hull[-1], i):
            hull.pop()
        hull.append(int(i))
    switches = [_switch(utilities, a, b) for a, b in pairwise(hull)]
    middles = [(a + b) / 2 for a, b in pairwise(switches)]
    positions = [0.0, *middles, 1.0] if len(hull) > 1 else [0.0]
    return SteeringMap(tuple(positions), tuple(points[i].coefficients for i in hull))


def _switch(utilities: Floats, low: int, high: int) -> float:
    """Return the weight of the first objective above which point `high` is better than point `low`."""
    gain, loss = utilities[high] - utilities[low]
    return float(-loss / (gain - loss))
