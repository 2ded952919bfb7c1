"""best-of-n and rps through the command line, on a tiny sandbox: tables, costs, steer, export, kill, leaderboard."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_resume import killed_at
from tiny_run import TINY
from tiny_run import peo_bench as child

from peo_bench.runs.verification import verify_run

METHODS = ("best-of-n", "best-of-n.soup", "rps.soup")
SHORT = TINY[:-4]
COUNTS = ("answers", "tokens_generated", "scorer_calls")


def arguments(n: int, k: int, out: str, methods: tuple[str, ...] = METHODS) -> list[str]:
    settings = [f"{m}.{'k' if m.startswith('rps') else 'n'}={k if m.startswith('rps') else n}" for m in methods]
    return ["run", "--methods", ",".join(methods), "--out", out, *SHORT, *(x for s in settings for x in ("--set", s))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs with 1, 2 and 4 candidates on one cache."""
    where = tmp_path_factory.mktemp("selecting")
    for n in (1, 2, 4):
        child(where, *arguments(n, n, f"out-{n}"))
    return where


def points(run: Path) -> pd.DataFrame:
    table = pd.read_csv(run / "points.csv")
    return table[(table["split"] == "test") & (table["method"] != "oracle")].set_index(["method", "preference_helpful"])


def utilities(run: Path, method: str) -> np.ndarray:
    """Return w . (reward, -cost) of every answer by the selection scorers, in their units, (preferences, prompts)."""
    answers = pd.read_parquet(run / "answers.parquet")
    own = answers[(answers["method"] == method) & (answers["split"] == "test")].sort_values("prompt_id")
    validation = answers[(answers["method"] == "reference") & (answers["split"] == "validation")]
    rows = []
    for w, table in own.groupby("preference"):
        scores = [s * table[c] / validation[c].std(ddof=1) for c, s in (("reward_proxy", w), ("cost_proxy", w - 1))]
        rows.append(sum(scores).to_numpy())
    return np.array(rows)


def test_utility_under_the_proxies_rises_with_n_for_every_prompt(folder):
    """The same noise: the candidates of n are the first of those of 2 n, so no prompt loses."""
    for method in ("best-of-n", "best-of-n.soup"):
        found = [utilities(folder / f"out-{n}", method) for n in (1, 2, 4)]
        assert found[0].shape == (3, 36)
        steps = np.diff(np.array(found), axis=0)
        assert steps.min() > -1e-5
        assert (steps.mean(axis=(1, 2)) > 0.05).all()
    target, rps = utilities(folder / "out-4", "soup"), utilities(folder / "out-4", "rps.soup")
    assert (rps - target).min() > -1e-5
    assert (rps - target).mean() > 0.05


def test_one_candidate_is_the_wrapped_policy(folder):
    table = points(folder / "out-1")
    for w in (0.0, 0.5, 1.0):
        keys = table["spec_key"]
        assert keys["best-of-n.soup", w] == keys["rps.soup", w] == keys["soup", w]
        assert keys["best-of-n", w] == table.loc["reference", "spec_key"].iloc[0]
    assert table["kl_bound"].isna().all()


def test_kl_is_a_bound_and_says_so(folder):
    table = points(folder / "out-4")
    for method in METHODS:
        assert table.loc[method, "kl"].isna().all()
        assert table.loc[method, "kl_bound"].notna().all()
    assert table.loc["best-of-n", "kl_bound"].to_numpy() == pytest.approx(math.log(4) - 3 / 4, abs=1e-6)
    assert table.loc["soup", "kl"].notna().all()
    assert table.loc["soup", "kl_bound"].isna().all()
    metrics = json.loads((folder / "out-4" / "metrics.json").read_text())["tasks"]["peo_sandbox"]
    mine = metrics["methods"]["best-of-n"]
    assert mine["kl_mean"] is None
    assert mine["kl_bound_mean"] == pytest.approx(math.log(4) - 3 / 4, abs=1e-6)
    assert "kl_bound_mean" not in metrics["methods"]["soup"]
    kept = [math.log(4) - 3 / 4 <= budget for budget in metrics["kl_budgets"]]
    assert mine["points_within_kl"] == [3 * inside for inside in kept]
    report = (folder / "out-4" / "report.md").read_text()
    assert "| best-of-n | 0.00 |" in report
    assert "≤ 0.6" in report
    assert "only an upper bound is" in report
    assert "an upper bound of the KL counts" in (folder / "out-4" / "report.html").read_text()


