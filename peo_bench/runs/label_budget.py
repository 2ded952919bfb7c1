"""How many labelled pairs a method has seen, by objective: what annotators would have to be paid for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from pathlib import Path

from peo_bench.core import roles
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS

Source = tuple[str, str, str]
"""Labels of one kind: the id of a job that made pairs, the part ("policy" or "scorer") and the objective."""


def labels_seen(jobs: Iterable[Job], handles: Mapping[str, Handle]) -> dict[str, int]:
    """Return by objective the labelled pairs that the trainings among `jobs` saw, each once however often it was seen.

    A training of less than an epoch sees a part of them; held-out pairs of a proxy count, as their labels are read.
    """
    shares: dict[Source, float] = {}
    for job in jobs:
        for source, share in _sources(job):
            shares[source] = max(shares.get(source, 0.0), share)
    total: Counter[str] = Counter()
    for (pairs, part, objective), share in shares.items():
        total[objective] += ceil(share * _rows(handles[pairs].path / f"{objective}-{part}.jsonl"))
    return dict(total)


def trains_on(job: Job) -> str | None:
    """Return which part of its pairs a training reads: "policy", or "scorer" for a proxy; None if it is no such job.

    Online trainings, which read the prompts of pairs and no labels, need pairs under other roles; log-probabilities are
    those of both answers, whatever the label.
    """
    if "pairs" not in job.needs or job.kind == "log-probs" or JOB_KINDS.get(job.kind).common:
        return None
    return "scorer" if job.kind == "reward-model" else "policy"


def _sources(job: Job) -> Iterator[tuple[Source, float]]:
    """Yield what a training reads the labels of, and the share of it."""
    part = trains_on(job)
    if part is None:
        return
    share, pairs = min(1.0, job.params.get("epochs", 1.0)), job.needs["pairs"]
    names = job.params.get("objectives") or [job.params["objective"]]
    files = dict.fromkeys(names, pairs)
    if pairs.kind == "mixed-pairs":
        files = {name: pairs.needs[roles.pairs(name)] for name in pairs.params["objectives"]}
    yield from (((made.id, part, name), share) for name, made in files.items())


def _rows(path: Path) -> int:
    with path.open(encoding="utf-8") as lines:
        return sum(1 for line in lines if line.strip())
