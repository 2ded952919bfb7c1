"""Finished policies and finished answers compete: `--policy`, `--answers`, with methods and without any."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import models
import scorer_checkpoints as made
from judge_server import serve  # noqa: F401
from tiny_run import TINY, peo_bench

from peo_bench.data.given_answers import read_given
from peo_bench.errors import UsageError
from peo_bench.report.contents import task_views
from peo_bench.report.stand_in import by_its_name
from peo_bench.results.folder import read_run_folder
from peo_bench.runs.verification import verify_run
from peo_bench.sandbox.small_world import prompts_of

SHARED = Path(__file__).parents[2] / "shared" / "data"
NONE = ["run", "--methods", "none", "--limit", "36", "--preferences", "3", "--workers", "1"]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl", "a.csv", "a.parquet"])
@pytest.mark.parametrize("columns", [("prompt", "answer"), ("instruction", "output")])
def test_every_layout_is_read(tmp_path, name, columns):
    """Prompts are the same whatever their white space, and no other way."""
    table = pd.DataFrame([("What  is\nDPO? ", "A loss."), ("what is dpo?", "")], columns=list(columns))
    path = tmp_path / name
    rows = table.to_dict("records")
    if ".json" in name:
        text = json.dumps(rows) if ".json" in path.suffixes else "\n".join(map(json.dumps, rows))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    else:
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
    assert read_given(path) == {"What is DPO?": "A loss.", "what is dpo?": ""}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "holds no rows"),
        ([{"question": "q", "answer": "a"}], "item 1: its columns are answer, question: give rows with prompt and"),
        ([{"prompt": "q", "answer": None}], "item 1: answer is NoneType, expected text"),
        ([["q", "a"]], "item 1: is no object"),
        ([{"prompt": "q", "answer": "a\ud83d"}], "half a character"),
        ([{"prompt": "q", "answer": "a"}, {"prompt": " q", "answer": "b"}], "1 prompts have several answers"),
        ([{"instruction": f"q{i}", "output": "a", "generator": f"m{i}"} for i in range(2)], "2 generators (m0, m1)"),
    ],
)
def test_what_is_no_answer_is_one_line(tmp_path, rows, says):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(UsageError) as told:
        read_given(path)
    assert says in str(told.value)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


# --- answers of a finished run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given(small_run, tmp_path_factory) -> Path:
    """Answers of two policies of the small run, its cache, and the run `out` that compares nothing else."""
    where = tmp_path_factory.mktemp("given")
    shutil.copytree(small_run / "cache", where / "cache")
    for name, weight in (("a", "1"), ("b", "0")):
        told = [str(small_run / "out"), "--method", "mod", "--helpful", weight, "--to", f"{name}.json"]
        peo_bench(where, "outputs", *told)
    done = peo_bench(
        where, *NONE, "--answers", "a=a.json", "--answers", "b=b.json", "--judge", "scorers", "--out", "out"
    )
    assert "win rate against a" in done.stdout
    return where


def run_json(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())["tasks"]["peo_sandbox"]


def test_answers_alone_need_no_model(given):
    """Nothing is trained or generated, and the first answers stand in for the reference policy: their utility is 0."""
    kinds = {line["record"]["kind"] for line in map(json.loads, (given / "out" / "jobs.jsonl").open())}
    assert kinds == {"sandbox-prompts", "given-answers", "answers"}
    run, metrics = run_json(given / "out"), metrics_of(given / "out")
    assert (run["methods"], run["controls"], run["external"], run["stand_in"]) == ([], [], ["a", "b"], "a")
    assert any("no reference policy in this run: a stands in for it" in note for note in run["notes"])
    assert any("KL of a, b is not known: answers were given" in note for note in run["notes"])
    assert not any("searched for with a scorer" in note for note in run["notes"])
    assert metrics["methods"]["a"]["steered_utility"]["value"] == pytest.approx(0, abs=1e-6)
    assert metrics["methods"]["b"]["kl_mean"] is None
    assert not json.loads((given / "out" / "costs.json").read_text())["methods"], "what they cost is not known"


def test_their_scores_are_those_of_the_policies_that_gave_them(given, small_run):
    old, new = (pd.read_csv(where / "out" / "points.csv") for where in (small_run, given))
    for name, weight in (("a", 1.0), ("b", 0.0)):
        theirs = old[(old["method"] == "mod") & (old["preference_helpful"] == weight)]
        mine = new[new["method"] == name]
        assert sorted(mine["preference_helpful"]) == [0.0, 0.5, 1.0], "one policy for every balance"
        for column in ("reward", "cost"):
            assert set(mine[column]) == {theirs[column].item()}


def test_the_verdict_is_the_paired_difference_of_utilities(given):
    """By hand: weights are even, so w · score averages to half of each objective in units of a's scores."""
    answers = pd.read_parquet(given / "out" / "answers.parquet")
    own = answers[answers["preference"] == 0.5].set_index(["method", "prompt_id"])[["reward", "cost"]]
    a, b = own.loc["a"], own.loc["b"]
    units = a.std(ddof=1)
    by_hand = ((a - b.loc[a.index]) / units * [0.5, -0.5]).sum(axis=1).mean()
    (gap,) = metrics_of(given / "out")["comparisons"]
    assert (gap["a"], gap["b"]) == ("a", "b")
    assert gap["difference"] == pytest.approx(by_hand, abs=1e-5)


