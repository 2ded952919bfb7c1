"""The plane of two task vectors that a method searched: what it evaluated, what it offers, and how far both are."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from peo_bench.report.contents import TaskView
from peo_bench.report.figures.style import ALARM, AXIS, GREY, LEGEND, PALETTE, Style, plain, small
from peo_bench.report.wording import balance, decimal, method_name

SIDE = 41
"""Cells along an axis of the map of KL that contours are drawn from."""
LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""KL contours, nats per answer; each the double of the one before."""
Floats = npt.NDArray[np.float64]


def plane_figures(
    search: pd.DataFrame, points: pd.DataFrame, view: TaskView, styles: Mapping[str, Style]
) -> Iterator[tuple[str, go.Figure]]:
    """Draw one plane per method and training seed of ``search.csv``; ``points`` is the run's ``points.csv``."""
    columns = [f"coef_{name}" for name in view.names]
    if not {*columns, "phase"} <= {*search.columns} or not {*columns} <= {*points.columns}:
        return
    weight = f"preference_{view.names[0]}"
    for (method, seed), found in search.groupby(["method", "seed"], sort=False):
        own = points[(points["method"] == method) & (points["seed"] == seed) & (points["task"] == view.task)]
        path = own[(own["split"] == "test") & (own["grid"] == "asked")].dropna(subset=columns).sort_values(weight)
        label = method_name(str(method)) + (f", seed {seed}" if search["seed"].nunique() > 1 else "")
        style = styles.get(str(method), Style(GREY, "circle", "solid"))
        yield label, _figure(found, path, columns, weight, view.names, style)


def _figure(
    found: pd.DataFrame, path: pd.DataFrame, columns: list[str], weight: str, names: tuple[str, str], style: Style
) -> go.Figure:
    figure = go.Figure()
    places, budget = found[columns].to_numpy(float), float(found["max_kl"].iloc[0])
    _contours(figure, places, found["kl"].to_numpy(float), budget)
    phase, beyond = found["phase"] == 3, found["kl_upper"] > budget
    for what, own, symbol, colour in (
        ("phase 2", ~phase, "circle-open", PALETTE[5]),
        ("phase 3", phase & ~beyond, "circle", GREY),
        ("phase 3, beyond the KL budget", phase & beyond, "x-thin-open", GREY),
    ):
        said = [_said(what, row, columns) for row in found[own].to_dict("records")]
        _marks(figure, what, places[own.to_numpy()], symbol, colour, said)
    figure.add_scatter(
        x=path[columns[0]].tolist(), y=path[columns[1]].tolist(), mode="lines+markers",
        line={"color": style.colour, "width": 2.4},
        marker={"color": style.colour, "symbol": style.symbol, "size": 11},
        text=[
            plain(f"offered for {balance(w, *names)}: {decimal(a)}, {decimal(b)}")
            for w, a, b in zip(path[weight], path[columns[0]], path[columns[1]], strict=True)
        ],
        hoverinfo="text", name="offered", showlegend=True, meta={"method": "", "role": "points", "name": "offered"},
    )  # fmt: skip
    figure.add_scatter(
        x=[0.0], y=[0.0], mode="markers", name="reference policy", showlegend=True, hoverinfo="text",
        marker={"symbol": "star", "size": 14, "color": GREY}, text=["reference policy"],
        meta={"method": "reference", "role": "ink", "name": "reference policy"},
    )  # fmt: skip
    axes = [{**AXIS, "title": {"text": plain(f"coefficient of the {name} task vector")}} for name in names]
    figure = small(figure, axes[0], axes[1])
    return figure.update_layout(showlegend=True, legend=LEGEND, height=460)


def _marks(figure: go.Figure, name: str, places: Floats, symbol: str, colour: str, said: Sequence[str]) -> None:
    figure.add_scatter(
        x=places[:, 0].tolist(), y=places[:, 1].tolist(), mode="markers", name=name, showlegend=True,
        marker={"color": colour, "symbol": symbol, "size": 8}, text=[plain(text) for text in said],
        hoverinfo="text", meta={"method": "", "role": "points", "name": name},
    )  # fmt: skip


def _said(what: str, row: Mapping[Hashable, float], columns: list[str]) -> str:
    place = ", ".join(decimal(row[column]) for column in columns)
    proxies = {str(key).removesuffix("_proxy"): value for key, value in row.items() if str(key).endswith("_proxy")}
    scores = ", ".join(f"{column} {decimal(value)}" for column, value in proxies.items())
    return f"{what}: {place}; proxies: {scores}; KL {decimal(row['kl'])} nats"


def _contours(figure: go.Figure, places: Floats, kl: Floats, budget: float) -> None:
    """Add lines of equal validation KL between the evaluated places, and the budget's."""
    known = np.vstack([places, np.zeros((1, 2))])
    if len(np.unique(known, axis=0)) < 4:
        return
    lines = {"coloring": "none", "showlabels": True, "labelformat": ".3g"}
    x, y, z = kl_map(known, np.append(kl, 0.0))
    for level in (*(level for level in LEVELS if level < np.nanmax(z)), budget):
        is_budget = level == budget
        line = {"color": ALARM, "width": 1.8, "dash": "dash"} if is_budget else {"color": GREY, "width": 1}
        figure.add_contour(
            x=x.tolist(), y=y.tolist(), z=[[None if np.isnan(v) else float(v) for v in row] for row in z],
            contours={"start": level, "end": level, "size": 1, **lines},
            line=line, showscale=False, hoverinfo="skip", name="KL budget" if is_budget else "KL, nats",
            showlegend=is_budget, meta={"method": "", "role": "contour", "name": f"KL {level:g}"},
        )  # fmt: skip


def kl_map(places: Floats, kl: Floats) -> tuple[Floats, Floats, Floats]:
    """Return axes (SIDE,) and KL (SIDE, SIDE), rows along the second axis, between `places` (n, 2); NaN outside them.

    The root of KL, about linear in the distance from the reference policy, is interpolated by a thin-plate spline.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.spatial import Delaunay

    places, first = np.unique(places.round(9), axis=0, return_index=True)
    spline = RBFInterpolator(places, np.sqrt(np.maximum(kl[first], 0.0)))
    x, y = (np.linspace(places[:, i].min(), places[:, i].max(), SIDE) for i in range(2))
    grid = np.array([(a, b) for b in y for a in x])
    values = np.maximum(spline(grid), 0.0) ** 2
    values[Delaunay(places).find_simplex(grid) < 0] = np.nan
    return x, y, values.reshape(SIDE, SIDE)
