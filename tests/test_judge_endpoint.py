"""One call to an endpoint: what is retried, how long is waited, what is given up."""

from __future__ import annotations

import gzip
import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import FAST, HASTY, Answer, says, serve, verdict  # noqa: F401 - serve is a fixture

from peo_bench.judges.endpoint import FREE, UNCOUNTED, Endpoint, NoAnswer, Tokens, retry_after
from peo_bench.judges.rubrics import messages

KEY = "sk-canary-0123456789"
QUESTION = messages("helpful", "how?", "so", "like this")


class Recorder:
    """A meter that keeps what every attempt was billed for."""

    def __init__(self) -> None:
        self.begun, self.billed = 0, []

    def begin(self) -> None:
        self.begun += 1

    def end(self, tokens: Tokens) -> None:
        self.billed.append(tokens)


@pytest.fixture
def meter():
    return Recorder()


@pytest.fixture
def ask(serve, monkeypatch, meter):  # noqa: F811
    """Ask a server that gives `answers` in turn, then a verdict; return (reply or error, waits in seconds, calls)."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def asked(*answers: Answer):
        server = serve(lambda call: answers[call.before] if call.before < len(answers) else verdict("A"))
        waits: list[float] = []
        try:
            settings = HASTY if any(answer.hang for answer in answers) else FAST
            found = Endpoint(server.url, "m", settings, threading.Event(), waits.append).ask(QUESTION, meter)
        except NoAnswer as error:
            found = error
        assert meter.begun == len(meter.billed)
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
    "headers now and then": Answer(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 80, hang=0.1, drip=True, raw=True),
    "to be continued": Answer(b"HTTP/1.1 100 Continue\r\n\r\n" * 20, hang=0.1, drip=True, raw=True),
    "5,000 digits": Answer(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}", raw=True),
    "no HTTP": Answer(b"\x15\x03\x01\x00\x02\x02", raw=True),
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


def test_a_connection_that_is_made_when_the_time_is_over_is_cut(ask, monkeypatch):
    """As where a name is looked up slowly: nothing else would end what drips then."""
    connect = socket.create_connection

    def late(*address, **options):
        time.sleep(2 * HASTY.timeout_s)
        return connect(*address, **options)

    monkeypatch.setattr(socket, "create_connection", late)
    started = time.monotonic()
    error, _, _ = ask(*[FAULTS["headers now and then"]] * FAST.attempts)
    assert "no answer within 0.5 s" in str(error)
    assert time.monotonic() - started < 20, "one alone would drip for 48 s"


def test_retry_after_is_honoured(ask):
    reply, waits, calls = ask(
        Answer(b"{}", 429, (("Retry-After", "7"),)), Answer(b"{}", 429, (("retry-after-ms", "500"),))
    )
    assert reply.tokens == Tokens(400, 20)
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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_to_another_origin_is_refused_in_one_line(ask, serve, status):  # noqa: F811
    """The other server was not chosen by the user: neither the key nor the texts may get there."""
    other = serve()
    elsewhere = f"{other.url}/chat/completions?of=somebody#else"
    error, waits, calls = ask(*[Answer(b"", status, (("Location", elsewhere),))] * 4)
    assert isinstance(error, NoAnswer)
    assert error.fatal
    assert (waits, len(calls), other.calls) == ([], 1, [])
    assert str(error).endswith(f"not followed: if it is right, type --judge openai:m@{other.url}")


def test_a_redirection_within_the_origin_is_followed(ask):
    reply, waits, calls = ask(Answer(b"", 307, (("Location", "/v1/chat/completions"),)))
    assert (reply.text, waits, len(calls)) == ("Because.\nVerdict: A", [], 2)


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


@pytest.mark.parametrize("said", ["Both are fine.", "Verdict: A\nVerdict: B"])
def test_a_reply_without_a_verdict_is_asked_for_again_at_once(ask, said):
    reply, waits, calls = ask(says(said))
    assert (reply.text, reply.complete) == ("Because.\nVerdict: A", True)
    assert (waits, len(calls)) == ([0.0], 2)
    reply, waits, calls = ask(*[says(said)] * 9)
    assert (reply.text, reply.complete) == (said, False)
    assert len(calls) == FAST.attempts


@pytest.mark.parametrize("count", [-100_000, 0, 1, 100, 10**12, 1.5, "7", None, True, [1]])
def test_a_number_of_tokens_that_cannot_be_true_is_not_believed(ask, count):
    """The question has 1,100 characters: 100 tokens are too few for any tokeniser, 10**12 too many for any model."""
    reply, waits, _ = ask(says("Verdict: A", usage={"prompt_tokens": count, "completion_tokens": 20}))
    assert (reply.tokens, waits) == (Tokens(None, 20), [])


def test_too_few_tokens_for_the_text_of_a_reply_are_not_believed(ask):
    reply, _, _ = ask(says("so " * 100 + "\nVerdict: A", usage={"prompt_tokens": 400, "completion_tokens": 1}))
    assert reply.tokens == Tokens(400, None)


@pytest.mark.parametrize("n", [301, 9_000_000])
def test_more_tokens_than_were_allowed_are_not_believed_unless_the_text_is_that_long(ask, n):
    """A budget of money ended early by a count that cannot be true; an endpoint that writes on is paid for it."""
    assert FAST.max_tokens == 300
    reply, _, _ = ask(says("Verdict: A", usage={"prompt_tokens": 400, "completion_tokens": n}))
    assert reply.tokens == Tokens(400, None)
    text = "a" * 400 + "\nVerdict: A"
    reply, _, _ = ask(says(text, usage={"prompt_tokens": 400, "completion_tokens": n}))
    assert reply.tokens == Tokens(400, n if n <= len(text) else None)


def test_the_key_is_masked_in_replies_too(ask):
    """Kept replies and verdicts are shared with a run folder."""
    escaped = "\\u0073k" + KEY[2:]
    for text in (f"Authorization: {KEY}\nVerdict: A", f"Authorization: {escaped}\nVerdict: A", f"no verdict {KEY}"):
        body = says("TEXT").body.replace(b"TEXT", text.replace("\n", "\\n").encode())
        reply, _, _ = ask(*[Answer(body)] * 9)
        assert KEY not in reply.text
        assert "***" in reply.text


@pytest.mark.parametrize("usage", [[], "free", 3, None, {}])
def test_usage_of_another_form_costs_no_reply(ask, usage):
    reply, waits, _ = ask(says("Verdict: A", usage=usage))
    assert (reply.text, reply.tokens, waits) == ("Verdict: A", UNCOUNTED, [])


def test_nobody_listens(meter):
    waits: list[float] = []
    with pytest.raises(NoAnswer, match="connection failed"):
        Endpoint("http://127.0.0.1:9/v1", "m", FAST, threading.Event(), waits.append).ask(QUESTION, meter)
    assert len(waits) == 3
    assert meter.billed == [FREE] * 4, "nothing was sent"


BILLS = {
    **{name: (FAULTS[name], UNCOUNTED) for name in ("500", "hanging", "garbage", "nested without end")},
    **{name: (FAULTS[name], UNCOUNTED) for name in ("a byte now and then", "a body without end")},
    **{name: (FAULTS[name], Tokens(400, 20)) for name in ("no content", "blank content")},
    **{name: (answer, FREE) for name, (answer, _) in FATAL.items()},
    "503": (Answer(b"{}", 503), FREE),
    "429": (Answer(b"{}", 429), FREE),
    "400": (Answer(b"{}", 400), FREE),
    "empty, too few tokens": (says("", usage={"prompt_tokens": 1, "completion_tokens": 1}), Tokens(None, 1)),
    "gateway's timeout": (Answer(b"{}", 504), UNCOUNTED),
    "no known status": (Answer(b"{}", 999), UNCOUNTED),
}


@pytest.mark.parametrize(("answer", "tokens"), BILLS.values(), ids=BILLS)
def test_every_attempt_is_settled_by_what_it_may_be_billed_for(ask, meter, answer, tokens):
    """Only what was refused or never sent is known to cost nothing."""
    found, _, _ = ask(answer)
    assert meter.billed == [tokens] if isinstance(found, NoAnswer) else [tokens, Tokens(400, 20)]


def test_an_attempt_that_the_meter_forbids_is_not_made(ask, meter):
    def begin() -> None:
        if meter.billed:
            raise NoAnswer("no money left")
        meter.begun += 1

    meter.begin = begin
    error, _, calls = ask(*[says("")] * 4)
    assert str(error) == "no money left"
    assert len(calls) == 1


def test_the_question_carries_key_model_and_decoding(ask):
    _, _, calls = ask()
    assert calls[0].headers["authorization"] == f"Bearer {KEY}"
    expected = {"model": "m", "temperature": 0.0, "max_tokens": 300, "seed": 0}
    assert expected.items() <= calls[0].body.items()
    assert (calls[0].prompt, calls[0].first, calls[0].second) == ("how?", "so", "like this")


# ---- parameters that follow the model ----------------------------------------------------------------------------


def refusing(*names: str, style: str = "openai"):
    """A model that takes none of these parameters, and says so as OpenAI does, or in words only."""

    def answer(call) -> Answer:
        name = next((name for name in names if name in call.body), None)
        if name is None:
            return verdict("A")
        if style == "openai":
            other = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
            message = f"Unsupported parameter: '{name}' is not supported with this model.{other}"
            error = {
                "message": message,
                "type": "invalid_request_error",
                "param": name,
                "code": "unsupported_parameter",
            }
            return Answer(json.dumps({"error": error}).encode(), 400)
        detail = f"[{{'type': 'extra_forbidden', 'loc': ('body', '{name}'), 'msg': 'Extra inputs are not permitted'}}]"
        return Answer(json.dumps({"error": {"message": detail, "code": 422}}).encode(), 422)

    return answer


@pytest.mark.parametrize("style", ["openai", "words"])
@pytest.mark.parametrize(
    ("names", "sent", "refused"),
    [
        (("max_tokens",), {"max_completion_tokens": 300, "temperature": 0.0, "seed": 0}, ()),
        (("max_tokens", "temperature", "seed"), {"max_completion_tokens": 300}, ("temperature", "seed")),
        (("seed",), {"max_tokens": 300, "temperature": 0.0}, ("seed",)),
    ],
)
def test_parameters_that_a_model_refuses_are_learnt_once(serve, meter, style, names, sent, refused):  # noqa: F811
    server = serve(refusing(*names, style=style))
    endpoint = Endpoint(server.url, "m", FAST, threading.Event())
    replies = [endpoint.ask(QUESTION, meter), endpoint.ask(messages("helpful", "why?", "so", "thus"), meter)]
    assert [reply.text.splitlines()[-1] for reply in replies] == ["Verdict: A"] * 2
    assert [set(reply.refused) for reply in replies] == [set(refused)] * 2
    assert len(server.calls) == len(names) + 2, "what was refused is not asked again"
    last = server.calls[-1].body
    assert {
        key: last[key] for key in ("temperature", "seed", "max_tokens", "max_completion_tokens") if key in last
    } == sent
    assert meter.billed == [Tokens(400, 20)] * 2, "what was refused costs nothing"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("max_tokens", "max_completion_tokens"), "max_completion_tokens"),
        ((), "max_tokens is too large: 300 > 128"),
        ((), "temperature must be above 0.1"),
        (("messages",), "messages"),
    ],
)
def test_other_refusals_are_named_and_no_limit_is_dropped(serve, meter, names, message):  # noqa: F811
    told = Answer(json.dumps({"error": {"message": message, "code": "invalid_value"}}).encode(), 400)
    server = serve(refusing(*names) if names else lambda call: told)
    with pytest.raises(NoAnswer, match=f"HTTP 400: .*{message}"):
        Endpoint(server.url, "m", FAST, threading.Event()).ask(QUESTION, meter)
    assert len(server.calls) == max(1, len(names))
    assert all({"max_tokens", "max_completion_tokens"} & set(call.body) for call in server.calls)


def test_many_threads_learn_the_same(serve):  # noqa: F811
    server = serve(refusing("max_tokens", "temperature", "seed"))
    endpoint = Endpoint(server.url, "m", FAST, threading.Event())
    asked = [messages("helpful", f"{i}?", "so", "thus") for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda question: endpoint.ask(question, Recorder()), asked))
    assert {tuple(sorted(reply.refused)) for reply in replies} == {("seed", "temperature")}
    assert set(server.calls[-1].body) & {"temperature", "seed", "max_tokens"} == set()
