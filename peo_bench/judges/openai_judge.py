"""A language model behind an OpenAI-compatible endpoint as a judge: `--judge openai:MODEL@BASE_URL`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from urllib.parse import urlsplit

import pandas as pd
from pydantic import Field

from peo_bench.errors import UsageError
from peo_bench.files.digest import digest
from peo_bench.files.json_types import JsonObject
from peo_bench.judges.budget import Budget
from peo_bench.judges.endpoint import MOST_TOKENS, NO_VERDICT, UNCOUNTED, Endpoint, NoAnswer, Tokens, least_tokens
from peo_bench.judges.judge import Bound, Desk, Judge, Judged, Recorded, verdict_table
from peo_bench.judges.matchups import IDENTITY, ORDERS, Comparison, Row, comparisons, identities
from peo_bench.judges.parsing import TIE, Verdict, parse_reply, swapped
from peo_bench.judges.replies import Replies
from peo_bench.judges.rubrics import RUBRICS, messages, prompt_hash
from peo_bench.judges.settings import JudgeSettings
from peo_bench.kill_points import kill_point
from peo_bench.settings import Frozen

FORM = re.compile(r"(?P<model>\S+)@(?P<url>https?://\S+)")
KILLED_AFTER = 2
"""Kept replies after which the kill point is."""
GIVE_UP_AFTER = 10
"""Calls in a row that fail after all their attempts; then the judge is unavailable and the rest is not tried."""
PROMPT_TOKENS = 200
"""Tokens of a user's prompt assumed by the estimate."""
BYTES_PER_TOKEN = 3
"""Of text, low for English, so that the estimate of a plan errs on the high side."""
FRAME_TOKENS = 64
"""The most that stand around the messages of a chat."""


