"""alpaca_eval's annotators as a judge: `--judge alpaca_eval:CONFIG`, for helpfulness only.

CONFIG is a configuration of the installed package or a folder with a configs.yaml; keys and addresses come from the
environment as upstream reads it (OPENAI_API_KEY, OPENAI_BASE_URL). Upstream shows a pair in an order drawn from its
instruction; asked again with the roles exchanged it shows the other one, so both orders are had. Verdicts may be
graded (0 to 1). Replies are kept after every match and order; what a call cost upstream does not say, so no budget can
be kept.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from peo_bench.errors import UsageError, unknown
from peo_bench.files.digest import digest
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.judges.alpaca_eval import annotate
from peo_bench.judges.endpoint import valid_text
from peo_bench.judges.judge import Bound, Desk, Judge, Judged, Recorded, verdict_table
from peo_bench.judges.matchups import IDENTITY, ORDERS, Comparison, Row, comparisons, identities
from peo_bench.judges.parsing import UNPARSEABLE, swapped
from peo_bench.judges.replies import Replies
from peo_bench.judges.settings import JudgeSettings
from peo_bench.settings import Frozen
from peo_bench.winrates.winrate import graded

OBJECTIVE = "helpful"
LOST = "lost"
UNPRICED = math.nan


class Annotation(Frozen):
    """A reply as the cache keeps it: the preference (1 baseline, 2 model; None: unparseable), what was said."""

    preference: float | None
    raw: str


class AlpacaEvalJudge(Judge):
    """Asks alpaca_eval 0.6 which answer is better; equal answers are ties without a call."""

    def __init__(self, argument: str, settings: JudgeSettings) -> None:
        """Find the configuration without importing the package."""
        spec = importlib.util.find_spec("alpaca_eval")
        places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
        known = [file.parent.name for place in places for file in Path(place).glob("evaluators_configs/*/configs.yaml")]
        file = Path(argument) / "configs.yaml"
        if argument not in known and not file.is_file():
            raise unknown("configuration of alpaca_eval", argument, known)
        self.config = argument
        self.id = _id(argument)
        own = f" {digest(file.read_text(encoding='utf-8'))[:8]}" if file.is_file() else ""
        address = os.environ.get("OPENAI_BASE_URL", "")
        self._told: JsonObject = {"alpaca_eval": argument, "configuration": own, "base_url": address}
        self.description = f"alpaca_eval {argument}{own} at {address or 'its own address'}, {settings.prompts} prompts"

    @property
    def can_be_priced(self) -> bool:
        """Whether a budget can be kept: no."""
        return False

    @classmethod
    def recorded(cls, argument: str, settings: JudgeSettings) -> Recorded:
        """Tell ties without a call again; what a reply means only its configuration says, and the address nobody."""
        told = rf"alpaca_eval {re.escape(argument)}( [0-9a-f]{{8}})? at .+, {settings.prompts} prompts"
        return Recorded(_id(argument), told, (OBJECTIVE,), _again)

    def identity(self) -> JsonObject:
        """Return the configuration and where it calls."""
        return self._told

    def estimate(self, n_calls: int, answer_tokens: int) -> Bound:
        """Bound the calls: one objective of the two."""
        return {"judge_calls": n_calls // 2}

    def judge(self, pairs: pd.DataFrame, desk: Desk) -> Judged:
        """Annotate match by match in both orders; after a failure of the API the rest is missing."""
        replies, failure, n_new = Replies(desk.replies), "", 0
        rows: list[Row] = []
        batches = list(_batches(pairs[pairs["objective"] == OBJECTIVE]))
        for done, (order, part) in enumerate(batches, start=1):
            try:
                n_new += 0 if failure else self._ask(part, order, replies)
            except UsageError as error:
                key = os.environ.get("OPENAI_API_KEY")
                failure = str(error).replace(key, "***") if key else str(error)
            rows += [self._row(pair, order, replies, failure) for pair in comparisons(part)]
            desk.progress(done / len(batches), f"judge {self.id}: {done} of {len(batches)} matches")
        table = verdict_table(rows, "key")
        lost = table["key"].eq(LOST).to_numpy(dtype=bool)
        answered = table[~lost].drop(columns="key").reset_index(drop=True)
        calls = len({row["key"] for row in rows} - {"", LOST})
        return Judged(answered, table.loc[lost, [*IDENTITY, "order", "reason"]], calls, n_new, priced=False)

    def _ask(self, part: pd.DataFrame, order: str, replies: Replies) -> int:
        """Annotate the comparisons of one match that have no verdict yet; return how many those were."""
        different = part[part["answer_a"] != part["answer_b"]]
        requests = [self._request(pair, order) for pair in comparisons(different)]
        kept = [replies.get(request, Annotation) for request in requests]
        unread = [reply is None or reply.preference is None for reply in kept]
        new = list(compress(requests, unread))
        for request, reply in zip(new, _annotated(new, self.config), strict=True):
            replies.put(request, reply)
        return len(new)

    def _row(self, pair: Comparison, order: str, replies: Replies, failure: str) -> Row:
        """Return the row of one comparison; its `key` is that of its call, or `LOST`."""
        head = pair.identity() | {"order": order, "verdict": 0.5, "raw": "", "usd": 0.0, "asked": False, "key": ""}
        if pair.answer_a == pair.answer_b:
            return head | {"reason": "equal answers"}
        request = self._request(pair, order)
        reply = replies.get(request, Annotation)
        if reply is None:
            return head | {"reason": failure, "key": LOST}
        share = UNPARSEABLE if reply.preference is None else float(graded([reply.preference])[0])
        verdict = share if order == "ab" else swapped(share)
        said = {"verdict": verdict, "reason": "", "raw": reply.raw, "usd": UNPRICED}
        return head | said | {"asked": True, "key": digest(request)}

    def _request(self, pair: Comparison, order: str) -> JsonObject:
        """Return what decides the reply; in order "ab" a is upstream's model and b its baseline."""
        model, baseline = (pair.answer_a, pair.answer_b) if order == "ab" else (pair.answer_b, pair.answer_a)
        return self._told | {"instruction": pair.prompt, "model": model, "baseline": baseline}


