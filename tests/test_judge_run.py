"""Judging as a stage of a run: verdicts with a closed form, kills, budgets, missing verdicts, keys."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import PRICE, Answer, JudgeServer, by_length, says, serve  # noqa: F401 - serve is a fixture
from tiny_run import TINY
from tiny_run import peo_bench as command

from peo_bench.errors import UsageError
from peo_bench.results.differences import write_sums
from peo_bench.runs import assembly
from peo_bench.runs.verification import verify_run

KEY = "sk-canary-5f2b7c"
PROMPTS = 12
TASK = "peo_sandbox"
SET = ("--set", f"judge.prompts={PROMPTS}", "--set", "judge.prices={m: {input: 2, output: 10}}")
QUICK = """
import os
os.environ["OPENAI_API_KEY"] = "{key}"
from peo_bench.judges import endpoint
endpoint.FIRST_WAIT = endpoint.LONGEST_WAIT = 0.001
"""


def run(folder: Path, server: JudgeServer, *more: str, before: str = "", check: bool = True):
    judge = ("--judge", f"openai:m@{server.url}", "--judge", "scorers")
    args = ("run", "--methods", "peo,mod", "--out", "out", *TINY, *SET, *judge, *more)
    return command(folder, *args, before=QUICK.format(key=KEY) + before, check=check)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a judge, and the server that judged it, closed when the module is done."""
    where, server = tmp_path_factory.mktemp("judged"), JudgeServer()
    done = run(where, server)
    yield where, server, done
    server.close()


@pytest.fixture
def copy(finished, tmp_path):
    """A folder with the trained run's cache but without replies."""
    shutil.copytree(finished[0] / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns("judge-replies"))
    return tmp_path


def metrics(where: Path) -> dict:
    judges = json.loads((where / "out/metrics.json").read_text())["tasks"][TASK]["judges"]
    return next(value for name, value in judges.items() if name != "scorers")


def expected_shares(where: Path, method: str, weight: float, other: str, objective: str) -> np.ndarray:
    """The share of `method` by prompt, from the texts alone, as the server's rule has it."""
    texts = pd.read_parquet(where / "out/answers.parquet")
    test = texts[texts["split"] == "test"]
    judged = set(pd.read_parquet(where / "out/judgements.parquet")["prompt_id"])
    test = test[test["prompt_id"].isin(judged)].set_index("prompt_id")
    a = test[(test["method"] == method) & (test["preference"] == weight)]["answer"].sort_index()
    of_b = (
        test["method"] == other if other == "reference" else (test["method"] == other) & (test["preference"] == weight)
    )
    b = test[of_b]["answer"].sort_index()
    sign = np.sign(a.str.len() - b.str.len()) * (1 if objective == "helpful" else -1)
    return np.asarray(0.5 + 0.5 * sign)


def test_win_rates_follow_from_the_texts(finished):
    where, _, _ = finished
    found = metrics(where)["win_rates"]
    pairs = Counter((e["objective"], e["a"], e["b"]) for e in found)
    matches = [("peo", "reference"), ("mod", "reference"), ("peo", "mod")]
    assert pairs == {(o, *match): 3 for o in ("helpful", "harmless") for match in matches}
    for entry in found:
        shares = expected_shares(where, entry["a"], entry["preference"], entry["b"], entry["objective"])
        assert len(shares) == entry["n"] == PROMPTS
        assert entry["win_rate"] == pytest.approx(100 * shares.mean())
        counts = (entry["n_wins"], entry["n_losses"], entry["n_ties"])
        assert counts == tuple(int((shares == value).sum()) for value in (1, 0, 0.5))
        assert entry["ci_low"] <= entry["win_rate"] <= entry["ci_high"]
    elo = metrics(where)["elo"]
    assert {name: ratings["reference"] for name, ratings in elo.items()} == {"helpful": 1000.0, "harmless": 1000.0}
    assert set(elo["helpful"]) == {"peo", "mod", "reference"}


