"""Is it real? Reward against KL, proxies against reported scores, lengths, other abilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go

from peo_bench.files.json_types import JsonObject
from peo_bench.report.contents import TaskView
from peo_bench.report.figures.front import drawn_order
from peo_bench.report.figures.style import AXIS, GREY, Look, Style, line, plain, small
from peo_bench.report.points import Axis, Point
from peo_bench.report.wording import balance, decimal, method_name
from peo_bench.results.metrics_records import CapabilityRow

Measured = Callable[[Point], float | None]


def policies_figure(
    view: TaskView, styles: Mapping[str, Style], x: tuple[str, Measured], axis: Axis, *, held_out: bool = False
) -> go.Figure | None:
    """Draw a score of every policy against another of its properties; the star is the reference policy.

    ``x``: what the axis is called, and how it is read off a policy. ``held_out``: x is the same objective by the
    scorer that training used, so both axes run from worse to better. None where no policy of a method has x.
    """
    title, read = x
    figure = go.Figure()
    score = _score(view, axis)
    for method in (m for m in drawn_order(view) if m in styles):
        points = [p for p in view.of(method) if read(p) is not None and p.grid == "asked"]
        if points:
            label = [_label(point, view, title, read(point), axis, score(point)) for point in points]
            marker = {"color": styles[method].colour, "symbol": styles[method].symbol, "size": 9}
            figure.add_scatter(
                x=[read(p) for p in points], y=[score(p) for p in points], mode="markers", marker=marker,
                text=label, hoverinfo="text", meta={"method": method, "role": "points"},
                customdata=[p.key for p in points],
            )  # fmt: skip
    if not figure.data:
        return None
    start = [p for p in view.of("reference") if read(p) is not None][:1]
    figure.add_scatter(
        x=[read(p) for p in start], y=[score(p) for p in start], mode="markers", hoverinfo="text",
        marker={"symbol": "star", "size": 14, "color": GREY}, text=["reference policy"] * len(start),
        meta={"method": "reference", "role": "ink"},
    )  # fmt: skip
    upwards = True if axis.maximise else "reversed"
    name = f"{axis.column}, reported" if held_out else axis.column
    y = {**AXIS, "title": {"text": plain(name)}, "autorange": upwards}
    return small(figure, {**AXIS, "title": {"text": plain(title)}, "autorange": upwards if held_out else True}, y)


def tax_figure(entries: Sequence[CapabilityRow], view: TaskView, styles: Mapping[str, Style]) -> go.Figure:
    """Draw one ability (an lm-eval task) of every method against the first objective's weight, bars are 1 SE."""
    figure = go.Figure()
    for method in drawn_order(view, dict.fromkeys(entry.method for entry in entries)):
        own = sorted((e for e in entries if e.method == method), key=lambda e: e.preference or 0.0)
        x = [0.5 if e.preference is None else e.preference for e in own]
        errors = [e.se or 0.0 for e in own]
        label = [
            f"{method_name(method)}, {balance(e.preference, *view.names)}: {decimal(e.value, 3)} ± {decimal(se, 3)}"
            for e, se in zip(own, errors, strict=True)
        ]
        style = styles.get(method, Style(GREY, "star", "dash"))
        bars: JsonObject = {"type": "data", "array": errors, "thickness": 1, "width": 0}
        line(figure, method, style, x, [e.value for e in own], label, Look(bars=bars))
    title = f"{entries[0].capability} ({entries[0].metric})"
    return small(
        figure,
        {**AXIS, "title": {"text": plain(f"asked weight of {view.names[0]}")}},
        {**AXIS, "title": {"text": plain(title)}},
    )


def _score(view: TaskView, axis: Axis) -> Callable[[Point], float]:
    first = axis == view.axes[0]
    return lambda point: point.x if first else point.y


def _label(point: Point, view: TaskView, title: str, x: float | None, axis: Axis, y: float) -> str:
    asked = balance(point.weight, *(a.name for a in view.axes))
    return plain(f"{point.name}, {asked}: {title} {decimal(x)}, {axis.column} {decimal(y)}")
