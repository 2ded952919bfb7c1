"""One call to an endpoint: what is retried, how long is waited, what is given up."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import FAST, HASTY, Answer, says, serve, verdict  # noqa: F401 - serve is a fixture

from peo_bench.judges.endpoint import Endpoint, NoAnswer, retry_after
from peo_bench.judges.rubrics import messages

KEY = "sk-canary-0123456789"
QUESTION = messages("helpful", "how?", "so", "like this")


@pytest.fixture
def ask(serve, monkeypatch):  # noqa: F811
    """Ask a server that gives `answers` in turn, then a verdict; return (reply or error, waits in seconds, calls)."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def asked(*answers: Answer):
        server = serve(lambda call: answers[call.before] if call.before < len(answers) else verdict("A"))
        waits: list[float] = []
        try:
            settings = HASTY if any(answer.hang for answer in answers) else FAST
            found = Endpoint(server.url, "m", settings, threading.Event(), waits.append).ask(QUESTION)
        except NoAnswer as error:
            found = error
        return found, waits, server.calls

    return asked


FAULTS = {
    "500": Answer(b'{"error": {"message": "boom"}}', 500),
    "503 with HTML": Answer(b"<html>overloaded</html>", 503),
    "hanging": Answer(b"{}", hang=2.0),
    "garbage": Answer(b"\x00\xff not json"),
    "JSON, but no completion": Answer(b'{"hello": [1, 2]}'),
    "empty choices": Answer(b'{"choices": []}'),
    "null choices": Answer(b'{"choices": null}'),
    "content of the wrong type": Answer(b'{"choices": [{"message": {"content": {"a": 1}}}]}'),
    "a byte now and then": Answer(b" " * 400, hang=0.1, drip=True),
    "a byte now and then, with an error": Answer(b" " * 400, 500, hang=0.1, drip=True),
    "a body without end": Answer(b" " * (5 * 2**20)),
    "an error without end": Answer(b"x" * (5 * 2**20), 400),
    "compressed without being asked": Answer(gzip.compress(b"{}"), headers=(("Content-Encoding", "gzip"),)),
    "nested without end": Answer(b'{"choices":' + b"[" * 200_000),
    "no content": says(None),
    "blank content": says("  \n"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_passing_fault_is_retried_with_growing_waits(ask, fault):
    reply, waits, calls = ask(fault, fault)
    assert reply.text.endswith("Verdict: A")
    assert len(calls) == 3
    assert 1.0 <= waits[0] <= 2.0 <= waits[1] <= 3.0, "1 s, then 2 s, each with up to 1 s of jitter"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_lasting_fault_ends_after_the_allowed_attempts(ask, fault):
    error, waits, calls = ask(*[fault] * 9)
    assert isinstance(error, NoAnswer)
    assert not error.fatal
    assert len(calls) == FAST.attempts == 4
    assert len(waits) == 3
    assert "4 attempts" in str(error)


def test_retry_after_is_honoured(ask):
    reply, waits, calls = ask(
        Answer(b"{}", 429, (("Retry-After", "7"),)), Answer(b"{}", 429, (("retry-after-ms", "500"),))
    )
    assert reply.input_tokens == 100
    assert 7.0 <= waits[0] <= 7.7
    assert 0.5 <= waits[1] <= 0.55
    assert len(calls) == 3


def test_retry_after_as_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after({"retry-after": soon}) <= 30
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "-3"}) == 0.0
    assert retry_after({}) is None
    assert retry_after({"retry-after-ms": "soon"}) is None
    assert retry_after({"retry-after-ms": "soon", "retry-after": "2"}) == 2.0
    assert retry_after({"retry-after": "Sun, 06 Nov 99999999999999999999 08:49:37 GMT"}) is None


FATAL = {
    "wrong key": (Answer(f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode(), 401), "OPENAI_API_KEY"),
    "no such model": (Answer(b'{"error": {"message": "no model m"}}', 404), "no model m"),
    "quota": (Answer(b'{"error": {"message": "pay", "code": "insufficient_quota"}}', 429), "pay"),
    "a day's wait": (Answer(b"{}", 429, (("Retry-After", "86400"),)), "86400"),
}


@pytest.mark.parametrize(("answer", "said"), FATAL.values(), ids=FATAL)
def test_what_every_call_would_meet_is_fatal_at_once(ask, answer, said):
    error, waits, calls = ask(answer)
    assert error.fatal
    assert (waits, len(calls)) == ([], 1)
    assert said in str(error)
    assert KEY not in str(error)


def test_a_message_is_cut_after_the_key_is_masked(ask):
    """A key across the cut would leave its first half readable."""
    for start in range(0, 300, 10):
        text = "x" * start + KEY
        for answer in (Answer(text.encode()), Answer(f'{{"error": {{"message": "{text}"}}}}'.encode(), 401)):
            error, _, _ = ask(*[answer] * 4)
            assert KEY[:5] not in str(error)


def test_half_a_surrogate_pair_is_made_valid(ask):
    """JSON can say it, no file can hold it."""
    reply, _, _ = ask(says("good \ud800\nVerdict: A"))
    assert reply.text == "good ?\nVerdict: A"
    error, _, _ = ask(Answer(b'{"error": {"message": "no \\ud800"}}', 401))
    str(error).encode()  # would raise


def test_a_refused_question_is_not_retried_and_concerns_itself_only(ask):
    error, waits, calls = ask(Answer(b'{"error": {"message": "content filter"}}', 400))
    assert not error.fatal
    assert (waits, len(calls)) == ([], 1)


def test_a_reply_cut_before_its_first_word_is_a_reply(ask):
    """It would be cut again; it counts as unparseable, not as a fault."""
    reply, _, calls = ask(says("", finish="length"))
    assert reply.text == ""
    assert len(calls) == 1


@pytest.mark.parametrize("count", [-100_000, 0, 10**12, 1.5, "7", None, True, [1]])
def test_a_number_of_tokens_that_cannot_be_true_is_not_believed(ask, count):
    """The caller then estimates it from the texts, so that nothing is paid back by the endpoint's arithmetic."""
    body = json.loads(says("Verdict: A").body) | {"usage": {"prompt_tokens": count, "completion_tokens": 20}}
    reply, waits, _ = ask(Answer(json.dumps(body).encode()))
    assert (reply.input_tokens, reply.output_tokens, waits) == (None, 20, [])


@pytest.mark.parametrize("usage", [[], "free", 3, None, {}])
def test_usage_of_another_form_costs_no_reply(ask, usage):
    body = json.loads(says("Verdict: A").body) | {"usage": usage}
    reply, waits, _ = ask(Answer(json.dumps(body).encode()))
    assert (reply.text, reply.input_tokens, waits) == ("Verdict: A", None, [])


def test_nobody_listens():
    waits: list[float] = []
    with pytest.raises(NoAnswer, match="connection failed"):
        Endpoint("http://127.0.0.1:9/v1", "m", FAST, threading.Event(), waits.append).ask(QUESTION)
    assert len(waits) == 3


def test_the_question_carries_key_model_and_decoding(ask):
    _, _, calls = ask()
    assert calls[0].headers["authorization"] == f"Bearer {KEY}"
    expected = {"model": "m", "temperature": 0.0, "max_tokens": 300, "seed": 0}
    assert expected.items() <= calls[0].body.items()
    assert (calls[0].prompt, calls[0].first, calls[0].second) == ("how?", "so", "like this")
