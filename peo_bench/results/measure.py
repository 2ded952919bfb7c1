"""What must agree before two numbers may share a column: task, scorers, prompts, decoding, preferences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, TypeGuard, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from peo_bench.core.decoding import Decoding
from peo_bench.core.method import Objective
from peo_bench.core.preference import Preference
from peo_bench.files.digest import digest
from peo_bench.files.json_types import Json
from peo_bench.registry import check_name
from peo_bench.results.record import Record


class PromptSet(Record):
    """A set of prompts."""

    n: int
    """How many."""
    sha256: str
    """SHA-256 of their ids."""


def _objective(value: object) -> object:
    return {"name": value[0], "column": value[1], "maximise": value[2]} if _is_triple(value) else value


def _is_triple(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, list | tuple) and len(value) == 3


def _as_triple(objective: Objective) -> list[str | bool]:
    return [objective.name, objective.column, objective.maximise]


ObjectiveTriple = Annotated[Objective, BeforeValidator(_objective), PlainSerializer(_as_triple)]
"""An objective, in files a list of name, column and whether higher is better."""


Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)]
"""A list in files."""


def _rows(preferences: tuple[Preference, ...]) -> list[list[float]]:
    return [list(preference.weights) for preference in preferences]


def _whole(value: object) -> object:
    """Refuse decoding settings of which one is missing: a default would be told as measured."""
    absent = [name for name in Decoding.model_fields if isinstance(value, Mapping) and name not in value]
    if absent:
        raise ValueError(f"{absent[0]} is missing")
    return value


class Measure(Record):
    """`measure` in `run.json`: how a run measured."""

    task: Annotated[str, AfterValidator(partial(check_name, "task"))]
    """The task."""
    version: int
    """Its version."""
    objectives: Listed[ObjectiveTriple]
    """Name, score column and whether higher is better."""
    reference_point: Mapping[str, float]
    """Of the hypervolume, by column."""
    units: Literal["raw", "reference"]
    """The reference point is in raw scores, or in standard deviations of the reference policy."""
    scorers: Mapping[str, Listed[str]]
    """By column what scored: a registered scorer with its version, the artefact of a checkpoint, or the run's own."""
    judges: Mapping[str, str]
    """What each judge is, by id."""
    decoding: Annotated[Decoding, BeforeValidator(_whole)]
    """Decoding settings: max_new_tokens, temperature and top_p."""
    precision: str
    """Of weights and activations: float32 or bfloat16."""
    preferences: Annotated[tuple[Preference, ...], PlainSerializer(_rows)]
    """The preferences asked for, each a list of weights in the order of the objectives."""
    prompts: PromptSet
    """Number and digest of the test prompts."""

    @model_validator(mode="before")
    @classmethod
    def _with_precision(cls, value: object) -> object:
        """Take precision from among the decoding settings, where the first files have it."""
        if not isinstance(value, Mapping) or "precision" in value or not isinstance(value.get("decoding"), Mapping):
            return value
        decoding = dict(value["decoding"])
        return {**value, "decoding": decoding, "precision": decoding.pop("precision", None)}

    @field_validator("preferences", mode="plain")
    @classmethod
    def _named(cls, value: object, info: ValidationInfo) -> tuple[Preference, ...]:
        names = tuple(objective.name for objective in info.data.get("objectives", ()))
        if not isinstance(value, list | tuple) or not all(isinstance(row, Preference | list | tuple) for row in value):
            raise ValueError("input should be lists of weights")
        return tuple(row if isinstance(row, Preference) else Preference(names, tuple(map(float, row))) for row in value)

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
        """Name of the leaderboard that this measure belongs to: task, version and a digest of all the rest.

        The digest counts precision among the decoding settings: the first boards were named so.
        """
        content = self.to_json()
        precision = content.pop("precision")
        named = {**content, "decoding": {**self.decoding.model_dump(), "precision": precision}}
        return f"{self.task}-v{self.version}-{digest(named)[:8]}"

    def differences(self, other: Measure) -> list[str]:
        """Say, field by field, what differs from `other`."""
        mine, theirs = self.to_json(), other.to_json()
        return [f"{key}: {_short(mine[key])} against {_short(theirs[key])}" for key in mine if mine[key] != theirs[key]]


def identity_of(prompt_ids: Iterable[str]) -> PromptSet:
    """Return the number and the SHA-256 of a set of prompt ids."""
    ids = sorted(set(prompt_ids))
    return PromptSet(n=len(ids), sha256=hashlib.sha256("\n".join(ids).encode()).hexdigest())


def _short(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