def test_judges_compare_each_pair_once(given):
    judged = pd.read_parquet(given / "out" / "judgements.parquet")
    assert set(zip(judged["method_a"], judged["method_b"], strict=True)) == {("b", "reference")}


def test_the_folder_verifies_and_the_report_says_what_stands_in(given):
    assert verify_run(given / "out") == []
    page = (given / "out" / "report.html").read_text()
    assert "scores are missing" not in page
    assert "in standard deviations of a&#39;s answers, which stand in for a reference policy" in page
    assert "words per answer" in page
    (view,) = task_views(by_its_name(read_run_folder(given / "out")))
    assert {point.method for point in view.points} == {"a", "b"}, "no star: it would be a again"
    said = (given / "out" / "report.md").read_text()
    assert "b against a" in said or "b − a" in said or "| b | a |" in said, said


def test_answers_cannot_be_asked(given):
    for command in (["steer", "out", "hello", "--method", "a"], ["export", "out", "--method", "a", "--to", "x"]):
        done = peo_bench(given, *command, check=False)
        assert done.returncode == 2
        assert "a was given as answers: there is no model to ask" in done.stderr


def test_where_a_file_lies_is_no_part_of_the_run(given):
    (given / "elsewhere").mkdir()
    shutil.copy(given / "a.json", given / "elsewhere" / "again.json")
    args = [*NONE, "--answers", "a=elsewhere/again.json", "--answers", "b=b.json", "--judge", "scorers", "--out", "out"]
    peo_bench(given, *args)
    assert run_json(given / "out")["reused_artefacts"] == 5
    assert "json" not in (given / "out" / "config.yaml").read_text()


def test_missing_answers_end_a_run_before_anything_is_trained(given, tmp_path):
    rows = json.loads((given / "a.json").read_text())
    (tmp_path / "few.json").write_text(json.dumps(rows[2:]))
    done = peo_bench(tmp_path, "run", "--answers", "few=few.json", *TINY, check=False)
    assert done.returncode == 2
    assert "few.json: 2 of the 36 test prompts have no answer" in done.stderr
    assert not list((tmp_path / "cache").rglob("sft-*"))


def test_answers_to_other_prompts_are_left_out_and_counted(given, tmp_path):
    for name in "ab":
        rows = json.loads((given / f"{name}.json").read_text())
        (tmp_path / f"{name}.json").write_text(json.dumps([*rows, {"instruction": "what else ?", "output": "none"}]))
    args = [argument if argument != "36" else "9" for argument in NONE]
    peo_bench(tmp_path, *args, "--answers", "a=a.json", "--answers", "b=b.json", "--out", "out")
    told = [note for note in run_json(tmp_path / "out")["notes"] if "left out" in note]
    assert [note.split(" and ")[0] for note in told] == [
        f"{name}.json: 28 of its 37 answers are to no test prompt of this run" for name in "ab"
    ]


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(given, small_run) -> Path:
    """The run `mixed` of a soup, a policy exported from it, one of another base, and answers."""
    peo_bench(given, "export", str(small_run / "out"), "--method", "peo", "--helpful", "1", "--to", "pol")
    words = dict.fromkeys(word for prompt in prompts_of("test") for word in prompt.text.split())
    tokenizer = models.tokenizer(words=[*words])
    models.llama(vocabulary=max(tokenizer.get_vocab().values()) + 1).save_pretrained(given / "other")
    tokenizer.save_pretrained(given / "other")
    args = ["--policy", "me=pol", "--policy", "other=other", "--answers", "a=a.json"]
    peo_bench(given, "run", "--methods", "mod", *args, *TINY[:-4], "--out", "mixed")
    return given