def test_the_scorers_judge_by_their_scores(finished):
    where, _, _ = finished
    judges = json.loads((where / "out/metrics.json").read_text())["tasks"][TASK]["judges"]
    rows = pd.read_parquet(where / "out/judgements.parquet")
    texts = pd.read_parquet(where / "out/answers.parquet")
    test = texts[(texts["split"] == "test") & texts["prompt_id"].isin(rows["prompt_id"])].set_index("prompt_id")
    for entry in judges["scorers"]["win_rates"]:
        if entry["b"] != "reference":
            continue
        column, sign = ("reward", 1) if entry["objective"] == "helpful" else ("cost", -1)
        a = test[(test["method"] == entry["a"]) & (test["preference"] == entry["preference"])][column].sort_index()
        b = test[test["method"] == "reference"][column].sort_index()
        assert entry["win_rate"] == pytest.approx(100 * (0.5 + 0.5 * np.sign(sign * (a - b))).mean())


def test_the_run_folder_states_the_judge(finished):
    where, server, done = finished
    record = json.loads((where / "out/run.json").read_text())
    card = metrics(where)["card"]
    name = next(name for name in record["measure"]["judges"] if name != "scorers")
    assert server.url in record["measure"]["judges"][name]
    assert "temperature 0" in record["measure"]["judges"][name]
    counts = record["judging"]["judges"][name]
    assert counts["calls"] == counts["calls_now"] == card["n_calls"] == len(server.calls)
    assert counts["expected"] == counts["ok"] == 2 * 2 * 3 * 3 * PROMPTS
    assert card["usd"] == pytest.approx(len(server.calls) * PRICE, abs=1e-6)
    assert record["judging"]["spent_usd"] == pytest.approx(card["usd"])
    assert card["position_consistency"] == 1.0
    assert record["status"] == "complete"
    assert "position consistency" in done.stdout
    rows = pd.read_parquet(where / "out/judgements.parquet")
    asked = rows[rows["asked"]]
    assert (asked["reason"] == "Because.").all()
    assert asked["raw"].str.contains("Verdict: ").all()


def test_nothing_is_asked_twice(finished):
    where, server, _ = finished
    assert set(server.questions.values()) == {1}
    before, rows = len(server.calls), (where / "out/judgements.parquet").read_bytes()
    run(where, server)
    assert len(server.calls) == before
    assert (where / "out/judgements.parquet").read_bytes() == rows


def test_the_key_is_nowhere(finished):
    where, server, done = finished
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}", "it was used"
    assert KEY not in done.stdout + done.stderr
    for path in where.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


KILLED = """
import itertools, signal
from peo_bench.judges.replies import Replies
count, put = itertools.count(1), Replies.put
def dying(self, request, reply):
    if next(count) == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, request, reply)
Replies.put = dying
"""
"""Dies between an answer that was paid for and its place on disk: the worst moment."""


def test_a_killed_judging_pays_each_call_at_most_once_more(finished, copy):
    whole, server, _ = finished
    once, before = server.questions, len(server.calls)
    dead = run(copy, server, before=KILLED, check=False)
    assert dead.returncode == -signal.SIGKILL
    kept = len(list((copy / "cache/peo-bench/judge-replies").rglob("[0-9a-f]*.json")))
    assert 5 < kept < len(once), "in the middle"
    run(copy, server)
    again = Counter((c.objective, c.prompt, c.first, c.second) for c in server.calls[before:])
    assert again.keys() == once.keys()
    assert max(again.values()) <= 2
    repeated = sum(n == 2 for n in again.values())
    assert repeated <= 8, "only calls in flight (judge.concurrency) can be lost"
    for name in ("metrics.json", "judgements.parquet", "points.csv"):
        assert (copy / "out" / name).read_bytes() == (whole / "out" / name).read_bytes(), name


