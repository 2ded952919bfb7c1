"""Where the time went and how training went."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from peo_bench.report.figures.style import AXIS, HIGH, LAYOUT, LEGEND, PALETTE, plain, small
from peo_bench.report.tables import Row, Table
from peo_bench.report.wording import method_name

CURVE_POINTS = 120
"""Points drawn per curve: more are thinned evenly, the first and the last stay."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def timeline_figure(seconds: Mapping[str, float]) -> go.Figure:
    """Draw wall seconds per stage, one after the other, as a Gantt chart."""
    starts, total = [], 0.0
    for value in seconds.values():
        starts.append(total)
        total += value
    return _spans(list(seconds), starts, list(seconds.values()))


def work_figure(seconds: Mapping[str, float]) -> go.Figure:
    """Draw seconds of work per kind of job (when it was done: reused work counts), the longest first."""
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return _spans([name for name, _ in ordered], [0.0] * len(ordered), [value for _, value in ordered])


def _spans(names: list[str], starts: list[float], seconds: list[float]) -> go.Figure:
    figure = go.Figure()
    figure.add_bar(
        x=seconds, y=[plain(name) for name in names], base=starts, orientation="h", marker={"color": HIGH},
        hovertext=[plain(f"{name}: {value:,.1f} s") for name, value in zip(names, seconds, strict=True)],
        hoverinfo="text", meta={"method": "", "role": "bars", "name": "seconds"},
    )  # fmt: skip
    figure.update_layout(
        **LAYOUT, bargap=0.4, height=64 + 28 * len(names), margin={"l": 10, "r": 18, "t": 8, "b": 44},
        xaxis={**AXIS, "title": {"text": "seconds"}},
        yaxis={**AXIS, "type": "category", "automargin": True, "showgrid": False, "autorange": "reversed"},
    )  # fmt: skip
    return figure


def phases(curves: pd.DataFrame) -> dict[str, list[tuple[str, go.Figure]]]:
    """Split ``curves.csv`` into phases (the kind of job) and, in each, a figure per recorded quantity, loss first."""
    table = curves.dropna(subset=["step", "value"])
    kinds = table["job"].astype(str).str.split().str[0]
    found: dict[str, list[tuple[str, go.Figure]]] = {}
    for kind, part in table.groupby(kinds, sort=False):
        named = sorted(part.groupby("name", sort=False), key=lambda item: (item[0] != "loss", str(item[0])))
        found[str(kind)] = [(str(name), curve_figure(rows, str(name))) for name, rows in named]
    return found


def curve_figure(rows: pd.DataFrame, name: str) -> go.Figure:
    """Draw one quantity over training steps, a line per job and training seed."""
    figure = go.Figure()
    jobs = list(dict.fromkeys(zip(rows["method"].astype(str), rows["job"].astype(str), strict=True)))
    style = {job: (PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)]) for i, job in enumerate(jobs)}
    seeds = rows["seed"].nunique()
    for (method, job, seed), own in rows.groupby(["method", "job", "seed"], sort=False):
        own = thin(own.sort_values("step"))
        colour, dash = style[str(method), str(job)]
        label = f"{job}" + (f", seed {seed}" if seeds > 1 else "")
        figure.add_scatter(
            x=own["step"].tolist(), y=own["value"].tolist(), mode="lines",
            line={"color": colour, "width": 1.6, "dash": dash},
            text=[
                plain(f"{label} ({method_name(str(method))}), step {step:g}: {name} {value:.4g}")
                for step, value in zip(own["step"], own["value"], strict=True)
            ],
            hoverinfo="text", name=plain(label), showlegend=True, meta={"method": "", "role": "points", "name": label},
        )  # fmt: skip
    figure = small(figure, {**AXIS, "title": {"text": "step"}}, {**AXIS, "title": {"text": plain(name)}})
    return figure.update_layout(showlegend=True, legend=LEGEND, height=340 + 10 * len(figure.data))


def curve_table(curves: pd.DataFrame, kind: str) -> Table:
    """List where every curve of one phase starts and ends."""
    own = curves[curves["job"].astype(str).str.split().str[0] == kind].dropna(subset=["step", "value"])
    rows = []
    for (method, job, seed, name), curve in own.groupby(["method", "job", "seed", "name"], sort=False):
        curve = curve.sort_values("step")
        first, last, steps = curve["value"].iloc[0], curve["value"].iloc[-1], curve["step"].iloc[-1]
        cells = ((str(seed), float(str(seed))), (f"{steps:g}", float(steps)))
        ends = tuple((f"{value:.4g}".replace("-", "−"), float(value)) for value in (first, last))
        rows.append(Row(str(method), f"{job}: {name}", "", "", cells + ends))
    return Table((("seed", ""), ("last step", ""), ("first value", ""), ("last value", "")), tuple(rows), head="Job")


def thin(rows: pd.DataFrame) -> pd.DataFrame:
    """Return at most CURVE_POINTS evenly spaced rows, among them the first and the last."""
    if len(rows) <= CURVE_POINTS:
        return rows
    chosen = [round(i * (len(rows) - 1) / (CURVE_POINTS - 1)) for i in range(CURVE_POINTS)]
    return rows.iloc[chosen]
