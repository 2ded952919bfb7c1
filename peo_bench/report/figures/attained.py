"""Where one method's front reaches further than another's: the difference of their attainment maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import plotly.graph_objects as go

from peo_bench.pareto.checks import FloatArray
from peo_bench.report.contents import TaskView
from peo_bench.report.figures.panels import Panel
from peo_bench.report.figures.style import AXIS, GREY, HIGH, LOW, PAPER, plain, small
from peo_bench.report.tables import Row, Table
from peo_bench.report.wording import method_name


class Attained(Protocol):
    """What resampled fronts reach: see `peo_bench.report.uncertainty.Uncertainty`."""

    @property
    def x(self) -> FloatArray:
        """Centres of the cells, (n_x,)."""

    @property
    def y(self) -> FloatArray:
        """Centres of the cells, (n_y,)."""

    @property
    def shares(self) -> Mapping[str, FloatArray]:
        """Percent of a method's fronts that attain a cell, (n_y, n_x)."""


def attainment_panel(view: TaskView, spread: Attained) -> Panel:
    """Draw the first method's attainment minus the second's; the page subtracts any other two that are chosen."""
    first, second = list(spread.shares)[:2]
    x, y = view.axes
    figure = go.Figure()
    # A gap, however small, keeps plotly from its fast way of drawing, which needs an inline style.
    figure.add_heatmap(
        x=spread.x.tolist(), y=spread.y.tolist(), z=(spread.shares[first] - spread.shares[second]).tolist(),
        zmin=-100, zmax=100, xgap=0.01, ygap=0.01, showscale=False, hoverongaps=False,
        colorscale=[[0, LOW], [0.5, PAPER], [1, HIGH]],
        hovertemplate="%{x:.2f}, %{y:.2f}: %{z:+d} % of resamples<extra></extra>",
        meta={"method": "", "role": "field", "diverging": True},
    )  # fmt: skip
    figure.add_scatter(
        x=[p.x for p in view.of("reference")], y=[p.y for p in view.of("reference")], mode="markers", hoverinfo="skip",
        marker={"symbol": "star", "size": 14, "color": GREY}, meta={"method": "reference", "role": "ink"},
    )  # fmt: skip
    flat = {**AXIS, "showgrid": False}
    small(
        figure,
        {**flat, "title": {"text": plain(x.column)}, "autorange": True if x.maximise else "reversed"},
        {**flat, "title": {"text": plain(y.column)}, "autorange": True if y.maximise else "reversed"},
    )
    figure.update_layout(height=420)
    how = "Blue: trade-offs that the first reaches in more resamples than the second; orange: in fewer."
    title = "Where does one reach further than the other?"
    return Panel("attainment", "attainment", title, how, (("", figure),), own_table=_areas(spread))


def _areas(spread: Attained) -> Table:
    rows = [
        Row(m, method_name(m), "", "", ((f"{share.mean():.1f} %", float(share.mean())),))
        for m, share in spread.shares.items()
    ]
    return Table((("Attained", "share of the map that its fronts attain, mean over resamples"),), tuple(rows))
