"""How figures look: a method's colour and marker, axes, lines, error bars, escaped texts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from peo_bench.files.json_types import JsonObject
from peo_bench.results.metrics_records import Ends

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A500")
"""Okabe & Ito's colour-blind-safe colours; their yellow is darkened, since it vanishes on paper."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "triangle-down", "hexagon")
GREY = "#808790"
LOW, PAPER, HIGH = "#D55E00", "#f4f2ee", "#0072B2"
"""Ends and middle of heat maps; told apart with every common colour blindness."""
ALARM = "#C8102E"
HOVER_LIMIT = 160


@dataclass(frozen=True)
class Style:
    """How a method is drawn everywhere: colour, marker and dash; unique up to 49 methods."""

    colour: str
    symbol: str
    dash: str


def method_styles(methods: Sequence[str]) -> dict[str, Style]:
    """Give every method its own colour and marker; colours repeat after 7, with another marker and a dotted line."""
    size = len(PALETTE)
    return {
        method: Style(PALETTE[i % size], SYMBOLS[(i + i // size) % size], "dot" if i >= size else "solid")
        for i, method in enumerate(methods)
    }


def plain(text: str) -> str:
    """Escape ``text`` for plotly, which renders a subset of HTML, and cut it to 160 characters.

    >>> plain("<b>100 %</b>")
    '&lt;b&gt;100 %&lt;/b&gt;'
    """
    cut = text if len(text) <= HOVER_LIMIT else f"{text[: HOVER_LIMIT - 1]}…"
    return html.escape(cut, quote=False)


LAYOUT: JsonObject = {
    "template": {},
    "showlegend": False,
    "dragmode": False,
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "hoverlabel": {"align": "left"},
}
LEGEND: JsonObject = {
    "orientation": "h",
    "y": -0.25,
    "yanchor": "top",
    "x": 0,
    "itemclick": False,
    "font": {"size": 12},
}
AXIS: JsonObject = {"zeroline": False, "ticks": "", "fixedrange": True, "gridwidth": 1}


def interval_bars(ends: Ends) -> JsonObject:
    """Return plotly's error bar for an estimate with its 95 % interval."""
    value, low, high = ends
    return {"type": "data", "symmetric": False, "width": 0, "array": [high - value], "arrayminus": [value - low]}


@dataclass(frozen=True)
class Look:
    """What one line has beside its marks: which are open and red, error bars, whether and how marks are joined."""

    hollow: Sequence[bool] = ()
    bars: JsonObject | None = None
    joined: bool = True
    shape: str = "linear"


PLAIN = Look()


def line(
    figure: go.Figure,
    method: str,
    style: Style,
    x: Sequence[float],
    y: Sequence[float | None],
    label: Sequence[str],
    look: Look = PLAIN,
) -> None:
    """Add one method's line with markers, or its markers alone; ``label`` hovers."""
    marked = [i < len(look.hollow) and look.hollow[i] for i in range(len(x))]
    symbols = [f"{style.symbol}-open" if bad else style.symbol for bad in marked]
    colours = [ALARM if bad else style.colour for bad in marked] if any(marked) else style.colour
    figure.add_scatter(
        x=list(x), y=y, mode="lines+markers" if look.joined else "markers",
        line={"color": style.colour, "width": 1.6, "dash": style.dash, "shape": look.shape},
        marker={"color": colours, "symbol": symbols, "size": 9}, error_y=look.bars,
        text=[plain(text) for text in label],
        hoverinfo="text", meta={"method": method, "role": "points"},
    )  # fmt: skip


def small(figure: go.Figure, x: JsonObject, y: JsonObject) -> go.Figure:
    """Lay out a figure of the size that goes beside another, with the axes ``x`` and ``y``."""
    figure.update_layout(**LAYOUT, height=340, hovermode="closest", xaxis=x, yaxis={**y, "automargin": True})
    figure.update_layout(margin={"l": 58, "r": 18, "t": 14, "b": 52})
    return figure


def faded(colour: str, opacity: float = 0.35) -> str:
    """Return a hexadecimal colour as a translucent one."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map: its value, what it shows, and what it says under the pointer."""

    value: float | None
    text: str
    hover: str


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Cell]],
    title: str,
    limits: tuple[float, float],
    *,
    diverging: bool,
) -> go.Figure:
    """Draw ``cells`` (n_rows, n_columns) as a heat map, first row on top, each cell with its text.

    Diverging maps are blue for high, orange for low and the page's paper between ``limits``; others run from paper to
    orange. The page replaces the paper's colour by its theme's, and keeps the figure ``least_width`` pixels wide, with
    a scroll bar where there is less. ``title`` is what a cell's value means.
    """
    names, heads = [_unlike_a_number(name) for name in rows], [_unlike_a_number(name) for name in columns]
    figure = go.Figure()
    figure.add_heatmap(
        x=heads, y=names, z=[[cell.value for cell in row] for row in cells],
        zmin=limits[0], zmax=limits[1], xgap=2, ygap=2, showscale=False,
        colorscale=[[0, LOW], [0.5, PAPER], [1, HIGH]] if diverging else [[0, PAPER], [1, LOW]],
        text=[[plain(cell.text) for cell in row] for row in cells], texttemplate="%{text}", textfont={"size": 12},
        hovertext=[[plain(cell.hover) for cell in row] for row in cells], hoverinfo="text", hoverongaps=False,
        meta={"method": "", "role": "cells", "diverging": diverging, "title": title},
    )  # fmt: skip
    side: JsonObject = {**AXIS, "type": "category", "automargin": True, "showgrid": False}
    figure.update_layout(
        **LAYOUT,
        height=90 + 34 * len(names),
        meta={"least_width": 150 + 54 * len(heads)},
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={**side, "side": "top", "tickangle": -35 if len(heads) > 4 else 0},
        yaxis={**side, "autorange": "reversed"},
    )
    return figure


def _unlike_a_number(name: str) -> str:
    """Escape a category's name, with a zero-width mark where plotly would read it as a number."""
    return plain(name) + ("\u200b" if name.replace(".", "").isdigit() else "")
