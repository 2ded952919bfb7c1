"""The hero figure: every method's front, the reference policy, the oracle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from peo_bench import pareto
from peo_bench.files.json_types import JsonObject
from peo_bench.report.contents import TaskView
from peo_bench.report.figures.style import AXIS, GREY, LAYOUT, Style, faded, plain
from peo_bench.report.points import Point, summary
from peo_bench.report.wording import balance

DASHES = ("8 5", "3 4", "1 4", "12 4")
"""Of the oracle's lines, from the widest KL budget on."""


@dataclass(frozen=True)
class Geometry:
    """What plotly's figure and the static picture share.

    ``stairs[method, seed]`` (n_vertices, 2) encloses that front's hypervolume; ranges run from worse to better.
    """

    stairs: Mapping[tuple[str, int], NDArray[np.float64]]
    oracle: Mapping[float | None, Sequence[Point]]
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def drawn_order(view: TaskView, methods: Iterable[str] | None = None) -> list[str]:
    """Return `methods` (all of `view`) with free controls first, so that none covers the method it copies."""
    return sorted(view.methods if methods is None else methods, key=lambda method: method not in view.controls)


def front_geometry(view: TaskView) -> Geometry:
    """Work out the staircases, the oracle's lines and the axis ranges of the hero figure."""
    x_range = _range([(p.x, p.x_se) for p in view.points], view.bound and view.bound[0], view.axes[0].maximise)
    y_range = _range([(p.y, p.y_se) for p in view.points], view.bound and view.bound[1], view.axes[1].maximise)
    bound = view.bound or (x_range[0], y_range[0])
    maximise = [axis.maximise for axis in view.axes]
    stairs = {}
    for method in drawn_order(view):
        for seed in sorted({p.seed for p in view.of(method)}):
            own = [(p.x, p.y) for p in view.of(method) if p.seed == seed and p.grid == "asked"]
            stairs[method, seed] = pareto.staircase(own, bound, maximise)
    return Geometry(stairs, _oracle_lines(view, maximise), x_range, y_range)


def front_figure(
    view: TaskView,
    styles: Mapping[str, Style],
    geometry: Geometry,
    bands: Mapping[str, NDArray[np.float64]] | None = None,
) -> go.Figure:
    """Draw the fronts with "better" up and right: every policy a point, dominated ones hollow.

    ``bands[method]`` (n_vertices, 2): the region where that front lies in 95 % of resamples.
    """
    x, y = view.axes
    figure = go.Figure([
        *_band_traces(view, styles, bands or {}),
        *_oracle_traces(view, geometry),
        *_stair_traces(geometry, styles),
        *(_points_trace(view, method, styles[method]) for method in drawn_order(view)),
        *_reference_traces(view, geometry),
    ])  # fmt: skip
    figure.update_layout(
        **LAYOUT,
        hovermode="closest",
        margin={"l": 58, "r": 18, "t": 34, "b": 52},
        xaxis={**AXIS, "title": {"text": _title(x.column, x.name, "→")}, "range": list(geometry.x_range)},
        yaxis={**AXIS, "title": {"text": _title(y.column, y.name, "→")}, "range": list(geometry.y_range)},
        annotations=[_better()],
    )
    return figure


def _range(values: Iterable[tuple[float, float | None]], bound: float | None, maximise: bool) -> tuple[float, float]:
    """Return (worse, better) around all values and their errors, and the bound where it is near."""
    spread = [value + side * (error or 0.0) for value, error in values for side in (-1, 1)] or [0.0, 1.0]
    low, high = min(spread), max(spread)
    span = (high - low) or 1.0
    if bound is not None and -0.3 * span <= bound - low <= 1.3 * span:
        low, high = min(low, bound), max(high, bound)
    low, high = low - 0.05 * span, high + 0.05 * span
    return (low, high) if maximise else (high, low)


def _oracle_lines(view: TaskView, maximise: list[bool]) -> dict[float | None, list[Point]]:
    """Group the oracle's trustworthy, non-dominated points by KL budget, ordered by x."""
    solid = [p for p in view.of("oracle") if not p.hollow]
    lines = {}
    for budget in sorted({p.kl for p in solid}, key=lambda kl: (kl is not None, kl or 0.0)):
        own = [p for p in solid if p.kl == budget]
        mask = pareto.nondominated([(p.x, p.y) for p in own], maximise)
        lines[budget] = sorted((p for p, keep in zip(own, mask, strict=True) if keep), key=lambda p: p.x)
    return lines


def oracle_lines(geometry: Geometry) -> list[tuple[str, str, Sequence[Point]]]:
    """Return name, dashes ("6 5": pixels drawn and left out) and points of the oracle's lines, those of dots left out.

    The legend names them: a label beside a line would lie on marks.
    """
    lines = {budget: line for budget, line in geometry.oracle.items() if len(line) > 1}
    return [
        ("oracle" if budget is None else f"oracle, KL ≤ {budget:.3g}", DASHES[(len(lines) - 1 - i) % len(DASHES)], line)
        for i, (budget, line) in enumerate(lines.items())
    ]


