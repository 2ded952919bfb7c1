"""Operating points as the report reads them from points.csv."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import pandas as pd

from peo_bench.report.texts import policy_key
from peo_bench.report.wording import at_most, decimal, method_name
from peo_bench.results.folder import number, truth

REFERENCE, ORACLE = "reference", "oracle"
AIDS = (REFERENCE, ORACLE)
"""Yardsticks that nobody can take."""


@dataclass(frozen=True)
class Axis:
    """One objective as an axis: its column in points.csv and its direction."""

    name: str
    column: str
    maximise: bool


@dataclass(frozen=True)
class Point:
    """One operating point: mean scores on test prompts with standard errors, KL in nats per answer.

    ``x_proxy`` and ``y_proxy``: the same answers under the scorers that training and selection used, where others
    score.
    """

    key: str
    method: str
    name: str
    seed: int
    weight: float | None
    x: float
    x_se: float | None
    y: float
    y_se: float | None
    kl: float | None
    kl_bound: float | None
    length: float | None
    n: int | None
    nondominated: bool
    hollow: bool
    grid: str
    x_proxy: float | None = None
    y_proxy: float | None = None


def read_points(table: pd.DataFrame, task: str, axes: tuple[Axis, Axis]) -> tuple[Point, ...]:
    """Read the test points of one task; rows without finite scores are no points (the run lists them as missing)."""
    own = table[table["task"].astype(str) == task]
    test = own[own["split"] == "test"] if "split" in own else own
    read = (_point(row, axes) for row in test.to_dict("records"))
    return tuple(point for point in read if point is not None)


def _point(row: Mapping[Hashable, object], axes: tuple[Axis, Axis]) -> Point | None:
    first, second = axes
    x, y = number(row.get(first.column)), number(row.get(second.column))
    if x is None or y is None:
        return None
    method, weight, n = str(row["method"]), number(row.get(f"preference_{first.name}")), number(row.get("n"))
    return Point(
        key="" if method == ORACLE else policy_key(method, row.get("seed"), weight),
        method=method,
        name=method_name(method),
        seed=int(number(row.get("seed")) or 0),
        weight=weight,
        x=x,
        x_se=number(row.get(f"{first.column}_se")),
        y=y,
        y_se=number(row.get(f"{second.column}_se")),
        kl=number(row.get("kl")),
        kl_bound=number(row.get("kl_bound")),
        length=number(row.get("length")),
        n=None if n is None else int(n),
        nondominated=truth(row.get("nondominated")),
        hollow=truth(row.get("hollow")),
        grid=str(row.get("grid", "asked")),
        x_proxy=number(row.get(f"{first.column}_proxy")),
        y_proxy=number(row.get(f"{second.column}_proxy")),
    )


def summary(point: Point, axes: tuple[Axis, Axis]) -> str:
    """Describe a point's scores in one line, for tooltips and the texts panel."""
    x, y = axes
    parts = [f"{x.column} {decimal(point.x)}", f"{y.column} {decimal(point.y)}"]
    if point.kl is not None or point.kl_bound is not None:
        name = "KL budget" if point.method == ORACLE else "KL"
        parts.append(f"{name} {at_most(point.kl, point.kl_bound)} nats")
    return " · ".join(parts)
