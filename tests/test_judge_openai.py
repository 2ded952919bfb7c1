"""The language-model judge against a server with known verdicts and faults: nothing is lost, nothing is paid twice."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import FAST, HASTY, PRICE, Answer, by_length, comparisons, says, serve, verdict  # noqa: F401 - a fixture

from peo_bench.errors import UsageError
from peo_bench.files.digest import digest
from peo_bench.judges.budget import Budget
from peo_bench.judges.card import card, overall_win_rates, win_rates
from peo_bench.judges.judge import Desk, make_judge, make_judges
from peo_bench.judges.openai_judge import GIVE_UP_AFTER
from peo_bench.report.contents import of_judge
from peo_bench.results.judge_records import JudgeCard

N = 6
TABLE = comparisons(N)
ALL = 2 * len(TABLE)


@pytest.fixture
def judge(serve, tmp_path):  # noqa: F811
    """Judge a table with a server that answers so; return (judged, server)."""

    def judged(answer=by_length, table=TABLE, *, settings=FAST, budget=None, server=None):
        at = server or serve(answer)
        at.answer = answer
        desk = Desk(tmp_path / "replies", budget or Budget(), sleep=lambda seconds: None)
        return make_judge(f"openai:m@{at.url}", settings).judge(table, desk), at

    return judged


def test_win_rates_have_a_closed_form(judge):
    """Helpful: the longer answer wins; so a's share of a prompt is known from the lengths alone."""
    judged, server = judge()
    assert len(judged.rows) == ALL
    assert not len(judged.missing)
    assert set(server.questions.values()) == {1}
    gap = TABLE["answer_a"].str.len() - TABLE["answer_b"].str.len()
    share = 0.5 + 0.5 * np.sign(gap) * np.where(TABLE["objective"] == "helpful", 1, -1)
    keys = ["objective", "method_a", "preference"]
    expected = share.groupby([TABLE[key] for key in keys]).mean() * 100
    found = {(e["objective"], e["a"], e["preference"]): e for e in win_rates(judged.rows)}
    assert {key: e["win_rate"] for key, e in found.items()} == pytest.approx(expected.to_dict())
    assert 0 < found["helpful", "modpo", 0.0]["win_rate"] < 100, "the table is no walk-over"
    for entry in found.values():
        assert entry["n"] == N == entry["n_wins"] + entry["n_losses"] + entry["n_ties"]
        assert entry["ci_low"] < entry["win_rate"] + 1e-9
        assert entry["ci_high"] > entry["win_rate"] - 1e-9
    overall = {(e["objective"], e["a"]): e["win_rate"] for e in overall_win_rates(judged.rows)}
    by_method = share.groupby([TABLE["objective"], TABLE["method_a"]]).mean() * 100
    assert overall == pytest.approx(by_method.to_dict())


def reasoning(call):
    """A model that takes no temperature and spends the limit of every second question on its reasoning."""
    if "temperature" in call.body:
        error = {"message": "Unsupported value", "param": "temperature", "code": "unsupported_value"}
        return Answer(json.dumps({"error": error}).encode(), 400)
    return says("", finish="length") if int(digest(call.prompt), 16) % 2 else by_length(call)


def test_what_a_model_refuses_and_leaves_empty_is_on_its_card_also_from_the_cache(judge):
    first, server = judge(reasoning)
    asked = len(server.calls)
    again, _ = judge(reasoning, server=server)
    assert len(server.calls) == asked
    shown = [card(judged.rows, n_calls=ALL, priced=True, refused=judged.refused) for judged in (first, again)]
    assert shown[0] == shown[1]
    assert shown[0]["refused"] == ("temperature",)
    assert 0 < shown[0]["empty"] == shown[0]["parse_failures"] < ALL
    told = JudgeCard(**shown[0])
    assert [said.partition(", ")[0] for said in of_judge("m", told)] == [
        f"Judge m: {shown[0]['empty']} replies are empty",
        "Judge m: the model takes no temperature; its own held.",
    ]
    usual = card(judge()[0].rows, n_calls=ALL, priced=True)
    assert (usual["empty"], usual["refused"]) == (None, None)
    assert list(of_judge("m", JudgeCard(**usual))) == []