def test_missing_verdicts_are_named_and_asked_again(finished, copy, serve):  # noqa: F811
    whole, first, _ = finished
    broken = sorted({call.prompt for call in first.calls})[0]
    server = serve(lambda call: Answer(b"", 500) if call.prompt == broken else by_length(call))
    done = run(copy, server, "--set", "judge.attempts=2", check=False)
    assert done.returncode == 3
    assert "judgements-missing.csv" in done.stdout
    assert "HTTP 500" in done.stdout
    record = json.loads((copy / "out/run.json").read_text())
    assert record["status"] == "incomplete"
    (counts,) = (value for name, value in record["judging"]["judges"].items() if name != "scorers")
    missing = pd.read_csv(copy / "out/judgements-missing.csv")
    assert counts["missing"] == len(missing) > 0
    assert counts["ok"] + counts["missing"] == counts["expected"]
    agree(copy)
    assert missing["prompt_id"].nunique() == 1
    page = (copy / "out/report.html").read_text()
    for banner in (f"{counts['missing']} verdicts missing", "incomplete", "named in judgements-missing.csv: HTTP 500"):
        assert banner in page
    assert verify_run(copy / "out") == []
    before = len(server.calls)
    server.answer = by_length
    run(copy, server, "--set", "judge.attempts=2")
    assert {call.prompt for call in server.calls[before:]} == {broken}
    assert not (copy / "out/judgements-missing.csv").exists()
    assert metrics(copy)["win_rates"] == metrics(whole)["win_rates"]


def agree(where: Path) -> None:
    """Every number of what is missing is the same: in the counts, by reason, entry by entry, judge by judge."""
    record, points = json.loads((where / "out/run.json").read_text()), pd.read_csv(where / "out/points.csv")
    counts, judges = record["counts"], record["judging"]["judges"].values()
    assert counts["missing"] == sum(counts["by_reason"].values()) == sum(entry["n"] for entry in record["missing"])
    assert counts["missing"] == sum(judge["missing"] for judge in judges), "every point is there"
    assert counts["ok"] == (points["method"] != "oracle").sum() + sum(judge["ok"] for judge in judges)
    assert counts["expected"] == counts["ok"] + counts["missing"]


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_replies_that_hold_no_verdict_are_missing(finished, copy, serve, finish):  # noqa: F811
    """A judge that is there and says nothing of use must not leave a run that calls itself complete."""
    server = serve(lambda call: says("I like them both.", finish=finish))
    done = run(copy, server, check=False)
    assert done.returncode == 3
    record = json.loads((copy / "out/run.json").read_text())
    assert record["status"] == "incomplete"
    assert "the reply holds no verdict" in record["counts"]["by_reason"]
    agree(copy)
    (counts,) = (value for name, value in record["judging"]["judges"].items() if name != "scorers")
    page = (copy / "out/report.html").read_text()
    assert f"{counts['missing']} verdicts missing" in page
    assert "judgements.parquet: the reply holds no verdict" in page
    assert verify_run(copy / "out") == []


def test_a_budget_stops_cleanly_with_exit_code_5(finished, copy, serve):  # noqa: F811
    whole, _, _ = finished
    server = serve()
    done = run(copy, server, "--max-usd", "0.03", check=False)
    assert done.returncode == 5
    assert "--max-usd" in done.stdout
    record = json.loads((copy / "out/run.json").read_text())
    assert 0 < record["judging"]["spent_usd"] <= 0.03
    assert record["judging"]["spent_usd"] == pytest.approx(len(server.calls) * PRICE, abs=1e-6)
    assert verify_run(copy / "out") == []
    run(copy, server)
    assert set(server.questions.values()) == {1}
    assert metrics(copy)["win_rates"] == metrics(whole)["win_rates"]


def test_plan_bounds_calls_and_price(finished, tmp_path):
    where, server, _ = finished
    before = len(server.calls)
    args = ("--methods", "peo,mod", *(a for a in TINY if a not in ("--workers", "1")), *SET)
    done = command(where, "plan", *args, "--judge", f"openai:m@{server.url}", "--judge", "scorers", "--json")
    judging = {s["stage"]: s["cost"] for s in json.loads(done.stdout) if s["stage"].startswith("judge ")}
    (bound,) = (cost for stage, cost in judging.items() if stage != "judge scorers")
    assert bound["judge_calls"] == 2 * 2 * 3 * 3 * PROMPTS >= before
    assert bound["usd"] > before * PRICE
    assert judging["judge scorers"] == {"judge_calls": 0, "usd": 0.0}
    assert len(server.calls) == before, "a plan asks nobody"