def test_given_policies_compete_with_methods(mixed):
    """In ranks, verdicts corrected for all pairs and the headline; KL where the tokens are the reference's."""
    metrics, run = metrics_of(mixed / "mixed"), run_json(mixed / "mixed")
    assert run["external"] == ["me", "other", "a"]
    assert {*metrics["methods"]} >= {"mod", "me", "other", "a"}
    n = len(metrics["methods"])
    assert len(metrics["comparisons"]) == n * (n - 1) // 2
    assert metrics["methods"]["me"]["kl_mean"] > 0
    for name in ("other", "a"):
        assert metrics["methods"][name]["kl_mean"] is None
        assert set(metrics["methods"][name]["hypervolume_within_kl"]) <= {None}
    notes = " ".join(run["notes"])
    assert "KL of other is not known: the prompts are other tokens to it" in notes
    assert "stand" not in notes
    assert verify_run(mixed / "mixed") == []
    page = (mixed / "mixed" / "report.html").read_text()
    assert "scores are missing" not in page
    assert "since their KL is not known: a and other" in page or "since their KL is not known: other and a" in page


def test_a_policy_of_another_base_answers_with_its_own_tokenizer(mixed):
    done = peo_bench(mixed, "steer", "mixed", "--method", "other", "--helpful", "1", "how do i bake bread ?")
    assert done.stdout.count("\n") >= 2
    answers = pd.read_parquet(mixed / "mixed" / "answers.parquet")
    own = answers[answers["method"] == "other"]
    assert own["spec_key"].nunique() == 1
    assert own["kl"].isna().all()


def test_policies_alone_are_measured_from_the_reference_policy(mixed):
    """No pairs, no proxies; the units are those of the reference policy's answers to the test prompts."""
    sizes = TINY[6:-4]
    peo_bench(mixed, *NONE, "--policy", "me=pol", "--answers", "a=a.json", *sizes, "--out", "policies")
    kinds = {line["record"]["kind"] for line in map(json.loads, (mixed / "policies" / "jobs.jsonl").open())}
    assert not kinds & {"reward-model", "sandbox-pairs", "aspect"}
    answers = pd.read_parquet(mixed / "policies" / "answers.parquet")
    reference = answers[answers["method"] == "reference"]
    assert set(reference["split"]) == {"test"}
    mean, sd = metrics_of(mixed / "policies")["reference_units"]["reward"]
    assert (mean, sd) == pytest.approx((reference["reward"].mean(), reference["reward"].std(ddof=1)), abs=1e-5)
    assert verify_run(mixed / "policies") == []


def test_given_policies_stand_beside_those_of_other_runs(mixed, small_run):
    peo_bench(mixed, "compare", str(small_run / "out"), "mixed", "--out", "both")
    run = run_json(mixed / "both")
    assert run["external"] == ["me", "other", "a"]
    assert not {"me", "other", "a"} & {*run["controls"]}


def test_leaderboards_take_given_policies_and_no_price(mixed):
    """A board begins with a run that trains a method: its units are those of validation prompts."""
    shutil.copytree(mixed / "mixed", mixed / "whole")
    content = run_json(mixed / "whole") | {"limited": None}
    (mixed / "whole" / "run.json").write_text(json.dumps(content))
    peo_bench(mixed, "leaderboard", "add", "whole", "--dir", "boards")
    (path,) = (mixed / "boards").rglob("board.json")
    rows = {row["method"]: row for row in json.loads(path.read_text())["rows"]}
    assert {*rows} == {"mod", "me", "other", "a"}
    assert (rows["a"]["model"], rows["a"]["costs"]["train_units"]) == ("given", None)
    assert "0 problems" in peo_bench(mixed, "leaderboard", "verify", "--dir", "boards").stdout
    content = run_json(mixed / "out") | {"limited": None}
    (mixed / "out" / "run.json").write_text(json.dumps(content))
    done = peo_bench(mixed, "leaderboard", "add", "out", "--dir", "others", check=False)
    assert done.returncode == 2
    assert "begin it with a run that trains a method" in done.stderr


