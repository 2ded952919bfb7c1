"""How far the scorers that training and search saw can be trusted: correlations with the reported ones and each other.

Held-out accuracy does not show it: a proxy may order answers to a prompt well and still get wrong by how much they
differ, which is what a search trades.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from peo_bench.report.contents import TaskView
from peo_bench.report.tables import Row, Table
from peo_bench.report.wording import decimal

PROXY = "_proxy"


def proxy_table(view: TaskView, answers: pd.DataFrame | None) -> Table:
    """List correlations within prompts (answers of all policies around their prompt's mean) and over policies' means.

    Empty where both columns have no other scorer. Each training seed has its own proxies: seeds are averaged.
    """
    titles = (
        ("Within prompts", "correlation over answers, each around the mean of its prompt"),
        ("Over policies", "correlation of policies' means: what a search of policies needs"),
    )
    columns = [axis.column for axis in view.axes]
    if answers is None or not {*columns, *(c + PROXY for c in columns)} <= {*answers.columns}:
        return Table((), ())
    test = answers[answers["split"] == "test"].dropna(subset=[*columns, *(c + PROXY for c in columns)])
    found: dict[str, list[tuple[float, float]]] = {}
    for _, own in test.groupby("seed"):
        for name, first, second in _pairs(view, own):
            frame = own.assign(first=first, second=second)
            groups = frame.groupby("prompt_id")[["first", "second"]]
            within = frame[["first", "second"]] - groups.transform("mean")
            means = frame.groupby("spec_key")[["first", "second"]].mean()
            found.setdefault(name, []).append((_correlation(within), _correlation(means)))
    rows = []
    for name, values in found.items():
        mean = np.mean(values, axis=0).tolist()
        rows.append(Row("", name, "", "", tuple((decimal(v), v if np.isfinite(v) else None) for v in mean)))
    return Table(titles, tuple(rows), head="Scores")


def _pairs(view: TaskView, own: pd.DataFrame) -> Iterator[tuple[str, pd.Series[float], pd.Series[float]]]:
    """Yield a name and two columns of scores to correlate."""
    for axis in view.axes:
        yield f"{axis.column}: proxy and reported score", own[axis.column + PROXY], own[axis.column]
    yield "both objectives, equal weights: proxies and reported scores", _sum(view, own, PROXY), _sum(view, own)
    x, y = (axis.column for axis in view.axes)
    yield f"{x} and {y}, proxies", own[x + PROXY], own[y + PROXY]
    yield f"{x} and {y}, reported scores", own[x], own[y]


def _sum(view: TaskView, own: pd.DataFrame, suffix: str = "") -> pd.Series[float]:
    """Return equal-weight utility in standard deviations of the reference policy's answers, or of all without them."""
    units = own[own["method"] == "reference"]
    units = units if len(units) > 1 else own
    parts = [
        (1 if axis.maximise else -1) * own[axis.column + suffix] / units[axis.column + suffix].std()
        for axis in view.axes
    ]
    return parts[0] + parts[1]


def _correlation(pair: pd.DataFrame) -> float:
    return float(pair["first"].corr(pair["second"]))
