"""Preference spaces. A method projects what it is asked for onto what it can offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from peo_bench.core.preference import Preference


@dataclass(frozen=True)
class Space:
    """The preferences that a family tells apart: the whole simplex or finitely many points of it."""

    kind: Literal["simplex", "points"]
    points: tuple[Preference, ...] = ()

    def project(self, preference: Preference) -> Preference:
        """Return the nearest preference (Euclidean) that the family offers; idempotent.

        The simplex projection is the sorting algorithm of Held, Wolfe and Crowder (1974).
        """
        if self.kind == "points":
            return min(self.points, key=lambda point: sum((preference[o] - point[o]) ** 2 for o in point.objectives))
        asked = np.asarray(preference.weights, dtype=float)
        if asked.min() >= 0 and abs(asked.sum() - 1) < 1e-12:
            return preference
        descending = np.sort(asked)[::-1]
        thresholds = (np.cumsum(descending) - 1) / np.arange(1, asked.size + 1)
        shift = thresholds[np.flatnonzero(descending > thresholds)[-1]]
        return preference.moved(np.maximum(asked - shift, 0.0).tolist())
