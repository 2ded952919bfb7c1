"""The safety map: costs by category and method, refusals against over-refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from peo_bench.report.contents import Json, TaskView
from peo_bench.report.figures.front import drawn_order
from peo_bench.report.figures.style import AXIS, GREY, Style, heat_map, line, plain, small
from peo_bench.report.wording import balance, decimal, method_name
from peo_bench.results.folder import number


def category_maps(entries: Sequence[Json], names: tuple[str, str]) -> list[tuple[str, go.Figure]]:
    """Draw mean cost by category and method, one map per asked preference, all on one colour scale.

    The reference policy and other single policies stand beside the methods in every map. Lower is better.
    """
    rows = [e for e in entries if e.get("categories")]
    if not rows:
        return []
    categories = sorted({category for e in rows for category in e["categories"]})
    values = [v for e in rows for v in map(number, e["categories"].values()) if v is not None]
    asked = sorted({w for e in rows if (w := number(e.get("preference"))) is not None}, reverse=True)
    maps = []
    for weight in asked or (None,):
        shown = {e["method"]: e for e in rows if number(e.get("preference")) in (weight, None)}
        cells = [[number(e["categories"].get(category)) for e in shown.values()] for category in categories]
        figure = heat_map(
            categories,
            [method_name(method) for method in shown],
            cells,
            title="mean cost, lower is better",
            texts=[["" if v is None else decimal(v) for v in row] for row in cells],
            hover=[
                [f"{category}, {method_name(m)}: mean cost {decimal(v)}" for m, v in zip(shown, row, strict=True)]
                for category, row in zip(categories, cells, strict=True)
            ],
            limits=(min(values), max(values)),
            diverging=False,
        )
        maps.append((balance(weight, *names), figure))
    return maps


def refusal_figure(entries: Sequence[Json], view: TaskView, styles: Mapping[str, Style]) -> go.Figure | None:
    """Draw over-refusal against refusal, a mark per policy; None without both rates.

    Marks are not joined: neither rate need change evenly with the preference.
    """
    rows = [e for e in entries if None not in (number(e.get("refusal_rate")), number(e.get("over_refusal_rate")))]
    figure = go.Figure()
    for method in drawn_order(view, dict.fromkeys(e["method"] for e in rows)):
        own = sorted((e for e in rows if e["method"] == method), key=lambda e: number(e.get("preference")) or 0.0)
        label = [
            f"{method_name(method)}, {balance(number(e.get('preference')))}: refuses {100 * e['refusal_rate']:.0f} % "
            f"of what may be refused, of harmless prompts {100 * e['over_refusal_rate']:.0f} %"
            for e in own
        ]
        x, y = ([100 * e[key] for e in own] for key in ("refusal_rate", "over_refusal_rate"))
        line(figure, method, styles.get(method, Style(GREY, "star", "dash")), x, y, label, joined=False)
    if not rows:
        return None
    axes = ("refused of prompts that may be refused (%)", "refused of harmless prompts (%)")
    return small(figure, *({**AXIS, "title": {"text": plain(title)}, "rangemode": "tozero"} for title in axes))