def test_misuse_is_one_line(peo_bench):
    judge = "openai:m@http://127.0.0.1:9/v1"
    for args, said in (
        (["--judge", judge, "--max-usd", "1"], "judge.prices"),
        (["--judge", judge, "--judge", judge], "twice"),
        (["--judge", judge, "--set", f"judge.api_key_env={KEY}"], "name of an environment variable"),
        (["--judge", "gpt"], "unknown judge"),
    ):
        code, _, err = peo_bench("run", "--methods", "peo", "--out", "other", *args)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
        assert KEY not in err


def test_verify_computes_win_rates_again_from_the_verdicts(finished, tmp_path):
    """Also where somebody renews the digests of what was changed."""
    out = tmp_path / "out"
    shutil.copytree(finished[0] / "out", out)
    assert verify_run(out) == []
    content = json.loads((out / "metrics.json").read_text())
    judge = content["tasks"][TASK]["judges"]["scorers"]
    judge["win_rates"][0]["win_rate"] += 1
    judge["overall"][0]["n_wins"] += 1
    judge["elo"]["helpful"]["mod"] += 1
    judge["card"]["ties"] += 1
    (out / "metrics.json").write_text(json.dumps(content))
    write_sums(out)
    problems = verify_run(out)
    for key in ("win_rates[0].win_rate", "overall[0].n_wins", "elo.helpful.mod", "card.ties"):
        assert any(line.startswith(f"metrics.json: judges.scorers.{key} is ") for line in problems), key
    shutil.copy(finished[0] / "out" / "metrics.json", out)
    rows = pd.read_parquet(out / "judgements.parquet")
    rows.loc[0, "prompt_id"] = "invented"
    rows.to_parquet(out / "judgements.parquet", index=False)
    write_sums(out)
    assert any("judgements.parquet: the verdicts of " in line for line in verify_run(out))


@pytest.fixture(scope="module")
def computed(finished):
    """What `run_metrics` gives for the untouched run, of which the resampling takes all the time."""
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        compute = assembly.run_metrics
        patch.setattr(assembly, "run_metrics", lambda *args: kept.append(compute(*args)) or kept[0])
        assert verify_run(finished[0] / "out") == []
    return kept[0]


def verdicts(edit):
    def edited(out: Path) -> None:
        rows = pd.read_parquet(out / "judgements.parquet")
        edit(rows).to_parquet(out / "judgements.parquet", index=False)

    return edited


def record(edit):
    def edited(out: Path) -> None:
        content = json.loads((out / "run.json").read_text())
        edit(content)
        (out / "run.json").write_text(json.dumps(content))

    return edited


def no_judges(out: Path) -> None:
    """All that judges left but config.yaml."""
    (out / "judgements.parquet").unlink()

    def edit(run):
        n = sum(counts["ok"] for counts in run.pop("judging")["judges"].values())
        run["counts"]["ok"] -= n
        run["counts"]["expected"] -= n
        run["measure"]["judges"] = {}

    record(edit)(out)
    content = json.loads((out / "metrics.json").read_text())
    del content["tasks"][TASK]["judges"]
    (out / "metrics.json").write_text(json.dumps(content))


def exchanged(out: Path) -> None:
    """The judge under the name and the address of a better one, in every file but config.yaml."""
    run = json.loads((out / "run.json").read_text())
    old = next(name for name in run["measure"]["judges"] if name != "scorers")
    new = old.replace("m-", "gpt-5-")
    for name in ("run.json", "metrics.json"):
        (out / name).write_text((out / name).read_text().replace(old, new))
    verdicts(lambda rows: rows.assign(judge=rows["judge"].replace(old, new)))(out)


def described(run) -> None:
    judges = run["measure"]["judges"]
    for name in judges:
        judges[name] = judges[name].replace("127.0.0.1", "127.0.0.2").replace("12 prompts", "50 prompts")


