"""The figures of what was measured by method: scores, KL budgets, steering, price."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from peo_bench.files.json_types import JsonObject
from peo_bench.report.contents import TaskView
from peo_bench.report.figures.front import drawn_order
from peo_bench.report.figures.style import AXIS, GREY, LAYOUT, Look, Style, faded, interval_bars, line, plain, small
from peo_bench.report.tables import Row, scoreboard
from peo_bench.report.wording import decimal, interval, method_name
from peo_bench.results.folder import number
from peo_bench.results.metrics_records import Ends, EstimateRecord

WHISKERS: dict[str, tuple[str, str]] = {
    "steered_utility": ("Steered utility", "Right is better; verdicts rest on this one."),
    "hypervolume": ("Hypervolume", "Right is better, and noise pushes to the right."),
    "igd_plus": ("Distance to the others' front (IGD+)", "Left is better: 0 misses nothing that the others reach."),
    "expected_utility": (
        "Best offered utility (EUM)",
        "Right is better: the best policy for each balance, whoever was asked.",
    ),
}
PRICES = {
    "train_units": "training units",
    "seconds": "seconds of work, as if alone",
    "tokens_generated": "tokens generated while building",
    "scorer_calls": "scorer calls while building",
    "decode_factor": "forward passes per token",
    "stored_parameters": "stored parameters beside the reference policy",
}
"""What a method costs, by its key in costs.json."""


def whisker_figure(view: TaskView, styles: Mapping[str, Style], metric: str) -> go.Figure:
    """Draw one metric of every method as a dot with its 95 % interval, best steered utility on top."""
    rows = [(row, ends) for row in scoreboard(view).rows if (ends := _drawn(view, row, metric)) is not None]
    figure = go.Figure()
    for row, ends in reversed(rows):
        style = styles.get(row.method, Style(GREY, "circle", "solid"))
        figure.add_scatter(
            x=[ends[0]],
            y=[plain(row.label)],
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 11},
            error_x={**interval_bars(ends), "color": style.colour, "thickness": 2},
            text=[plain(f"{row.label}: {decimal(ends[0]) if row.kind == 'yardstick' else interval(ends)}")],
            hoverinfo="text",
            meta={"method": row.method, "role": "points"},
        )
    figure.update_layout(
        **LAYOUT,
        height=64 + 36 * len(rows),
        margin={"l": 10, "r": 18, "t": 8, "b": 34},
        xaxis={**AXIS, "nticks": 6},
        yaxis={**AXIS, "type": "category", "automargin": True, "showgrid": False},
    )
    return figure


def _drawn(view: TaskView, row: Row, metric: str) -> Ends | None:
    """Return what a row of the scoreboard shows of a metric; a yardstick has a steered utility and no interval."""
    if row.kind != "yardstick":
        return estimated(view, row.method, metric)
    utility = next(one.utility for one in view.yardsticks if one.label == row.label)
    return (utility, utility, utility) if metric == "steered_utility" else None


def kl_figure(view: TaskView, styles: Mapping[str, Style]) -> go.Figure:
    """Draw each method's hypervolume from the policies whose mean KL to the reference is within a budget (nats).

    Steps: between two budgets nothing is known but that the lower one's policies are still within.
    """
    figure = go.Figure()
    for method in drawn_order(view, view.measured):
        values = view.measured[method]
        counts = zip(values.hypervolume_within_kl, values.points_within_kl, strict=True)
        style, volumes = styles[method], [volume if n else None for volume, n in counts]  # a gap, not a zero
        label = [
            f"{method_name(method)}: {decimal(v)} within {b:g} nats"
            for b, v in zip(view.kl_budgets, volumes, strict=True)
        ]
        line(figure, method, style, view.kl_budgets, volumes, label, Look(shape="hv"))
    ticks: JsonObject = {"tickvals": list(view.kl_budgets), "ticktext": [f"{budget:g}" for budget in view.kl_budgets]}
    x = {**AXIS, "type": "log", "title": {"text": "KL budget (nats per answer)"}, **ticks}
    return small(figure, x, {**AXIS, "title": {"text": "hypervolume"}, "rangemode": "tozero"})


def steering_figure(view: TaskView, styles: Mapping[str, Style], i: int) -> go.Figure:
    """Draw objective `i`'s obtained mean score against its asked weight, mean over training seeds.

    "Better" is up. An open mark is a violation: a higher weight was answered by a worse score than the step before.
    """
    axis, figure = view.axes[i], go.Figure()
    sign = 1 if axis.maximise else -1
    for method in (m for m in drawn_order(view) if m in styles):
        own: dict[float, list[float]] = {}
        for point in view.of(method):
            if point.weight is not None and point.grid == "asked":
                own.setdefault(point.weight if i == 0 else 1 - point.weight, []).append(point.x if i == 0 else point.y)
        if not own:  # an external policy: a single point
            continue
        weights = sorted(own)
        scores = [float(np.mean(own[weight])) for weight in weights]
        worse = [False, *(sign * (b - a) < 0 for a, b in pairwise(scores))]
        label = [
            f"{method_name(method)} at weight {w:g}: {axis.column} {decimal(score)}" + ", worse than before" * bad
            for w, score, bad in zip(weights, scores, worse, strict=True)
        ]
        line(figure, method, styles[method], weights, scores, label, Look(hollow=worse))
    y = {**AXIS, "title": {"text": plain(axis.column)}, "autorange": True if axis.maximise else "reversed"}
    return small(figure, {**AXIS, "title": {"text": plain(f"asked weight of {axis.name}")}}, y)


def price_figure(view: TaskView, styles: Mapping[str, Style], key: str) -> go.Figure:
    """Draw each method's hypervolume against one of its costs, with 95 % intervals over prompts."""
    figure = go.Figure()
    for method in drawn_order(view, view.measured):
        cost, ends = price(view, method, key), view.measured[method].hypervolume.ends
        if cost is None or ends is None:
            continue
        style = styles[method]
        figure.add_scatter(
            x=[cost], y=[ends[0]], mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 11},
            error_y={**interval_bars(ends), "color": faded(style.colour)},
            hovertext=[plain(f"{method_name(method)}: {PRICES[key]} {cost:,.3g}, hypervolume {interval(ends)}")],
            hoverinfo="text", meta={"method": method, "role": "points"}, cliponaxis=False,  # marks at 0 are whole
        )  # fmt: skip
    x = {**AXIS, "title": {"text": PRICES[key]}, "rangemode": "tozero"}
    return small(figure, x, {**AXIS, "title": {"text": "hypervolume"}})


def price(view: TaskView, method: str, key: str) -> float | None:
    """Return one of a method's costs, None where it is not known."""
    return number(getattr(view.costs.get(method), key, None))


def estimated(view: TaskView, method: str, metric: str) -> Ends | None:
    """Return a method's estimate of ``metric`` with its interval, None where they are not numbers."""
    estimate: EstimateRecord | None = getattr(view.measured[method], metric)
    return None if estimate is None else estimate.ends
