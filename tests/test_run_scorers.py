"""Runs whose scorers are checkpoints: a task file that names them, and a suite that selects with others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import scorer_checkpoints as made
from test_scorers import beaver_by_hand
from tiny_run import TINY, peo_bench

from peo_bench.runs.config import resolve_config
from peo_bench.runs.identity import run_measure
from peo_bench.runs.request import RunRequest
from peo_bench.runs.world import answers_job, build_world, companions
from peo_bench.suites.suite import suite_task

SUITES = Path(__file__).parents[1] / "peo_bench" / "suites"
REGISTER = "import pathlib, peo_bench.suites as s; s.TASKS.add('external', pathlib.Path('task.yaml').absolute())"
SHORT = TINY[:-4]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints, a task that scores with them, and suites."""
    folder = tmp_path_factory.mktemp("scorers")
    several = {"layout": "sequence-classification", "model": str(made.save_deberta(folder / "several", length=24))}
    beaver = {"layout": "beaver", "model": str(made.save_beaver(folder / "beaver"))}
    task = {
        "version": 1, "licence": "x", "units": "reference", "reference_point": {"reward": -3.0, "cost": 3.0},
        "objectives": [{"name": "helpful", "column": "reward", "maximise": True},
                       {"name": "harmless", "column": "cost", "maximise": False}],
        "scorers": {"reward": beaver, "several": several | {"columns": {"cost": 2, "other": 1}}},
    }  # fmt: skip
    (folder / "task.yaml").write_text(yaml.safe_dump({"task": "external", "metadata": task}))
    sandbox = yaml.safe_load((SUITES / "sandbox.yaml").read_text())
    (folder / "external.yaml").write_text(yaml.safe_dump(sandbox | {"task": "external"}))
    both = {"several": several | {"columns": {"reward": 0, "cost": 2}}}
    (folder / "selection.yaml").write_text(yaml.safe_dump(sandbox | {"proxies": both}))
    (folder / "same.yaml").write_text(yaml.safe_dump(sandbox | {"scorers": both, "proxies": both}))
    return folder


@pytest.fixture(scope="module")
def external(where: Path) -> Path:
    done = peo_bench(
        where, "run", "--suite", "external.yaml", "--methods", "soup", "--out", "a", *SHORT, before=REGISTER
    )
    assert "a/report.html" in done.stdout
    return where / "a"


