"""Suite and task files: what one of them names and the other does not know is an error when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml

from peo_bench.data.sources import DATA_DIR, find_files
from peo_bench.errors import UsageError
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.runs.writing import suite_notes
from peo_bench.settings import Frozen, load_yaml
from peo_bench.suites import SUITES, TASKS, keys
from peo_bench.suites.keys import key_tables
from peo_bench.suites.suite import SuiteConfig, TaskConfig, load_suite, load_task, suite_task, with_settings

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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"data": {"kind": "pairs", "sorces": []}},
            r"unknown key in data 'sorces': did you mean sources\? Known: .*kind",
        ),
        (
            {"data": {"kind": "pairs", "sources": [{"objective": "helpful", "paht": "x.jsonl"}]}},
            r"unknown key in data.sources.0 'paht': did you mean path\? Known: ",
        ),
        (
            {"data": {"kind": "pairs", "sources": [{"path": "x.jsonl"}]}},
            r"key 'data.sources.0.objective': field required",
        ),
        ({"data": {"kind": "sandbox", "fodler": "x"}}, r"unknown key in data 'fodler': Known: .*kind"),
        (
            {"scorers": {"reward": {"model": "x", "lay": "x"}}},
            r"unknown key in scorers.reward 'lay': (did you mean \w+\? )?Known: .*layout",
        ),
        ({"training": {"bate": 1}}, r"unknown key in training 'bate': did you mean batch_size or beta\? Known: "),
        ({"trainig": {}}, r"unknown key in the top level 'trainig': did you mean training\? Known: "),
    ],
)
def test_an_unknown_key_is_told_with_the_keys_of_its_place(tmp_path, changes, said):
    suite = yaml.safe_load(SUITES.get("smollm2").read_text()) | {"name": "mine"} | changes
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(UsageError, match=said):
        load_suite(str(tmp_path / "mine.yaml"))


def test_half_a_character_in_a_suite_is_one_line(tmp_path):
    (tmp_path / "mine.yaml").write_text('name: "half \\ud800"\nschema_version: "\\ud800"\n')
    with pytest.raises(UsageError, match=r"mine.yaml:1: malformed YAML: half a character"):
        load_suite(str(tmp_path / "mine.yaml"))


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


# ---- files of one's own ------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A suite, its data, and in a folder its task with the task's prompts; the command is typed elsewhere."""
    suite = yaml.safe_load(SUITES.get("smollm2").read_text()) | {"name": "mine", "task": "tasks/my_task.yaml"}
    suite["data"] = {
        "kind": "pairs", "sources": [{"objective": name, "path": "pairs.jsonl"} for name in ("helpful", "harmless")],
    }  # fmt: skip
    task = yaml.safe_load(TASKS.get("peo_pairs").read_text())
    task["metadata"]["prompts"] = {"path": "asked/*.jsonl"}
    folder = tmp_path / "study"
    (folder / "tasks" / "asked").mkdir(parents=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(suite))
    (folder / "tasks" / "my_task.yaml").write_text(yaml.safe_dump(task))
    rows = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(1500)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = "".join(json.dumps({"prompt": f"which {i}?"}) + "\n" for i in range(300))
    (folder / "tasks" / "asked" / "all.jsonl").write_text(asked)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv(DATA_DIR, raising=False)
    return folder


def read(suite):
    """The suite of a run, as its command reads it."""
    return resolve_config(RunRequest(methods="soup", suite=suite)).suite


def test_what_a_file_names_is_found_beside_it(study):
    """Data and the task beside the suite, prompts beside the task; what the run keeps needs no task file."""
    suite = read("../study/mine.yaml")
    assert suite.task == "my_task"
    assert suite_task(suite).objectives == load_task("peo_pairs").objectives
    assert [name for name, _ in find_files(suite.data.sources[0].path)] == ["pairs.jsonl"]
    assert [name for name, _ in find_files(suite_task(suite).prompts.path)] == ["all.jsonl"]
    kept = yaml.safe_dump(suite.model_dump(mode="json"))
    (study / "tasks" / "my_task.yaml").unlink()
    assert SuiteConfig.model_validate(yaml.safe_load(kept)) == suite
    assert "task_definition" not in read("sandbox").model_dump(), "a named task leaves no trace"
    with pytest.raises(UsageError, match="where is it"):
        find_files("pairs.jsonl")