def test_a_second_time_nothing_is_asked(judge):
    first, server = judge()
    second, _ = judge(server=server)
    assert len(server.calls) == ALL
    assert (first.n_new, second.n_new, second.n_calls) == (ALL, 0, ALL)
    assert first.rows.equals(second.rows)
    assert first.rows["usd"].sum() == pytest.approx(ALL * PRICE)


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"seed": 1}, {"max_tokens": 99}])
def test_what_changes_answers_is_asked_anew(judge, change):
    _, server = judge()
    again, _ = judge(server=server, settings=FAST.model_copy(update=change))
    assert again.n_new == ALL


@pytest.mark.parametrize("change", [{"concurrency": 1}, {"timeout_s": 9.0}, {"attempts": 1}, {"prices": {}}])
def test_transport_settings_reuse_replies(judge, change):
    _, server = judge()
    again, _ = judge(server=server, settings=FAST.model_copy(update=change))
    assert again.n_new == 0


def test_another_address_is_another_judge(judge):
    """A model of the same name elsewhere may have other weights."""
    judge()
    again, _ = judge()
    assert again.n_new == ALL


def faulty(call):
    """Every question first meets one of five faults, depending on its texts; `question 3` never gets an answer."""
    faults = [Answer(b"{}", 429, (("Retry-After", "0"),)), Answer(b"", 500), Answer(b"{}", hang=0.6),
              Answer(b"<garbage>"), Answer(b'{"choices": []}')]  # fmt: skip
    if call.prompt == "question 3":
        return Answer(b"", 502)
    kind = sum(call.first.encode()) % 6
    return faults[kind] if kind < 5 and call.before == 0 else by_length(call)


def test_totals_stay_intact_under_faults(judge):
    clean, _ = judge()
    judged, server = judge(faulty, settings=HASTY)
    assert len(judged.rows) + len(judged.missing) == ALL
    assert set(judged.missing["prompt_id"]) == {"p3"}
    assert len(judged.missing) == ALL // N
    assert judged.missing["reason"].str.contains("HTTP 502").all()
    kept = clean.rows[clean.rows["prompt_id"] != "p3"].reset_index(drop=True)
    assert judged.rows.equals(kept), "the same verdicts in the same order as without faults"
    faulted = Counter(sum(call.first.encode()) % 6 for call in server.calls if call.prompt != "question 3")
    assert len(faulted) >= 5, "the faults did occur"
    assert {entry["n"] for entry in win_rates(judged.rows)} == {N - 1}


def test_what_was_missing_is_asked_again_and_nothing_else(judge):
    _, server = judge(faulty)
    before = len(server.calls)
    again, _ = judge(by_length, server=server)
    assert not len(again.missing)
    assert len(server.calls) - before == again.n_new == ALL // N
    assert {call.prompt for call in server.calls[before:]} == {"question 3"}


def test_a_reply_without_a_verdict_is_asked_for_again_then_kept_counted_and_no_tie(judge):
    def mumbling(call):
        return says("I cannot decide, both are fine.") if call.prompt == "question 2" else by_length(call)

    budget = Budget()
    judged, server = judge(mumbling, budget=budget)
    odd = judged.rows[judged.rows["prompt_id"] == "p2"]
    assert odd["verdict"].isna().all()
    assert (odd["raw"] == "I cannot decide, both are fine.").all()
    assert Counter(server.questions.values()) == {1: ALL - len(odd), FAST.attempts: len(odd)}
    assert budget.spent == pytest.approx(len(server.calls) * PRICE)
    found = card(judged.rows, n_calls=judged.n_calls, priced=judged.priced)
    assert found["parse_failures"] == len(odd) == ALL // N
    assert {(e["n"], e["unparsed"]) for e in win_rates(judged.rows)} == {(N - 1, 2)}
    before = len(server.calls)
    again, _ = judge(server=server)
    assert again.rows["verdict"].notna().all()
    assert {call.prompt for call in server.calls[before:]} == {"question 2"}, "the next run asks again for it alone"


def test_a_judge_that_never_gives_a_verdict_is_given_up(judge):
    settings = FAST.model_copy(update={"concurrency": 1})
    judged, server = judge(lambda call: says("Both are fine."), settings=settings)
    assert len(server.calls) == GIVE_UP_AFTER * FAST.attempts
    assert judged.rows["verdict"].isna().all()
    assert len(judged.rows) == GIVE_UP_AFTER
    assert set(judged.missing["reason"]) == {"the judge is unavailable: the reply holds no verdict"}


