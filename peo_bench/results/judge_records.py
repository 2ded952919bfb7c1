"""What a judge said, as types: a part of `metrics.json` and of `run.json`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from peo_bench.results.record import Count, MethodName, Number, Record


class JudgeCard(Record):
    """What a reader must know of a judge before believing it."""

    position_consistency: Number
    """Share of the pairs shown in both orders whose verdict stays; null where nothing was shown."""
    parse_failures: Count
    """Replies without a readable verdict."""
    n_calls: Count
    """Different calls behind the verdicts."""
    usd: Number
    """What the replies cost; null where the price is not known."""
    ties: Count
    """Verdicts that neither answer is better."""
    skipped: Count
    """Comparisons without a call, since the answers were equal."""
    agreement: Number = None
    """Share of labels of people that it agrees with, where `judge calibrate` has measured it."""
    calibration: Mapping[str, JsonValue] | None = None
    """What `judge calibrate` found."""
    empty: Count = None
    """Replies without a text, among those without a verdict: the token limit or a filter came first."""
    refused: tuple[str, ...] | None = None
    """Parameters that the model refused, so that its own held."""


class OverallWinRate(Record):
    """An entry of `overall`: how often one method's answers win against another's, over all preferences."""

    objective: str
    """What was asked: which answer is more of this."""
    a: MethodName
    """The one method."""
    b: MethodName
    """The other."""
    win_rate: Number
    """Percent for `a`, ties count half."""
    ci_low: Number
    """Lower end of the 95 % interval."""
    ci_high: Number
    """Upper end of the 95 % interval."""
    n: Count
    """Prompts with a verdict in both orders."""
    n_wins: Count
    """Prompts that `a` wins."""
    n_losses: Count
    """Prompts that `b` wins."""
    n_ties: Count
    """Prompts that neither wins."""
    unparsed: Count
    """Replies without a readable verdict."""


class WinRate(OverallWinRate):
    """An entry of `win_rates`: the same at one asked preference."""

    preference: Number
    """Asked weight of the first objective; null for single policies."""


class JudgeMetrics(Record):
    """An entry of `judges` in `metrics.json`."""

    card: JudgeCard
    """How far it can be believed."""
    win_rates: tuple[WinRate, ...]
    """Every objective, pair and asked preference."""
    overall: tuple[OverallWinRate, ...]
    """Every objective and pair over all preferences."""
    elo: Mapping[str, Mapping[str, Number]]
    """By objective and method, the reference policy at 1000."""


class JudgeCounts(Record):
    """How many verdicts a judge owes and gave; `expected` is the sum of `ok` and `missing`."""

    expected: int
    """Verdicts wanted."""
    ok: int
    """Verdicts there are."""
    missing: int
    """Verdicts that are missing: there is no reply, or one that holds no verdict."""
    calls: int
    """Different calls behind them, made now or earlier."""
    calls_now: int
    """Calls of this invocation."""


class JudgingRecord(Record):
    """`judging` in `run.json`."""

    spent_usd: float
    """US dollars spent by this invocation."""
    judges: Mapping[str, JudgeCounts]
    """By judge id."""