def _oracle_traces(view: TaskView, geometry: Geometry) -> list[go.Scatter]:
    meta: JsonObject = {"method": "oracle", "role": "muted"}
    lines = [
        go.Scatter(
            x=[p.x for p in line],
            y=[p.y for p in line],
            mode="lines",
            line={"dash": dash.replace(" ", "px,") + "px", "width": 1.3, "color": GREY},
            hoverinfo="skip",
            meta=meta | {"name": name},
        )
        for name, dash, line in oracle_lines(geometry)
    ]
    bounds = view.of("oracle")
    marker: JsonObject = {"size": 5, "symbol": ["circle-open" if p.hollow else "circle" for p in bounds], "color": GREY}
    return [*lines, _scatter(bounds, view, marker, meta)] if bounds else []


def _band_traces(
    view: TaskView, styles: Mapping[str, Style], bands: Mapping[str, NDArray[np.float64]]
) -> list[go.Scatter]:
    """Fill the bands of the methods; those of free controls would only cover them."""
    return [
        go.Scatter(
            x=polygon[:, 0].tolist(),
            y=polygon[:, 1].tolist(),
            mode="lines",
            fill="toself",
            fillcolor=faded(styles[method].colour, 0.15),
            line={"width": 0, "color": styles[method].colour},
            hoverinfo="skip",
            meta={"method": method, "role": "band"},
        )
        for method, polygon in bands.items()
        if method in view.methods and method not in view.controls and len(polygon)
    ]


def _stair_traces(geometry: Geometry, styles: Mapping[str, Style]) -> list[go.Scatter]:
    return [
        go.Scatter(
            x=path[:, 0].tolist(),
            y=path[:, 1].tolist(),
            mode="lines",
            line={"color": styles[method].colour, "width": 1.8, "dash": styles[method].dash},
            hoverinfo="skip",
            meta={"method": method, "role": "stairs", "seed": seed},
        )
        for (method, seed), path in geometry.stairs.items()
    ]


def _points_trace(view: TaskView, method: str, style: Style) -> go.Scatter:
    points = view.of(method)
    size = 15 if style.symbol.startswith("triangle") else 13
    marker: JsonObject = {
        "color": style.colour,
        "symbol": [style.symbol if p.nondominated else f"{style.symbol}-open" for p in points],
        "size": [size if p.grid == "asked" else 7 for p in points],
        "opacity": 1,
        "line": {"width": 1.4},
    }
    return _scatter(points, view, marker, {"method": method, "role": "points"})


def _reference_traces(view: TaskView, geometry: Geometry) -> list[go.Scatter]:
    marker: JsonObject = {"symbol": "star", "size": 17, "color": GREY}
    points = view.of("reference")
    traces = [_scatter(points, view, marker, {"method": "reference", "role": "ink"})] if points else []
    if view.bound and _inside(view.bound[0], geometry.x_range) and _inside(view.bound[1], geometry.y_range):
        traces.append(
            go.Scatter(
                x=[view.bound[0]],
                y=[view.bound[1]],
                mode="markers",
                marker={"symbol": "x-thin-open", "size": 9, "color": GREY},
                text=["reference point of the hypervolume"],
                hoverinfo="text",
                meta={"method": "reference-point", "role": "muted"},
            )
        )
    return traces


def _scatter(points: Sequence[Point], view: TaskView, marker: JsonObject, meta: JsonObject) -> go.Scatter:
    """Draw points with light 1-SE bars; ``customdata`` holds the keys of their texts."""
    bars = {"type": "data", "thickness": 1, "width": 0, "color": faded(str(marker["color"]))}
    return go.Scatter(
        x=[p.x for p in points],
        y=[p.y for p in points],
        mode="markers",
        marker=marker,
        error_x={**bars, "array": [p.x_se or 0.0 for p in points]},
        error_y={**bars, "array": [p.y_se or 0.0 for p in points]},
        customdata=[p.key for p in points],
        text=[_hover(p, view) for p in points],
        hoverinfo="text",
        meta=meta,
    )


def _hover(point: Point, view: TaskView) -> str:
    asked = "before alignment" if point.method == "reference" else balance(point.weight, *(a.name for a in view.axes))
    size = f"n = {point.n} prompts" if point.n else ""
    status = "effective sample too small" if point.hollow else "" if point.nondominated else "dominated"
    if point.method == "reference":
        status = ""
    last = " · ".join(part for part in (size, f"seed {point.seed}" if point.n else "", status) if part)
    return "<br>".join(plain(line) for line in (point.name, asked, summary(point, view.axes), last) if line)


def _title(column: str, name: str, arrow: str) -> str:
    return plain(f"more {name} {arrow}  ({column})")


def _better() -> JsonObject:
    """Point to the corner where both objectives are best, from above the figure, where no mark can lie."""
    return {
        "text": "better ↗", "xref": "paper", "yref": "paper", "x": 1, "y": 1, "xanchor": "right", "yanchor": "bottom",
        "showarrow": False, "font": {"size": 14},
    }  # fmt: skip


def _inside(value: float, limits: tuple[float, float]) -> bool:
    return min(limits) <= value <= max(limits)
