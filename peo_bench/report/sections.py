"""Prepare the page's sections for the templates: texts, tables and figures; nothing is computed after this."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from peo_bench.report import contents, figures, findings, svg, uncertainty
from peo_bench.report.contents import Json
from peo_bench.report.showings import Showing, showings
from peo_bench.report.slider import steer_data
from peo_bench.report.tables import Table, points_table, scoreboard, steering_table, versus_table, within_kl_table
from peo_bench.report.wording import balance, method_name
from peo_bench.results.folder import RunFolder


def section(index: int, view: contents.TaskView, folder: RunFolder) -> Json:
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
    return {
        "id": index,
        "view": view,
        "lead": contents.lead(view),
        "facts": contents.facts(view),
        "caption": contents.caption(view, banded=bands, choices=len(shown)),
        "showings": [showing.label for showing in shown],
        "positions": _positions(shown),
        "label": label,
        "figures": {name: _specs(variants) for name, variants in plots.items()},
        "panels": panels,
        "steer": steer_data(view),
        "attainment": _shares(spread),
        "legend": [(m, method_name(m), Markup(svg.swatch(styles[m]))) for m in view.methods],
        "key": [
            (m, method_name(m), Markup(svg.swatch(styles.get(m)))) for m in (*contents.shown_methods(view), "reference")
        ],
        "swatches": {m: Markup(svg.swatch(styles.get(m))) for m in (*methods, "reference")},
        "star": Markup(svg.swatch(None)) if view.of("reference") else None,
        "oracle": {
            "line": any(len(line) > 1 for line in geometry.oracle.values()),
            "point": any(not point.hollow for point in view.of("oracle")),
            "hollow": any(point.hollow for point in view.of("oracle")),
        },
        "bands": bool(bands),
        "static": Markup(svg.front_svg(view, styles, geometry, label)) if view.points else None,
        "scoreboard": scoreboard(view),
        "versus": versus_table(view),
        "steering": steering_table(view),
        "within_kl": within_kl_table(view),
        "judge_cards": findings.judge_cards(view),
        "judges": [_judge(view, panels, judge) for judge in view.judges],
        "safety": findings.safety_table(view),
        "tax": findings.tax_table(view),
        "points": points_table(view) if view.points else Table((), ()),
    }


def _judge(view: contents.TaskView, panels: Mapping[str, list[Json]], judge: str) -> Json:
    found, names = view.judges[judge], (view.axes[0].name, view.axes[1].name)
    return {
        "name": judge,
        "panels": panels.get(f"judge:{judge}", []),
        "rates": findings.rates_table(found, names),
        "elo": findings.elo_table(found),
    }


def prepared(found: Iterable[figures.Panel], index: int | str) -> dict[str, list[Json]]:
    """Prepare figures for the templates, by section."""
    by_section: defaultdict[str, list[Json]] = defaultdict(list)
    for panel in found:
        by_section[panel.section].append(
            {
                "id": f"{panel.name}-{index}",
                "title": panel.title,
                "how": panel.how,
                "legend": panel.legend and bool(panel.figure.data) and not panel.figure.layout.barmode,
                "choices": [name for name, _ in panel.variants] if len(panel.variants) > 1 else [],
                "table": panel.table,
                "methods": list(
                    {t.meta["method"]: None for _, figure in panel.variants for t in figure.data if len(t.x)}
                ),
                "summary": panel.own_table is not None,
                "wide": bool(panel.figure.layout.meta),
                "specs": _specs([figure for _, figure in panel.variants]),
            }
        )
    return by_section


def _specs(variants: Iterable[Any]) -> list[Json]:
    return [json.loads(figure.to_json()) for figure in variants]


def _positions(shown: Iterable[Showing]) -> dict[str, list[list[float] | None]]:
    """Return where every policy lies in each choice of scores; None where it has none of them."""
    places = [{point.key: [point.x, point.y] for point in showing.view.points} for showing in shown]
    return {key: [own.get(key) for own in places] for key in (places[0] if places else {})}


def _shares(spread: uncertainty.Uncertainty | None) -> Json | None:
    return None if spread is None else {m: share.astype(int).tolist() for m, share in spread.shares.items()}


def page_data(
    views: tuple[contents.TaskView, ...], tasks: list[Json], whole: Mapping[str, list[Json]], texts: Json | None
) -> Json:
    """Collect what the page's scripts need: the figures, the policies, the slider's steps and the texts."""
    policies = {
        point.key: {
            "method": point.method,
            "name": point.name,
            "asked": "before alignment" if point.method == "reference" else balance(point.weight, *names),
            "summary": contents.summary(point, view.axes),
            "at": task["positions"][point.key],
        }
        for view, task in zip(views, tasks, strict=True)
        for names in [[axis.name for axis in view.axes]]
        for point in view.points
        if point.key
    }
    shown = [
        panel for part in (whole, *(task["panels"] for task in tasks)) for group in part.values() for panel in group
    ]
    plots = {panel["id"]: panel["specs"] for panel in shown} | {
        n: f for task in tasks for n, f in task["figures"].items()
    }
    return {
        "figures": {name: specs[0] for name, specs in plots.items()},
        "variants": {name: specs for name, specs in plots.items() if len(specs) > 1},
        "policies": policies,
        "steer": {task["id"]: task["steer"] for task in tasks if task["steer"]},
        "attainment": {task["id"]: task["attainment"] for task in tasks if task["attainment"]},
        "texts": texts,
    }
