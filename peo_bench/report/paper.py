"""Figures and tables for papers: HTML, SVG, PDF and PNG; CSV, Markdown and LaTeX."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from peo_bench import pareto
from peo_bench.errors import UsageError
from peo_bench.files.atomic import replacing, write_text
from peo_bench.files.inside import inside
from peo_bench.files.spreadsheet import inert
from peo_bench.pareto.checks import FloatArray
from peo_bench.report import contents, figures
from peo_bench.report.stand_in import by_its_name
from peo_bench.report.tables import Table, points_table, published_table, scoreboard, steering_table, versus_table
from peo_bench.report.wording import method_name
from peo_bench.resources import require
from peo_bench.results.folder import read_run_folder

FIGURE_FORMATS = ("html", "svg", "pdf", "png")
TABLE_FORMATS: Mapping[str, Callable[[pd.DataFrame], str]] = {
    "csv": lambda table: _csv(table),
    "md": lambda table: _markdown(table),
    "tex": lambda table: _latex(table.style.hide(axis="index").format(escape="latex").to_latex(hrules=True)),
}
LATEX = {
    "−": "$-$",
    "±": "$\\pm$",
    "×": "$\\times$",
    "·": "$\\cdot$",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "–": "--",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
}
"""Characters of our tables that pdflatex has no glyph for."""
INK, RULE = "#1c2024", "#d9dde2"
WIDTH, HEIGHT = 760, 520
SCALE = 3
"""Pixels per unit in PNG files: 2280 x 1560."""


def write_run_figures(run: Path, out: Path, formats: Iterable[str]) -> list[Path]:
    """Write every figure and table of a finished run into `out`, each in every one of `formats`; return the files.

    Raises UsageError for an unknown format, and where SVG, PDF or PNG are wanted and no Chrome or Chromium is found.
    """
    wanted = list(dict.fromkeys(formats))
    known = (*FIGURE_FORMATS, *TABLE_FORMATS)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise UsageError(f"--formats: {unknown[0] if unknown else 'empty'}: known are {', '.join(known)}")
    pictures, tables = run_pictures(run)
    written = []
    with _one_browser(wanted):
        _make(out)
        for name, figure in pictures.items():
            for suffix in (f for f in wanted if f in FIGURE_FORMATS):
                written.append(write_figure(figure, inside(out, f"{name}.{suffix}")))
    for name, table in tables.items():
        for suffix in (f for f in wanted if f in TABLE_FORMATS):
            path = inside(out, f"{name}.{suffix}")
            write_text(path, TABLE_FORMATS[suffix](_frame(table)))
            written.append(path)
    return written


def run_pictures(run: Path) -> tuple[dict[str, go.Figure], dict[str, Table]]:
    """Return the figures, with a legend and in the colours of paper, and the tables of a finished run, by name."""
    pictures: dict[str, go.Figure] = {}
    tables: dict[str, Table] = {}
    folder = by_its_name(read_run_folder(run))
    views = contents.task_views(folder)
    for view in views:
        prefix = f"{view.task}-" if len(views) > 1 else ""
        styles = figures.method_styles(contents.shown_methods(view))
        if view.points:
            front = figures.front_figure(view, styles, figures.front_geometry(view))
            for trace in front.data:
                named = trace.meta.get("name")
                shown = named is not None or trace.meta["role"] in ("points", "ink")
                trace.update(showlegend=shown, name=named or _name(trace.meta["method"]))
                if trace.meta["role"] == "ink":
                    trace.marker.color = INK
            pictures[f"{prefix}front"] = on_paper(front)
            tables[f"{prefix}points"] = points_table(view)
        for panel in figures.panels(view, styles, folder):
            pictures |= {f"{prefix}{name}": figure for name, figure in _panel_pictures(panel)}
        tables |= {
            f"{prefix}scoreboard": scoreboard(view),
            f"{prefix}as-published": published_table(view),
            f"{prefix}versus": versus_table(view),
            f"{prefix}steering": steering_table(view),
        }
    return pictures, tables


def _panel_pictures(panel: figures.Panel) -> Iterator[tuple[str, go.Figure]]:
    """Yield each variant of a panel for paper, numbered where there are several, its title on the x axis or above."""
    for i, (choice, figure) in enumerate(panel.variants):
        for trace in figure.data:
            if trace.type != "heatmap":
                trace.update(showlegend=panel.legend, name=trace.meta.get("name") or _name(trace.meta["method"]))
        title = f"{panel.title}: {choice}" if choice else panel.title
        if any(trace.type == "heatmap" for trace in figure.data):
            figure.update_layout(title={"text": figures.plain(title)}, margin_t=120, height=figure.layout.height + 110)
        elif not panel.legend and not figure.layout.xaxis.title.text:
            figure.update_layout(xaxis_title=title, margin_b=52, height=figure.layout.height + 20)
        yield panel.name if len(panel.variants) == 1 else f"{panel.name}-{i + 1}", on_paper(figure)


def fronts_figure(
    groups: Mapping[str, FloatArray], titles: tuple[str, str], maximise: list[bool], reference: list[float] | None
) -> go.Figure:
    """Draw anybody's two-objective points, a colour and a marker per group, "better" up and right.

    ``groups[name]``: (n_points, 2). Dominated points are hollow; with a reference point each group's staircase
    encloses its hypervolume.
    """
    figure = go.Figure()
    styles = figures.method_styles(list(groups))
    for name, points in groups.items():
        style, mask = styles[name], pareto.nondominated(points, maximise)
        if reference is not None:
            path = pareto.staircase(points, reference, maximise)
            line = {"color": style.colour, "width": 1.8, "dash": style.dash}
            figure.add_scatter(x=path[:, 0], y=path[:, 1], mode="lines", line=line, showlegend=False, hoverinfo="skip")
        symbols = [style.symbol if on_front else f"{style.symbol}-open" for on_front in mask]
        marker = {"color": style.colour, "symbol": symbols, "size": 10}
        figure.add_scatter(
            x=points[:, 0], y=points[:, 1], mode="markers", marker=marker, name=figures.plain(name), showlegend=True
        )
    better = ["higher" if up else "lower" for up in maximise]
    axes = [
        {
            "title": {"text": f"{figures.plain(title)} ({word} is better)"},
            "autorange": True if up else "reversed",
            "zeroline": False,
        }
        for title, word, up in zip(titles, better, maximise, strict=True)
    ]
    figure.update_layout(template={}, xaxis=axes[0], yaxis=axes[1], hovermode="closest")
    return on_paper(figure)


def on_paper(figure: go.Figure) -> go.Figure:
    """Return the figure as it looks on white paper, with its legend beside it."""
    axis = {"gridcolor": RULE, "linecolor": RULE, "fixedrange": False}
    figure.update_layout(
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": "Helvetica, Arial, sans-serif", "size": 14, "color": INK},
        showlegend=any(trace.showlegend for trace in figure.data),
        legend={"bgcolor": "rgba(255,255,255,0)"},
        width=WIDTH,
        height=figure.layout.height or HEIGHT,
        dragmode="zoom",
    )
    figure.update_annotations(arrowcolor=INK)
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def write_figure(figure: go.Figure, path: Path) -> Path:
    """Write a figure in the format of the path's suffix; raise UsageError for one that cannot be made here."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FIGURE_FORMATS:
        raise UsageError(f"{path}: figures end in .{', .'.join(FIGURE_FORMATS)}")
    if suffix != "html":
        _require_browser(suffix)
    try:
        with replacing(path) as scratch:
            if suffix == "html":
                figure.write_html(scratch, include_plotlyjs=True, full_html=True)
            else:
                scratch.write_bytes(figure.to_image(format=suffix, scale=SCALE if suffix == "png" else 1))
    except OSError as error:
        raise UsageError(f"{path}: cannot write there ({error.strerror}): choose another place") from None
    return path


