"""Call an OpenAI-compatible chat endpoint: one question, one reply, with bounded retries.

Retried: 408, 409, 425, 429 (honouring Retry-After), 5xx, answers without an end, broken connections, bodies that are no
completion, empty replies and, without waiting, replies without a verdict. Not retried: other client errors, which would
come again; those that concern every call (wrong key, no such model, a redirection to another origin) and a wait that is
too long are `fatal`: the judge is given up. The API key is read from the environment at the last moment and cut out of
every message and every reply.

Every attempt is metered: what it can cost is set aside before it is made and settled after it, whatever became of it.
One that was refused (4xx but 408, 503) or never sent costs nothing; any other without a reply may have been answered,
and billed, on the other side.

Parameters follow the model: one that it refuses by name is left out from then on, or has the name that it asks for.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from peo_bench.errors import PeoBenchError, UsageError
from peo_bench.judges.parsing import parse_reply
from peo_bench.judges.settings import JudgeSettings

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from peo_bench.judges.transport import Moved

RETRIED = {408, 409, 425, 429}
FATAL = {401, 402, 403, 404}
REFUSED = {*range(400, 500), 503} - {408}
"""Errors of an endpoint that has not answered; others may come from something before it, which did not deliver."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second attempt and at most, with exponential growth and jitter between."""
MOST_TOKENS = 10_000_000
"""A question of more tokens is a mistake in counting: no model takes them. An answer has at most as many as were
allowed or, where that was not heeded, as its text has bytes."""
MOST_CHARACTERS = 8
"""Of a token, on the average of a text; fewer tokens are a mistake in counting. English has 4 to 5."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds; an endpoint that asks for a longer wait (a daily quota, say) is unavailable for now."""


NO_VERDICT = "the reply holds no verdict"
LIMITS = ("max_tokens", "max_completion_tokens")
"""What the limit of a reply is called; newer models refuse the first, older servers the second."""
UNSUPPORTED = re.compile(
    r"unsupported|not supported|does not support|unrecogni[sz]ed|unknown|unexpected|not permitted|extra_forbidden", re.I
)
"""What an error says of a parameter that a model does not take; other errors are about its value."""


def check_key_name(name: str) -> None:
    """Refuse what is no variable's name - a key typed there by mistake, say - without repeating it."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise UsageError("judge.api_key_env: give the name of an environment variable, as in OPENAI_API_KEY")


@dataclass(frozen=True)
class Tokens:
    """What an attempt is billed for; None where the endpoint did not count, or counts that cannot be true."""

    input: int | None = None
    output: int | None = None


FREE, UNCOUNTED = Tokens(0, 0), Tokens()


class Meter(Protocol):
    """Keeps account of one question's attempts."""

    def begin(self) -> None:
        """Set aside what an attempt can cost; raise `NoAnswer` where it must not be made."""

    def end(self, tokens: Tokens) -> None:
        """Settle an attempt."""


class NoAnswer(PeoBenchError):
    """The endpoint gave no reply, for a reason; `fatal` if it will not give one to other questions either."""

    exit_code = 3

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.fatal = fatal


class _Transient(Exception):
    """A fault that may pass; `retry_after` in seconds where the endpoint named one; `tokens` it may be billed for."""

    def __init__(self, reason: str, retry_after: float | None = None, tokens: Tokens = UNCOUNTED) -> None:
        super().__init__(reason)
        self.retry_after, self.tokens = retry_after, tokens


