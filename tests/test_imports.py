"""What a fresh interpreter has loaded after a command or an import: heavy packages are imported where they are used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = {"torch", "transformers", "trl", "peft", "datasets"}
NUMBERS = {"numpy", "pandas", "scipy", "sklearn", "moocore"}
DRAWING = {"matplotlib", "plotly", "jinja2"}

AFTER = """
import contextlib, importlib, io, json, pkgutil, sys

def command(*words):
    from peo_bench.cli import main
    sys.argv = ["peo-bench", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()

def room(name):
    folder = importlib.import_module(f"peo_bench.{name}").__path__
    for found in pkgutil.walk_packages(folder, f"peo_bench.{name}."):
        importlib.import_module(found.name)

loaded = {}
for name, do in STEPS.items():
    do()
    loaded[name] = [m for m in sys.modules if "." not in m]
print(json.dumps(loaded))
"""


def loaded_after(steps: str) -> dict[str, set[str]]:
    """The packages loaded after each of the steps, which are done one after the other in one interpreter."""
    root = Path(__file__).parents[1]
    code = AFTER.replace("STEPS", f"{{{steps}}}")
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {step: set(modules) for step, modules in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def command_line() -> dict[str, set[str]]:
    steps = {"package": 'importlib.import_module("peo_bench")'}
    steps |= {"help": 'command("--help")', "run": 'command("run", "-h")'}
    lists = ("scorers", "judges", "learners", "suites", "tasks", "methods")
    steps |= {what: f'command("list", "{what}")' for what in lists}
    return loaded_after(", ".join(f'"{name}": lambda: {call}' for name, call in steps.items()))


def test_the_package_alone_loads_nothing(command_line):
    assert not command_line["package"] & (MODELS | NUMBERS | DRAWING | {"pydantic", "typer", "rich", "yaml"})


def test_help_loads_the_command_line_only(command_line):
    assert {"typer", "rich"} <= command_line["run"]
    for step in ("help", "run"):
        assert not command_line[step] & (MODELS | NUMBERS | DRAWING)


def test_lists_load_no_models(command_line):
    """Methods are read from their files, which compute with arrays; the other lists need none of that."""
    for step in ("scorers", "judges", "learners", "suites", "tasks"):
        assert not command_line[step] & (MODELS | DRAWING | (NUMBERS - {"numpy"}))
    assert not command_line["methods"] & (MODELS | DRAWING)


def test_results_boards_and_reports_load_no_models():
    steps = ", ".join(f'"{name}": lambda: room("{name}")' for name in ("results", "boards", "report"))
    loaded = loaded_after(steps)
    assert "pandas" in loaded["report"], "nothing was imported"
    assert not loaded["report"] & MODELS
    assert not loaded["boards"] & (DRAWING - {"jinja2"})