def _require_browser(suffix: str) -> None:
    require("kaleido", "figures")
    if not any(_works(name) for name in ("google-chrome", "chrome", "chromium", "chromium-browser")):
        raise UsageError(
            f"a Chrome or Chromium that starts is needed to draw {suffix} files: install one (apt install chromium), "
            "or ask for html"
        )


def _works(browser: str) -> bool:
    path = shutil.which(browser)
    try:
        return path is not None and subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def _one_browser(formats: Iterable[str]) -> Iterator[None]:
    """Draw everything inside with one browser, which is ten times faster than one per picture."""
    drawn = [name for name in formats if name in FIGURE_FORMATS and name != "html"]
    if not drawn:
        yield
        return
    _require_browser(drawn[0])
    import kaleido

    kaleido.start_sync_server(silence_warnings=True)
    try:
        yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made ({error.strerror}): choose another --out") from None


def _name(method: str) -> str:
    return figures.plain(method_name(method))


def _frame(table: Table) -> pd.DataFrame:
    titles = ["Method", *(title for title, _ in table.columns)]
    return pd.DataFrame([[row.label, *(text for text, _ in row.cells)] for row in table.rows], columns=titles)


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _csv(table: pd.DataFrame) -> str:
    cells = table.replace("−", "-", regex=True).map(lambda value: inert(value) if isinstance(value, str) else value)
    return str(cells.to_csv(index=False))


def _markdown(table: pd.DataFrame) -> str:
    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"

    rule = line([":--", *["--:"] * (len(table.columns) - 1)])
    return line(table.columns) + rule + "".join(map(line, table.itertuples(index=False)))
