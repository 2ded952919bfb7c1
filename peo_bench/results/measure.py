"""What must agree before two numbers may share a column: task, scorers, prompts, decoding, preferences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from peo_bench.core.method import Objective
from peo_bench.core.preference import Preference
from peo_bench.files.digest import digest
from peo_bench.registry import check_name


@dataclass(frozen=True)
class Measure:
    """How a run measured; kept in its `run.json`.

    `reference_point` bounds the hypervolume by column, in raw scores or, with `units` "reference", in standard
    deviations of the reference policy. `scorers`: by column what gave the score, a registered scorer with its version,
    or the artefact of a checkpoint (layout, template, dtype and content), or those trained in the run. `prompts`:
    number and SHA-256 of the test prompts' ids.
    """

    task: str
    version: int
    objectives: tuple[Objective, ...]
    reference_point: Mapping[str, float]
    units: str
    scorers: Mapping[str, list[str]]
    judges: Mapping[str, str]
    decoding: Mapping[str, Any]
    preferences: tuple[Preference, ...]
    prompts: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """The objectives' names."""
        return [objective.name for objective in self.objectives]

    @property
    def columns(self) -> list[str]:
        """The objectives' score columns."""
        return [objective.column for objective in self.objectives]

    @property
    def maximise(self) -> list[bool]:
        """The objectives' directions."""
        return [objective.maximise for objective in self.objectives]

    @property
    def weights(self) -> list[tuple[float, ...]]:
        """The preferences as rows of weights, in the order of the objectives."""
        return [preference.weights for preference in self.preferences]

    @property
    def bound(self) -> list[float]:
        """The hypervolume's reference point, one value per objective."""
        return [float(self.reference_point[column]) for column in self.columns]

    @property
    def name(self) -> str:
        """Name of the leaderboard that this measure belongs to: task, version and a digest of all the rest."""
        return f"{self.task}-v{self.version}-{digest(self.to_json())[:8]}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON; `from_json` inverts it."""
        value = asdict(self)
        value["objectives"] = [[o.name, o.column, o.maximise] for o in self.objectives]
        return value | {"preferences": [list(preference.weights) for preference in self.preferences]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Measure:
        """Read what `to_json` wrote."""
        known = {field.name: value[field.name] for field in fields(cls)}
        objectives = tuple(Objective(*item) for item in value["objectives"])
        names = tuple(objective.name for objective in objectives)
        known |= {"task": check_name("task", value["task"]), "objectives": objectives}
        return cls(**known | {"preferences": tuple(Preference(names, tuple(w)) for w in value["preferences"])})

    def differences(self, other: Measure) -> list[str]:
        """Say, field by field, what differs from `other`."""
        mine, theirs = self.to_json(), other.to_json()
        return [f"{key}: {_short(mine[key])} against {_short(theirs[key])}" for key in mine if mine[key] != theirs[key]]


def identity_of(prompt_ids: Iterable[str]) -> dict[str, Any]:
    """Return the number and the SHA-256 of a set of prompt ids."""
    ids = sorted(set(prompt_ids))
    return {"n": len(ids), "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
