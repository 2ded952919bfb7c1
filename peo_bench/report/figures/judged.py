"""The judge room: who wins, at which preference, and whether longer answers win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from peo_bench.files.json_types import JsonObject
from peo_bench.pareto.checks import FloatArray
from peo_bench.report.contents import TaskView
from peo_bench.report.figures.front import drawn_order
from peo_bench.report.figures.style import AXIS, GREY, HIGH, LAYOUT, LOW, Look, Style, line, plain, small
from peo_bench.report.wording import decimal, method_name
from peo_bench.results.judge_records import WinRate

OUTCOMES = (("n_wins", "first wins", HIGH), ("n_ties", "ties", GREY), ("n_losses", "second wins", LOW))
BINS = 5


def verdicts_figure(rates: Sequence[WinRate]) -> go.Figure:
    """Draw wins, ties and losses of every pair as stacked shares of the judged prompts, all preferences together."""
    totals: dict[str, FloatArray] = {}
    for entry in rates:
        name = f"{method_name(entry.a)} : {method_name(entry.b)}"
        counts = np.array([getattr(entry, key) or 0.0 for key, _, _ in OUTCOMES])
        totals[name] = totals.get(name, np.zeros(3)) + counts
    figure = go.Figure()
    for i, (_, label, colour) in enumerate(OUTCOMES):
        shares = [100 * float(t[i] / t.sum()) if t.sum() else 0.0 for t in totals.values()]
        figure.add_bar(
            x=shares, y=[plain(name) for name in totals], orientation="h", marker={"color": colour},
            text=[f"{share:.0f} %" if share >= 6 else "" for share in shares], textposition="inside",
            insidetextanchor="middle", textangle=0,
            hovertext=[plain(f"{name}: {label} {s:.1f} %") for name, s in zip(totals, shares, strict=True)],
            hoverinfo="text", meta={"method": "", "role": "bars", "name": label},
            name=label,
        )  # fmt: skip
    figure.update_layout(
        **LAYOUT, barmode="stack", bargap=0.35, height=70 + 34 * len(totals),
        margin={"l": 10, "r": 18, "t": 8, "b": 34}, xaxis={**AXIS, "range": [0, 100], "ticksuffix": " %"},
        yaxis={**AXIS, "type": "category", "automargin": True, "showgrid": False, "autorange": "reversed"},
    )  # fmt: skip
    return figure


def rates_figure(rates: Sequence[WinRate], first: str, view: TaskView, styles: Mapping[str, Style]) -> go.Figure:
    """Draw the win rate of ``first`` against every other method by asked weight, with 95 % intervals.

    Single policies, which were asked for no weight, are in the table alone.
    """
    figure = go.Figure()
    known = [(at, entry) for entry in rates if (at := _at(entry)) is not None]
    for rival in drawn_order(view, dict.fromkeys(entry.b for _, entry in known if entry.a == first)):
        own = sorted((pair for pair in known if (pair[1].a, pair[1].b) == (first, rival)), key=lambda pair: pair[0])
        weights, values = [weight for (weight, _), _ in own], [rate for (_, rate), _ in own]
        label = [
            f"{method_name(first)} against {method_name(rival)} at weight {weight:g}: "
            f"{decimal(rate, 1)} % [{decimal(entry.ci_low, 1)}, {decimal(entry.ci_high, 1)}]"
            for (weight, rate), entry in own
        ]
        bars: JsonObject = {
            "type": "data", "symmetric": False, "width": 0, "thickness": 1,
            "array": [(entry.ci_high or rate) - rate for (_, rate), entry in own],
            "arrayminus": [rate - (entry.ci_low or rate) for (_, rate), entry in own],
        }  # fmt: skip
        style = styles.get(rival, Style(GREY, "star", "dash"))
        line(figure, rival, style, weights, values, label, Look(bars=bars))
    y = {**AXIS, "title": {"text": f"win rate of {plain(method_name(first))} (%)"}, "range": [0, 100]}
    figure = small(figure, {**AXIS, "title": {"text": plain(f"asked weight of {view.names[0]}")}}, y)
    figure.add_hline(y=50, line={"dash": "dash", "width": 1, "color": GREY})
    return figure


def _at(entry: WinRate) -> tuple[float, float] | None:
    """Return weight and win rate, where both are known."""
    return None if entry.preference is None or entry.win_rate is None else (entry.preference, entry.win_rate)


def length_figure(judged: pd.DataFrame, lengths: Mapping[tuple[str, str], float]) -> go.Figure | None:
    """Draw the share of verdicts for the first answer by how much longer it is; both orders count once each.

    ``lengths[spec_key, prompt_id]`` in tokens. Five groups of equal size; None where lengths differ too little.
    """
    table = judged[judged["verdict"].notna()]
    longer = np.array([
        lengths.get((a, p), np.nan) - lengths.get((b, p), np.nan)
        for a, b, p in zip(table["spec_key_a"], table["spec_key_b"], table["prompt_id"], strict=True)
    ])  # fmt: skip
    known = np.isfinite(longer)
    if len(np.unique(longer[known])) < BINS:
        return None
    groups = pd.DataFrame({"longer": longer[known], "wins": 100 * table["verdict"].to_numpy()[known]})
    binned = groups.groupby(pd.qcut(groups["longer"].rank(method="first"), BINS, labels=False))
    x, y, n = binned["longer"].mean(), binned["wins"].mean(), binned.size()
    label = [f"{a:+.1f} tokens: {b:.1f} % wins, {c} verdicts" for a, b, c in zip(x, y, n, strict=True)]
    figure = go.Figure()
    figure.add_scatter(
        x=x.tolist(), y=y.tolist(), mode="lines+markers", marker={"size": 9, "color": HIGH}, line={"color": HIGH},
        text=label, hoverinfo="text", meta={"method": "", "role": "points", "name": "verdicts"},
    )  # fmt: skip
    figure = small(
        figure,
        {**AXIS, "title": {"text": "first answer longer by (tokens)"}},
        {**AXIS, "title": {"text": "first answer preferred (%)"}, "range": [0, 100]},
    )
    figure.add_hline(y=50, line={"dash": "dash", "width": 1, "color": GREY})
    return figure
