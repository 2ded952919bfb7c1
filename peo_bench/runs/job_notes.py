"""What the jobs of a run found and a reader must know: texts cut by a limit, remarks on checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from peo_bench.core import roles
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.store import Store
from peo_bench.jobs.versions import version_notes

ALARM = 0.05
"""Share of a training's rows that are cut or dropped, above which a limit is too low."""

SETTINGS = {"reward-model": "reward_model.max_length"}
"""Where a kind's limit is set, if not at `training.max_length`."""


def job_notes(handles: Iterable[Handle]) -> list[str]:
    """Return the remarks of finished jobs, equal ones once, and what was done with other versions than now's."""
    handles = list(handles)
    notes = [
        note
        for handle in handles
        for note in (
            *_lengths(handle.id.rpartition("-")[0], handle.result.get("objective"), handle.result.get("lengths")),
            *_checkpoint(handle),
            *_malformed(handle),
        )
    ]
    return [*dict.fromkeys(notes), *version_notes(handles)]


def foreseen_notes(job: Job, store: Store) -> list[str]:
    """Return what a training will report of its lengths, where its pairs and its reference policy are there."""
    if not any(map(roles.is_pairs, job.needs)):
        return []
    from peo_bench.training.foresight import foreseen_lengths

    done = {role: handle for role, need in job.needs.items() if (handle := store.get(need.id))}
    lengths = foreseen_lengths(job, done)
    return _lengths(job.kind, job.params.get("objective"), lengths.to_json() if lengths else None)


def _lengths(kind: str, objective: str | None, lengths: Mapping[str, int] | None) -> list[str]:
    """Say how many rows of a training its limit cut and dropped, if any, and from `ALARM` on what to do."""
    if not lengths or not lengths["cut"] + lengths["dropped"]:
        return []
    total = lengths["whole"] + lengths["cut"] + lengths["dropped"]
    lost = (lengths["cut"] + lengths["dropped"]) / total
    what = " ".join(filter(None, (kind, objective)))
    note = (
        f"{what}: of {total} rows, {lengths['cut']} lost the end of an answer and {lengths['dropped']} were left out, "
        f"being longer than {lengths['limit']} tokens"
    )
    if lost <= ALARM:
        return [f"{note}."]
    return [f"{note}: {lost:.0%} is too many, raise it with --set {SETTINGS.get(kind, 'training.max_length')}=..."]


def _malformed(handle: Handle) -> list[str]:
    """Say how many rows of the data were malformed, and name the first."""
    named: list[str] = handle.result.get("malformed", [])
    if not named:
        return []
    dropped: Mapping[str, Mapping[str, int]] = handle.result["dropped"]
    count = sum(reasons.get("malformed", 0) for reasons in dropped.values())
    rows = "1 row of the data is" if count == 1 else f"{count} rows of the data are"
    return [f"{rows} malformed and left out, the first at {named[0]}."]


def _checkpoint(handle: Handle) -> list[str]:
    found = [*handle.result.get("warnings", ()), *handle.result.get("remarks", ())]
    return [f"{handle.result.get('name') or handle.result.get('source') or handle.id}: {text}." for text in found]
