"""What the jobs of a run found and a reader must know: texts cut by a limit, remarks on checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peo_bench.core import roles
from peo_bench.data.given_checkpoint import foresee_checkpoint
from peo_bench.data.pairs import first_rows
from peo_bench.data.prompts import first_prompts
from peo_bench.data.sources import Loaded
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.versions import version_notes
from peo_bench.scorers.kinds import foresee_scorer
from peo_bench.training.foresight import Foreseen, Foresight
from peo_bench.training.lengths import Lengths, setting_of

ALARM = 0.05
"""Share of a training's rows that are cut or dropped, above which a limit is too low."""

FIRST_ROWS = 200
"""Of every data file, that are read before anything is done."""

FIRST = f"the first {FIRST_ROWS} of every file"

PARTLY = f"What limits on length cost is counted on {FIRST}: on all rows once pairs and reference policy are made."
UNKNOWN = (
    "What limits on length cost is not known yet: plan says it once pairs and reference policy are made, the report "
    "when a training is done."
)
"""Said of trainings that have not run."""

CHECKPOINTS = {"checkpoint": foresee_checkpoint, "scorer": foresee_scorer}
"""Kinds that take over a checkpoint, by what looks at it before."""


def job_notes(handles: Iterable[Handle]) -> list[str]:
    """Return the remarks of finished jobs, equal ones once, and what was done with other versions than now's."""
    handles = list(handles)
    notes = [
        note
        for handle in handles
        for note in (
            *_lengths(_kind(handle), handle.result.get("objective"), _reported(handle.result)),
            *_checkpoint(handle),
            *_data(handle),
        )
    ]
    return [*dict.fromkeys(notes), *version_notes(handles)]


def foreseen_notes(job: Job, foresight: Foresight) -> list[str]:
    """Return what a job will report, as far as it shows: of a checkpoint, the first rows of its data, its lengths.

    Raises `UsageError` for data of which nothing can be used.
    """
    if job.kind in CHECKPOINTS:
        return list(CHECKPOINTS[job.kind](job))
    if job.kind == "pairs":
        found = first_rows(job, FIRST_ROWS)
        malformed = [place for loaded in found.values() for place in loaded.malformed]
        dropped = {name: loaded.dropped for name, loaded in found.items()}
        return [*_left_out(FIRST, dropped, malformed), *_unread(found.values())]
    if job.kind == "prompts":
        sets = [job.params["own"], (job.params["benign"] or {}).get("source")]
        return _unread([first_prompts(identity, FIRST_ROWS) for identity in sets if identity])
    foreseen = foresight.of(job) if any(map(roles.is_pairs, job.needs)) else None
    if foreseen is None:
        return []
    told = _lengths(job.kind, job.params.get("objective"), foreseen)
    return [*told, *([UNKNOWN] if foreseen.lengths is None else [PARTLY] if foreseen.first else [])]


def _reported(result: Mapping[str, Any]) -> Foreseen:
    """Return what a finished training says of its lengths, as if it were foreseen."""
    counts = result.get("lengths")
    return Foreseen(Lengths(**counts) if counts else None, result.get("pairs_held_out", 0))


def _lengths(kind: str, objective: str | None, found: Foreseen) -> list[str]:
    """Say how many rows of a training its limit cut and dropped, if any, and from `ALARM` on what to do."""
    lengths = found.lengths
    if lengths is None or not lengths.cut + lengths.dropped:
        return []
    total = lengths.whole + lengths.cut + lengths.dropped
    lost = (lengths.cut + lengths.dropped) / total
    what = " ".join(filter(None, (kind, objective)))
    beside = f" (beside {found.held_out} held out)" if found.held_out else ""
    note = (
        f"{what}: of {total} rows{beside}{f', in {FIRST}' if found.first else ''}, {lengths.cut} lost the end of an "
        f"answer and {lengths.dropped} were left out, being longer than {lengths.limit} tokens"
    )
    if lost <= ALARM:
        return [f"{note}."]
    return [f"{note}: {lost:.0%} is too many, raise it with --set {setting_of(kind)}=..."]


def _left_out(of: str, dropped: Mapping[str, Mapping[str, int]], malformed: Sequence[str]) -> list[str]:
    """Say how many rows of the data were left out, by objective and reason, and name the first malformed one."""
    counts = {name: ", ".join(f"{n} {reason}" for reason, n in reasons.items()) for name, reasons in dropped.items()}
    told = [f"{name}: rows left out of {of}: {said}." for name, said in counts.items() if said]
    return [*told, *(f"The first malformed row: {place}." for place in malformed[:1])]


def _unread(found: Iterable[Loaded[Any]]) -> list[str]:
    """Say which data sets could not be looked at."""
    reasons = dict.fromkeys(reason for loaded in found for reason in loaded.unread)
    return [f"Not looked at: {reason}." for reason in reasons]


def _data(handle: Handle) -> list[str]:
    """Say what was left out of the data of a `pairs` job."""
    if _kind(handle) != "pairs":
        return []
    return _left_out("the data", handle.result["dropped"], handle.result["malformed"])


def _kind(handle: Handle) -> str:
    return handle.id.rpartition("-")[0]


def _checkpoint(handle: Handle) -> list[str]:
    """Return what taking over a checkpoint told; an adapter's name is that of its base."""
    found = [*handle.result.get("warnings", ()), *handle.result.get("remarks", ())]
    name = handle.result.get("name") or handle.result.get("source") or handle.id
    what = f"{handle.id}, an adapter of {name}" if handle.result.get("form") == "lora" else name
    return [f"{what}: {text}." for text in found]
