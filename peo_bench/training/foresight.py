"""What a limit on length would do to a training that has not run, where pairs and reference policy are there."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.core import roles
from peo_bench.jobs.job import Handle, Job
from peo_bench.models.loading import load_tokenizer
from peo_bench.models.rendering import answer_tokens, prompt_tokens
from peo_bench.training.lengths import Lengths
from peo_bench.training.pair_rows import pairs_file
from peo_bench.training.settings import dpo_settings
from peo_bench.training.training_rows import TextRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def foreseen_lengths(job: Job, inputs: Mapping[str, Handle]) -> Lengths | None:
    """Return what the training will report as its `lengths`; None for a kind that is limited in no such way.

    `inputs` are the handles of the needed jobs: None too where those of the pairs or of the reference are not there.
    """
    count = FORESEEN.get(job.kind)
    read = {role for role in job.needs if roles.is_pairs(role) or role == "reference"}
    if count is None or not read <= inputs.keys():
        return None
    return count(job, inputs, load_tokenizer(inputs["reference"].path / "model"))


def _policy(job: Job, inputs: Mapping[str, Handle], tokenizer: PreTrainedTokenizerBase) -> Lengths:
    """Count the pairs of one objective: what leaves no room behind the prompt is dropped, longer answers are cut."""
    params = job.params
    return _pairs(tokenizer, pairs_file(inputs, params.get("objective") or params["objectives"][0]), params)


def _policies(job: Job, inputs: Mapping[str, Handle], tokenizer: PreTrainedTokenizerBase) -> Lengths:
    names = job.params["objectives"]
    return functools.reduce(operator.add, [_pairs(tokenizer, pairs_file(inputs, n), job.params) for n in names])


def _pairs(tokenizer: PreTrainedTokenizerBase, path: Path, params: Mapping[str, object]) -> Lengths:
    limit, rows = dpo_settings(params).max_length, read_rows(path, ("prompt", "chosen", "rejected"))
    longest = [prompt + answer for prompt, answer in _token_counts(tokenizer, rows) if prompt < limit]
    return Lengths.of(longest, limit, dropped=len(rows) - len(longest))


def _scorer(job: Job, inputs: Mapping[str, Handle], tokenizer: PreTrainedTokenizerBase) -> Lengths:
    """Count the pairs that a reward model is trained on: what is longer than the limit is dropped."""
    from peo_bench.training.reward_model import scorer_pairs, settings_of

    limit, (rows, _) = settings_of(job.params).max_length, scorer_pairs(inputs, job.params["objective"])
    whole = sum(prompt + answer <= limit for prompt, answer in _token_counts(tokenizer, rows))
    return Lengths(whole, cut=0, dropped=len(rows) - whole, limit=limit)


def _token_counts(tokenizer: PreTrainedTokenizerBase, rows: Sequence[TextRow]) -> Iterator[tuple[int, int]]:
    """Yield the tokens of the prompt and of the longer answer of every pair, its end included."""
    prompts = prompt_tokens(tokenizer, [row["prompt"] for row in rows])
    chosen = answer_tokens(tokenizer, [row["chosen"] for row in rows])
    rejected = answer_tokens(tokenizer, [row["rejected"] for row in rows])
    return zip(map(len, prompts), map(max, map(len, chosen), map(len, rejected)), strict=True)


def _online(job: Job, inputs: Mapping[str, Handle], tokenizer: PreTrainedTokenizerBase) -> Lengths:
    from peo_bench.training.online import prompts_lengths, training_prompts

    texts, _ = training_prompts(inputs, job.params["objectives"])
    return prompts_lengths(tokenizer, texts, job.params)


FORESEEN: dict[str, Callable[[Job, Mapping[str, Handle], PreTrainedTokenizerBase], Lengths]] = {
    "aspect": _policy,
    "modpo": _policy,
    "gradients": _policy,
    "frank-wolfe": _policies,
    "reward-model": _scorer,
    "online": _online,
}