class OpenAIJudge(Judge):
    """Asks once per objective, comparison and order; equal answers are ties without a call."""

    def __init__(self, argument: str, settings: JudgeSettings) -> None:
        """Read MODEL@BASE_URL."""
        found = FORM.fullmatch(argument)
        if not found:
            raise UsageError(
                f"--judge openai:{_harmless(argument)}: type --judge openai:MODEL@BASE_URL, "
                "as in openai:my-model@http://127.0.0.1:8000/v1"
            )
        try:
            self.model, url = found["model"], urlsplit(found["url"])
        except ValueError as error:
            raise UsageError(
                f"--judge openai:{_harmless(argument)}: is no address ({error}): give one as http://127.0.0.1:8000/v1"
            ) from None
        if url.username or url.password or url.query:
            raise UsageError(
                f"--judge openai:{self.model}@...: no credentials or query in the address: put the key into the "
                f"environment variable {settings.api_key_env}"
            )
        self.base_url = found["url"].rstrip("/")
        self.settings = settings
        self.price = settings.prices.get(self.model)
        self.id = f"{self.model}-{prompt_hash()}"
        told = ", ".join(f"{key} {value:g}" for key, value in settings.parameters.items())
        self.description = f"{self.base_url}, {told}, {settings.prompts} prompts"

    @property
    def can_be_priced(self) -> bool:
        """Whether the suite file names this model's price."""
        return self.price is not None

    def estimate(self, n_calls: int, answer_tokens: int) -> Bound:
        """Bound the calls; price them with the longest answers and replies and prompts of `PROMPT_TOKENS` tokens."""
        if self.price is None:
            return {"judge_calls": n_calls}
        text = max(len(messages(objective, "", "", "")[0]["content"]) for objective in RUBRICS)
        asked = text / BYTES_PER_TOKEN + PROMPT_TOKENS + 2 * answer_tokens
        return {"judge_calls": n_calls, "usd": round(n_calls * self.price.usd(asked, self.settings.max_tokens), 4)}

    def judge(self, pairs: pd.DataFrame, desk: Desk) -> Judged:
        """Ask what is not known yet, then read all replies; see `Judge.judge`."""
        if unknown := set(pairs["objective"]) - set(RUBRICS):
            raise UsageError(f"judge {self.id} has no rubric for {sorted(unknown)[0]!r}; it has {', '.join(RUBRICS)}")
        questions = self._questions(pairs)
        requests = {q.key: q.request for q in questions if q.request is not None}
        answers = Session(self, desk).answers(requests)
        known = answers.known

        def cost(key: str) -> float:
            return self.usd((known[key].input_tokens, known[key].output_tokens))

        refused = tuple(sorted({name for reply in known.values() for name in reply.refused}))
        texts = {key: reply.text for key, reply in known.items()}
        return self._judged(questions, texts, answers.missing, cost, answers.n_new, refused)

    @classmethod
    def recorded(cls, argument: str, settings: JudgeSettings) -> Recorded:
        """Read the replies again; nothing is asked."""
        judge = cls(argument, settings)
        return Recorded(judge.id, re.escape(judge.description), again=judge._again)

    def _again(self, pairs: pd.DataFrame, said: Judged) -> Judged:
        """Return what follows from the replies in `said`; their price is known alone, within bounds."""
        questions = self._questions(pairs)
        told = dict(zip(identities(said.rows, "order"), said.rows[["raw", "usd"]].itertuples(index=False), strict=True))
        texts: dict[str, str] = {}
        costs: dict[str, float] = {}
        asked = pd.DataFrame([item.identity for item in questions], columns=[*IDENTITY, "order"])
        for item, place in zip(questions, identities(asked, "order"), strict=True):
            if item.request is not None and place in told and item.key not in texts:
                texts[item.key], usd = told[place]
                costs[item.key] = self._possible(item.request, texts[item.key], usd)
        missing = {item.key: "" for item in questions if item.key not in texts}
        return self._judged(questions, texts, missing, costs.__getitem__, said.n_new, said.refused)

    def _possible(self, request: Request, reply: str, usd: float) -> float:
        """Return the price nearest to `usd` that a question and its reply can have, see `Endpoint`."""
        most = self.settings.max_tokens
        least = self.usd((least_tokens(request.n_characters), min(least_tokens(len(reply)), most)))
        return float(min(max(least, usd), self.usd((MOST_TOKENS, max(most, len(reply.encode()))))))

    def identity(self) -> JsonObject:
        """Return the part of a request that is the same for all texts.

        The address belongs to it, since a model of the same name elsewhere may have other weights.
        """
        told: JsonObject = {"base_url": self.base_url, "model": self.model, "prompts": prompt_hash()}
        return told | self.settings.parameters

    def request(self, objective: str, prompt: str, first: str, second: str) -> Request:
        """Return the question which of two answers is better."""
        return Request(self.identity(), messages(objective, prompt, first, second))

    def usd(self, tokens: tuple[int, int]) -> float:
        """Return the price of tokens asked and answered; 0 where prices are unknown."""
        return 0.0 if self.price is None else self.price.usd(*tokens)

    def billed(self, request: Request, tokens: Tokens) -> tuple[int, int]:
        """Return the tokens of an attempt, asked and answered, never too few: the most there can be where uncounted."""
        most = (request.most_tokens, self.settings.max_tokens)
        return most[0] if tokens.input is None else tokens.input, most[1] if tokens.output is None else tokens.output

    def _questions(self, pairs: pd.DataFrame) -> list[_Question]:
        return [self._question(pair, order) for pair in comparisons(pairs) for order in ORDERS]

    def _question(self, pair: Comparison, order: str) -> _Question:
        identity = pair.identity() | {"order": order}
        if pair.answer_a == pair.answer_b:
            same = "the same policy" if pair.spec_key_a == pair.spec_key_b else "equal answers"
            return _Question(identity, None, "", same)
        shown = (pair.answer_a, pair.answer_b) if order == "ab" else (pair.answer_b, pair.answer_a)
        request = self.request(pair.objective, pair.prompt, *shown)
        return _Question(identity, request, digest(request.to_json()), "")

    def _judged(
        self,
        questions: Iterable[_Question],
        texts: Mapping[str, str],
        missing: Mapping[str, str],
        cost: Callable[[str], float],
        n_new: int,
        refused: tuple[str, ...],
    ) -> Judged:
        """Return the verdicts of replies by key, or why there are none; `cost` is the price of a call in USD by key."""
        rows, lost, priced = [], [], set()
        for item in questions:
            if item.request is None:
                rows.append(item.row(Verdict(TIE, item.tie), "", 0.0, asked=False))
            elif item.key in texts:
                text = texts[item.key]
                usd = 0.0 if item.key in priced else cost(item.key)  # a call that serves two pairs is paid once
                priced.add(item.key)
                rows.append(item.row(parse_reply(text), text, usd, asked=True))
            else:
                lost.append(item.identity | {"reason": missing[item.key]})
        unanswered = pd.DataFrame(lost, columns=[*IDENTITY, "order", "reason"])
        return Judged(verdict_table(rows), unanswered, len(texts), n_new, self.can_be_priced, refused)


@dataclass(frozen=True)
class Request:
    """Everything that decides a reply: what is the same for all texts, and the messages."""

    identity: JsonObject
    messages: list[dict[str, str]]

    @property
    def most_tokens(self) -> int:
        """The most tokens that the messages can be: no tokeniser makes more than bytes (and 64 for the frame)."""
        return sum(len(message["content"].encode()) for message in self.messages) + FRAME_TOKENS

    @property
    def n_characters(self) -> int:
        """How many characters the messages have."""
        return sum(len(message["content"]) for message in self.messages)

    def to_json(self) -> JsonObject:
        """Return the key of the reply cache."""
        return {**self.identity, "messages": self.messages}


