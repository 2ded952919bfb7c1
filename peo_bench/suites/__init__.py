"""Suites: a model, its data and settings, in one YAML file; a name of ours, of a third party, or the path of a file."""

from __future__ import annotations

from pathlib import Path

from peo_bench.registry import Registry

TASKS: Registry[Path] = Registry("task", "peo_bench.tasks")


SUITES: Registry[Path] = Registry("suite", "peo_bench.suites")