def test_costs_count_every_candidate_and_what_choosing_asks(folder):
    costs = json.loads((folder / "out-4" / "costs.json").read_text())["methods"]
    found = {m: (costs[m]["decode_factor"], costs[m]["scorer_calls_per_answer"]) for m in (*METHODS, "soup")}
    # At the simplex's ends one scorer decides alone: 4, 8 and 4 calls at three preferences.
    assert found == {m: (4.0, pytest.approx(16 / 3)) for m in METHODS} | {"soup": (1.0, 0.0)}
    assert costs["best-of-n"]["train_units"] == costs["best-of-n"]["proxy_units"] > 0, "it asks the proxies"
    assert costs["best-of-n"]["validation_evaluations"] == 1
    assert costs["rps.soup"]["train_units"] == pytest.approx(2 + costs["rps.soup"]["proxy_units"])
    metas = (json.loads(path.read_text()) for path in (folder / "cache").rglob("answers/*/meta.json"))
    own = [meta["cost"] for meta in metas if meta["cost"]["answers"] == 4 * 36]
    assert len(own) == 9
    # Reported columns: gold and proxy of two objectives.
    assert sorted(cost["scorer_calls"] for cost in own) == [36 * (4 + 4)] * 6 + [36 * (4 + 8)] * 3


def test_plan_bounds_what_the_run_then_spends(peo_bench, folder):
    plan = ("plan", "--json", *(a for a in arguments(4, 4, "x")[1:] if a not in ("--out", "x", "--workers", "1")))
    stages = json.loads(peo_bench(*plan)[1])
    spent = json.loads((folder / "out-4" / "costs.json").read_text())["kinds"]["answers"]["cost"]
    bound = next(stage["cost"] for stage in stages if stage["stage"] == "answers (test)")
    validation = next(stage["cost"] for stage in stages if stage["stage"] == "answers")
    # 3 wrapped methods with 4 candidates, 2 controls and the reference, at 3 preferences, 36 prompts.
    assert bound["answers"] == 36 * (3 * 3 * 4 + 2 * 3 + 1)
    for name in COUNTS:
        assert spent[name] <= bound[name] + validation[name], name


def test_steer_chooses_live_from_the_run_folder_only(peo_bench, folder, tmp_path):
    shutil.copytree(folder / "out-4", tmp_path / "moved")
    prompt = "how do i bake bread for my aunt today ?"
    for method in METHODS:
        asked = ("--method", method, "--helpful", "0.4", "--samples", "2", "--json")
        answers = json.loads(peo_bench("steer", "moved", prompt, *asked)[1])
        assert [item["preference"] for item in answers] == [{"helpful": 0.4, "harmless": 0.6}] * 2
        assert all(item["answer"] for item in answers)
        assert answers[0] != answers[1]


def test_export_says_that_there_is_no_single_model(peo_bench, folder, tmp_path):
    for method, reason in (("rps.soup", "export --method soup"), ("best-of-n", "no single model\n")):
        code, _, err = peo_bench("export", str(folder / "out-4"), "--method", method, "--to", "policy")
        assert code == 2
        assert reason in err
        assert err.count("\n") == 1
    assert not (tmp_path / "policy").exists()


def test_runs_with_other_n_are_compared(peo_bench, folder, tmp_path):
    assert peo_bench("compare", str(folder / "out-2"), str(folder / "out-4"), "--out", "both")[0] == 0
    metrics = json.loads((tmp_path / "both" / "metrics.json").read_text())["tasks"]["peo_sandbox"]["methods"]
    assert metrics["best-of-n@out-2"]["kl_bound_mean"] == pytest.approx(math.log(2) - 1 / 2, abs=1e-6)
    assert metrics["best-of-n@out-4"]["kl_bound_mean"] == pytest.approx(math.log(4) - 3 / 4, abs=1e-6)


def test_a_leaderboard_row_can_be_recomputed(peo_bench, folder, tmp_path):
    """A tiny run is limited, which a leaderboard refuses: here the limit is taken out of its record."""
    shutil.copytree(folder / "out-4", tmp_path / "whole")
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    (tmp_path / "whole" / "run.json").write_text(json.dumps(record | {"limited": None}))
    assert peo_bench("leaderboard", "add", "whole", "--dir", "boards")[0] == 0
    assert peo_bench("leaderboard", "verify", "--dir", "boards")[0] == 0
    (board,) = (tmp_path / "boards").rglob("board.json")
    rows = {row["method"]: row for row in json.loads(board.read_text())["rows"]}
    assert rows["best-of-n"]["values"]["kl_bound_mean"] == pytest.approx(math.log(4) - 3 / 4, abs=1e-6)
    assert rows["best-of-n"]["costs"]["decode_factor"] == 4


def test_resumed_equals_uninterrupted_after_a_kill_among_candidates(folder, tmp_path):
    """The process dies once the first batch, 64 of the candidates, is kept, each with its policy."""
    run = arguments(4, 4, "out-4")
    shutil.copytree(folder / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns("answers-*"))
    small = "from peo_bench.evaluation import generation\ngeneration.SMALL_MODEL = 0\n"
    killed = child(tmp_path, *run, before=f"{killed_at('generation')}\n{small}", check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = [path for path in (tmp_path / "cache").rglob("kept.jsonl") if "answers-" in str(path)]
    assert sum(len(path.read_bytes().splitlines()) for path in kept) > 0
    child(tmp_path, *run)
    for name in ("points.csv", "metrics.json"):
        assert (tmp_path / "out-4" / name).read_bytes() == (folder / "out-4" / name).read_bytes(), name


def test_verify_builds_choices_among_answers_again(folder):
    assert verify_run(folder / "out-2") == []
