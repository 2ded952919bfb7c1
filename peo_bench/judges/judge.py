"""What a judge is: it compares two answers to a prompt by one objective, in both orders.

`--judge KIND[:ARGUMENT]` names one; kinds are classes registered in `peo_bench.judges.JUDGES` or by the entry-point
group "peo_bench.judges".
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from peo_bench.errors import UsageError
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.workspace import Progress
from peo_bench.judges import JUDGES
from peo_bench.judges.budget import Budget
from peo_bench.judges.endpoint import check_key_name
from peo_bench.judges.settings import JudgeSettings

if TYPE_CHECKING:
    import pandas as pd


class Bound(TypedDict, total=False):
    """The most that a judge can take: calls and, where it is priced, USD."""

    judge_calls: int
    usd: float


@dataclass(frozen=True)
class Desk:
    """What judges share in one invocation: where replies are kept, what may be spent, who watches, how to wait."""

    replies: Path
    budget: Budget = field(default_factory=Budget)
    progress: Progress = lambda fraction, note: None
    sleep: Callable[[float], None] | None = None


@dataclass(frozen=True)
class Judged:
    """A judge's verdicts.

    `rows`: the columns of `judgements.parquet` (docs/run-folder.md) but `judge`, one row per answered comparison and
    order; `missing`: comparisons and orders without an answer, with `reason`. `n_calls` counts the different calls
    answered, now or earlier, `n_new` those of this invocation. `priced` says whether `usd` is known; `refused` are
    parameters that the model did not take.
    """

    rows: pd.DataFrame
    missing: pd.DataFrame
    n_calls: int
    n_new: int
    priced: bool
    refused: tuple[str, ...] = ()


def verdict_table(rows: Sequence[Mapping[str, object]], *more: str) -> pd.DataFrame:
    """Return rows as `Judged.rows` has them (and the columns `more`), typed even where there are none."""
    import pandas as pd

    from peo_bench.judges.matchups import IDENTITY

    table = pd.DataFrame(rows, columns=[*IDENTITY, "order", "verdict", "reason", "raw", "usd", "asked", *more])
    return table.astype({"verdict": float, "usd": float, "asked": bool})


def _as_stated(pairs: pd.DataFrame, said: Judged) -> Judged:
    """Return what was said: of other kinds of judges it follows from nothing."""
    return said


@dataclass(frozen=True)
class Recorded:
    """What the name and the settings of a judge tell of it, with no file opened and no address asked.

    `id` is None where more than that decides it; `description` is a regular expression; `objectives` are those it
    judges, None for all. `again(pairs, said)` returns what follows from the comparisons and from the replies in `said`:
    verdicts, which of them had to be asked for, and what they cost, within what they can have cost.
    """

    id: str | None = None
    description: str = ".*"
    objectives: tuple[str, ...] | None = None
    again: Callable[[pd.DataFrame, Judged], Judged] = _as_stated


class Judge(ABC):
    """One judge. `id` names its column everywhere; `description` holds all else that its verdicts depend on."""

    id: str
    description: str

    @abstractmethod
    def __init__(self, argument: str, settings: JudgeSettings) -> None:
        """Check what stood behind the colon; connect to nothing. Raises `UsageError`."""

    @abstractmethod
    def judge(self, pairs: pd.DataFrame, desk: Desk) -> Judged:
        """Compare the rows of a table as `peo_bench.judges.matchups` describes it, each in both orders."""

    @classmethod
    def recorded(cls, argument: str, settings: JudgeSettings) -> Recorded:
        """Return what a finished run's judge must be, and what it must have said; `UsageError` for no such judge."""
        return Recorded()

    def identity(self) -> JsonObject:
        """Return what its verdicts on a text depend on: calibrations belong to it."""
        return {"judge": self.id}

    def estimate(self, n_calls: int, answer_tokens: int) -> Bound:
        """Bound what `n_calls` cost, for answers of at most so many tokens."""
        return {"judge_calls": n_calls}

    @property
    def can_be_priced(self) -> bool:
        """Whether a budget can be kept: the judge is free or its price is known."""
        return True


def make_judge(text: str, settings: JudgeSettings) -> Judge:
    """Return the judge called `text` ("openai:MODEL@BASE_URL", "scorers", ...); raise `UsageError` if it is none."""
    kind, _, argument = text.partition(":")
    return JUDGES.get(kind)(argument, settings)


def recorded_judge(text: str, settings: JudgeSettings) -> Recorded:
    """Return what follows of the judge called `text`, nothing opened or asked; `UsageError` if it is none."""
    kind, _, argument = text.partition(":")
    return JUDGES.get(kind).recorded(argument, settings)


def make_judges(names: Sequence[str], settings: JudgeSettings, max_usd: float | None = None) -> list[Judge]:
    """Return the judges called `names`; raise `UsageError` for unknown, equal or, under a budget, unpriced ones."""
    check_key_name(settings.api_key_env)
    if max_usd is not None and math.isnan(max_usd):
        raise UsageError("--max-usd nan: give the most that judges may spend in USD, as in --max-usd 5")
    judges = [make_judge(name, settings) for name in names]
    ids = [judge.id for judge in judges]
    for judge in judges:
        if ids.count(judge.id) > 1:
            raise UsageError(f"--judge: {judge.id} is named twice: numbers of two judges cannot share a name")
        if max_usd is not None and not judge.can_be_priced:
            model = judge.id.rpartition("-")[0]
            raise UsageError(
                f"--max-usd needs the price of {model}: type --set 'judge.prices={{{model}: {{input: 1, output: 2}}}}' "
                "(USD per million tokens) or put it into the suite file under judge"
            )
    return judges
