"""Scorers as jobs: a checkpoint is taken over once, checked, and known by its content from then on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from peo_bench.core.method import Objective
from peo_bench.data.given_checkpoint import at_hand, checkpoint_identity, licence_of, naming, take_over
from peo_bench.errors import UsageError
from peo_bench.files.atomic import write_json
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.rendering import PROMPT_DATE
from peo_bench.process import settled
from peo_bench.scorers import DESCRIPTION, open_scorer
from peo_bench.scorers.anchors import Anchor
from peo_bench.scorers.self_test import check_batch, check_sign
from peo_bench.scorers.settings import CHAT, ScorerConfig
from peo_bench.scorers.trained import check_artefact


def scorer_jobs(scorers: Mapping[str, ScorerConfig], objectives: Sequence[Objective]) -> dict[str, Job]:
    """Return by column the job that takes over its checkpoint; registered scorers have none."""
    jobs: dict[str, Job] = {}
    for key, scorer in scorers.items():
        if scorer.layout != "registered":
            job = scorer_job(key, scorer, objectives)
            jobs |= dict.fromkeys(job.params["columns"], job)
    return jobs


def scorer_job(key: str, scorer: ScorerConfig, objectives: Sequence[Objective]) -> Job:
    """Return the job of one checkpoint; its id covers content, layout, template, dtype, columns and directions."""
    columns: dict[str, int | None] = {**scorer.columns} or {key: None}
    known = {o.column: [o.name, o.maximise] for o in objectives if o.column in columns}
    identity = scorer_identity(scorer)
    dated = {"prompt_date": PROMPT_DATE} if scorer.template == CHAT or scorer.layout == "trained" else {}
    job = Job(
        "scorer",
        {
            **dated,
            **{name: value for name, value in identity.items() if name != "form"},
            **scorer.model_dump(mode="json", include={"layout", "template", "anchors"}),
            "dtype": settled(scorer.dtype),
            "columns": columns,
            "directions": known,
        },
    )
    foresee_scorer(job)
    return job


@lru_cache(maxsize=64)
def foresee_scorer(job: Job) -> tuple[str, ...]:
    """Return what the job of a scorer will tell of it, as far as the files that are here show without its weights.

    Raises `UsageError` for one that will not be taken over.
    """
    params = job.params
    folder = at_hand({**params, "form": "base"})
    if folder is None:
        return ()
    try:
        scorer = open_scorer(folder, params["layout"], None, params["template"])
        for name, label in params["columns"].items():
            _label(name, label, scorer.n_labels)
    except UsageError as error:
        said = str(error).removeprefix("scorer: ")
        raise UsageError(said if str(folder) in said else f"{folder}: {said}") from None
    return tuple(f"{folder}: {text}." for text in scorer.remarks())


def scorer_identity(scorer: ScorerConfig) -> JsonObject:
    """Return the JSON that says what the checkpoint holds; raise `UsageError` if it cannot be of its layout."""
    identity = checkpoint_identity(scorer.model, "scorer")
    if scorer.layout == "trained":
        check_artefact(scorer.model)
    return identity


def source_of(params: Mapping[str, Json]) -> str:
    """Return what a person can tell a checkpoint by: hub id and commit, or the digest of its content."""
    return f"{params['hub']}@{params['revision']}" if "hub" in params else f"sha256:{str(params['sha256'])[:16]}"


@job_kind(
    "scorer",
    version=9,
    defaults={"template": None, "dtype": "float32", "anchors": {}},
    keeps="nothing",
    common=True,
)
def import_scorer(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> dict[str, Any]:
    """Copy the checkpoint into `model/` and check it: its head, its labels, its batches, its signs."""
    params = job.params
    source = take_over(params, work.dir / "model")
    work.progress(0.2, "loading")
    with naming(source, work.dir / "model"):
        scorer = open_scorer(work.dir, params["layout"], params["dtype"], params["template"])
    columns = {name: _label(name, label, scorer.n_labels) for name, label in params["columns"].items()}
    description = {name: params[name] for name in ("layout", "template", "dtype")} | {"columns": columns}
    write_json(work.dir / DESCRIPTION, description)
    work.progress(0.5, "checking")
    own: Mapping[str, Sequence[Anchor]] = params["anchors"]
    gap = check_batch(scorer, params["dtype"], [anchor for pairs in own.values() for anchor in pairs])
    signs = {
        column: asdict(check_sign(scorer, column, columns[column], objective, maximise, own))
        for column, (objective, maximise) in params["directions"].items()
    }
    return description | {
        "source": source_of(params),
        "licence": licence_of(source),
        "labels": scorer.n_labels,
        "max_length": scorer.max_length,
        "batch_gap": gap,
        "signs": signs,
        "directions": params["directions"],
        "remarks": scorer.remarks(),
    }


def _label(column: str, label: int | None, n_labels: int) -> int:
    """Return the label of `column`; a head with several labels needs to be told which."""
    if label is None and n_labels > 1:
        raise UsageError(
            f"scorer of {column!r}: the checkpoint has {n_labels} labels: say which, as in `columns: {{{column}: 0}}`"
        )
    if (label or 0) >= n_labels:
        raise UsageError(f"scorer of {column!r}: no label {label}: the checkpoint has the labels 0 to {n_labels - 1}")
    return label or 0