def test_position_consistency_by_hand(judge):
    """The server takes whatever is shown first, but on prompts 0 and 1 goes by the text: 2 of 6 pairs agree."""

    def biased(call):
        return by_length(call) if call.prompt in ("question 0", "question 1") else verdict("A")

    judged, _ = judge(biased)
    found = card(judged.rows, n_calls=judged.n_calls, priced=judged.priced)
    assert found["position_consistency"] == pytest.approx(2 / 6)
    helpful = [e for e in win_rates(judged.rows) if e["objective"] == "helpful" and e["a"] == "peo"]
    assert {e["n_ties"] for e in helpful} == {4}, "an order-blind win in one order and a loss in the other cancel"


def test_equal_answers_are_ties_without_a_call(judge):
    table = TABLE.copy()
    table.loc[table["prompt_id"] == "p0", "answer_b"] = table["answer_a"]
    judged, server = judge(table=table)
    assert len(server.calls) == ALL - ALL // N
    skipped = judged.rows[~judged.rows["asked"]]
    assert set(skipped["prompt_id"]) == {"p0"}
    assert (skipped["verdict"] == 0.5).all()
    assert set(skipped["reason"]) == {"equal answers"}
    found = card(judged.rows, n_calls=judged.n_calls, priced=True)
    assert (found["skipped"], found["n_calls"]) == (ALL // N // 2, ALL - ALL // N)


def test_one_policy_against_itself_is_exactly_50(judge):
    table = TABLE[TABLE["method_a"] == "peo"].assign(
        answer_b=lambda t: t["answer_a"], spec_key_b=lambda t: t["spec_key_a"]
    )
    judged, server = judge(table=table)
    assert not server.calls
    assert {(e["ci_low"], e["win_rate"], e["ci_high"]) for e in win_rates(judged.rows)} == {(50.0, 50.0, 50.0)}


def test_equal_questions_of_two_pairs_are_asked_and_paid_once(judge):
    twice = TABLE[TABLE["method_a"] == "peo"]
    table = pd.concat([twice, twice.assign(method_a="modpo")], ignore_index=True)
    judged, server = judge(table=table)
    assert len(server.calls) == judged.n_calls == len(table)
    assert len(judged.rows) == 2 * len(table)
    assert judged.rows["usd"].sum() == pytest.approx(len(table) * PRICE)


def test_the_budget_is_never_exceeded_and_its_rest_is_named(judge):
    budget = Budget(0.02)
    judged, server = judge(budget=budget)
    assert budget.reached
    assert 0 < budget.spent <= 0.02
    assert budget.spent == pytest.approx(len(server.calls) * PRICE) == pytest.approx(judged.rows["usd"].sum())
    assert 0 < len(judged.rows) < ALL
    assert len(judged.rows) + len(judged.missing) == ALL
    assert judged.missing["reason"].str.contains("--max-usd").all()
    again, _ = judge(server=server)
    assert not len(again.missing)
    assert set(server.questions.values()) == {1}, "what the budget paid for is not paid again"


def test_a_budget_that_is_no_number_is_none():
    """Nothing is more than NaN."""
    with pytest.raises(UsageError, match="--max-usd nan"):
        make_judges(["scorers"], FAST, float("nan"))


def test_a_budget_of_nothing_asks_nothing(judge):
    judged, server = judge(budget=Budget(0.0))
    assert not server.calls
    assert len(judged.missing) == ALL


def test_a_dead_judge_is_given_up(judge):
    judged, server = judge(lambda call: Answer(b"", 500), settings=FAST.model_copy(update={"concurrency": 1}))
    assert len(judged.missing) == ALL
    assert len(server.calls) == GIVE_UP_AFTER * FAST.attempts
    assert judged.missing["reason"].str.contains("unavailable").sum() == ALL - GIVE_UP_AFTER


def test_a_wrong_key_is_tried_once_per_thread_at_most(judge):
    judged, server = judge(lambda call: Answer(b"{}", 401))
    assert len(server.calls) <= FAST.concurrency
    assert len(judged.missing) == ALL


def test_a_damaged_reply_is_asked_again(judge, tmp_path, caplog):
    first, server = judge()
    files = sorted((tmp_path / "replies").rglob("*.json"))
    assert len(files) == ALL
    files[0].write_text(files[0].read_text()[:-20])
    files[1].write_text(files[1].read_text().replace("Because", "Besides"))
    second, _ = judge(server=server)
    assert len(server.calls) == ALL + 2
    assert "is damaged" in caplog.text
    assert second.rows.equals(first.rows)


def most_usd(call) -> float:
    """The most that an attempt can cost: a token per byte, 64 for the frame, and the whole token limit."""
    size = len(call.body["messages"][0]["content"].encode()) + 64
    return (size * 2.0 + FAST.max_tokens * 10.0) / 1e6


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 1, "completion_tokens": 0}], ids=["none", "absurd"])
def test_tokens_that_are_not_counted_cost_the_most_they_can(judge, usage):
    budget = Budget()
    judged, server = judge(lambda call: says("Verdict: A", usage=usage), budget=budget)
    assert budget.spent == pytest.approx(judged.rows["usd"].sum()) == pytest.approx(sum(map(most_usd, server.calls)))


