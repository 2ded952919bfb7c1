"""Operating points: a policy's answers to the prompts of a split, with scores, KL to the reference and lengths.

One artefact per policy, so that a policy shared by two methods (or two runs) is evaluated once; policies that are
missing are generated together, specs of all methods in one batch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from peo_bench.core import roles
from peo_bench.core.decoding import decoding_of, sampling_params
from peo_bench.core.spec import policy, spec_from_json
from peo_bench.evaluation.generation import batch_of, charge, generate, make_engine, read_prompts, score
from peo_bench.files.digest import digest
from peo_bench.files.journal import Journal
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, JobKind, never_alone
from peo_bench.jobs.store import Store
from peo_bench.jobs.workspace import Progress, Workspace
from peo_bench.kill_points import kill_point
from peo_bench.scorers import registered_scorer
from peo_bench.scorers.columns import DIGITS, Columns, Scores, count_scorers, scorer_columns


def evaluate_together(store: Store, jobs: list[Job], progress: Progress) -> None:
    """Evaluate policies that share prompts, decoding and scorers; a kill loses at most one batch of answers."""
    name = f"batch-{digest([job.id for job in jobs])}"
    with store.lock(name):
        missing = [job for job in jobs if store.get(job.id) is None]
        if missing:
            _evaluate(store, missing, store.root / "partial" / name, progress)


def _evaluate(store: Store, jobs: list[Job], scratch: Path, progress: Progress) -> None:
    started = time.monotonic()
    first = jobs[0]
    scratch.mkdir(parents=True, exist_ok=True)
    precision = first.params["precision"]
    engine = make_engine(store.__getitem__, first.needs["reference"].id, precision, first.params["seed"])
    specs = [spec_from_json(job.params["spec"]) for job in jobs]
    prompts = read_prompts(store[first.needs["prompts"].id], first.params["split"], first.params["n_prompts"])

    journal = Journal(scratch / f"{digest([job.id for job in jobs])}-answers.jsonl")
    requests, answers = generate(engine, specs, prompts, decoding_of(first.params), journal, progress, "generation")
    scorers = _scorers(first, store, precision)
    scores = score(scorers, requests, answers)
    kill_point("scoring")
    own = [slice(i * len(prompts), (i + 1) * len(prompts)) for i in range(len(jobs))]
    reference = policy(first.needs["reference"].id)
    # Policy by policy: the last digits vary with the batch, and would with what else is evaluated in this run.
    kl = [value for rows in own for value in engine.kl(requests[rows], answers[rows], reference)]
    bound = [value for rows in own for value in engine.kl_bound(requests[rows], answers[rows], reference)]

    table = pd.DataFrame(
        {
            "prompt_id": [request.prompt_id for request in requests],
            "prompt": [request.prompt for request in requests],
            "category": [row["category"] for _ in jobs for row in prompts],
            "answer": [answer.text for answer in answers],
            "length": [len(answer.tokens) for answer in answers],
            "truncated": [answer.truncated for answer in answers],
            "kl": [round(float(value), DIGITS) for value in kl],
            "kl_bound": [round(float(value), DIGITS) for value in bound],
            **scores.columns,
        }
    )
    seconds = (time.monotonic() - started) / len(jobs)
    for job, spec, rows in zip(jobs, specs, own, strict=True):
        cost = charge(requests[rows], answers[rows], count_scorers(scorers), 0)
        part = table.iloc[rows] if spec.candidates else table.iloc[rows].drop(columns="kl_bound")
        write = partial(_write, table=part, scores=scores, rows=rows, cost=cost)
        store.adopt(job, write, seconds)
    shutil.rmtree(scratch)


def read_answers(handle: Handle) -> pd.DataFrame:
    """Return the table of an "answers" artefact, one row per prompt."""
    return pd.read_parquet(handle.path / "answers.parquet")


def _write(work: Workspace, table: pd.DataFrame, scores: Scores, rows: slice, cost: Cost) -> JsonObject:
    work.charge(cost)
    table.to_parquet(work.dir / "answers.parquet", index=False)
    cut = {column: sum(flags[rows]) for column, flags in scores.cut.items()}
    return {"n": len(table), "truncated": int(table["truncated"].sum()), "cut_by_scorer": cut}


def _scorers(job: Job, store: Store, precision: str) -> Columns:
    """Return the scorers by column: registered ones by name, the others by their artefact."""
    registered: Mapping[str, str] = job.params["scorers"]
    artefacts = {column: store[need.id] for column, need in roles.scorers(job.needs).items()}
    by_name = {column: registered_scorer(name) for column, name in registered.items()}
    return by_name | scorer_columns(artefacts, precision)


def _bound(job: Job) -> Cost:
    n, columns = job.params["n_prompts"], len(job.params["scorers"]) + len(roles.scorers(job.needs))
    spec = spec_from_json(job.params["spec"])
    answers = n * len(spec.mixtures)
    tokens = answers * decoding_of(job.params).max_new_tokens
    asked = answers * len(spec.scorers)
    return Cost(answers=answers, tokens_generated=tokens, scorer_calls=n * columns + asked)


ANSWERING = JobKind(
    "answers",
    version=3,
    run=never_alone,
    bound=_bound,
    defaults=sampling_params(),
    keeps="nothing",
    label=("split",),
    together=evaluate_together,
    batch=batch_of,
)
