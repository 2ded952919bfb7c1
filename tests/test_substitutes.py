"""The suites of papers from plan to report on tiny stand-ins, which are what they stand for in everything but sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from judge_server import serve  # noqa: F401 - serve is a fixture
from safetensors import safe_open

from peo_bench.data import made_up
from peo_bench.data.prompts import PromptSource
from peo_bench.data.schema import Pair, PairSource
from peo_bench.errors import UsageError
from peo_bench.models.known import KNOWN
from peo_bench.models.tiny import tiny_config, tiny_tokenizer
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.suites.suite import PairsData, load_suite, task_of

SUITES = ("paper-gemma-2b", "paper-llama1-7b", "paper-llama3-8b", "pku-11")
BRIEF = ("--substitute", "tiny", "--preferences", "3", "--methods")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where stand-ins and finished work lie, for all tests of this module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(peo_bench, cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return peo_bench


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_goes_from_plan_to_report(command, tmp_path, suite, serve):  # noqa: F811
    """One with PEO, one with a judge behind an endpoint as OpenAI's."""
    method = ("peo", "--set", "peo.budget=13", "--set", "peo.grid=3") if suite == SUITES[0] else ("soup",)
    method += ("--judge", f"openai:m@{serve().url}", "--set", "judge.prompts=4") if suite == SUITES[1] else ()
    code, planned, err = command("plan", "--suite", suite, *BRIEF, *method, "--json")
    assert (code, err) == (0, "")
    assert {stage["stage"] for stage in json.loads(planned)} >= {"aspect", "scorer", "checkpoint", "pairs", "prompts"}
    code, _, err = command("run", "--suite", suite, *BRIEF, *method, "--workers", "1", "--out", "run")
    assert code == 0, err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["status"], run["substituted"]) == ("complete", "tiny")
    assert run["suite"] == f"{suite}-tiny"
    assert run["task"].startswith("tiny-")
    assert run["title"].startswith("SUBSTITUTED ")
    assert all(record["layout"] == "beaver" for record in run["scorers"]["0"].values())
    for report in ("report.html", "report.md"):
        assert "its numbers mean nothing and compare with nothing" in (tmp_path / "run" / report).read_text()
    assert "SUBSTITUTED: made-up checkpoints and data" in (tmp_path / "run" / "report.html").read_text()
    assert len(run["measure"]["judges"]) == (suite == SUITES[1])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"][run["task"]]["methods"]["soup"]
    assert metrics["kl_mean"] > 0.01, "policies differ, so that what follows is about something"
    published = metrics["as_published"]
    assert published["inner_product_reference"] == pytest.approx(metrics["steered_utility"]["value"])
    assert published["hypervolume_reference"] == pytest.approx(metrics["hypervolume"]["value"])
    code, _, err = command("leaderboard", "add", "run", "--dir", "boards")
    assert (code, err.count("\n")) == (2, 1)
    assert "--substitute tiny: its numbers mean nothing" in err


