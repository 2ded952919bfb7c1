"""Write a finished run's report: report.html (one self-contained file), report.md and report.json."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import plotly.offline
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from peo_bench import __version__
from peo_bench.errors import printable
from peo_bench.files.atomic import finite, json_text, write_text
from peo_bench.files.inside import refuse_links
from peo_bench.files.json_types import JsonObject
from peo_bench.kill_points import kill_point
from peo_bench.report import contents, figures, findings
from peo_bench.report.glossary import GLOSSARY
from peo_bench.report.provenance import provenance
from peo_bench.report.sections import page_data, prepared, section
from peo_bench.report.stand_in import by_its_name
from peo_bench.report.texts import Texts, embed_texts
from peo_bench.report.wording import markdown_fence, markdown_text, method_name
from peo_bench.resources import resource_dir
from peo_bench.results.differences import REPORTS
from peo_bench.results.folder import RunFolder, read_run_folder
from peo_bench.results.record import check_file

REPORT_SCHEMA_VERSION = 1
JSON, MARKDOWN, PAGE = REPORTS
SCRIPTS = ("tables.js", "report.js", "explore.js")
"""Beside plotly.js, in the order in which they need each other."""


def build_report(run_dir: Path, *, redact: bool = False) -> Path:
    """Read the finished run in ``run_dir``, write the three reports beside its files, return report.html.

    Reports are replaced atomically and depend on the run folder only (no clock), so building twice
    gives the same bytes. ``redact`` leaves prompts and answers out. Raises UsageError where ``run_dir`` is no finished
    run.
    """
    files = _files(run_dir, redact)
    refuse_links(run_dir)
    for name in (JSON, MARKDOWN):
        write_text(run_dir / name, files[name])
    kill_point("report")
    write_text(run_dir / PAGE, files[PAGE])
    return run_dir / PAGE


def report_problems(run_dir: Path) -> list[str]:
    """Say which of the reports are missing, or not what this version makes of the folder, texts left out or not.

    Of a run of another version they are not compared: its report was another.
    """
    there = [name for name in REPORTS if (run_dir / name).exists()]
    again = f"type `peo-bench report {run_dir}`"
    found = [f"{name} is missing: {again}" for name in REPORTS if name not in there]
    if not there or read_run_folder(run_dir).run.peo_bench != __version__:
        return found
    for redact in (False, True):
        made = _files(run_dir, redact) if there else {}
        there = [name for name in there if _content(run_dir / name) != made[name].encode()]
    return found + [f"{name} is not the report of this folder: {again}" for name in there]


def _content(path: Path) -> bytes:
    check_file(path)
    return path.read_bytes()


def _files(run_dir: Path, redact: bool) -> dict[str, str]:
    """Return the three reports by the names of their files."""
    folder = by_its_name(read_run_folder(run_dir))
    views = contents.task_views(folder)
    summary = _summary(folder, views)
    templates = environment()
    texts = None if redact else _texts(folder, views)
    tasks = [section(index, view, folder) for index, view in enumerate(views)]
    whole = prepared(figures.run_panels(folder), "run")
    context = {
        "provenance": provenance(folder),
        "config": folder.config,
        "glossary": GLOSSARY,
        "summary": summary,
        "run_panels": whole,
        "texts": texts,
        "hints": _hints(views, folder, _without_texts(folder, texts, redact)),
        "tasks": tasks,
    }
    data = Markup(embedded_json(page_data(tasks, whole, texts)))
    return {
        JSON: json_text(finite(summary)),
        MARKDOWN: printable(templates.get_template("report.md.j2").render(**context)),
        PAGE: _render(templates, {**context, "data": data}),
    }


def embedded_json(value: object) -> str:
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


def _summary(folder: RunFolder, views: tuple[contents.TaskView, ...]) -> JsonObject:
    """Collect the numbers of the page for report.json."""
    run = folder.run
    kept = ("command", "seeds", "packages", "hardware", "stages", "job_seconds", "finished")
    told = run.to_json()
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "title": run.title,
        "status": run.status,
        "badges": [asdict(badge) for badge in contents.badges(run, views)],
        "warnings": list(contents.warnings(run, views)),
        "tasks": {view.task: _task_summary(view) for view in views},
        "provenance": {key: told[key] for key in kept},
    }


def _task_summary(view: contents.TaskView) -> JsonObject:
    return {
        "verdict": asdict(view.verdict),
        "reference_point_raw": view.bound,
        "methods": {method: metrics.to_json() for method, metrics in view.measured.items()},
        "comparisons": [comparison.to_json() for comparison in view.comparisons],
        "judges": {judge: metrics.to_json() for judge, metrics in view.judges.items()},
        "safety": [row.to_json() for row in view.safety],
        "capabilities": [row.to_json() for row in view.capabilities],
        "costs": {method: cost.to_json() for method, cost in view.costs.items()},
        "points": [asdict(point) for point in view.points],
    }


def _texts(folder: RunFolder, views: tuple[contents.TaskView, ...]) -> Texts | None:
    columns = {axis.column: axis.maximise for view in views for axis in view.axes}
    names = [view.names for view in views] or [("", "")]
    return embed_texts(folder.answers, columns, folder.judgements, names[0])


def _without_texts(folder: RunFolder, texts: Texts | None, redact: bool) -> str:
    """Say why the page has no texts; empty where it has."""
    if redact and folder.answers is not None:
        return "No prompts and answers: they were left out (--redact); peo-bench report RUN puts them back."
    return "" if texts else "No prompts and answers: this run kept none."


def _hints(views: tuple[contents.TaskView, ...], folder: RunFolder, absent: str) -> list[str]:
    """Return what the report lacks, each line once."""
    curves = folder.curves is not None and len(folder.curves) > 0
    return list(dict.fromkeys(line for view in views for line in findings.hints(view, curves, absent)))


def environment() -> Environment:
    """Load templates from reports/; HTML is escaped, Markdown is not."""
    templates = Environment(
        loader=FileSystemLoader(resource_dir("reports")),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"method_name": method_name, "md": markdown_text, "fence": markdown_fence}
    return templates


def asset(name: str) -> str:
    """Return a script or style of reports/."""
    return (resource_dir("reports") / name).read_text(encoding="utf-8")


def _render(templates: Environment, context: Mapping[str, object]) -> str:
    """Fill the page and allow its inline scripts and styles by hash."""
    scripts = [plotly.offline.get_plotlyjs(), *map(asset, SCRIPTS)]
    style = asset("report.css")
    policy = content_security_policy(scripts, [style])
    assets = {"scripts": list(map(Markup, scripts)), "style": Markup(style), "policy": policy}
    # plotly's map traces add a style element while loading, which the policy would block with an error on the
    # console, unless an element with its id is there already.
    ids = re.findall(r'getElementById\("([0-9a-f]{64})"\)', scripts[0])
    return templates.get_template("report.html.j2").render(**context, **assets, plotly_style_ids=sorted(set(ids)))


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