def _id(argument: str) -> str:
    return f"alpaca_eval-{Path(argument).name}"


def _again(pairs: pd.DataFrame, said: Judged) -> Judged:
    """Return what was said, as it must be where both answers are equal and where upstream was asked."""
    same = {*identities(pairs[pairs["answer_a"] == pairs["answer_b"]])}
    rows = said.rows
    tied = pd.Series([place in same for place in identities(rows)], index=rows.index, dtype=bool)
    share = rows["verdict"].where(rows["verdict"].between(0, 1))
    rows = rows.assign(
        verdict=share.mask(tied, 0.5), asked=~tied, usd=np.where(tied, 0.0, UNPRICED), raw=rows["raw"].mask(tied, "")
    )
    return replace(said, rows=rows.assign(reason=np.where(tied, "equal answers", "")), priced=False)


def _batches(pairs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield (order, comparisons) of one match each, every prompt once: upstream joins answers by their instruction."""
    copies = pairs.groupby(["seed", "method_a", "method_b", "preference", "prompt"], dropna=False).cumcount()
    for _, part in pairs.groupby(["seed", "method_a", "method_b", "preference", copies], sort=False, dropna=False):
        for order in ORDERS:
            yield order, part


def _annotated(requests: Sequence[JsonObject], config: str) -> list[Annotation]:
    """Return upstream's reply to each request."""
    if not requests:
        return []
    model, baseline = (
        [{"instruction": r["instruction"], "output": r[side], "generator": side} for r in requests]
        for side in ("model", "baseline")
    )
    found = {row["instruction"]: row for row in annotate(model, baseline, config)}
    return [_reply(found[request["instruction"]]) for request in requests]


def _reply(row: JsonObject) -> Annotation:
    return Annotation(preference=_number(row.get("preference")), raw=valid_text(str(row.get("raw_completion") or "")))


def _number(preference: Json) -> float | None:
    """Return a preference as a float; None where it is absent or not finite."""
    return float(preference) if isinstance(preference, int | float) and math.isfinite(preference) else None