def hidden(rows):
    """A verdict of scorers as one that is missing."""
    return rows.drop(rows[rows["judge"] == "scorers"].index[0]).reset_index(drop=True)


OF_M, VERDICT = "judgements.parquet: m-", "judgements.parquet: scorers: "
CONTRADICTING = {
    "verdicts of scorers": (
        verdicts(lambda rows: rows.assign(verdict=rows["verdict"].mask(rows["judge"] == "scorers", 1.0))),
        (VERDICT, ": verdict is 1.0, scores and replies give 0."),
    ),
    "verdicts of an endpoint": (
        verdicts(lambda rows: rows.assign(verdict=rows["verdict"].mask(rows["judge"] != "scorers", 1.0))),
        (OF_M, ": verdict is 1.0, scores and replies give 0."),
    ),
    "replies": (
        verdicts(lambda rows: rows.assign(raw=rows["raw"].mask(rows["raw"] != "", "Fine."))),
        (OF_M, "scores and replies give nan"),
    ),
    "reasons": (verdicts(lambda rows: rows.assign(reason="Well written.")), (OF_M, ": reason is Well written., ")),
    "prices": (verdicts(lambda rows: rows.assign(usd=rows["usd"] / 100)), (OF_M, ": usd is ")),
    "a call that was paid twice": (verdicts(lambda rows: rows.assign(usd=rows["usd"].max())), (VERDICT, ": usd is ")),
    "who was asked": (verdicts(lambda rows: rows.assign(asked=False)), (OF_M, ": asked is False, ")),
    "verdicts less": (verdicts(hidden), ("the verdicts of scorers are not on the comparisons",)),
    "verdicts of nobody": (
        verdicts(lambda rows: pd.concat([rows, rows.assign(judge="people")], ignore_index=True)),
        ("judgements.parquet: 'people' is no judge of config.yaml",),
    ),
    "a column": (
        verdicts(lambda rows: rows.assign(approved=True)),
        ("judgements.parquet: column 'approved' is not known",),
    ),
    "a column less": (
        verdicts(lambda rows: rows.drop(columns="raw")),
        ("judgements.parquet", "it has no column 'raw'"),
    ),
    "no judges at all": (no_judges, ("run.json: judging lacks m-", "a judge of config.yaml")),
    "another judge": (exchanged, ("run.json: judging has gpt-5-", "no judge of config.yaml")),
    "other words on a judge": (
        record(lambda run: described(run)),
        ("run.json: measure.judges.m-", "config.yaml does not say"),
    ),
    "calls": (
        record(lambda run: [counts.update(calls=1) for counts in run["judging"]["judges"].values()]),
        ("run.json: judging.judges.", ".calls is 1, "),
    ),
    "calls of this time": (
        record(lambda run: [counts.update(calls_now=9999) for counts in run["judging"]["judges"].values()]),
        (".calls_now is 9999, of ",),
    ),
    "a judge that is none": (
        lambda out: (out / "config.yaml").write_text(
            (out / "config.yaml").read_text().replace("- scorers", "- scorers:x")
        ),
        ("config.yaml", "this judge takes no argument"),
    ),
    "a judge of another package": (
        lambda out: (out / "config.yaml").write_text(
            (out / "config.yaml").read_text().replace("- scorers", "- oracle")
        ),
        ("config.yaml: a judge of kind 'oracle': install",),
    ),
}


@pytest.mark.parametrize("what", CONTRADICTING)
def test_what_contradicts_scores_replies_or_the_configuration_is_named(finished, computed, tmp_path, monkeypatch, what):
    """All digests renewed; an address is not asked, nor is any file of the configuration opened."""
    monkeypatch.setattr(assembly, "run_metrics", lambda *args: computed)
    out = tmp_path / "out"
    shutil.copytree(finished[0] / "out", out)
    tamper, named = CONTRADICTING[what]
    tamper(out)
    write_sums(out)
    try:
        problems = verify_run(out)
    except UsageError as error:
        problems = [str(error)]
    assert any(all(part in line for part in named) for line in problems), problems