def test_from_python_the_same(given, monkeypatch):
    import peo_bench as pb

    monkeypatch.setenv("XDG_CACHE_HOME", str(given / "cache"))
    monkeypatch.chdir(given)
    stages = pb.plan(methods="none", answers={"a": given / "a.json", "b": "b.json"}, limit=36, preferences=3)
    assert list(stages["stage"])[:2] == ["sandbox-prompts", "given-answers"]
    assert not {"answers", "tokens_generated"} & {*stages.columns}, "nothing is generated"


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_alpaca_evals_outputs_compete_without_a_model_or_pairs(tmp_path, serve):  # noqa: F811
    """Two published models against the baseline, scored by checkpoints, judged over loopback by length."""
    for column, objective, sign in (("reward", "helpful", 1.0), ("cost", "harmless", -1.0)):
        made.save_beaver(tmp_path / column, objective=objective, sign=sign, score_type=column)
    suite = {
        "schema_version": 1, "name": "outputs", "title": "Published outputs", "task": "peo_alpacaeval",
        "model": "no/model", "data": {"kind": "pairs", "sources": []}, "test_prompts": 48, "judge": {"prompts": 12},
        "scorers": {c: {"layout": "beaver", "model": f"{c}/model"} for c in ("reward", "cost")},
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    files = {
        "baseline": SHARED / "alpaca_eval" / "alpaca_eval_gpt4_baseline.json",
        "gemma": SHARED / "alpaca_eval" / "model_outputs" / "gemma-2b-it.json.gz",
        "claude": SHARED / "alpaca_eval" / "model_outputs" / "claude-2.json.gz",
    }
    told = [part for name, path in files.items() for part in ("--answers", f"{name}={path}")]
    judge = f"openai:judge@{serve().url}"
    args = ["--suite", "suite.yaml", "--data-dir", str(SHARED), "--workers", "1", "--judge", judge, "--out", "out"]
    peo_bench(tmp_path, "run", "--methods", "none", *told, *args)
    run = run_json(tmp_path / "out")
    assert run["status"] == "complete"
    assert sum("757 of its 805 answers are to no test prompt" in note for note in run["notes"]) == 3
    task = json.loads((tmp_path / "out" / "metrics.json").read_text())["tasks"]["peo_alpacaeval"]
    assert {*task["methods"]} == {*files}
    assert len(task["comparisons"]) == 3
    answers = pd.read_parquet(tmp_path / "out" / "answers.parquet")
    own = answers[(answers["method"] == "gemma") & (answers["preference"] == 0.5)]
    known = read_given(files["gemma"])
    assert all(
        known[" ".join(prompt.split())] == answer for prompt, answer in zip(own["prompt"], own["answer"], strict=True)
    )
    (judged,) = task["judges"].values()
    pairs = {(entry["a"], entry["b"]) for entry in judged["overall"]}
    assert pairs == {("gemma", "reference"), ("claude", "reference"), ("gemma", "claude")}
    rows = pd.read_parquet(tmp_path / "out" / "judgements.parquet")
    rows = rows[(rows["objective"] == "helpful") & (rows["method_a"] == "gemma") & (rows["method_b"] == "reference")]
    asked = own[own["prompt_id"].isin(rows["prompt_id"])]
    baseline = read_given(files["baseline"])
    longer = [len(row.answer) > len(baseline[" ".join(row.prompt.split())]) for row in asked.itertuples()]
    (entry,) = (e for e in judged["overall"] if (e["objective"], e["a"], e["b"]) == ("helpful", "gemma", "reference"))
    assert (len(longer), entry["win_rate"]) == (12, pytest.approx(100 * np.mean(longer)))
    assert verify_run(tmp_path / "out") == []
