"""Operating points: a policy's answers to the prompts of a split, with scores, KL to the reference and lengths.

One artefact per policy, so that a policy shared by two methods (or two runs) is evaluated once; policies that are
missing are generated together, specs of all methods in one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from pydantic import BaseModel

from peo_bench.core import roles
from peo_bench.core.decoding import decoding_of, sampling_params
from peo_bench.core.spec import policy, spec_from_json
from peo_bench.data.given_answers import GIVEN_ANSWERS, read_matched
from peo_bench.evaluation.generation import batch_of, charge, generate, make_engine, read_prompts, score
from peo_bench.files.journal import Memo
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, JobKind, never_alone
from peo_bench.jobs.store import Store
from peo_bench.jobs.workspace import Progress, Workspace
from peo_bench.kill_points import is_due, kill_point
from peo_bench.scorers import registered_scorer
from peo_bench.scorers.columns import DIGITS, Columns, Scores, count_scorers, score_texts, scorer_columns

if TYPE_CHECKING:
    from peo_bench.engine.engine import Answer, Engine, Request


def evaluate_together(store: Store, jobs: list[Job], progress: Progress) -> None:
    """Evaluate policies that share prompts, decoding and scorers; a kill loses some seconds of one policy's work.

    Answers that were given are scored, the other policies' are generated first.
    """
    first = jobs[0]
    precision = first.params["precision"]
    engine = make_engine(store.__getitem__, first.needs["reference"].id, precision, first.params["seed"])
    prompts = read_prompts(store[first.needs["prompts"].id], first.params["split"], first.params["n_prompts"])
    by = Instruments(engine, _scorers(first, store, precision), prompts)
    given = {job: need for job in jobs if (need := _given(job))}
    for job, need in given.items():
        _score_given(store, job, read_matched(store[need.id]), by)
    generating = [job for job in jobs if job not in given]
    if generating:
        _generate(store, generating, by, progress)


@dataclass(frozen=True)
class Instruments:
    """What policies are measured with, and the prompts they answer."""

    engine: Engine
    scorers: Columns
    prompts: list[dict[str, str]]


def _given(job: Job) -> Job | None:
    """Return the job of the given answers that the policy is; None for one that answers itself."""
    ids = spec_from_json(job.params["spec"]).ids
    return next((need for need in job.needs.values() if need.kind == GIVEN_ANSWERS and need.id in ids), None)


def _generate(store: Store, jobs: list[Job], by: Instruments, progress: Progress) -> None:
    """Generate the answers of all policies, then score them policy by policy."""
    specs = [spec_from_json(job.params["spec"]) for job in jobs]
    kept = [store.workspace(job).memo("kept") for job in jobs]
    n, decoding = len(by.prompts), decoding_of(jobs[0].params)
    started = time.monotonic()
    requests, answers = generate(by.engine, specs, by.prompts, decoding, kept, progress, "generation")
    seconds = (time.monotonic() - started) / len(jobs)
    for i, (job, memo) in enumerate(zip(jobs, kept, strict=True)):
        rows = slice(i * n, (i + 1) * n)
        _measure(store, job, Answered(requests[rows], answers[rows], memo), by, seconds)
        progress((i + 1) / len(jobs), f"{i + 1}/{len(jobs)} policies scored")


@dataclass(frozen=True)
class Answered:
    """One policy's answers, with their requests; `kept` is what an earlier attempt had measured."""

    requests: list[Request]
    answers: list[Answer]
    kept: Memo


def _measure(store: Store, job: Job, of: Answered, by: Instruments, seconds: float) -> None:
    """Score one policy's answers and store its artefact; `seconds` is what generating them took.

    Policy by policy: the last digits vary with the batch, and would with what else is evaluated in this run.
    """
    started = time.monotonic()
    scores = score(by.scorers, of.requests, of.answers, of.kept)
    if is_due("scoring"):
        of.kept.write()
        kill_point("scoring")
    reference, selects = policy(job.needs["reference"].id), bool(of.requests[0].spec.candidates)
    moved = {"kl": by.engine.kl(of.requests, of.answers, reference, of.kept)}
    if selects:
        moved["kl_bound"] = by.engine.kl_bound(of.requests, of.answers, reference, of.kept)
    texts, truncated = [answer.text for answer in of.answers], [answer.truncated for answer in of.answers]
    foreign = not selects and all(map(math.isnan, moved["kl"]))
    lengths = _lengths(by, job.needs["reference"], texts) if foreign else [len(a.tokens) for a in of.answers]
    table = _table(by, texts, lengths, truncated, moved, scores)
    cost = charge(of.requests, of.answers, count_scorers(by.scorers), 0)
    store.adopt(job, partial(_write, table=table, scores=scores, cost=cost), seconds + time.monotonic() - started)


def _score_given(store: Store, job: Job, answers: Mapping[str, str], by: Instruments) -> None:
    """Score given answers and store their artefact. They were sampled by nobody knows whom: no KL, none was cut."""
    started = time.monotonic()
    texts = [answers[row["prompt_id"]] for row in by.prompts]
    spec, kept = spec_from_json(job.params["spec"]), store.workspace(job).memo("kept")
    scores = score_texts(by.scorers, [row["prompt"] for row in by.prompts], texts, [spec] * len(texts), kept)
    lengths, nothing = _lengths(by, job.needs["reference"], texts), [math.nan] * len(texts)
    table = _table(by, texts, lengths, [False] * len(texts), {"kl": nothing}, scores)
    cost = Cost(scorer_calls=count_scorers(by.scorers) * len(texts))
    store.adopt(job, partial(_write, table=table, scores=scores, cost=cost), time.monotonic() - started)


def _lengths(by: Instruments, reference: Job, texts: list[str]) -> list[int]:
    """Return how long answers of other models are: tokens of the reference policy, the one that ends an answer too.

    Words where given answers stand in for that policy.
    """
    if reference.kind == GIVEN_ANSWERS:
        return [len(text.split()) for text in texts]
    tokenizer = by.engine.models.tokenizer(reference.id)
    return [len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _table(
    by: Instruments,
    texts: Sequence[str],
    lengths: Sequence[int],
    truncated: Sequence[bool],
    moved: Mapping[str, Sequence[float]],
    scores: Scores,
) -> pd.DataFrame:
    """Return the table of one policy's answers; `moved` are its KL, and the bound of it, in nats."""
    return pd.DataFrame(
        {
            **{key: [row[key] for row in by.prompts] for key in ("prompt_id", "prompt", "category")},
            "answer": texts,
            "length": lengths,
            "truncated": truncated,
            **{name: [round(float(value), DIGITS) for value in values] for name, values in moved.items()},
            **scores.columns,
        }
    )


def read_answers(handle: Handle) -> pd.DataFrame:
    """Return the table of an "answers" artefact, one row per prompt."""
    return pd.read_parquet(handle.path / "answers.parquet")


class _Result(BaseModel, strict=True):
    n: int
    truncated: int
    cut_by_scorer: dict[str, int]


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
    if _given(job):
        return Cost(scorer_calls=n * columns)
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
    result=_Result,
)
