"""Prepare the page's sections for the templates, which compute nothing: texts, tables and figures.

What metrics.json does not hold is worked out here, from answers.parquet: bands and attainment maps (`uncertainty`),
and the scores in other units (`showings`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import plotly.graph_objects as go
from markupsafe import Markup

from peo_bench.files.json_types import JsonObject
from peo_bench.report import contents, figures, findings, svg, uncertainty
from peo_bench.report.points import summary
from peo_bench.report.proxies import proxy_table
from peo_bench.report.showings import Showing, showings
from peo_bench.report.slider import Steer, opened, steer_data
from peo_bench.report.tables import (
    Table,
    points_table,
    published_table,
    scoreboard,
    steering_table,
    versus_table,
    within_kl_table,
)
from peo_bench.report.texts import Texts
from peo_bench.report.wording import balance, method_name
from peo_bench.results.folder import RunFolder


@dataclass(frozen=True)
class Figure:
    """A panel as the templates and the page's scripts need it; ``specs`` are plotly's, one per choice."""

    id: str
    title: str
    how: str
    legend: bool
    choices: list[str]
    table: Table
    methods: list[str]
    summary: bool
    wide: bool
    specs: list[JsonObject]


Figures = Mapping[str, list[Figure]]
"""By section of the page."""


@dataclass(frozen=True)
class JudgeRoom:
    """What one judge said."""

    name: str
    panels: list[Figure]
    rates: Table
    elo: Table


@dataclass(frozen=True)
class OracleMarks:
    """How the oracle is drawn: as lines, each a sample and its name; as single points, as hollow ones."""

    lines: list[tuple[Markup, str]]
    point: bool
    hollow: bool


@dataclass(frozen=True)
class Section:
    """One task of the page: its texts, tables and figures, and what its scripts move.

    ``positions`` says where every policy lies in each of ``showings``; ``attainment`` are the cells of the maps in
    percent; ``key`` names all methods and the reference policy, ``legend`` those of the hero figure.
    """

    id: int
    view: contents.TaskView
    facts: tuple[str, ...]
    caption: str
    showings: list[str]
    positions: dict[str, list[list[float] | None]]
    label: str
    figures: dict[str, list[JsonObject]]
    panels: Figures
    steer: Steer | None
    attainment: dict[str, list[list[int]]] | None
    legend: list[tuple[str, str, Markup]]
    key: list[tuple[str, str, Markup]]
    swatches: dict[str, Markup]
    star: Markup | None
    oracle: OracleMarks
    bands: bool
    static: Markup | None
    scoreboard: Table
    published: Table
    versus: Table
    steering: Table
    within_kl: Table
    proxies: Table
    judge_cards: Table
    judges: list[JudgeRoom]
    safety: Table
    tax: Table
    points: Table


def section(index: int, view: contents.TaskView, folder: RunFolder) -> Section:
    """Prepare one task for the templates: texts, tables and the static figure."""
    methods = contents.shown_methods(view)
    styles = figures.method_styles(methods)
    geometry = figures.front_geometry(view)
    spread = uncertainty.uncertainty(folder, view, geometry) if view.points else None
    bands = spread.bands if spread else {}
    plots = {f"front-{index}": [figures.front_figure(view, styles, geometry, bands)]} if view.points else {}
    shown = showings(view, folder) if view.points else []
    for showing in shown[1:]:
        frame = figures.front_geometry(showing.view)
        around = uncertainty.bands(folder, showing, frame) if bands else {}
        plots[f"front-{index}"].append(figures.front_figure(showing.view, styles, frame, around))
    found = figures.panels(view, styles, folder)
    if spread is not None and len(spread.shares) > 1 and view.comparisons:  # it stands beside the pairs
        found.append(figures.attainment_panel(view, spread))
    panels = prepared(found, index)
    label = contents.describe(view)
    swatches = {m: Markup(svg.swatch(styles.get(m))) for m in (*methods, "reference")}
    oracle = view.of("oracle")
    return Section(
        id=index,
        view=view,
        facts=contents.facts(view),
        caption=contents.caption(view, banded=bands, choices=len(shown)),
        showings=[showing.label for showing in shown],
        positions=_positions(shown),
        label=label,
        figures={name: _specs(variants) for name, variants in plots.items()},
        panels=panels,
        steer=steer_data(view),
        attainment=_shares(spread),
        legend=[(m, method_name(m), swatches[m]) for m in view.methods],
        key=[(m, method_name(m), swatch) for m, swatch in swatches.items()],
        swatches=swatches,
        star=Markup(svg.swatch(None)) if view.of("reference") else None,
        oracle=OracleMarks(
            lines=[(Markup(svg.dash_swatch(dash)), name) for name, dash, _ in figures.oracle_lines(geometry)],
            point=any(not point.hollow for point in oracle),
            hollow=any(point.hollow for point in oracle),
        ),
        bands=bool(bands),
        static=Markup(svg.front_svg(view, styles, geometry, label)) if view.points else None,
        scoreboard=scoreboard(view),
        published=published_table(view),
        versus=versus_table(view),
        steering=steering_table(view),
        within_kl=within_kl_table(view),
        proxies=proxy_table(view, folder.answers),
        judge_cards=findings.judge_cards(view),
        judges=[_judge(view, panels, judge) for judge in view.judges],
        safety=findings.safety_table(view),
        tax=findings.tax_table(view),
        points=points_table(view) if view.points else Table((), ()),
    )


def _judge(view: contents.TaskView, panels: Figures, judge: str) -> JudgeRoom:
    found = view.judges[judge]
    rates, elo = findings.rates_table(found, view.names), findings.elo_table(found)
    return JudgeRoom(judge, panels.get(f"judge:{judge}", []), rates, elo)


def prepared(found: Iterable[figures.Panel], index: int | str) -> Figures:
    """Prepare figures for the templates, by section."""
    by_section: defaultdict[str, list[Figure]] = defaultdict(list)
    for panel in found:
        drawn = [trace for _, figure in panel.variants for trace in figure.data if len(trace.x)]
        by_section[panel.section].append(
            Figure(
                id=f"{panel.name}-{index}",
                title=panel.title,
                how=panel.how,
                legend=bool(panel.legend and panel.figure.data and not panel.figure.layout.barmode),
                choices=[name for name, _ in panel.variants] if len(panel.variants) > 1 else [],
                table=panel.table,
                methods=list(dict.fromkeys(trace.meta["method"] for trace in drawn)),
                summary=panel.own_table is not None,
                wide=bool(panel.figure.layout.meta),
                specs=_specs([figure for _, figure in panel.variants]),
            )
        )
    return by_section


def _specs(variants: Iterable[go.Figure]) -> list[JsonObject]:
    return [json.loads(figure.to_json()) for figure in variants]


def _positions(shown: Iterable[Showing]) -> dict[str, list[list[float] | None]]:
    """Return where every policy lies in each choice of scores; None where it has none of them."""
    places = [{point.key: [point.x, point.y] for point in showing.view.points} for showing in shown]
    return {key: [own.get(key) for own in places] for key in (places[0] if places else {})}


def _shares(spread: uncertainty.Uncertainty | None) -> dict[str, list[list[int]]] | None:
    return None if spread is None else {m: share.astype(int).tolist() for m, share in spread.shares.items()}


def page_data(tasks: list[Section], whole: Figures, texts: Texts | None) -> JsonObject:
    """Collect what the page's scripts need: the figures, the policies, the slider's steps and the texts."""
    policies = {
        point.key: {
            "method": point.method,
            "name": point.name,
            "asked": "before alignment" if point.method == "reference" else balance(point.weight, *task.view.names),
            "summary": summary(point, task.view.axes),
            "at": task.positions[point.key],
        }
        for task in tasks
        for point in task.view.points
        if point.key
    }
    shown = [panel for part in (whole, *(task.panels for task in tasks)) for group in part.values() for panel in group]
    plots = {panel.id: panel.specs for panel in shown}
    for task in tasks:
        plots |= task.figures
    return {
        "figures": {name: specs[0] for name, specs in plots.items()},
        "variants": {name: specs for name, specs in plots.items() if len(specs) > 1},
        "policies": policies,
        "steer": {
            str(task.id): asdict(opened(task.steer, texts) if texts else task.steer) for task in tasks if task.steer
        },
        "attainment": {str(task.id): task.attainment for task in tasks if task.attainment},
        "texts": asdict(texts) if texts else None,
    }
