"""Who beats whom: every pair of methods as a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from peo_bench.report.contents import Json, TaskView
from peo_bench.report.figures.style import heat_map
from peo_bench.report.headline import find_comparison, is_real
from peo_bench.report.wording import decimal, interval, method_name


def utility_map(view: TaskView) -> go.Figure:
    """Draw the difference in steered utility, row minus column; established ones (Holm, interval) carry a mark."""
    pairs = _pairs(view)
    largest = max(abs(gap["difference"]) for gap in pairs.values())
    return _map(
        pairs,
        "steered utility, row minus column",
        value=lambda gap: gap["difference"],
        text=lambda gap: decimal(gap["difference"], signed=True) + ("*" if is_real(gap) else ""),
        hover=lambda gap: (
            f"{method_name(gap['a'])} − {method_name(gap['b'])}: {interval(gap, key='difference', signed=True)}, "
            f"p (Holm) {decimal(gap['p_holm'], 3)}, {'established' if is_real(gap) else 'not established'}"
        ),
        limits=(-largest or -1.0, largest or 1.0),
    )


def hypervolume_map(view: TaskView) -> go.Figure:
    """Draw the share of resamples in which the row has the larger hypervolume; the mark is the utility test's."""
    return _map(
        _pairs(view),
        "share of resamples with the larger hypervolume, row against column",
        value=lambda gap: gap["hypervolume_share"],
        text=lambda gap: f"{100 * gap['hypervolume_share']:.0f} %" + ("*" if is_real(gap) else ""),
        hover=lambda gap: (
            f"{method_name(gap['a'])} has a larger hypervolume than {method_name(gap['b'])} in "
            f"{100 * gap['hypervolume_share']:.0f} % of resamples; no p-value"
        ),
        limits=(0.0, 1.0),
    )


def _pairs(view: TaskView) -> dict[tuple[str, str], Json]:
    """Return every comparison in both directions; the share of the other direction is what ties leave of 1."""
    task = {"comparisons": view.comparisons}
    names = list(view.measured)
    found = {(a, b): find_comparison(task, a, b) for a in names for b in names if a != b}
    return {pair: gap for pair, gap in found.items() if gap is not None}


def _map(
    pairs: Mapping[tuple[str, str], Json],
    title: str,
    *,
    value: Callable[[Json], float],
    text: Callable[[Json], str],
    hover: Callable[[Json], str],
    limits: tuple[float, float],
) -> go.Figure:
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    gaps = [[pairs.get((a, b)) for b in names] for a in names]
    heads = [method_name(name) for name in names]
    return heat_map(
        heads,
        heads,
        [[None if gap is None else value(gap) for gap in row] for row in gaps],
        title=title,
        texts=[["" if gap is None else text(gap) for gap in row] for row in gaps],
        hover=[["" if gap is None else hover(gap) for gap in row] for row in gaps],
        limits=limits,
        diverging=True,
    )
