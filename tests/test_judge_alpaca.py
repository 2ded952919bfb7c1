"""alpaca_eval's annotators as a judge: the real package, asked over loopback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import FAST, comparisons

from peo_bench.errors import UsageError
from peo_bench.judges import alpaca_judge
from peo_bench.judges.card import card, win_rates
from peo_bench.judges.judge import Desk, make_judge, recorded_judge

CONFIG = "weighted_alpaca_eval_gpt4_turbo"
TABLE = comparisons(3, methods=("peo",), preferences=(0.0, 1.0))


def test_only_known_configurations():
    with pytest.raises(UsageError, match="did you mean weighted_alpaca_eval_gpt4_turbo"):
        make_judge("alpaca_eval:weighted_alpaca_eval_gpt4", FAST)
    assert make_judge(f"alpaca_eval:{CONFIG}", FAST).can_be_priced is False


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """Judge TABLE with an annotator that prefers the longer output with 0.9; return (judged, batches asked)."""
    asked = []

    def annotate(outputs, reference, config):
        asked.append(len(outputs))
        if annotate.broken:
            raise UsageError("alpaca_eval's annotator: HTTP 500")
        rows = []
        for mine, other in zip(outputs, reference, strict=True):
            better = len(mine["output"]) > len(other["output"])
            rows.append({"instruction": mine["instruction"], "preference": 1.9 if better else 1.1})
        rows[0]["preference"] = None if annotate.mute else rows[0]["preference"]
        return rows

    annotate.broken = annotate.mute = False
    monkeypatch.setattr(alpaca_judge, "annotate", annotate)

    def judge():
        return make_judge(f"alpaca_eval:{CONFIG}", FAST).judge(TABLE, Desk(tmp_path / "replies"))

    return judge, annotate, asked


def test_both_orders_are_asked_once_and_kept(judged):
    judge, _, asked = judged
    found = judge()
    assert asked == [3] * 4, "two preferences, two orders"
    rates = win_rates(found.rows)
    assert {entry["objective"] for entry in rates} == {"helpful"}
    gap = TABLE["answer_a"].str.len() - TABLE["answer_b"].str.len()
    share = (0.5 + 0.4 * (2 * (gap > 0) - 1))[TABLE["objective"] == "helpful"].groupby(TABLE["preference"]).mean()
    assert {e["preference"]: e["win_rate"] for e in rates} == pytest.approx((100 * share).to_dict())
    assert card(found.rows, n_calls=found.n_calls, priced=False)["position_consistency"] == 1.0
    assert judge().rows.equals(found.rows)
    assert len(asked) == 4


def test_a_reply_that_cannot_be_parsed_is_no_tie(judged):
    judge, annotate, _ = judged
    annotate.mute = True
    rows = judge().rows
    assert rows["verdict"].isna().sum() == 4
    annotate.mute = False
    assert judge().rows["verdict"].notna().all(), "it was asked for again"


def test_after_a_failure_the_rest_is_missing_and_asked_again(judged):
    judge, annotate, asked = judged
    annotate.broken = True
    found = judge()
    assert (len(found.rows), len(found.missing), len(asked)) == (0, 12, 1)
    assert found.missing["reason"].str.contains("HTTP 500").all()
    annotate.broken = False
    assert len(judge().rows) == 12


class Server(BaseHTTPRequestHandler):
    """Says with log probabilities that the first output shown is better, whatever it is: pure position bias."""

    calls = 0

    def do_POST(self):
        type(self).calls += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in (("m", -0.105361), ("M", -2.302585))]
        said = {"token": "m", "logprob": -0.105361, "bytes": None, "top_logprobs": top}
        choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "m"}}
        completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        completion["choices"] = [choice | {"logprobs": {"content": [said]}}]
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        body = json.dumps(completion | {"usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args): ...


PROGRAM = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from judge_server import FAST, comparisons
from peo_bench.judges.card import card
from peo_bench.judges.judge import Desk, make_judge, recorded_judge
judged = make_judge("alpaca_eval:{config}", FAST).judge(comparisons(3, ("peo",), (0.0,)), Desk(Path("replies")))
print("RESULT", sorted(judged.rows["verdict"].round(2)), card(judged.rows, n_calls=judged.n_calls, priced=False))
"""


def test_the_installed_package_shows_both_orders(tmp_path):
    """A judge that goes by position alone must come out inconsistent on every pair."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tests = Path(__file__).parent
    environment = {"OPENAI_API_KEY": "canary", "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_address[1]}/v1"}
    environment |= {
        "PYTHONPATH": str(tests.parent),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
    }
    program = PROGRAM.format(tests=str(tests), config=CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert Server.calls == 6
    assert "RESULT [0.1, 0.1, 0.1, 0.9, 0.9, 0.9]" in done.stdout
    assert "'position_consistency': 0.0" in done.stdout


def test_what_a_finished_run_must_have_of_it_is_told_without_opening_its_configuration(judged, monkeypatch):
    """Which objective, its name, what has the price of no call; graded verdicts are taken as stated."""
    judge, _, _ = judged
    monkeypatch.setitem(TABLE, "answer_b", TABLE["answer_a"].where(TABLE.index % 3 == 0, TABLE["answer_b"]))
    said = judge()
    own = make_judge(f"alpaca_eval:{CONFIG}", FAST)
    recorded = recorded_judge(f"alpaca_eval:{CONFIG}", FAST)
    assert (recorded.id, recorded.objectives) == (own.id, ("helpful",))
    assert re.fullmatch(recorded.description, own.description)
    assert recorded_judge("alpaca_eval:/no/such/folder", FAST).id == "alpaca_eval-folder"
    pairs = TABLE[TABLE["objective"] == "helpful"]
    again = recorded.again(pairs, said).rows
    assert again[said.rows.columns].equals(said.rows)
    assert set(said.rows["asked"]) == {True, False}
    changed = said.rows.assign(verdict=1.5, asked=True, usd=9.0, raw="x", reason="y")
    again = recorded.again(pairs, replace(said, rows=changed)).rows
    assert again["asked"].equals(said.rows["asked"])
    assert again["usd"].equals(said.rows["usd"])
    assert (again["reason"] == said.rows["reason"]).all()
    assert again["verdict"].isna().equals(said.rows["asked"])