def test_stand_ins_have_the_architecture_the_files_and_the_tokens_of_what_they_stand_for(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    for name in SUITES:
        real = load_suite(name)
        suite = resolve_config(RunRequest(suite=name, methods="soup", substitute="tiny")).suite
        known = KNOWN[real.model.partition("@")[0]]
        folder = Path(suite.model)
        config = json.loads((folder / "config.json").read_text())
        assert config["model_type"] == known.config["model_type"]
        shared = known.config["num_attention_heads"] // known.config["num_key_value_heads"]
        assert config["num_attention_heads"] // config["num_key_value_heads"] == min(shared, 4)
        assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1, "sharded as the real one"
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        assert tokenizer["model"]["byte_fallback"] is (known.tokenizer == "sentencepiece")
        assert isinstance(suite.data, PairsData)
        assert all(source.hub is None for source in suite.data.sources)
        task = task_of(suite)
        assert task.prompts is None or task.prompts.hub is None
        scorer = Path(task.scorers["cost"].model)
        with safe_open(sorted(scorer.glob("*.safetensors"))[-1], "pt") as last:
            assert any(key.startswith("score_head") for key in last.keys())  # noqa: SIM118 - no mapping


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_tiny_tokenizer_reads_back_what_it_writes(name):
    """Also characters that it never saw, as SentencePiece's bytes and byte-level BPE do."""
    tokenizer = tiny_tokenizer(KNOWN[name], made_up.texts())
    for text in ("How do I mend a red box?", "naïve 你好 <b>"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    begins = tokenizer("a")["input_ids"][0]
    bos = KNOWN[name].special.get("bos")
    assert (tokenizer.convert_ids_to_tokens(begins) == bos) is (bos not in (None, KNOWN[name].special["eos"]))
    assert tiny_config(KNOWN[name], 7)["vocab_size"] == 7


@pytest.mark.parametrize(
    "source",
    [
        PairSource(objective="helpful", hub="a/b"),
        PairSource(objective="helpful", hub="a/b", columns={"prompt": "question"}, category="kind"),
        PairSource(objective="harmless", hub="a/b", layout="hh", single_turn=True),
        PairSource(objective="harmless", hub="a/b", layout="pku"),
        PairSource(objective="helpful", hub="a/b", layout="rated", columns={"answer": "response"}),
        PairSource(objective="helpful", hub="a/b", layout="rated", answers="all", columns={"rating": "scores.honesty"}),
    ],
)
def test_made_up_rows_are_read_as_pairs_in_every_layout(source):
    rows = list(made_up.rows(source, "pairs"))
    pairs, left = source.join([source.convert(row) for row in rows])
    assert not left
    assert len({pair.prompt_id for pair in pairs}) == len(made_up.VERBS) * len(made_up.THINGS)
    assert all(isinstance(pair, Pair) and pair.chosen != pair.rejected for pair in pairs)
    assert all(pair.category in (None, *made_up.CATEGORIES) for pair in pairs)


def test_made_up_prompts_of_a_task_are_none_that_are_trained_on():
    plain = PromptSource(hub="a/b", columns={"prompt": "instruction"}, where={"label": "safe"})
    dialogues = PromptSource(hub="a/b", layout="transcripts", single_turn=True)
    trained = {PairSource(objective="helpful", hub="a/b").convert(row).prompt_id for row in made_up.rows(
        PairSource(objective="helpful", hub="a/b"), "pairs")}  # fmt: skip
    for source, use in ((plain, "benign"), (dialogues, "prompts")):
        asked = {source.convert(row).prompt_id for row in made_up.rows(source, use)}
        assert len(asked) == len(trained)
        assert not asked & trained


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (RunRequest(suite="sandbox", substitute="tiny"), "suite sandbox makes its own model and data: leave it out"),
        (RunRequest(suite="pku-11", substitute="small"), "--substitute small: type tiny, or leave it out"),
        (
            RunRequest(suite="pku-11", substitute="tiny", model="nobody/knows"),
            "what nobody/knows is made of is not known here: it knows .*google/gemma-2b",
        ),
    ],
)
def test_what_cannot_be_substituted_is_one_line(cache, monkeypatch, request_, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(UsageError, match=said) as refused:
        resolve_config(request_)
    assert "\n" not in str(refused.value)


def test_a_suite_whose_prompts_train_no_scorers_says_which_proxy_is_missing(command):
    code, _, err = command(
        "plan", "--suite", "pku-11", *BRIEF, "soup", "--set", "proxies={}", "--set", "own_proxies=true"
    )
    assert (code, err) == (
        2,
        "error: suite pku-11-tiny: data.splits has no share for scorers, and column 'reward' has none in proxies: add "
        "one of them\n",
    )
    code, _, err = command("plan", "--suite", "pku-11", *BRIEF, "soup", "--set", "data.splits={policy: 1.0, test: 0.2}")
    assert (code, err) == (2, "error: --set: key 'data': splits needs a share for validation\n")