def run_json(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


def test_reported_scores_are_those_of_the_task_files_checkpoints(where: Path, external: Path) -> None:
    """Recomputed by hand from the answers; the run's own models are the proxies that selection saw."""
    texts = pd.read_parquet(external / "answers.parquet")
    rows = texts[texts["split"] == "test"].iloc[::20]
    by_hand = [beaver_by_hand(where / "beaver", row.prompt, row.answer) for row in rows.itertuples()]
    assert rows["reward"].tolist() == pytest.approx(by_hand, abs=1e-4)
    assert {"other", "reward_proxy", "cost_proxy"} <= set(texts)
    points = pd.read_csv(external / "points.csv")
    row = points[(points["method"] == "soup") & (points["preference_helpful"] == 1.0)].iloc[0]
    own = texts[(texts["spec_key"] == row["spec_key"]) & (texts["split"] == "test")].drop_duplicates("prompt_id")
    for column in ("reward", "cost", "reward_proxy", "cost_proxy"):
        assert row[column] == pytest.approx(own[column].mean(), abs=1e-5)
    assert "oracle" not in set(points["method"]), "its scores are the sandbox's, not these"
    assert (external / "report.html").stat().st_size > 100_000


def test_run_json_says_what_scored(external: Path) -> None:
    run = run_json(external)
    records = run["scorers"]["0"]
    assert set(records) == {"reward", "cost", "other", "reward_proxy", "cost_proxy"}
    assert records["reward"]["layout"] == "beaver"
    assert records["reward"]["source"].startswith("sha256:")
    assert records["reward"]["anchors"] == {"higher": 7, "lower": 0, "of": 7, "gap": pytest.approx(2, abs=1e-3)}
    assert (records["cost"]["better"], records["cost"]["label"], records["cost"]["dtype"]) == ("lower", 2, "float32")
    assert records["other"]["better"] is None
    assert records["cost_proxy"]["layout"] == "trained"
    texts = pd.read_parquet(external / "answers.parquet")
    reference = texts[(texts["method"] == "reference") & (texts["split"] == "validation")]
    assert records["cost"]["scale"]["mean"] == pytest.approx(reference["cost"].mean())
    assert records["cost"]["scale"]["sd"] == pytest.approx(reference["cost"].std())
    (name,) = run["measure"]["scorers"]["reward"]
    assert name.startswith(f"beaver {records['reward']['source']} (scorer-")


def test_truncation_is_counted_by_column(where: Path, external: Path) -> None:
    """Counted again from the texts with the checkpoint's tokenizer: prompt, answer and three special tokens."""
    from transformers import AutoTokenizer

    records = run_json(external)["scorers"]["0"]
    texts = pd.read_parquet(external / "answers.parquet").drop_duplicates(["spec_key", "split", "prompt_id"])
    words = AutoTokenizer.from_pretrained(where / "several" / "model")
    lengths = [len(words(row.prompt, row.answer)["input_ids"]) for row in texts.itertuples()]
    expected = sum(length > 24 for length in lengths)
    assert 0 < expected < len(texts)
    assert (records["cost"]["cut"], records["cost"]["scored"]) == (expected, len(texts))
    assert records["reward"]["cut"] == 0
    assert any(note.startswith(f"cost: {expected} of {len(texts)} texts") for note in run_json(external)["notes"])


def test_a_suite_selects_with_checkpoints_and_reports_others(where: Path, external: Path) -> None:
    """PEO searches with one two-label checkpoint, MODPO takes its margin from it; gold scores are reported."""
    methods = ["--methods", "peo,modpo", "--set", "modpo.margin=explicit"]
    peo_bench(where, "run", "--suite", "selection.yaml", *methods, "--out", "b", *TINY)
    run = run_json(where / "b")
    assert run["measure"]["scorers"] == {"reward": ["sandbox-reward v1"], "cost": ["sandbox-cost v1"]}
    assert "reward-model" not in json.loads((where / "b" / "costs.json").read_text())["kinds"]
    records = run["scorers"]["0"]
    assert {records[name]["layout"] for name in ("reward_proxy", "cost_proxy")} == {"sequence-classification"}
    search = pd.read_csv(where / "b" / "search.csv")
    points = pd.read_csv(where / "b" / "points.csv")
    assert {"reward_proxy", "cost_proxy"} <= set(search)
    assert points["reward_proxy"].notna().sum() == (points["method"] != "oracle").sum()
    assert "oracle" in set(points["method"])


def world_of(where: Path, suite: str, **more: Any) -> Any:
    config = resolve_config(RunRequest(methods="soup", suite=str(where / suite), preferences="3", limit=8))
    task = suite_task(config.suite)
    return config, task, build_world(config, task, more.get("seed", 0))


def test_one_scorer_for_both_has_one_column(where: Path) -> None:
    config, task, world = world_of(where, "same.yaml")
    job = companions(config, task, world).units
    assert sorted(role for role in job.needs if role.startswith("scorer:")) == ["scorer:cost", "scorer:reward"]
    assert job.params["scorers"] == {}
    assert companions(config, task, world).oracle is None
    assert world.validation_job("candidates", {}, []).needs["scorer:cost"] == job.needs["scorer:cost"]


def test_other_scorers_make_other_jobs_and_other_measures(where: Path, tmp_path: Path) -> None:
    """`answers`, validation jobs and the measure all change with the checkpoint, and with nothing that is not it."""
    from peo_bench.core.spec import policy

    def names(suite: str, seed: int = 0) -> tuple[str, str, str]:
        _, task, world = world_of(where, suite, seed=seed)
        final = answers_job(world, task, policy(world.reference.id), {}, "test", 8)
        return final.id, world.validation_job("candidates", {}, []).id, run_measure("t", task, [world], ["p"]).name

    before = names("same.yaml")
    assert before == names("same.yaml")
    assert names("same.yaml", seed=1)[2] == before[2], "the measure does not depend on the training seed"
    suite = yaml.safe_load((where / "same.yaml").read_text())
    other = str(made.save_deberta(tmp_path / "other", seed=9))
    for key in ("scorers", "proxies"):
        suite[key]["several"]["model"] = other
    (where / "changed.yaml").write_text(yaml.safe_dump(suite))
    assert all(a != b for a, b in zip(before, names("changed.yaml"), strict=True))
