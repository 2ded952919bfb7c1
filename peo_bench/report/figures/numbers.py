"""The numbers of a figure as a table: for readers who cannot see it, and for download."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import replace

import plotly.graph_objects as go

from peo_bench.report.tables import Row, Table
from peo_bench.report.wording import decimal, method_name

DIGITS = 3
SHOWN = ("points", "ink", "bars", "cells")
"""Roles of traces that carry numbers; stairs and bands follow from the points."""


def numbers(variants: Iterable[tuple[str, go.Figure]]) -> Table:
    """List what the figures show, a row per mark, bar or line of cells; the variant's name heads its rows."""
    several = list(variants)
    rows: list[Row] = []
    columns: tuple[tuple[str, str], ...] = ()
    for name, figure in several:
        traces = [trace for trace in figure.data if trace.meta["role"] in SHOWN]
        kinds = {trace.type for trace in traces}
        table = _cells(traces[0]) if kinds == {"heatmap"} else _bars(traces) if kinds == {"bar"} else _marks(figure)
        prefix = f"{name}: " if len(several) > 1 else ""
        rows += [replace(row, label=prefix + row.label) for row in table.rows]
        columns = max(columns, table.columns, key=len)
    return Table(columns, tuple(_filled(row, len(columns)) for row in rows), head="")


def _filled(row: Row, width: int) -> Row:
    return Row(
        row.method, row.label, row.kind, row.key, row.cells + ((decimal(None), None),) * (width - len(row.cells))
    )


def _marks(figure: go.Figure) -> Table:
    """Scatter traces: x and y, and the ends of error bars; categories on the y axis become labels."""
    rows, bars = [], False
    by_category = figure.layout.yaxis.type == "category"
    for trace in (trace for trace in figure.data if trace.meta["role"] in SHOWN):
        error = trace.error_x if by_category else trace.error_y
        high = None if error is None else error.array
        low = high if error is None or error.arrayminus is None else error.arrayminus
        name = trace.meta.get("name") or method_name(trace.meta["method"])
        for i, (x, y) in enumerate(zip(trace.x, trace.y, strict=True)):
            value = x if by_category else y
            cells = [] if by_category else [_number(x)]
            cells.append(_number(value))
            if high is not None and low is not None and value is not None:
                bars = True
                cells += [_number(value - low[i]), _number(value + high[i])]
            rows.append(Row(trace.meta["method"], _text(y) if by_category else name, "", "", tuple(cells)))
    titles = [] if by_category else [_text(figure.layout.xaxis.title.text or "x")]
    titles += ["value" if by_category else _text(figure.layout.yaxis.title.text or "y")]
    return Table(tuple((title, "") for title in titles + (["low", "high"] if bars else [])), tuple(rows))


def _bars(traces: list[go.Bar]) -> Table:
    """Horizontal bars: a column per trace, a row per category."""
    rows = [
        Row("", _text(category), "", "", tuple(_number(trace.x[i]) for trace in traces))
        for i, category in enumerate(traces[0].y)
    ]
    return Table(tuple((trace.meta["name"], "") for trace in traces), tuple(rows))


def _cells(trace: go.Heatmap) -> Table:
    rows = [
        Row("", _text(name), "", "", tuple(map(_number, values))) for name, values in zip(trace.y, trace.z, strict=True)
    ]
    return Table(tuple((_text(name), trace.meta["title"]) for name in trace.x), tuple(rows))


def _number(value: float | None) -> tuple[str, float | None]:
    return decimal(value, DIGITS), None if value is None else float(value)


def _text(value: object) -> str:
    return html.unescape(str(value)).strip("\u200b")
