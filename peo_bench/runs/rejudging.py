"""The judging stage of a finished run, put together again: which judges it must have, and what follows from replies.

No address is asked and no file of the configuration is opened: `peo_bench.judges.judge.Recorded` says what can be told
without. Verdicts of scorers follow from the scores, those of an endpoint from its replies.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd

from peo_bench.core.method import Objective
from peo_bench.errors import UsageError
from peo_bench.files.spreadsheet import as_it_was
from peo_bench.judges import JUDGES
from peo_bench.judges.judge import Judged, Recorded, recorded_judge
from peo_bench.judges.matchups import IDENTITY, ORDERS, identities, pair_table
from peo_bench.results.differences import MOST, column_problems, json_problems
from peo_bench.results.folder import RunFolder
from peo_bench.results.judge_records import JudgeCounts, JudgeMetrics
from peo_bench.results.record import damaged
from peo_bench.results.tables import UNJUDGED, VERDICTS, Kinds, read_csv, read_parquet
from peo_bench.runs.config import RunConfig
from peo_bench.runs.judging import UNJUDGED as UNJUDGED_FILE
from peo_bench.runs.judging import VERDICTS as VERDICTS_FILE
from peo_bench.runs.judging import Judging

PLACE = ["judge", *IDENTITY, "order"]
SAID = ["verdict", "reason", "raw", "usd", "asked"]
"""Columns of a verdict that may follow from others."""
WHOLE: Kinds = {
    **VERDICTS,
    **dict.fromkeys(("reason", "raw", "spec_key_a", "spec_key_b"), "text"),
    "usd": "number",
    "asked": "",
}
"""`judgements.parquet` as every run writes it."""


class Rejudged:
    """What the judges of a finished run said: `judging`, and `said`, what does not fit."""

    def __init__(self, folder: Path, run: RunFolder, config: RunConfig) -> None:
        """Read the verdicts of all judges, and which are missing; `UsageError` for a folder that is damaged."""
        self._run, self._config = run, config
        self.judging, self.said = Judging(), list[str]()
        self._judges = _recorded(folder, config)
        self._rows, self._missing = _verdicts(folder)
        self.said += column_problems(VERDICTS_FILE, self._rows, [*PLACE, *SAID])
        self.said += column_problems(UNJUDGED_FILE, self._missing, [*PLACE, "reason"])

    def judge(self, answers: pd.DataFrame, objectives: Sequence[Objective]) -> Judging:
        """Return what judges said of the run's `answers`, from their verdicts.

        Calibrations and refused parameters are taken as stated, and so is all that no reply tells.
        """
        told, stated = self._run.run, self._run.run.judging
        counts = stated.judges if stated else {}
        described = told.measure.judges if told.measure else {}
        by_id = self._by_id(counts)
        self.said += self._strangers(by_id, counts, described)
        if not by_id:
            return self.judging
        methods = self._config.judged
        pairs = pair_table(answers, methods, objectives, self._config.suite.judge.prompts)
        task = self._run.metrics.tasks.get(self._config.suite.task)
        for name, judge in by_id.items():
            if name in counts:
                about = task.judges.get(name) if task and task.judges else None
                self._take(name, judge, counts[name], about, pairs)
        self.judging.spent_usd = stated.spent_usd if stated else 0.0
        return self.judging

    def _by_id(self, counts: Mapping[str, JudgeCounts]) -> dict[str, Recorded]:
        """Return the judges of config.yaml by id; of kinds that do not tell it, what is left in `counts`."""
        known = {judge.id: judge for judge in self._judges if judge.id}
        left = iter(name for name in counts if name not in known)
        return {name: judge for judge in self._judges if (name := judge.id or next(left, None))}

    def _strangers(
        self, by_id: Mapping[str, Recorded], counts: Mapping[str, JudgeCounts], described: Mapping[str, str]
    ) -> Iterator[str]:
        """Say where config.yaml names other judges than the rest of the folder, or says other things of them."""
        if len(by_id) != len(self._config.judges):
            yield f"config.yaml: judges: names {len(self._config.judges)}, of {len(by_id)} there is something"
        said = {"run.json: judging": counts, "run.json: measure.judges": described}
        for place, names in said.items():
            for name in sorted(by_id.keys() - names.keys()):
                yield f"{place} lacks {name}, a judge of config.yaml"
            for name in sorted(names.keys() - by_id.keys()):
                yield f"{place} has {name}, which is no judge of config.yaml"
        for name in sorted(by_id.keys() & described.keys()):
            if not re.fullmatch(by_id[name].description, described[name], re.DOTALL):
                yield f"run.json: measure.judges.{name} is {described[name]!r}, which config.yaml does not say of it"
        for file, table in ((VERDICTS_FILE, self._rows), (UNJUDGED_FILE, self._missing)):
            for name in sorted({*table["judge"]} - by_id.keys()):
                yield f"{file}: {name!r} is no judge of config.yaml"

    def _take(
        self, name: str, judge: Recorded, counts: JudgeCounts, about: JudgeMetrics | None, pairs: pd.DataFrame
    ) -> None:
        """Take in the verdicts of one judge."""
        own, missing = (table[table["judge"] == name].drop(columns="judge") for table in (self._rows, self._missing))
        wanted = pairs if judge.objectives is None else pairs[pairs["objective"].isin(judge.objectives)]
        found = Counter(place for table in (own, missing) for place in identities(table, "order"))
        if found != Counter((*place, order) for place in identities(wanted) for order in ORDERS):
            self.said.append(f"{VERDICTS_FILE}: the verdicts of {name} are not on the comparisons of this run")
            return
        card = about.card if about else None
        stated = Judged(
            own, missing, counts.calls, counts.calls_now, card is not None and card.usd is not None,
            (card.refused if card else None) or (),
        )  # fmt: skip
        again = judge.again(wanted, stated)
        self.said += islice(_differences(name, own, again.rows), MOST)
        if counts.calls_now > again.n_calls:
            self.said.append(
                f"run.json: judging.judges.{name}.calls_now is {counts.calls_now}, of {again.n_calls} calls"
            )
        calibration = card.calibration if card else None
        judged = Judged(own, missing, again.n_calls, counts.calls_now, again.priced, stated.refused)
        self.judging.add(name, judged, dict(calibration) if calibration else None)


def _recorded(folder: Path, config: RunConfig) -> list[Recorded]:
    """Return what config.yaml says of its judges."""
    path = folder / "config.yaml"
    judges = []
    for name in config.judges:
        if (kind := name.partition(":")[0]) not in JUDGES.names():
            raise UsageError(f"{path}: a judge of kind {kind!r}: install the package of the run's judge")
        try:
            judges.append(recorded_judge(name, config.suite.judge))
        except UsageError as error:
            raise damaged(path, str(error)) from None
    return judges


def _verdicts(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the verdicts of all judges, and those that are missing."""
    rows, missing = pd.DataFrame(columns=[*PLACE, *SAID]), pd.DataFrame(columns=[*PLACE, "reason"])
    if (folder / VERDICTS_FILE).exists():
        rows = read_parquet(folder / VERDICTS_FILE, WHOLE)
    if (folder / UNJUDGED_FILE).exists():
        missing = read_csv(folder / UNJUDGED_FILE, UNJUDGED)
        missing = missing.map(lambda value: as_it_was(value) if isinstance(value, str) else value)
    return rows, missing


def _differences(judge: str, stated: pd.DataFrame, computed: pd.DataFrame) -> Iterator[str]:
    """Say which verdicts are not what scores or replies give."""
    follows = dict(zip(identities(computed, "order"), computed[SAID].to_dict("records"), strict=True))
    told = dict(zip(identities(stated, "order"), stated[SAID].to_dict("records"), strict=True))
    for place, row in follows.items():
        objective, seed, preference, a, b, _, _, prompt, order = place
        of = f"{objective}, seed {seed}, preference {preference}, {a} and {b}, prompt {prompt}, order {order}"
        where = f"{VERDICTS_FILE}: {judge}: {of}"
        if place not in told:
            yield f"{where}: is missing, though nobody had to be asked"
        else:
            yield from (f"{where}: {line}" for line in json_problems(told[place], row, by="scores and replies give"))
