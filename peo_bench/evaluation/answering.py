"""Operating points: a policy's answers to the prompts of a split, with scores, KL to the reference and lengths.

One artefact per policy, so that a policy shared by two methods (or two runs) is evaluated once; policies that are
missing are generated together, specs of all methods in one batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from peo_bench.core import roles
from peo_bench.core.decoding import decoding_of, sampling_params
from peo_bench.core.spec import policy, spec_from_json
from peo_bench.evaluation.generation import batch_of, charge, generate, make_engine, read_prompts, score
from peo_bench.files.journal import Memo
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, JobKind, never_alone
from peo_bench.jobs.store import Store
from peo_bench.jobs.workspace import Progress, Workspace
from peo_bench.kill_points import is_due, kill_point
from peo_bench.scorers import registered_scorer
from peo_bench.scorers.columns import DIGITS, Columns, Scores, count_scorers, scorer_columns

if TYPE_CHECKING:
    from peo_bench.engine.engine import Answer, Engine, Request


def evaluate_together(store: Store, jobs: list[Job], progress: Progress) -> None:
    """Evaluate policies that share prompts, decoding and scorers; a kill loses some seconds of one policy's work."""
    first = jobs[0]
    precision = first.params["precision"]
    engine = make_engine(store.__getitem__, first.needs["reference"].id, precision, first.params["seed"])
    specs = [spec_from_json(job.params["spec"]) for job in jobs]
    prompts = read_prompts(store[first.needs["prompts"].id], first.params["split"], first.params["n_prompts"])
    scorers = _scorers(first, store, precision)
    kept = [store.workspace(job).memo("kept") for job in jobs]

    started = time.monotonic()
    requests, answers = generate(engine, specs, prompts, decoding_of(first.params), kept, progress, "generation")
    seconds = (time.monotonic() - started) / len(jobs)
    for i, (job, memo) in enumerate(zip(jobs, kept, strict=True)):
        rows = slice(i * len(prompts), (i + 1) * len(prompts))
        given = Given(requests[rows], answers[rows], [row["category"] for row in prompts])
        _measure(store, job, given, Instruments(engine, scorers, memo), seconds)
        progress((i + 1) / len(jobs), f"{i + 1}/{len(jobs)} policies scored")


@dataclass(frozen=True)
class Given:
    """One policy's answers, with their requests and the categories of their prompts."""

    requests: list[Request]
    answers: list[Answer]
    categories: list[str]


@dataclass(frozen=True)
class Instruments:
    """What a policy's answers are measured with; `kept` is what an earlier attempt had measured."""

    engine: Engine
    scorers: Columns
    kept: Memo


def _measure(store: Store, job: Job, given: Given, by: Instruments, seconds: float) -> None:
    """Score one policy's answers and store its artefact; `seconds` is what generating them took.

    Policy by policy: the last digits vary with the batch, and would with what else is evaluated in this run.
    """
    started = time.monotonic()
    scores = score(by.scorers, given.requests, given.answers, by.kept)
    if is_due("scoring"):
        by.kept.write()
        kill_point("scoring")
    reference = policy(job.needs["reference"].id)
    kl = by.engine.kl(given.requests, given.answers, reference, by.kept)
    bound = by.engine.kl_bound(given.requests, given.answers, reference, by.kept)
    table = pd.DataFrame(
        {
            "prompt_id": [request.prompt_id for request in given.requests],
            "prompt": [request.prompt for request in given.requests],
            "category": given.categories,
            "answer": [answer.text for answer in given.answers],
            "length": [len(answer.tokens) for answer in given.answers],
            "truncated": [answer.truncated for answer in given.answers],
            "kl": [round(float(value), DIGITS) for value in kl],
            "kl_bound": [round(float(value), DIGITS) for value in bound],
            **scores.columns,
        }
    )
    if not given.requests[0].spec.candidates:
        table = table.drop(columns="kl_bound")
    cost = charge(given.requests, given.answers, count_scorers(by.scorers), 0)
    write = partial(_write, table=table, scores=scores, cost=cost)
    store.adopt(job, write, seconds + time.monotonic() - started)


def read_answers(handle: Handle) -> pd.DataFrame:
    """Return the table of an "answers" artefact, one row per prompt."""
    return pd.read_parquet(handle.path / "answers.parquet")


def _write(work: Workspace, table: pd.DataFrame, scores: Scores, cost: Cost) -> JsonObject:
    work.charge(cost)
    table.to_parquet(work.dir / "answers.parquet", index=False)
    cut = {column: sum(flags) for column, flags in scores.cut.items()}
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
    version=4,
    run=never_alone,
    bound=_bound,
    defaults=sampling_params(),
    keeps="nothing",
    label=("split",),
    together=evaluate_together,
    batch=batch_of,
)