class KeptReply(Frozen):
    """A reply as the cache keeps it."""

    text: str
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    refused: list[str] = []
    """Parameters that the model refused; it answered by its own."""


class _OverBudget(NoAnswer):
    """No money is left for an attempt."""


@dataclass(frozen=True)
class _Meter:
    """Keeps the budget through the attempts at one request."""

    judge: OpenAIJudge
    budget: Budget
    request: Request

    @property
    def _most(self) -> float:
        return self.judge.usd(self.judge.billed(self.request, UNCOUNTED))

    def begin(self) -> None:
        if not self.budget.reserve(self._most):
            raise _OverBudget(f"the budget of {self.budget.limit:g} USD is reached (--max-usd)")

    def end(self, tokens: Tokens) -> None:
        self.budget.settle(self._most, self.judge.usd(self.judge.billed(self.request, tokens)))


@dataclass(frozen=True)
class _Question:
    """One comparison in one order; without a request it is a tie because both answers are equal."""

    identity: Row
    request: Request | None
    key: str
    tie: str

    def row(self, verdict: Verdict, raw: str, usd: float, *, asked: bool) -> Row:
        value = verdict.value if self.identity["order"] == "ab" else swapped(verdict.value)
        said = {"verdict": value, "reason": verdict.reason, "raw": raw, "usd": usd, "asked": asked}
        return self.identity | said


class Session:
    """Answers requests from the reply cache and, several at a time, from the endpoint."""

    def __init__(self, judge: OpenAIJudge, desk: Desk) -> None:
        """Connect to nothing yet."""
        self.judge, self.desk = judge, desk
        self.replies = Replies(desk.replies)
        self.known: dict[str, KeptReply] = {}
        self.missing: dict[str, str] = {}
        self.n_new = 0
        self._stop = threading.Event()
        self._reason = ""
        self._failures = 0
        self._kept = 0
        self._lock = threading.Lock()

    def answers(self, requests: Mapping[str, Request]) -> Session:
        """Fill `known` (replies by key) and `missing` (reasons by key); together they cover `requests`."""
        found = {key: self.replies.get(request.to_json(), KeptReply) for key, request in requests.items()}
        self.known = {key: reply for key, reply in found.items() if reply is not None}
        todo = [key for key in requests if key not in self.known]
        if not todo:
            return self
        endpoint = Endpoint(self.judge.base_url, self.judge.model, self.judge.settings, self._stop, self.desk.sleep)
        pool = ThreadPoolExecutor(self.judge.settings.concurrency)
        try:
            futures = {pool.submit(self._answer, endpoint, requests[key]): key for key in todo}
            for done, future in enumerate(as_completed(futures), start=1):
                reply = future.result()
                if isinstance(reply, str):
                    self.missing[futures[future]] = reply
                else:
                    self.known[futures[future]] = reply
                    self.n_new += 1
                self.desk.progress(done / len(todo), f"judge {self.judge.id}: {done} of {len(todo)} calls")
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
        self.known = {key: self.known[key] for key in requests if key in self.known}
        return self

    def _answer(self, endpoint: Endpoint, request: Request) -> KeptReply | str:
        """Return the reply, kept on disk if it would come again, or the reason why there is none."""
        if self._reason:
            return self._reason
        try:
            reply = endpoint.ask(request.messages, _Meter(self.judge, self.desk.budget, request))
        except _OverBudget as error:
            return str(error)
        except NoAnswer as error:
            self._failed(error)
            return str(error)
        asked, answered = self.judge.billed(request, reply.tokens)
        kept = KeptReply(text=reply.text, input_tokens=asked, output_tokens=answered, refused=list(reply.refused))
        if not reply.complete:
            self._failed(NoAnswer(NO_VERDICT))
            return kept
        self.replies.put(request.to_json(), kept)
        self._kept += 1
        if self._kept >= KILLED_AFTER:
            kill_point("judging")
        with self._lock:
            self._failures = 0
        return kept

    def _failed(self, error: NoAnswer) -> None:
        with self._lock:
            self._failures += 1
            if error.fatal or self._failures >= GIVE_UP_AFTER:
                self._reason = self._reason or f"the judge is unavailable: {error}"
                self._stop.set()


def _harmless(argument: str) -> str:
    """Return the argument for a message, without what could be a password."""
    return re.sub(r"//[^/]*@", "//...@", argument)
