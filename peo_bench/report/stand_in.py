"""A run of given answers has no reference policy: what stands in for it goes by its own name, and is shown once."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from peo_bench.report.points import REFERENCE
from peo_bench.results.folder import RunFolder
from peo_bench.results.judge_records import JudgeMetrics
from peo_bench.results.metrics_records import Metrics, TaskMetrics

SIDES = ("method_a", "method_b")
"""Columns of `judgements.parquet` with a name."""


def by_its_name(folder: RunFolder) -> RunFolder:
    """Return the folder as people read it, with the name of the answers that stand in for the reference policy.

    They compete under it too, so rows of the reference policy are left out; judges keep what they said of both.
    """
    name = folder.run.stand_in
    if name is None:
        return folder
    judged = folder.judgements
    return replace(
        folder,
        points=_without(folder.points),
        answers=None if folder.answers is None else _without(folder.answers),
        judgements=None if judged is None else judged.replace({side: {REFERENCE: name} for side in SIDES}),
        metrics=Metrics(tasks={task: _named(metrics, name) for task, metrics in folder.metrics.tasks.items()}),
    )


def _without(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["method"] != REFERENCE]


def _named(metrics: TaskMetrics, name: str) -> TaskMetrics:
    judges = {judge: _judged(told, name) for judge, told in (metrics.judges or {}).items()}
    safety = tuple(row for row in metrics.safety if row.method != REFERENCE)
    return metrics.model_copy(update={"safety": safety, "judges": judges or None})


def _judged(told: JudgeMetrics, name: str) -> JudgeMetrics:
    names = {REFERENCE: name}
    rates = {
        key: tuple(rate.model_copy(update={side: names.get(getattr(rate, side), getattr(rate, side)) for side in "ab"})
                   for rate in getattr(told, key))
        for key in ("win_rates", "overall")
    }  # fmt: skip
    elo = {objective: {names.get(m, m): rating for m, rating in by.items()} for objective, by in told.elo.items()}
    return told.model_copy(update={**rates, "elo": elo})
