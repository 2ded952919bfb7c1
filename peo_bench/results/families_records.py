"""`families.json` as types: the methods of a run and their worlds as graphs of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, JsonValue

from peo_bench.core.decoding import Decoding
from peo_bench.process import Precision
from peo_bench.results.measure import ObjectiveTriple
from peo_bench.results.record import MethodName, Record


class SavedJob(Record):
    """An entry of `graph`: a job; its parameters and needs give its id again."""

    kind: str
    """The job kind."""
    params: dict[str, JsonValue]
    """Its parameters."""
    needs: Mapping[str, str]
    """By role the id of the job whose artefact it takes."""


class SavedWorld(Record):
    """An entry of `worlds`: what the methods of one training seed were built from, jobs by id."""

    graph: Mapping[str, SavedJob]
    """Every job by id, each after what it needs."""
    reference: str
    """The reference policy."""
    prompts: str
    """The validation and test prompts."""
    objectives: tuple[ObjectiveTriple, ...]
    """Name, score column and whether higher is better."""
    preferences: tuple[tuple[float, ...], ...]
    """The preferences asked for, weights in the order of the objectives."""
    pairs: Mapping[str, str]
    """By objective its preference pairs."""
    proxies: Mapping[str, str]
    """By objective the scorer that searches and selections see."""
    experts: Mapping[str, str] = {}
    """By objective the expert that was given."""
    evaluation: Mapping[str, str] = {}
    """By column the checkpoint that gives the reported score."""
    given: Mapping[MethodName, str] = {}
    """By name the finished policies that were given."""
    training: dict[str, JsonValue]
    """Settings of the trainings."""
    decoding: Decoding
    """How policies sample."""
    seed: int
    """The training seed."""
    validation_prompts: int
    """How many validation prompts searches see."""
    precision: Precision = "float32"
    """The number format of the policies."""
    max_kl: float | None = None
    """KL budget of every search, in nats; absent where methods have their own."""
    labels_on_both: bool = False
    """Whether every pair carries the label of every objective."""


class SavedFamilies(Record):
    """The whole file."""

    schema_version: int
    """1."""
    methods: tuple[MethodName, ...]
    """The methods that can be steered, in the run's order."""
    settings: Mapping[str, dict[str, JsonValue]]
    """By method the settings that differ from its defaults."""
    worlds: Annotated[Mapping[str, SavedWorld], Field(min_length=1)]
    """By training seed."""
