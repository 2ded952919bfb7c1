"""`board.json` as types: how its rows were measured, their units, and the rows."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from peo_bench.results.costs_records import BuildCost
from peo_bench.results.measure import Measure
from peo_bench.results.metrics_records import EstimateRecord, ReferenceUnits, SteerabilityRecord
from peo_bench.results.record import SCHEMA_VERSION, Count, MethodName, Number, Record


class RowValues(Record):
    """What a row states: indicators that do not depend on the other rows; they are those of `MethodMetrics`."""

    hypervolume: EstimateRecord
    steered_utility: EstimateRecord
    expected_utility: EstimateRecord
    n_nondominated: Count
    n_points: Count
    n_beyond_reference: Count
    spacing: Number
    steerability: SteerabilityRecord | None = None
    kl_mean: Number
    kl_bound_mean: Number = None
    length_mean: Number


class RowProvenance(Record):
    """The run that a row comes from; the keys are those of `RunRecord` and `Measure`."""

    config_sha256: str
    peo_bench: str
    command: str
    suite: str
    packages: Mapping[str, str | None]
    licence: str
    finished: str
    scorers: Mapping[str, tuple[str, ...]]
    judges: Mapping[str, str]


class BoardRow(Record):
    """One method of one configuration."""

    method: MethodName
    model: str
    """The base model; `given` for a finished policy that a run was given."""
    seeds: tuple[int, ...]
    n_prompts: int
    settings: Mapping[str, JsonValue]
    """What validation chose, by seed."""
    costs: BuildCost
    provenance: RowProvenance
    id: str
    """Method and digest of method, seeds and configuration."""
    scores_sha256: str
    """Digest of the file of scores by prompt."""
    values: RowValues
    units_sha256: str
    """Digest of the file of reference scores, from which the units follow that `values` are in."""
    row_sha256: str
    """Digest of everything else in the row: it covers what scores cannot prove, such as costs."""


class BoardRecord(Record):
    """All of `board.json`; rows are read one by one, so that a damaged one spoils no other."""

    schema_version: int = SCHEMA_VERSION
    measure: Measure
    units: ReferenceUnits
    rows: tuple[JsonValue, ...]