class _Unreadable(_Transient):
    """A reply without a verdict, which is had at once and may say more when it is asked for again."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(NO_VERDICT, 0.0, reply.tokens)
        self.reply = reply


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: Any = None


@dataclass(frozen=True)
class Reply:
    """The text of a reply, what it is billed for, and the parameters that the model had refused before.

    `complete` is False where it holds no verdict though nothing cut it, at the last attempt too.
    """

    text: str
    tokens: Tokens
    refused: tuple[str, ...] = ()
    complete: bool = True


class Endpoint:
    """One model at one address; used from several threads."""

    def __init__(
        self,
        base_url: str,
        model: str,
        settings: JudgeSettings,
        stop: threading.Event,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """Connect to nothing yet. `stop` ends waiting and retrying; `sleep` replaces waiting in tests."""
        from openai import OpenAI
        from tenacity import sleep_using_event

        from peo_bench.judges.transport import bounded_client

        self.model = model
        self.settings = settings
        self._asked: dict[str, object] = dict(settings.parameters)
        self._refused: tuple[str, ...] = ()
        self._learning = threading.Lock()
        self._stop = stop
        self._sleep = sleep or sleep_using_event(stop)
        self._key = os.environ.get(settings.api_key_env, "")
        self._client = OpenAI(
            api_key=self._key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=settings.timeout_s,
            http_client=bounded_client(),
        )

    def ask(self, messages: Sequence[dict[str, str]], meter: Meter) -> Reply:
        """Return the reply; raise `NoAnswer` when all attempts have failed, none can succeed or `meter` allows none."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set

        retrying = Retrying(
            retry=retry_if_exception_type(_Transient),
            stop=stop_after_attempt(self.settings.attempts) | stop_when_event_set(self._stop),
            wait=_wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            reply: Reply = retrying(self._metered, messages, meter)
        except _Unreadable as error:
            return replace(error.reply, refused=self._refused)
        except _Transient as error:
            raise NoAnswer(f"{self._clean(str(error))} ({retrying.statistics['attempt_number']} attempts)") from None
        return reply

    def _metered(self, messages: Sequence[dict[str, str]], meter: Meter) -> Reply:
        meter.begin()
        tokens = UNCOUNTED
        try:
            reply = self._attempt(messages)
            tokens = reply.tokens
        except _Transient as fault:
            tokens = fault.tokens
            raise
        except NoAnswer:
            tokens = FREE
            raise
        finally:
            meter.end(tokens)
        return reply

    def _attempt(self, messages: Sequence[dict[str, str]]) -> Reply:
        import openai

        from peo_bench.judges.transport import Moved, deadline, was_sent

        with self._learning:
            asked, refused = dict(self._asked), self._refused
        request: Any = {"model": self.model, "messages": list(messages), "stream": False, **asked}
        try:
            with deadline(self.settings.timeout_s) as end:
                raw = self._client.chat.completions.with_raw_response.create(**request)
                body = raw.content.decode("utf-8", "replace")
        except openai.APIStatusError as error:
            if error.status_code in (400, 422) and self._learns(error, asked):
                return self._attempt(messages)
            raise self._fault(error) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, Moved):  # openai 2 wraps it
                raise self._elsewhere(cause) from None
            late = end.passed or isinstance(error, openai.APITimeoutError)
            said = str(cause) or type(cause).__name__
            reason = f"no answer within {self.settings.timeout_s:g} s" if late else f"connection failed: {said}"
            raise _Transient(reason, tokens=UNCOUNTED if was_sent(cause) else FREE) from None
        except Moved as error:
            raise self._elsewhere(error) from None
        except Exception as error:  # what a hostile or broken server makes of the client: charsets, headers, bodies
            raise _Transient(f"the answer cannot be read: {type(error).__name__}: {error}") from None
        return replace(self._read(body, sum(len(message["content"]) for message in messages)), refused=refused)

    def _learns(self, error: Any, asked: Mapping[str, object]) -> bool:
        """Change what is asked if the model refused a parameter by name; say whether another attempt is worth it."""
        said = f"{error.code} {error.message}"
        named = [name for name in asked if name == error.param or re.search(rf"\b{name}\b", said)]
        if not named or not UNSUPPORTED.search(said):
            return False
        name = error.param if error.param in named else named[0]
        with self._learning:
            if self._asked != asked:  # another thread has learnt meanwhile
                return True
            if name in LIMITS:
                if name == LIMITS[-1]:
                    return False
                self._asked = {LIMITS[-1] if key == name else key: value for key, value in asked.items()}
            else:
                self._asked = {key: value for key, value in asked.items() if key != name}
                self._refused = (*self._refused, name)
        return True

    def _fault(self, error: Any) -> Exception:
        """Turn an HTTP error into a fault that may pass or, unbilled, one that will not."""
        status = int(error.status_code)
        reason = f"HTTP {status}"
        if status in FATAL or error.code == "insufficient_quota":
            hint = f"; is the environment variable {self.settings.api_key_env} set and right?" if status == 401 else ""
            return NoAnswer(self._clean(f"{reason}: {error.message}{hint}"), fatal=True)
        if status not in RETRIED and status < 500:
            return NoAnswer(self._clean(f"{reason}: {error.message}"))
        pause = retry_after(error.response.headers)
        if pause is not None and pause > LONGEST_RETRY_AFTER:
            return NoAnswer(f"{reason}: the endpoint asks to wait {pause:.0f} s", fatal=True)
        return _Transient(reason, pause, FREE if status in REFUSED else UNCOUNTED)

    def _elsewhere(self, moved: Moved) -> NoAnswer:
        said = "the endpoint sends calls on to another address, which is not followed: if it is right, type "
        address = moved.url.removesuffix("/chat/completions")
        return NoAnswer(self._clean(f"{said}--judge openai:{self.model}@{address}"), fatal=True)

    def _clean(self, text: str) -> str:
        return " ".join(self._masked(text).split())[:300]

    def _masked(self, text: str) -> str:
        """Return what an endpoint sent without the key: whole, since a cut could leave half of it."""
        return valid_text(text.replace(self._key, "***") if self._key else text)

    def _read(self, body: str, asked: int) -> Reply:
        """Return the reply in a completion's JSON to a question of `asked` characters.

        No verdict because the token limit or a filter came first is a reply too (unparseable), since it would come
        again; any other message that is empty or holds none is a fault.
        """
        try:
            completion = _Completion.model_validate(json.loads(body))
            choice = completion.choices[0]
        except (ValueError, ValidationError, IndexError, RecursionError):
            raise _Transient(f"the body is no chat completion: {' '.join(body.split())!r}") from None
        text = self._masked(choice.message.content or choice.message.refusal or "")
        usage = completion.usage if isinstance(completion.usage, dict) else {}
        most = max(self.settings.max_tokens, len(text.encode()))
        tokens = Tokens(
            _count(usage.get("prompt_tokens"), asked, MOST_TOKENS),
            _count(usage.get("completion_tokens"), len(text), most),
        )
        if choice.finish_reason in ("length", "content_filter"):
            return Reply(text, tokens)
        if not text.strip():
            raise _Transient("the reply is empty", tokens=tokens)
        if math.isnan(parse_reply(text).value):
            raise _Unreadable(Reply(text, tokens, complete=False))
        return Reply(text, tokens)


