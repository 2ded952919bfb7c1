"""Write a finished run's report: report.html (one self-contained file), report.md and report.json."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import plotly.offline
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from peo_bench.report import contents, figures, svg
from peo_bench.report.folder import Json, RunFolder, read_run_folder
from peo_bench.report.glossary import GLOSSARY
from peo_bench.report.tables import Table, points_table, scoreboard, steering_table, versus_table, within_kl_table
from peo_bench.report.texts import embed_texts
from peo_bench.report.wording import balance, fact, method_name
from peo_bench.resources import resource_dir
from peo_bench.store.atomic import finite, write_json, write_text

REPORT_SCHEMA_VERSION = 1


def build_report(run_dir: Path) -> Path:
    """Read the finished run in ``run_dir``, write the three reports beside its files, return report.html.

    Reports are replaced atomically and depend on the run folder only (no clock), so building twice
    gives the same bytes. Raises UsageError where ``run_dir`` is no finished run.
    """
    folder = read_run_folder(run_dir)
    views = contents.task_views(folder)
    summary = _summary(folder, views)
    write_json(run_dir / "report.json", finite(summary))
    templates = environment()
    context = {"provenance": _provenance(folder.run), "config": folder.config, "glossary": GLOSSARY, "summary": summary}
    tasks = [_section(index, view) for index, view in enumerate(views)]
    write_text(run_dir / "report.md", templates.get_template("report.md.j2").render(**context, tasks=tasks))
    data = Markup(embedded_json(_page_data(folder, views, tasks)))
    page = _render(templates, {**context, "tasks": tasks, "data": data, "has_texts": folder.generations is not None})
    write_text(run_dir / "report.html", page)
    return run_dir / "report.html"


def embedded_json(value: Any) -> str:
    r"""Encode ``value`` for a ``<script type="application/json">`` element; no text in it can end the element.

    >>> embedded_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def content_security_policy(scripts: list[str], styles: list[str]) -> str:
    """Allow exactly these inline scripts and styles, by hash, and images that are part of the page; nothing else."""
    return (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {' '.join(map(_hash, styles))}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _summary(folder: RunFolder, views: tuple[contents.TaskView, ...]) -> Json:
    """Collect the numbers of the page for report.json."""
    run = folder.run
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "title": run.get("title") or f"{run.get('suite', 'run')}: {run.get('model', '')}".rstrip(": "),
        "status": run.get("status"),
        "badges": [asdict(badge) for badge in contents.badges(run, views)],
        "warnings": list(contents.warnings(run, views)),
        "tasks": {view.task: _task_summary(view) for view in views},
        "provenance": {
            key: run.get(key)
            for key in ("command", "seeds", "packages", "hardware", "stages", "job_seconds", "finished")
        },
    }


def _task_summary(view: contents.TaskView) -> Json:
    return {
        "verdict": asdict(view.verdict),
        "reference_point_raw": view.bound,
        "methods": view.measured,
        "costs": view.costs,
        "points": [asdict(point) for point in view.points],
    }


def _provenance(run: Json) -> Json:
    """Prepare the run's circumstances as texts: groups of facts that are present, command and dates."""
    groups = {
        "Packages": "packages",
        "Hardware": "hardware",
        "Seconds per stage": "stages",
        "Seconds of work": "job_seconds",
    }
    when = [f"{key} {run[key]}" for key in ("started", "finished") if run.get(key)]
    seeds = ", ".join(str(seed) for seed in run.get("seeds", []))
    return {
        "command": str(run.get("command", "")),
        "facts": {
            title: [(name, fact(value)) for name, value in run[key].items()]
            for title, key in groups.items()
            if run.get(key)
        },
        "when": "; ".join([*when, f"seeds {seeds}", *(f"{k} {run[k]}" for k in ("licence",) if run.get(k))]),
    }


def _section(index: int, view: contents.TaskView) -> Json:
    """Prepare one task for the templates: texts, tables and the static figure."""
    methods = contents.shown_methods(view)
    styles = figures.method_styles(methods)
    geometry = figures.front_geometry(view)
    plots = {f"front-{index}": figures.front_figure(view, styles, geometry)} if view.points else {}
    panels: dict[str, list[Json]] = {}
    for panel in figures.panels(view, styles):
        plots[f"{panel.name}-{index}"] = panel.figure
        panels.setdefault(panel.section, []).append({"id": f"{panel.name}-{index}", "title": panel.title})
    label = contents.describe(view)
    return {
        "id": index,
        "view": view,
        "lead": contents.lead(view),
        "facts": contents.facts(view),
        "caption": contents.caption(view),
        "label": label,
        "figures": {name: json.loads(figure.to_json()) for name, figure in plots.items()},
        "panels": panels,
        "legend": [(m, method_name(m), Markup(svg.swatch(styles[m]))) for m in view.methods],
        "swatches": {m: Markup(svg.swatch(styles.get(m))) for m in (*methods, "reference")},
        "star": Markup(svg.swatch(None)) if view.of("reference") else None,
        "oracle": bool(view.of("oracle")),
        "static": Markup(svg.front_svg(view, styles, geometry, label)) if view.points else None,
        "scoreboard": scoreboard(view),
        "versus": versus_table(view),
        "steering": steering_table(view),
        "within_kl": within_kl_table(view),
        "points": points_table(view) if view.points else Table((), ()),
    }


def _page_data(folder: RunFolder, views: tuple[contents.TaskView, ...], tasks: list[Json]) -> Json:
    """Collect what the page's script needs: the figures, the labels of policies and their texts."""
    columns = list(dict.fromkeys(axis.column for view in views for axis in view.axes))
    policies = {
        point.key: {
            "name": point.name,
            "asked": "before alignment" if point.method == "reference" else balance(point.weight, *names),
            "summary": contents.summary(point, view.axes),
        }
        for view in views
        for names in [[axis.name for axis in view.axes]]
        for point in view.points
        if point.key
    }
    plots = {name: figure for task in tasks for name, figure in task["figures"].items()}
    return {"figures": plots, "policies": policies, "texts": embed_texts(folder.generations, columns)}


def environment() -> Environment:
    """Load templates from reports/; HTML is escaped, Markdown is not."""
    return Environment(
        loader=FileSystemLoader(resource_dir("reports")),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def asset(name: str) -> str:
    """Return a script or style of reports/."""
    return (resource_dir("reports") / name).read_text(encoding="utf-8")


def _render(templates: Environment, context: Json) -> str:
    """Fill the page and allow its inline scripts and styles by hash."""
    plotly_js, sorting, script = plotly.offline.get_plotlyjs(), asset("tables.js"), asset("report.js")
    style = asset("report.css")
    policy = content_security_policy([plotly_js, sorting, script], [style])
    inline = {"plotly_js": plotly_js, "sorting": sorting, "script": script, "style": style}
    assets = {name: Markup(text) for name, text in inline.items()} | {"policy": policy}
    # plotly's map traces add a style element while loading, which the policy would block with an error on the
    # console, unless an element with its id is there already.
    ids = re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly_js)
    return templates.get_template("report.html.j2").render(**context, **assets, plotly_style_ids=sorted(set(ids)))


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
