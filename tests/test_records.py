"""The run folder's records: documented, written and read back the same, and exact about what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_folder_fixture import KNOWN, comparison, method_metrics

from peo_bench.errors import UsageError
from peo_bench.results import contract
from peo_bench.results.contract import FILES, run_folder_tables
from peo_bench.results.metrics_records import CapabilityRow, Metrics, SafetyZero, TaskMetrics
from peo_bench.results.record import Record, read_record

MODULES = ("costs", "families", "judges", "metrics", "progress", "records")
"""What contract.py calls the modules that declare records of files."""
DOCS = Path(__file__).parents[1] / "docs" / "run-folder.md"


def metrics() -> Metrics:
    task = TaskMetrics(
        reference_point={"reward": -1.0},
        reference_units={"reward": (0.5, float("nan"))},
        hypervolume_units="raw",
        normalisation=None,
        units={7: {"reward": (0.5, float("nan"))}},
        methods={"peo": method_metrics(kl_bound_mean=2.5)},
        comparisons=(comparison("peo", "modpo", -1.0, 2.0),),
        safety_zero=SafetyZero(source="scorer"),
    )
    return Metrics(tasks={"t": task})


def changed(tmp_path: Path, path: tuple[str, ...], value: Any) -> Path:
    """Write the metrics with one entry replaced, or left out for None."""
    content = json.loads(json.dumps(metrics().to_json()))
    item = content
    for key in path[:-1]:
        item = item[key]
    if value is None:
        del item[path[-1]]
    else:
        item[path[-1]] = value
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(content))
    return file


def test_the_documented_keys_are_the_records_keys() -> None:
    assert run_folder_tables() in DOCS.read_text(encoding="utf-8"), (
        "docs/run-folder.md is stale: paste the output of "
        "`python -c 'from peo_bench.results.contract import run_folder_tables; print(run_folder_tables())'`"
    )


def test_no_record_of_a_file_is_left_out_of_the_documented_ones() -> None:
    documented = {record for several in FILES.values() for record in several}
    rooms = [value for name, value in vars(contract).items() if name in MODULES]
    declared = {r for room in rooms for r in vars(room).values() if isinstance(r, type) and issubclass(r, Record)}
    assert len(rooms) == len(MODULES)
    assert declared - documented == {Record}


def test_every_field_says_what_it_means() -> None:
    records = [record for several in FILES.values() for record in several]
    silent = [
        f"{r.__name__}.{name}" for r in records for name, field in r.model_fields.items() if not field.description
    ]
    assert not silent
    assert len(records) == len(set(records)) >= 25


def test_what_is_written_reads_back_and_gaps_are_null_or_absent(tmp_path: Path) -> None:
    file = changed(tmp_path, ("schema_version",), 1)
    task = json.loads(file.read_text())["tasks"]["t"]
    assert task["units"] == {"7": {"reward": [0.5, None]}}, "JSON has no NaN and no whole numbers as keys"
    assert task["normalisation"] is None
    assert task["safety_zero"] == {"from": "scorer"}
    method = task["methods"]["peo"]
    assert (method["kl_mean"], method["kl_bound_mean"]) == (None, 2.5)
    assert {"igd_plus", "steerability", "validation_evaluations"}.isdisjoint(method)
    assert {"judges", "resamples"}.isdisjoint(task)
    found = read_record(file, Metrics)
    assert found == metrics()
    assert found.tasks["t"].methods["peo"].steered_utility.ends == (KNOWN.value, KNOWN.ci_low, KNOWN.ci_high)


@pytest.mark.parametrize(
    ("path", "value", "key", "reason"),
    [
        (("tasks",), None, "tasks", "missing"),
        (("tasks", "t", "methods", "peo", "rank"), None, "tasks.t.methods.peo.rank", "missing"),
        (("tasks", "t", "methods", "peo", "rank"), {"best": 1}, "tasks.t.methods.peo.rank.worst", "missing"),
        (("tasks", "t", "methods", "peo", "n_points"), "5", "tasks.t.methods.peo.n_points", "valid integer"),
        (("tasks", "t", "methods", "peo"), 3, "tasks.t.methods.peo", "object"),
        (("tasks", "t", "comparisons"), {}, "tasks.t.comparisons", "array"),
        (("tasks", "t", "hypervolume_units"), "metres", "tasks.t.hypervolume_units", "'raw' or 'reference'"),
    ],
)
def test_a_key_that_does_not_fit_is_named_in_one_line(
    tmp_path: Path, path: tuple[str, ...], value: Any, key: str, reason: str
) -> None:
    file = changed(tmp_path, path, value)
    with pytest.raises(UsageError) as refused:
        read_record(file, Metrics)
    said = str(refused.value)
    assert said.startswith(f"{file}: ")
    assert f"key {key!r}: " in said
    assert reason in said
    assert "\n" not in said


def test_another_schema_version_is_refused_and_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    assert read_record(changed(tmp_path, ("tasks", "t", "later"), {"a": 1}), Metrics) == metrics()
    with pytest.raises(UsageError, match="schema_version 99, this version reads 1"):
        read_record(changed(tmp_path, ("schema_version",), 99), Metrics)


def test_records_do_not_change() -> None:
    row = CapabilityRow(
        method="peo", seed=0, preference=None, spec_key="k", capability="arc", metric="acc", value=0.5, se=None
    )
    with pytest.raises(ValueError, match="frozen"):
        row.value = 1.0  # type: ignore[misc]
