"""Generate with policies and score the answers: the one path that search and the final evaluation share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from peo_bench.core.decoding import Decoding
from peo_bench.core.roles import apart_from_deltas
from peo_bench.core.spec import PolicySpec
from peo_bench.files.digest import digest
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.files.json_types import Json
from peo_bench.files.jsonl import read_jsonl
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.jobs.workspace import Progress
from peo_bench.kill_points import is_due, kill_point
from peo_bench.process import Precision, batch_size
from peo_bench.scorers.columns import Columns, Scores, score_texts

if TYPE_CHECKING:
    from peo_bench.engine.engine import Answer, Engine, Request


def read_prompts(handle: Handle, split: str, limit: int | None = None) -> list[dict[str, str]]:
    """Return the prompts of one split, as rows with at least prompt_id, prompt and category."""
    rows = [row for row in read_jsonl(handle.path / "prompts.jsonl") if row["split"] == split]
    return rows[:limit]


def generate(
    engine: Engine,
    specs: Sequence[PolicySpec],
    prompts: Sequence[Mapping[str, str]],
    decoding: Decoding,
    kept: Sequence[Memo] = (),
    progress: Progress = lambda fraction, note: None,
    point: str = "",
) -> tuple[list[Request], list[Answer]]:
    """Answer every prompt with every policy, specs outermost; answers that are `kept` are not made again.

    `kept` has a memo per policy, maybe the same; it gets the candidates of selections. `point` names the kill point
    after the first batch.
    """
    from peo_bench.engine.engine import Request
    from peo_bench.engine.selection import distinct_drafts

    requests = [Request(spec, row["prompt"], row["prompt_id"]) for spec in specs for row in prompts]
    drafts = distinct_drafts(requests)
    memos = DraftMemos(requests, [memo for memo in kept for _ in prompts])
    done = memos.known()
    todo = [draft for draft in drafts if draft not in done]

    def finished(indices: list[int], answers: list[Answer]) -> None:
        batch = {todo[i]: answer for i, answer in zip(indices, answers, strict=True)}
        done.update(batch)
        memos.keep(batch)
        if is_due(point):
            for memo in kept:
                memo.write()
            kill_point(point)
        progress(len(done) / len(drafts), f"{len(done)}/{len(drafts)} answers")

    engine.generate(todo, decoding, on_batch=finished)
    return requests, engine.choose(requests, done, kept[0] if kept else FORGETFUL)


class DraftMemos:
    """Answers to drafts by policy, prompt and sample, in the memo of every policy that they are drafts of.

    So a policy's answers are found again in whatever company it is tried again.
    """

    def __init__(self, requests: Sequence[Request], kept: Sequence[Memo]) -> None:
        """Take a memo per request, or none at all."""
        self._memos: dict[Request, dict[Memo, None]] = {}
        for request, memo in zip(requests, kept, strict=bool(kept)):
            for draft in request.drafts:
                self._memos.setdefault(draft, {})[memo] = None
        self._policies = {spec: spec.key for spec in {draft.spec for draft in self._memos}}

    def _key(self, draft: Request) -> Json:
        return [self._policies[draft.spec], draft.prompt_id, draft.sample]

    def known(self) -> dict[Request, Answer]:
        """Return the answers that are kept."""
        from peo_bench.engine.engine import Answer

        found = {}
        for draft, memos in self._memos.items():
            for memo in memos:
                if self._key(draft) in memo:
                    tokens, text, truncated = memo[self._key(draft)]
                    found[draft] = Answer(tuple(tokens), text, truncated)
        return found

    def keep(self, answers: Mapping[Request, Answer]) -> None:
        """Keep the answers of a batch."""
        values: dict[Memo, dict[str, Json]] = {}
        for draft, answer in answers.items():
            for memo in self._memos.get(draft, ()):
                said: Json = [list(answer.tokens), answer.text, answer.truncated]
                values.setdefault(memo, {})[digest(self._key(draft))] = said
        for memo, new in values.items():
            memo.keep(new)


def score(columns: Columns, requests: Sequence[Request], answers: Sequence[Answer], kept: Memo = FORGETFUL) -> Scores:
    """Return the scores of all answers by column, every policy's apart, see `score_texts`."""
    prompts, texts = [request.prompt for request in requests], [answer.text for answer in answers]
    ended = [not answer.truncated for answer in answers]
    return score_texts(columns, prompts, texts, [request.spec for request in requests], kept, ended)


def charge(requests: Sequence[Request], answers: Sequence[Answer], n_scorers: int, evaluations: int) -> Cost:
    """Return what generating and scoring these answers has cost, the candidates of selections included.

    Counted as if every policy had been alone, also where policies had candidates in common.
    """
    drafts = [draft for answer in answers for draft in answer.candidates or (answer,)]
    asked = sum(len(request.spec.scorers) * len(request.spec.candidates) for request in requests)
    return Cost(
        answers=len(drafts),
        tokens_generated=sum(len(draft.tokens) for draft in drafts),
        scorer_calls=n_scorers * len(answers) + asked,
        evaluations=evaluations,
    )


def batch_of(job: Job) -> str:
    """Return what jobs that can be done in one batch have in common: everything but the policy."""
    shared = {key: value for key, value in job.params.items() if key != "spec"}
    return f"{shared} {sorted(need.id for need in apart_from_deltas(job.needs).values())}"


SMALL_MODEL = 50_000_000
"""Bytes of weights below which a batch may be large: the overhead per step then outweighs the work per row."""


def make_engine(artefact: Callable[[str], Handle], reference: str, precision: Precision, seed: int) -> Engine:
    """Return an engine over the store's artefacts, with batches that suit the size of the policy `reference`.

    The suite, or PEO_BENCH_BATCH_SIZE, may say how large they are.
    `seed` indexes the common random numbers. Batching changes no answer, so it is no part of any job's identity.
    """
    from peo_bench.engine.engine import Engine

    weights = (artefact(reference).path / "model").glob("*.safetensors")
    small = sum(file.stat().st_size for file in weights) < SMALL_MODEL
    return Engine(artefact, precision=precision, noise_seed=seed, batch_size=batch_size() or (1024 if small else 64))
