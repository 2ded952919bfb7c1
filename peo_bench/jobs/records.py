"""`jobs.jsonl` of a run folder: the record of every job behind a run, whether the folder keeps its files or not.

A line holds the `meta.json` of the job's artefact - its parameters, what it needed, its result, cost and seconds - and
whether this run found it in the cache; of a job that failed, the reason instead of what came of it. All that a run says
beside its scores follows from these records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peo_bench.errors import UsageError
from peo_bench.files.atomic import write_text
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.artefact import Damaged, handle_of, identity_of, read_record, recorded_job, require_plain
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.runner import Outcome

JOBS = "jobs.jsonl"
IDENTITY = {"kind", "version", "params", "needs"}
"""All that is recorded of a job that failed."""


@dataclass(frozen=True)
class Records:
    """What became of the jobs of a run, and what is recorded of each by its id (of the finished: its `meta.json`)."""

    outcome: Outcome
    metas: Mapping[str, Mapping[str, Any]]

    def of_kind(self, kind: str) -> list[Mapping[str, Any]]:
        """Return those of one kind of job."""
        return [meta for meta in self.metas.values() if meta["kind"] == kind]


def write_records(path: Path, outcome: Outcome) -> None:
    """Write the records of all jobs."""
    rows: list[JsonObject] = [
        {"reused": job_id in outcome.reused, "record": read_record(handle.path)}
        for job_id, handle in outcome.handles.items()
    ]
    rows += [{"failed": outcome.failed[job.id], "record": identity_of(job)} for job in outcome.undone.values()]
    write_text(path, "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))


def read_records(path: Path, root: Path) -> Records:
    """Return what `write_records` wrote; the artefacts that are kept lie in the store at `root`.

    Raises `Damaged` for a line that is no record, and `UsageError` for a job of a kind that no installed package has.
    """
    found, metas, kinds = Outcome(), {}, JOB_KINDS.names()
    require_plain(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(str(error)) from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            kind = row["record"]["kind"]
            if kind not in kinds:
                raise UsageError(f"{path}:{number}: a job of kind {kind!r}: install the package of the run's method")
            job_id = _take(row, found, root)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Damaged) as error:
            raise Damaged(f"line {number}: {error}") from None
        metas[job_id] = row["record"]
    return Records(found, metas)


def _take(row: Mapping[str, Any], found: Outcome, root: Path) -> str:
    """Note in `found` what a line says; return the job's id."""
    own = "failed" if "failed" in row else "reused"
    if row.keys() != {own, "record"} or not isinstance(row[own], str if own == "failed" else bool):
        raise Damaged(f"its keys are {', '.join(map(repr, row))}")
    job_id = recorded_job(row["record"])
    if job_id in found.failed or job_id in found.handles:
        raise Damaged(f"{job_id} has two records")
    if own == "failed":
        if row["record"].keys() != IDENTITY:
            raise Damaged("it is the record of a job that was done and failed")
        found.failed[job_id] = row["failed"]
        return job_id
    handle = handle_of(row["record"], root)
    found.handles[handle.id] = handle
    if row["reused"]:
        found.reused.add(handle.id)
    return handle.id
