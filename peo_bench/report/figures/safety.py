"""The safety map: costs by category and method, refusals against over-refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from peo_bench.report.contents import TaskView
from peo_bench.report.figures.front import drawn_order
from peo_bench.report.figures.style import AXIS, GREY, Cell, Look, Style, heat_map, line, plain, small
from peo_bench.report.wording import balance, decimal, method_name
from peo_bench.results.metrics_records import SafetyRow


def category_maps(entries: Sequence[SafetyRow], names: tuple[str, str]) -> list[tuple[str, go.Figure]]:
    """Draw mean cost by category and method, one map per asked preference, all on one colour scale.

    The reference policy and other single policies stand beside the methods in every map. Lower is better.
    """
    rows = [(entry, entry.categories) for entry in entries if entry.categories]
    if not rows:
        return []
    categories = sorted({category for _, costs in rows for category in costs})
    values = [value for _, costs in rows for value in costs.values() if value is not None]
    asked = sorted({entry.preference for entry, _ in rows if entry.preference is not None}, reverse=True)
    maps = []
    for weight in asked or (None,):
        shown = {entry.method: costs for entry, costs in rows if entry.preference in (weight, None)}
        cells = [[_cell(category, m, costs.get(category)) for m, costs in shown.items()] for category in categories]
        heads, limits = [method_name(method) for method in shown], (min(values), max(values))
        figure = heat_map(categories, heads, cells, "mean cost, lower is better", limits, diverging=False)
        maps.append((balance(weight, *names), figure))
    return maps


def _cell(category: str, method: str, cost: float | None) -> Cell:
    hover = f"{category}, {method_name(method)}: mean cost {decimal(cost)}"
    return Cell(cost, "" if cost is None else decimal(cost), hover)


def refusal_figure(entries: Sequence[SafetyRow], view: TaskView, styles: Mapping[str, Style]) -> go.Figure | None:
    """Draw over-refusal against refusal, a mark per policy; None without both rates.

    Marks are not joined: neither rate need change evenly with the preference.
    """
    rows = [
        (e, 100 * e.refusal_rate, 100 * e.over_refusal_rate)
        for e in entries
        if e.refusal_rate is not None and e.over_refusal_rate is not None
    ]
    figure = go.Figure()
    for method in drawn_order(view, dict.fromkeys(e.method for e, _, _ in rows)):
        own = sorted((row for row in rows if row[0].method == method), key=lambda row: row[0].preference or 0.0)
        label = [
            f"{method_name(method)}, {balance(e.preference, *view.names)}: refuses {refused:.0f} % "
            f"of what may be refused, of harmless prompts {over:.0f} %"
            for e, refused, over in own
        ]
        x, y = [refused for _, refused, _ in own], [over for _, _, over in own]
        line(figure, method, styles.get(method, Style(GREY, "star", "dash")), x, y, label, Look(joined=False))
    if not rows:
        return None
    axes = ("refused of prompts that may be refused (%)", "refused of harmless prompts (%)")
    return small(figure, *({**AXIS, "title": {"text": plain(title)}, "rangemode": "tozero"} for title in axes))
