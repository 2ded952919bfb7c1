"""The test answers of one policy of a finished run."""

from __future__ import annotations

import json
from pathlib import Path

from peo_bench.core.preference import Preference
from peo_bench.errors import UsageError, unknown
from peo_bench.files.json_types import JsonObject
from peo_bench.results.record import read_record
from peo_bench.results.records import RunRecord
from peo_bench.results.tables import ANSWERS, read_parquet


def answers_of(folder: Path, method: str, helpful: float, *, seed: int | None = None) -> list[JsonObject]:
    """Return rows of `answers.parquet`: a method's test answers at an asked weight of helpfulness, by prompt_id.

    Single policies (the reference) have one set of answers, whatever is asked. Raises `UsageError` for what the run
    does not hold.
    """
    path = folder / "answers.parquet"
    table = read_parquet(path, ANSWERS)
    table = table[table["split"] == "test"]
    own = table[table["method"] == method]
    if own.empty:
        raise unknown(f"method in {folder}", method, set(table["method"]))
    seeds = [int(value) for value in own["seed"].unique()]
    if seed is not None and seed not in seeds:
        raise UsageError(f"--seed {seed}: this run has answers of the seeds {', '.join(map(str, seeds))}")
    own = own[own["seed"] == (seeds[0] if seed is None else seed)]
    names = [objective.name for objective in read_record(folder / "run.json", RunRecord).objectives]
    weights_of_first = own["preference"].dropna()
    if len(weights_of_first):
        own = own[(own["preference"] - Preference.of(names, helpful=helpful)[names[0]]).abs() < 1e-9]
    if own.empty:
        asked = {Preference.of(names, **{names[0]: weight})["helpful"] for weight in weights_of_first}
        weights = ", ".join(f"{weight:g}" for weight in sorted(asked))
        raise UsageError(f"--helpful {helpful:g}: {method} was asked for {weights}: take one of these")
    rows: list[JsonObject] = json.loads(own.sort_values("prompt_id").to_json(orient="records"))
    return rows
