"""Write the run folder: the contract that other tools read (schema version 1; see docs/run-folder.md)."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from peo_bench import __version__
from peo_bench.files.atomic import finite, replacing, write_json, write_text
from peo_bench.kill_points import kill_point
from peo_bench.results.measure import Measure
from peo_bench.runs.config import RunConfig
from peo_bench.runs.judging import Judging, write_judgements
from peo_bench.suites.suite import TaskConfig

SCHEMA = 1
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy", "pandas", "pymoo", "moocore")
SMALL = 200
"""Test prompts below which a run is called underpowered (the literature uses 200 to 700)."""


@dataclass(frozen=True)
class Provenance:
    """How the run came about: command, wall seconds by stage, failures by job, reused artefacts, remarks, scorers.

    `scorers` by training seed are those of `peo_bench.runs.scorer_records.scorer_records`.
    """

    command: str
    stages: Mapping[str, float]
    failed: Mapping[str, str]
    reused: int
    notes: tuple[str, ...]
    scorers: Mapping[int, Mapping[str, Any]]


def write_folder(
    out: Path,
    config: RunConfig,
    task: TaskConfig,
    measure: Measure,
    points: pd.DataFrame,
    metrics: Mapping[str, Any],
    texts: pd.DataFrame,
    costs: Mapping[str, Any],
    search: pd.DataFrame,
    missing: list[dict[str, str]],
    provenance: Provenance,
    judging: Judging,
) -> None:
    """Write every file of the folder but the report, each atomically, `run.json` last."""
    write_text(out / "config.yaml", config.to_yaml())
    write_text(out / "points.csv", points.to_csv(index=False))
    write_text(out / "search.csv", search.round(6).to_csv(index=False))
    write_json(out / "metrics.json", {"schema_version": SCHEMA, "tasks": {config.suite.task: finite(metrics)}})
    write_json(out / "costs.json", costs)
    with replacing(out / "generations.parquet") as path:
        texts.to_parquet(path, index=False)
    write_judgements(out, judging)
    work = {kind: row["seconds"] for kind, row in costs["kinds"].items()}
    run = run_json(config, task, points, missing, provenance)
    if judging.counts:
        run["judging"] = {"spent_usd": judging.spent_usd, "judges": judging.counts}
    kill_point("tables")
    write_json(out / "run.json", run | {"job_seconds": work, "measure": measure.to_json()})


def run_json(
    config: RunConfig, task: TaskConfig, points: pd.DataFrame, missing: list[dict[str, str]], provenance: Provenance
) -> dict[str, Any]:
    """Return the content of `run.json`."""
    asked = points[points["method"] != "oracle"]
    absent = [item["what"] for item in missing if item.get("stage") != "judge"]
    lost = sum(len(config.preferences) if "all preferences" in what else 1 for what in absent)
    n = int(asked.loc[asked["split"] == "test", "n"].min())
    return {
        "schema_version": SCHEMA,
        "peo_bench": __version__,
        "command": provenance.command,
        "suite": config.suite.name,
        "title": config.suite.title,
        "model": config.suite.model,
        "task": config.suite.task,
        "task_version": task.version,
        "licence": task.licence,
        "methods": list(config.methods),
        "controls": list(config.controls),
        "external": list(config.policies),
        "seed": config.seeds[0],
        "seeds": list(config.seeds),
        "objectives": [objective.model_dump() for objective in task.objectives],
        "status": "incomplete" if missing else "complete",
        "counts": {"expected": len(asked) + lost, "ok": len(asked), "missing": lost},
        "missing": missing,
        "failed_jobs": dict(provenance.failed),
        "reused_artefacts": provenance.reused,
        "underpowered": f"{n} test prompts: differences below the intervals shown are noise" if n < SMALL else False,
        "limited": config.limit,
        "notes": [*config.suite.notes, *_notes(config, task), *provenance.notes],
        "scorers": {str(seed): dict(records) for seed, records in provenance.scorers.items()},
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": hardware(),
        "stages": dict(provenance.stages),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _notes(config: RunConfig, task: TaskConfig) -> list[str]:
    notes = []
    if len(config.seeds) == 1:
        notes.append("One training seed: intervals cover prompts, not training.")
    if config.suite.scorers and task.units == "raw":
        notes.append(f"Hypervolume's reference point is that of task {config.suite.task} for scorers of its own.")
    if config.policies:
        notes.append("External policies are single points: compare them by dominance.")
    return notes


def hardware() -> dict[str, Any]:
    """Return what the run was computed on."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"platform": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count(), "gpus": gpus}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