LOSSES = {
    "empty": (lambda: says("  "), lambda call: PRICE),
    "empty and uncounted": (lambda: says(None, usage=None), most_usd),
    "garbage": (lambda: Answer(b"<garbage>"), most_usd),
    "500": (lambda: Answer(b"", 500), most_usd),
    "429": (lambda: Answer(b"", 429), lambda call: 0.0),
}


@pytest.mark.parametrize(("answer", "usd"), LOSSES.values(), ids=LOSSES)
def test_what_brings_no_verdict_may_be_billed_and_is_spent(judge, answer, usd):
    """Every question is answered in vain once."""
    budget = Budget()
    judged, server = judge(lambda call: answer() if call.before == 0 else by_length(call), budget=budget)
    assert not len(judged.missing)
    assert budget.spent == pytest.approx(sum(PRICE if call.before else usd(call) for call in server.calls))
    assert judged.rows["usd"].sum() == pytest.approx(ALL * PRICE), "the card tells what the verdicts cost"


@pytest.mark.parametrize("limit", [0.01, 0.05])
def test_attempts_in_vain_do_not_exceed_the_budget(judge, limit):
    """An endpoint that answers with nothing, and bills all there can be."""
    budget = Budget(limit)
    judged, server = judge(lambda call: says("", usage=None), budget=budget)
    assert budget.reached
    assert 0 < budget.spent == pytest.approx(sum(map(most_usd, server.calls)))
    assert budget.spent <= limit
    assert len(judged.missing) == ALL
    assert judged.missing["reason"].str.contains("--max-usd").any()


def test_a_kept_reply_of_another_form_is_asked_again(judge, tmp_path, caplog):
    """Its checksum is right: another version wrote it, or somebody who made the checksum anew."""
    first, server = judge()
    for path, reply in zip(sorted((tmp_path / "replies").rglob("*.json")), ODD_REPLIES, strict=False):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"reply": reply, "sum": digest(reply)}))
    budget = Budget()
    second, _ = judge(server=server, budget=budget)
    assert second.n_new == caplog.text.count("is damaged") == len(ODD_REPLIES)
    assert budget.spent == pytest.approx(len(ODD_REPLIES) * PRICE)
    assert second.rows.equals(first.rows)


ODD_REPLIES = (
    *({"text": "Verdict: A"}, {"text": 5, "input_tokens": 1, "output_tokens": 1}, [], None, "Verdict: A"),
    {"text": "Verdict: A", "input_tokens": -10_000_000, "output_tokens": 1},
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openai:m", "MODEL@BASE_URL"),
        ("openai:m@ftp://x", "MODEL@BASE_URL"),
        ("openai:m@http://user:secret@host/v1", "OPENAI_API_KEY"),
        ("openai:m@http://[", "is no address"),
        ("openai", "MODEL@BASE_URL"),
        ("scorers:x", "takes no argument"),
        ("opanai:m@http://x/v1", "did you mean openai"),
    ],
)
def test_a_judge_that_is_none(text, said):
    with pytest.raises(UsageError, match=said) as error:
        make_judge(text, FAST)
    assert "secret" not in str(error.value)


def test_a_model_name_may_hold_an_at_sign():
    judge = make_judge("openai:@cf/meta/llama@https://host/v1/", FAST)
    assert (judge.model, judge.base_url) == ("@cf/meta/llama", "https://host/v1")
