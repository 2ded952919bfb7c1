"""What the jobs of a run found and a reader must know: texts cut by a limit, remarks on checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from peo_bench.core import roles
from peo_bench.data.pairs import first_rows
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.store import Store
from peo_bench.jobs.versions import version_notes

ALARM = 0.05
"""Share of a training's rows that are cut or dropped, above which a limit is too low."""

FIRST_ROWS = 200
"""Of every data file, that are read before anything is done."""

SETTINGS = {"reward-model": "reward_model.max_length"}
"""Where a kind's limit is set, if not at `training.max_length`."""


def job_notes(handles: Iterable[Handle]) -> list[str]:
    """Return the remarks of finished jobs, equal ones once, and what was done with other versions than now's."""
    handles = list(handles)
    notes = [
        note
        for handle in handles
        for note in (
            *_lengths(_kind(handle), handle.result.get("objective"), handle.result.get("lengths")),
            *_checkpoint(handle),
            *_data(handle),
        )
    ]
    return [*dict.fromkeys(notes), *version_notes(handles)]


def foreseen_notes(job: Job, store: Store) -> list[str]:
    """Return what a job will report, as far as it shows: of the first rows of its data, of a training's lengths.

    Lengths where a training's pairs and its reference policy are there. Raises `UsageError` for data of which nothing
    can be used.
    """
    if job.kind == "pairs":
        found = first_rows(job, FIRST_ROWS)
        malformed = [place for loaded in found.values() for place in loaded.malformed]
        dropped = {name: loaded.dropped for name, loaded in found.items()}
        return _left_out(f"the first {FIRST_ROWS} of every file", dropped, malformed)
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


def _left_out(of: str, dropped: Mapping[str, Mapping[str, int]], malformed: Sequence[str]) -> list[str]:
    """Say how many rows of the data were left out, by objective and reason, and name the first malformed one."""
    counts = {name: ", ".join(f"{n} {reason}" for reason, n in reasons.items()) for name, reasons in dropped.items()}
    told = [f"{name}: rows left out of {of}: {said}." for name, said in counts.items() if said]
    return [*told, *(f"The first malformed row: {place}." for place in malformed[:1])]


def _data(handle: Handle) -> list[str]:
    """Say what was left out of the data of a `pairs` job."""
    if _kind(handle) != "pairs":
        return []
    return _left_out("the data", handle.result["dropped"], handle.result["malformed"])


def _kind(handle: Handle) -> str:
    return handle.id.rpartition("-")[0]


def _checkpoint(handle: Handle) -> list[str]:
    found = [*handle.result.get("warnings", ()), *handle.result.get("remarks", ())]
    return [f"{handle.result.get('name') or handle.result.get('source') or handle.id}: {text}." for text in found]