def valid_text(text: str) -> str:
    r"""Return the text with `?` for half a surrogate pair, which JSON can hold and no file can.

    >>> valid_text("fine \ud83d")
    'fine ?'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def retry_after(headers: Any) -> float | None:
    """Return the seconds to wait that the headers name (`retry-after-ms`, or Retry-After as seconds or a date)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(ValueError, TypeError):
            return max(0.0, float(headers.get(name)) / unit)
    try:
        return max(0.0, (parsedate_to_datetime(headers.get("retry-after")) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _wait(state: RetryCallState) -> float:
    """Return the seconds before the next attempt: what the endpoint asked for, else exponential with jitter."""
    from tenacity import wait_exponential_jitter

    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, _Transient) else None
    if asked is not None:
        return asked * random.uniform(1.0, 1.1)  # so that many waiting calls do not come back at one instant
    return float(wait_exponential_jitter(initial=FIRST_WAIT, max=LONGEST_WAIT)(state))


def _count(value: object, characters: int, most: int) -> int | None:
    """Return the number of tokens of a text; None for what cannot be one."""
    return value if type(value) is int and least_tokens(characters) <= value <= most else None


def least_tokens(characters: int) -> int:
    """Return the fewest tokens that a text of so many characters is believed to have."""
    return max(1, characters // MOST_CHARACTERS)
