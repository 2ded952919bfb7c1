"""RPS, robust preference selection: k neighbouring preferences answer, the asked one chooses.

For the target direction v, candidate directions are v turned by multiples of 5 degrees, up to 30; the k = 5 nearest
give one answer each, and the one with the highest v . r is returned. It gains over best-of-k where the wrapped
family serves v better at a neighbour than at v; for a calibrated family the two tie. Nothing is trained. k = 1 is the
wrapped family.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from peo_bench.core.method import MethodSettings, PolicyFamily
from peo_bench.core.preference import DIGITS, Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import PolicySpec
from peo_bench.methods.selecting import SelectingMethod


class RPSSettings(MethodSettings):
    """The published values: `k` = 5 nearest directions, in `step`s of 5 degrees, at most `cone` = 30 degrees away."""

    k: int = Field(5, ge=1)
    step: float = Field(5.0, gt=0)
    cone: float = Field(30.0, gt=0, lt=90)


class RPS(SelectingMethod):
    """Ask the wrapped family at k neighbouring preferences and keep the answer with the highest preferred utility."""

    name = "rps"
    reference = "Robust Preference Alignment via Directional Neighborhood Consensus"
    trains = "nothing"
    costs = "1 evaluation, decoding x5 and 5 scorer calls per answer and objective, on top of what it wraps"
    exact = "the 5 nearest directions in steps of 5 degrees within 30, one answer each, the best by v . r"
    ours = "directions inside the simplex only; of finitely many policies the nearest; scores in reference units"
    Settings = RPSSettings

    @property
    def candidates(self) -> int:
        """The setting `k`; near the simplex's ends, and of few policies, there may be fewer."""
        return int(self.settings.k)

    def policies(self, inner: PolicyFamily, preference: Preference) -> list[PolicySpec]:
        """Return the policies of the k nearest preferences, the nearest (`preference` itself, if offered) first."""
        chosen = self.settings
        found = neighbours(inner.space, preference, chosen.k, chosen.step, chosen.cone)
        return [inner.resolve(w) for w in found]


def neighbours(space: Space, preference: Preference, k: int, step: float, cone: float) -> list[Preference]:
    """Return at most `k` preferences of `space` by angle (degrees) from `preference`, the nearest first.

    On the simplex of two objectives: the preference, then its direction turned by `step`, 2 `step`, ... up to `cone`,
    towards the first objective before the second, as long as no weight is negative. Of finitely many points: what the
    space offers for the preference, then the others within `cone`.

    >>> centre = Preference.even(["helpful", "harmless"])
    >>> [round(w["helpful"], 3) for w in neighbours(Space("simplex"), centre, 3, 5.0, 30.0)]
    [0.5, 0.544, 0.456]
    """
    if space.kind == "points":
        first = space.project(preference)
        ranked = sorted((_angle(preference, point), i) for i, point in enumerate(space.points) if point != first)
        return [first, *(space.points[i] for angle, i in ranked if angle <= cone + 1e-9)][:k]
    along, across = preference.weights
    target = math.degrees(math.atan2(across, along))
    turns = [sign * i * step for i in range(1, math.floor(cone / step + 1e-9) + 1) for sign in (-1, 1)]
    angles = [target + turn for turn in turns if -1e-9 <= target + turn <= 90 + 1e-9]
    return [preference, *(preference.moved(_on_simplex(angle)) for angle in angles)][:k]


def _angle(a: Preference, b: Preference) -> float:
    """Return the angle between two directions in degrees."""
    cosine = np.dot(a.weights, b.weights) / (np.linalg.norm(a.weights) * np.linalg.norm(b.weights))
    return round(math.degrees(math.acos(min(1.0, float(cosine)))), 9)


def _on_simplex(angle: float) -> tuple[float, float]:
    """Return the weights whose direction has this angle (degrees) to the first objective's axis."""
    first, second = max(0.0, math.cos(math.radians(angle))), max(0.0, math.sin(math.radians(angle)))
    weight = round(first / (first + second), DIGITS)
    return weight, round(1.0 - weight, DIGITS)
