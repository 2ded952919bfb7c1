"""Suites: a model, its data and settings, in one YAML file; a name of ours, of a third party, or the path of a file."""

from __future__ import annotations

from pathlib import Path

from peo_bench.registry import Registry
from peo_bench.resources import resource_dir

EXPECTED = "the pathlib.Path of a YAML file"


def _is_path(thing: object) -> bool:
    return isinstance(thing, Path)


def _registry(what: str, group: str, folder: Path) -> Registry[Path]:
    return Registry(what, group, {file.stem: file for file in folder.glob("*.yaml")}, expected=EXPECTED, valid=_is_path)


TASKS = _registry("task", "peo_bench.tasks", resource_dir("tasks"))
SUITES = _registry("suite", "peo_bench.suites", Path(__file__).parent)
