"""Suite and task files: what one of them names and the other does not know is an error when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml

from peo_bench.errors import UsageError
from peo_bench.settings import Frozen, load_yaml
from peo_bench.suites import SUITES, TASKS, keys
from peo_bench.suites.keys import key_tables
from peo_bench.suites.suite import SuiteConfig, TaskConfig, load_suite, load_task, suite_task

DOCS = Path(__file__).parents[1] / "docs"


def test_the_suites_and_tasks_of_the_package_are_consistent():
    for name in SUITES.names():
        assert suite_task(load_suite(name)).objectives
    for name in TASKS.names():
        assert load_task(name).reference_point


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data": {"kind": "pairs", "sources": [{"objective": "harmles", "path": "x.jsonl"}]}},
            r"suite mine: unknown objective in data.sources for task peo_pairs 'harmles': did you mean harmless\?",
        ),
        (
            {"proxies": {"rewards": "sandbox-reward"}},
            r"suite mine: unknown column in proxies for task peo_pairs 'rewards': did you mean reward\?",
        ),
        (
            {"scorers": {"rewrad": "sandbox-reward"}},
            r"suite mine: unknown column in scorers for task peo_pairs 'rewrad': did you mean reward\?",
        ),
    ],
)
def test_names_that_the_task_does_not_know(tmp_path, changes, said):
    suite = yaml.safe_load(SUITES.get("smollm2").read_text()) | {"name": "mine"} | changes
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(UsageError, match=said):
        suite_task(load_suite(str(tmp_path / "mine.yaml")))


@pytest.mark.parametrize("point", [{"reward": 0.0}, {"reward": 0.0, "cost": 1.0, "kost": 1.0}])
def test_a_reference_point_has_every_column_and_no_other(point):
    task = load_task("peo_pairs").model_dump(mode="json")
    with pytest.raises(ValueError, match="reference_point needs the columns cost, reward, it has"):
        TaskConfig.model_validate(task | {"reference_point": point})


BRIEF = {"name": "brief", "column": "length", "maximise": False}


@pytest.mark.parametrize("change", [lambda known: [*known, BRIEF], lambda known: [known[0], BRIEF]])
def test_objectives_that_nothing_after_training_handles_are_refused_when_read(tmp_path, monkeypatch, change):
    """In one line; the order of the two is free."""
    task = yaml.safe_load(TASKS.get("peo_pairs").read_text())
    known = task["metadata"]["objectives"]
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(task | {"metadata": {**task["metadata"], "objectives": known[::-1]}})
    )
    monkeypatch.setitem(TASKS._entries, "mine", tmp_path / "mine.yaml")
    assert [objective.name for objective in load_task("mine").objectives] == ["harmless", "helpful"]
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(task | {"metadata": {**task["metadata"], "objectives": change(known)}})
    )
    with pytest.raises(
        UsageError, match=r"mine.yaml: .*the objectives are helpful and harmless.*found .*brief"
    ) as refused:
        load_task("mine")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("column", ["kl", "seed", "answer", "reward_se", "cost_proxy", "preference_helpful", "reward"])
def test_columns_that_tables_need_or_that_are_there_twice_are_refused(column):
    task = load_task("peo_pairs").model_dump(mode="json")
    harmless = next(objective for objective in task["objectives"] if objective["name"] == "harmless")
    task["reference_point"][column] = task["reference_point"].pop(harmless["column"])
    harmless["column"] = column
    said = "two objectives have the column" if column == "reward" else "is one that every table has"
    with pytest.raises(ValueError, match=said):
        TaskConfig.model_validate(task)


# ---- keys --------------------------------------------------------------------------------------------------------


def test_the_documented_keys_are_those_of_the_settings():
    assert key_tables() in (DOCS / "suite-keys.md").read_text(encoding="utf-8"), (
        "docs/suite-keys.md is stale: paste the output of "
        "`python -c 'from peo_bench.suites.keys import key_tables; print(key_tables())'`"
    )


def parts_of(model):
    """The settings classes that a class's keys lead to, itself included."""
    found = {model}
    for field in model.model_fields.values():
        kinds = [field.annotation]
        while kinds:
            kind = kinds.pop()
            kinds += get_args(kind)
            if isinstance(kind, type) and issubclass(kind, Frozen):
                found |= parts_of(kind)
    return found


@pytest.mark.parametrize(("file", "model"), [("suite", SuiteConfig), ("task", TaskConfig)])
def test_no_key_is_left_out_or_silent(file, model):
    documented = {part for sections in keys.FILES.values() for part in sections.values()}
    assert parts_of(model) <= documented
    for part in keys.FILES[file].values():
        assert [name for name, field in part.model_fields.items() if not field.description] == []


def test_schemas_take_the_files_of_the_package_and_refuse_what_the_reader_refuses(peo_bench):
    for file, registry in (("suite", SUITES), ("task", TASKS)):
        code, out, _ = peo_bench("schema", file)
        schema = json.loads(out)
        jsonschema.Draft202012Validator.check_schema(schema)
        takes = jsonschema.Draft202012Validator(schema)
        for name in registry.names():
            content = load_yaml(registry.get(name))
            assert [error.message for error in takes.iter_errors(content)] == [], name
            part = content if file == "suite" else content["metadata"]
            part["colour"] = "red"
            assert not takes.is_valid(content)
        assert code == 0
    assert peo_bench("schema", "run") == (2, "", "error: schema 'run': type one of suite, task\n")
