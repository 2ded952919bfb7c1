"""The judging stage of a run: which judges, their verdicts on its answers, and what is missing."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from peo_bench.core.method import Objective
from peo_bench.files.atomic import finite, replacing, write_json, write_text
from peo_bench.files.digest import digest
from peo_bench.files.json_types import JsonObject
from peo_bench.files.spreadsheet import inert
from peo_bench.jobs.artefact import Damaged, require_plain, sealed, unsealed
from peo_bench.judges.endpoint import NO_VERDICT
from peo_bench.judges.judge import Desk, Judge, Judged
from peo_bench.judges.matchups import ORDERS, n_matches, pair_table
from peo_bench.judges.rubrics import RUBRICS
from peo_bench.results.judge_records import JudgeCard, JudgeCounts, JudgeMetrics, JudgingRecord, OverallWinRate, WinRate
from peo_bench.results.records import Missing

if TYPE_CHECKING:
    from peo_bench.runs.config import RunConfig

logger = logging.getLogger(__name__)

REPLIES, CALIBRATIONS = "judge-replies", "judge-calibrations"
"""Folders of the cache."""
VERDICTS, UNJUDGED = "judgements.parquet", "judgements-missing.csv"
"""Files of the run folder."""


@dataclass
class Judging:
    """What a run's judges said.

    `rows` is `judgements.parquet`, `unjudged` names what has no answer; `metrics` and `counts` by judge id; `missing`
    are entries of `run.json`.
    """

    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    unjudged: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: dict[str, JudgeMetrics] = field(default_factory=dict)
    counts: dict[str, JudgeCounts] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    spent_usd: float = 0.0
    budget_reached: bool = False

    @property
    def record(self) -> JudgingRecord | None:
        """What `run.json` tells; None where no judge was asked for."""
        return JudgingRecord(spent_usd=self.spent_usd, judges=self.counts) if self.counts else None

    def add(self, judge: str, found: Judged, calibrated: JsonObject | None) -> None:
        """Take in the numbers of one judge's verdicts, and what it is known to be worth."""
        expected = len(found.rows) + len(found.missing)
        unread = unreadable(found.rows)
        lost = [(found.missing["reason"], f"named in {UNJUDGED}"), (unread, f"their replies are in {VERDICTS}")]
        self.metrics[judge] = judge_metrics(found, calibrated)
        self.counts[judge] = JudgeCounts(
            expected=expected,
            ok=len(found.rows) - len(unread),
            missing=len(found.missing) + len(unread),
            calls=found.n_calls,
            calls_now=found.n_new,
        )
        for reasons, where in lost:
            for reason, n in reasons.value_counts(sort=False).items():
                what = f"judge {judge}: {n} of {expected} verdicts, {where}"
                self.missing.append(Missing(what=what, reason=str(reason), n=int(n), stage="judge"))


def judge_run(
    config: RunConfig, judges: Sequence[Judge], objectives: Sequence[Objective], answers: pd.DataFrame, desk: Desk
) -> Judging:
    """Let every judge compare the run's answers (`answers.parquet`); what is known is not asked again."""
    judging = Judging()
    if not judges:
        return judging
    pairs = pair_table(answers, config.judged, objectives, config.suite.judge.prompts)
    judged = {judge.id: judge.judge(pairs, desk) for judge in judges}
    judging.rows = pd.concat([j.rows.assign(judge=name) for name, j in judged.items()], ignore_index=True)
    judging.unjudged = pd.concat([j.missing.assign(judge=name) for name, j in judged.items()], ignore_index=True)
    for judge in judges:
        judging.add(judge.id, judged[judge.id], calibration(desk.replies.parent, judge))
    judging.spent_usd, judging.budget_reached = round(desk.budget.spent, 6), desk.budget.reached
    return judging


def unreadable(rows: pd.DataFrame) -> pd.Series:
    """Return why each of the replies is no verdict that are none; `rows` are those of `Judged`."""
    raw = rows.loc[rows["verdict"].isna(), "raw"]
    return raw.map(lambda text: NO_VERDICT if text.strip() else "the reply is empty")


def judge_metrics(judged: Judged, calibrated: JsonObject | None) -> JudgeMetrics:
    """Return one judge's entry in `metrics.json`."""
    from peo_bench.judges.card import card, elo_ratings, overall_win_rates, win_rates, without_surplus_ties

    known = {"agreement": calibrated["agreement"], "calibration": dict(calibrated)} if calibrated else {}
    counted = without_surplus_ties(judged.rows, judged.missing)
    return JudgeMetrics(
        card=JudgeCard(
            **card(judged.rows, n_calls=judged.n_calls, priced=judged.priced, refused=judged.refused), **known
        ),
        win_rates=[WinRate(**entry) for entry in win_rates(counted)],
        overall=[OverallWinRate(**entry) for entry in overall_win_rates(counted)],
        elo=elo_ratings(counted),
    )


def judge_plan(judges: Sequence[Judge], config: RunConfig, n_prompts: int) -> list[dict[str, Any]]:
    """Return one stage per judge with the most calls and, where the price is known, the most USD it can take."""
    matches = n_matches(len(config.methods), len(config.judged) - len(config.methods), len(config.preferences))
    prompts = min(n_prompts, config.suite.judge.prompts)
    calls = len(config.seeds) * matches * len(RUBRICS) * len(ORDERS) * prompts
    answer_tokens = config.suite.decoding.max_new_tokens
    return [
        {"stage": f"judge {judge.id}", "jobs": 1, "cached": 0, "cost": judge.estimate(calls, answer_tokens)}
        for judge in judges
    ]


def write_judgements(out: Path, judging: Judging) -> None:
    """Write the verdicts and name the missing ones; remove what an earlier, incomplete attempt left."""
    for name, table in ((VERDICTS, judging.rows), (UNJUDGED, judging.unjudged)):
        if not len(table):
            (out / name).unlink(missing_ok=True)
    first = ["judge", "objective", "seed", "preference", "method_a", "method_b"]
    if len(judging.rows):
        rows = judging.rows[[*first, *(column for column in judging.rows if column not in first)]]
        with replacing(out / VERDICTS) as path:
            rows.to_parquet(path, index=False)
    if len(judging.unjudged):
        rows = judging.unjudged[[*first, *(column for column in judging.unjudged if column not in first)]]
        cells = rows.map(lambda value: inert(value) if isinstance(value, str) else value)
        write_text(out / UNJUDGED, cells.to_csv(index=False))


def save_calibration(cache: Path, judge: Judge, agreement: Mapping[str, object]) -> None:
    """Remember how far a judge agrees with people, for the cards of later runs."""
    (cache / CALIBRATIONS).mkdir(parents=True, exist_ok=True)
    told = {"judge": judge.id, "measured_with": judge.identity()}
    write_json(_calibration(cache, judge), sealed(finite(told | dict(agreement))))


def calibration(cache: Path, judge: Judge) -> JsonObject | None:
    """Return what `save_calibration` kept of this judge - this model at this address, decoding alike - or None.

    One that is not as it was written counts as none, and this is said.
    """
    path = _calibration(cache, judge)
    if not path.exists():
        return None
    try:
        require_plain(path)
        told = unsealed(json.loads(path.read_text(encoding="utf-8")), path.name)
        if told["measured_with"] == judge.identity():
            return told
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, Damaged):
        pass
    logger.warning("%s is damaged and left out: type `peo-bench judge calibrate` again", path)
    return None


def _calibration(cache: Path, judge: Judge) -> Path:
    return cache / CALIBRATIONS / f"{digest(judge.identity())}.json"
