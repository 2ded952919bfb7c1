"""A preference: the weight of every objective of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from peo_bench.errors import UsageError, unknown

DIGITS = 9
"""Decimals of a weight that is what others leave to 1."""


@dataclass(frozen=True, eq=False)
class Preference:
    """Weights by the names of `objectives`, in the order of the task's; on the simplex where a user gives them.

    Two are equal if the weights by name are, in whatever order.

    >>> asked = Preference.of(["helpful", "harmless"], helpful=0.7)
    >>> asked["harmless"], str(asked)
    (0.3, 'helpful 0.7, harmless 0.3')
    """

    objectives: tuple[str, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ValueError unless every objective has one weight."""
        if len(self.objectives) != len(self.weights) or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"{len(self.weights)} weights for the objectives {', '.join(self.objectives)}")

    @classmethod
    def of(cls, objectives: Sequence[str], **given: float) -> Preference:
        """Return the preference with the weights `given` by name; a single one left out has what they leave to 1.

        Raises `UsageError` for an unknown objective and off the simplex.
        """
        for name, weight in given.items():
            if name not in objectives:
                raise unknown("objective", name, objectives)
            if not 0 <= weight <= 1:
                raise UsageError(f"{name} {weight:g} is off the simplex: give a weight between 0 and 1")
        left = [name for name in objectives if name not in given]
        rest = round(1 - sum(given.values()), DIGITS)
        if len(left) > 1 or rest < 0 or (not left and rest):
            total = ", ".join(f"{name} {weight:g}" for name, weight in given.items()) or "nothing"
            raise UsageError(f"{total} is off the simplex: give weights of {', '.join(objectives)} that sum to 1")
        return cls(tuple(objectives), tuple(given.get(name, rest) for name in objectives))

    @classmethod
    def even(cls, objectives: Sequence[str]) -> Preference:
        """Return equal weights."""
        return cls(tuple(objectives), tuple(1 / len(objectives) for _ in objectives))

    def __eq__(self, other: object) -> bool:
        """Compare the weights by name."""
        return isinstance(other, Preference) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash(frozenset(self.to_json().items()))

    def __getitem__(self, objective: str) -> float:
        """Return the weight of an objective."""
        return self.weights[self.objectives.index(objective)]

    def moved(self, weights: Sequence[float]) -> Preference:
        """Return the preference of the same objectives with other weights."""
        return replace(self, weights=tuple(float(weight) for weight in weights))

    def to_json(self) -> dict[str, float]:
        """Return the weights by name."""
        return dict(zip(self.objectives, self.weights, strict=True))

    def __str__(self) -> str:
        """Return names and weights, for people."""
        return ", ".join(f"{name} {weight:g}" for name, weight in zip(self.objectives, self.weights, strict=True))
