"""Who beats whom: every pair of methods as a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from peo_bench.report.contents import TaskView
from peo_bench.report.figures.style import Cell, heat_map
from peo_bench.report.headline import Gap, find_comparison
from peo_bench.report.wording import decimal, method_name

EMPTY = Cell(None, "", "")


def utility_map(view: TaskView) -> go.Figure:
    """Draw the difference in steered utility, row minus column; established ones (Holm, interval) carry a mark."""
    pairs = _pairs(view)
    largest = max(abs(gap.difference) for gap in pairs.values())

    def cell(gap: Gap) -> Cell:
        hover = (
            f"{method_name(gap.a)} − {method_name(gap.b)}: {gap}, "
            f"p (Holm) {decimal(gap.p_holm, 3)}, {'established' if gap.real else 'not established'}"
        )
        return Cell(gap.difference, decimal(gap.difference, signed=True) + _mark(gap), hover)

    return _map(pairs, "steered utility, row minus column", cell, (-largest or -1.0, largest or 1.0))


def hypervolume_map(view: TaskView) -> go.Figure:
    """Draw the share of resamples in which the row has the larger hypervolume; the mark is the utility test's."""

    def cell(gap: Gap) -> Cell:
        if gap.hypervolume_share is None:
            return EMPTY
        share = f"{100 * gap.hypervolume_share:.0f} %"
        hover = (
            f"{method_name(gap.a)} has a larger hypervolume than {method_name(gap.b)} in "
            f"{share} of resamples; no p-value"
        )
        return Cell(gap.hypervolume_share, share + _mark(gap), hover)

    title = "share of resamples with the larger hypervolume, row against column"
    return _map(_pairs(view), title, cell, (0.0, 1.0))


def _mark(gap: Gap) -> str:
    return "*" if gap.real else ""


def _pairs(view: TaskView) -> dict[tuple[str, str], Gap]:
    """Return every comparison in both directions; the share of the other direction is what ties leave of 1."""
    names = list(view.measured)
    found = {(a, b): find_comparison(view.comparisons, a, b) for a in names for b in names if a != b}
    return {pair: gap for pair, gap in found.items() if gap is not None}


def _map(
    pairs: Mapping[tuple[str, str], Gap], title: str, cell: Callable[[Gap], Cell], limits: tuple[float, float]
) -> go.Figure:
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    cells = [[cell(pairs[a, b]) if (a, b) in pairs else EMPTY for b in names] for a in names]
    heads = [method_name(name) for name in names]
    return heat_map(heads, heads, cells, title, limits, diverging=True)
