"""What the jobs of a run found and a reader must know: texts cut by a limit, remarks on checkpoints."""

from __future__ import annotations

from collections.abc import Iterable

from peo_bench.jobs.job import Handle

ALARM = 0.05
"""Share of a training's rows that are cut or dropped, above which a limit is too low."""

SETTINGS = {"reward-model": "reward_model.max_length"}
"""Where a kind's limit is set, if not at `training.max_length`."""


def job_notes(handles: Iterable[Handle]) -> list[str]:
    """Return the remarks of finished jobs, equal ones once."""
    notes = [note for handle in handles for note in (*_lengths(handle), *_checkpoint(handle))]
    return list(dict.fromkeys(notes))


def _lengths(handle: Handle) -> list[str]:
    """Say how many rows of a training its limit cut and dropped, if any, and from `ALARM` on what to do."""
    lengths = handle.result.get("lengths")
    if not lengths or not lengths["cut"] + lengths["dropped"]:
        return []
    kind = handle.id.rpartition("-")[0]
    total = lengths["whole"] + lengths["cut"] + lengths["dropped"]
    lost = (lengths["cut"] + lengths["dropped"]) / total
    what = " ".join(filter(None, (kind, handle.result.get("objective"))))
    note = (
        f"{what}: of {total} rows, {lengths['cut']} lost the end of an answer and {lengths['dropped']} were left out, "
        f"being longer than {lengths['limit']} tokens"
    )
    if lost <= ALARM:
        return [f"{note}."]
    return [f"{note}: {lost:.0%} is too many, raise it with --set {SETTINGS.get(kind, 'training.max_length')}=..."]


def _checkpoint(handle: Handle) -> list[str]:
    found = [*handle.result.get("warnings", ()), *handle.result.get("remarks", ())]
    return [f"{handle.result.get('name') or handle.id}: {text}." for text in found]
