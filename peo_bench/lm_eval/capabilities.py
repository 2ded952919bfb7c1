"""Capability retention: lm-eval's tasks on the policies of a run, to see what alignment has cost elsewhere.

A policy stands before lm-eval as an `LM` over the engine, so every spec works as it is, mixtures of log-probabilities
included, and policies that share a base share its weights. Contexts are plain text, without a chat template, as
lm-eval's own numbers are. lm-eval's `use_cache` is not used: its key leaves the model out. Results are jobs of ours.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from peo_bench.core import roles
from peo_bench.core.spec import PolicySpec, spec_from_json
from peo_bench.data.sources import located, remember
from peo_bench.errors import UsageError
from peo_bench.evaluation.generation import batch_of, make_engine
from peo_bench.files.atomic import finite
from peo_bench.files.digest import file_digest
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.files.plain import require_file
from peo_bench.jobs.job import Cost, Job, JobKind, never_alone
from peo_bench.jobs.store import Store
from peo_bench.jobs.workspace import Progress, Workspace
from peo_bench.lm_eval.trust import sandboxed_templates
from peo_bench.settings import load_yaml

SUFFIXES = (".yaml", ".yml")


def capability_name(name: str) -> str:
    """Return what a task is called in the results: lm-eval's name, or that of its file."""
    path = Path(name)
    return path.stem if path.suffix in SUFFIXES else name


def capability_identity(name: str) -> JsonObject:
    """Return the JSON that identifies a task: lm-eval's name, or for a YAML file the digests of what it is made of.

    Those are the file, Python and YAML files beside it, and the local files in its `dataset_kwargs.data_files`. Raises
    `UsageError` for a file that does not exist and for a name that lm-eval does not know.
    """
    path = Path(name)
    if path.suffix not in SUFFIXES:
        if name not in _known():
            raise UsageError(
                f"--capabilities {name!r}: lm-eval has no such task: `lm-eval ls tasks` lists them; or give the path "
                "of a task's YAML file"
            )
        return {"task": name}
    require_file(path, "give the path of an lm-eval task's YAML file")
    if not path.exists():
        raise UsageError(f"--capabilities {name!r}: no such file: give the path of an lm-eval task's YAML file")
    digest = file_digest(path)
    remember(digest, path)
    code = {*SUFFIXES, ".py"}
    beside = sorted(file for file in path.parent.iterdir() if file.suffix in code and file != path and file.is_file())
    return {
        "task": capability_name(name),
        "sha256": digest,
        "with": [file_digest(file) for file in [*beside, *_data_files(path)]],
    }


@cache
def _known() -> frozenset[str]:
    """Return the names of lm-eval's tasks, groups and tags (reading its folders takes seconds)."""
    from lm_eval.tasks import TaskManager

    with _quiet():
        return frozenset(TaskManager().all_tasks)


def _data_files(path: Path) -> list[Path]:
    """Return the local files that a task's `dataset_kwargs.data_files` names; `UsageError` for a pipe or a device."""
    named = (load_yaml(path).get("dataset_kwargs") or {}).get("data_files") or []
    flat = named.values() if isinstance(named, dict) else [named] if isinstance(named, str) else named
    names = [name for item in flat for name in ([item] if isinstance(item, str) else item)]
    files = [Path(name) for name in names if not Path(name).is_dir()]
    for file in files:
        require_file(file, f"give one in dataset_kwargs.data_files of {path}")
    return sorted(file for file in files if file.is_file())


def capability_job(
    reference: Job, spec: PolicySpec, deltas: Mapping[str, Job], task: Mapping[str, Json], limit: int, precision: str
) -> Job:
    """Return the job that measures `spec` on the first `limit` items of a task (see `capability_identity`)."""
    needs = {"reference": reference} | {roles.delta(name): deltas[name] for name in spec.ids if name != reference.id}
    return Job(
        "capability", {"spec": spec.to_json(), "task": dict(task), "limit": limit, "precision": precision}, needs
    )


def measure_together(store: Store, jobs: list[Job], progress: Progress) -> None:
    """Measure policies on one task, which is loaded once."""
    from lm_eval.evaluator import evaluate

    from peo_bench.lm_eval.policy_lm import PolicyLM

    first = jobs[0]
    engine = make_engine(store.__getitem__, first.needs["reference"].id, first.params["precision"], seed=0)
    settings = {"limit": first.params["limit"], "bootstrap_iters": 100, "log_samples": False}
    with _quiet(), sandboxed_templates():
        tasks = _load(first.params["task"])
        names = _asked(first.params["task"]["task"], tasks)
        for i, job in enumerate(jobs):
            if store.get(job.id) is None:
                started = time.monotonic()
                kept = store.workspace(job).memo("kept")
                model = PolicyLM(engine, spec_from_json(job.params["spec"]), kept)
                rows = _rows(evaluate(model, tasks, **settings)["results"], names)
                store.adopt(job, partial(_write, rows=rows), time.monotonic() - started)
            progress((i + 1) / len(jobs), f"{i + 1}/{len(jobs)} policies")


def _write(work: Workspace, rows: list[JsonObject]) -> JsonObject:
    return {"rows": rows}


def _load(task: Mapping[str, str]) -> Any:
    from lm_eval.tasks import TaskManager

    if "sha256" not in task:
        return TaskManager().load(task["task"])
    return TaskManager(include_defaults=False).load(str(located(task["sha256"], task["task"])))


def _asked(name: str, tasks: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the group called `name`, else every task that was loaded (several for a tag, one for a file)."""
    return [name] if name in tasks["groups"] else list(tasks["tasks"])


def _rows(results: Mapping[str, Mapping[str, Json]], names: list[str]) -> list[JsonObject]:
    """Return one row per metric of the tasks or groups asked for: capability, metric, value, se (None if unknown).

    A filter other than lm-eval's default becomes part of the metric's name.
    """
    rows = []
    for name in names:
        for key, value in results[name].items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            se = results[name].get(f"{metric}_stderr,{chosen}")
            label = metric if chosen == "none" else f"{metric} ({chosen})"
            error = float(se) if isinstance(se, int | float) else None
            rows.append({"capability": name, "metric": label, "value": float(value), "se": error})
    return cast(list[JsonObject], finite(rows))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's chatter (a warning per task, bars on stderr) off the screen, and the root logger as it was."""
    harness, root = logging.getLogger("lm_eval"), logging.getLogger()
    levels = harness.level, root.level
    harness.setLevel(logging.ERROR)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
            yield
    finally:
        harness.setLevel(levels[0])
        root.setLevel(levels[1])


CAPABILITY = JobKind(
    "capability",
    version=2,
    run=never_alone,
    bound=lambda job: Cost(),
    defaults={"precision": "float32"},
    keeps="nothing",
    together=measure_together,
    batch=batch_of,
)