def test_a_data_dir_wins_over_the_suites_folder(study, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "pairs.jsonl").write_text("{}\n")
    monkeypatch.setenv(DATA_DIR, str(other))
    read(str(study / "mine.yaml"))
    assert find_files("pairs.jsonl") == [("pairs.jsonl", other / "pairs.jsonl")]


def test_checkpoints_beside_the_file_are_found_and_ids_stay(study):
    suite = yaml.safe_load((study / "mine.yaml").read_text())
    scorer = {"layout": "beaver", "model": "cost-model"}
    for model, there in (("base", True), ("owner/name@main", False), ("smollm2", False), ("/abs/olute", False)):
        (study / model.replace("/", "-")).mkdir(exist_ok=True)
        (study / "cost-model").mkdir(exist_ok=True)
        (study / "mine.yaml").write_text(yaml.safe_dump(suite | {"model": model, "scorers": {"cost": scorer}}))
        found = load_suite(str(study / "mine.yaml"))
        assert found.model == (str(study / model) if there else model)
        assert found.scorers["cost"].model == str(study / "cost-model")


def test_set_takes_a_task_file_too(study):
    changed = with_settings(load_suite("smollm2"), {"task": "../study/tasks/my_task.yaml"})
    assert (changed.task, changed.task_definition.prompts.path) == ("my_task", "../study/tasks/asked/*.jsonl")
    assert with_settings(changed, {"task": "peo_pairs"}).task_definition is None
    assert with_settings(changed, {"test_prompts": 9}).task_definition == changed.task_definition


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("peo_pairs.yaml", r"a task called peo_pairs is registered: give the file another name"),
        ("My Task.yaml", r"task 'My Task' is not a valid name"),
        ("absent.yaml", r"absent.yaml: .*give the path of a YAML file"),
    ],
)
def test_task_files_that_cannot_be_named(study, name, said):
    suite = yaml.safe_load((study / "mine.yaml").read_text()) | {"task": f"tasks/{name}"}
    (study / "mine.yaml").write_text(yaml.safe_dump(suite))
    if name != "absent.yaml":
        (study / "tasks" / "my_task.yaml").rename(study / "tasks" / name)
    with pytest.raises(UsageError, match=said):
        load_suite(str(study / "mine.yaml"))


def test_nothing_of_a_users_model_is_trained_whole_unless_a_suite_says_so(study):
    suite = yaml.safe_load((study / "mine.yaml").read_text())
    (study / "mine.yaml").write_text(
        yaml.safe_dump({k: v for k, v in suite.items() if k not in ("training", "reward_model")})
    )
    found = load_suite(str(study / "mine.yaml"))
    assert (found.training.form, found.reward_model.form) == ("lora", "lora")
    assert all(load_suite(name).reward_model.form == "full" for name in SUITES.names() if name.startswith("sandbox"))


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ({}, True),
        ({"set": ["test_prompts=60"]}, True),
        ({"limit": 64}, False),
        ({"set": ["training.epochs=0.25"]}, False),
        ({"set": ["sft.steps=30"]}, False),
        ({"suite": "smollm2"}, None),
    ],
)
def test_what_a_suite_says_of_its_regime_is_said_of_that_regime_only(options, holds):
    notes = suite_notes(resolve_config(RunRequest(methods="soup", **options)))
    said = {True: "Regime: finished experts", False: "are not those of suite sandbox: its regime is another."}
    assert len(notes) == (0 if holds is None else 1)
    assert all(said[holds] in note for note in notes)
