"""What a limit on length would do to trainings that have not run.

It is counted on the pairs where they are made, else on the first rows of the data files of which they will be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from peo_bench.core import roles
from peo_bench.data.given_checkpoint import base_at_hand
from peo_bench.data.pairs import first_pairs
from peo_bench.jobs.job import Handle, Job, outline_of, tokenizer_of
from peo_bench.models.loading import context_length, load_config, read_tokenizer
from peo_bench.models.rendering import answer_tokens, prompt_tokens
from peo_bench.training.lengths import Lengths, refuse_unreadable
from peo_bench.training.settings import dpo_settings
from peo_bench.training.training_rows import TextRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Foreseen:
    """What a training will report as its `lengths`, None where that is not known yet.

    `held_out` pairs are kept back from it; `first` says that only the first rows of the data are counted.
    """

    lengths: Lengths | None
    held_out: int = 0
    first: bool = False


@dataclass(frozen=True)
class _Sized:
    """A pair with the number of tokens of its prompt and of its longer answer, the answer's end included."""

    row: TextRow
    prompt: int
    answer: int


@dataclass(frozen=True)
class _Limited:
    """How trainings of a kind are limited: whose pairs of which split they read, and what becomes of these.

    `count` also gives the tokens that the model reads of each text that is trained on.
    """

    objectives: Callable[[Mapping[str, Any]], Sequence[str]]
    split: Literal["policy", "scorer"]
    count: Callable[[Sequence[_Sized], Mapping[str, Any]], tuple[Lengths, list[int]]]


@lru_cache(maxsize=64)
def foresee_adapters(reference: Job) -> None:
    """Raise `UsageError` for a reference policy whose adapters could be trained and not run, where it is here."""
    from peo_bench.models.adapters import refuse_unadaptable

    folder = base_at_hand(reference)
    outline = None if folder is None else outline_of(reference)
    if folder is not None and outline is not None:
        refuse_unadaptable(outline, folder)


class Foresight:
    """Foresees the lengths of a plan's trainings; the tokens of pairs that several of them read are counted once."""

    def __init__(self, find: Callable[[str], Handle | None], first: int) -> None:
        """Count with the finished jobs that `find` gives by id, else the `first` rows of every data file."""
        self._find, self._first = find, first
        self._tokenizers: dict[Job, PreTrainedTokenizerBase | None] = {}
        self._contexts: dict[Job, int | None] = {}
        self._sizes: dict[tuple[Job, Job, str, str], list[_Sized]] = {}

    def of(self, job: Job) -> Foreseen | None:
        """Return what is known of the lengths of a training; None for a kind that is limited in no such way.

        Raises `UsageError` for texts that are longer than the model reads.
        """
        kind = FORESEEN.get(job.kind)
        if kind is None:
            return None
        sources = [source for name in kind.objectives(job.params) for source in _sources(job, name)]
        parts = [self._sized(job.needs["reference"], pairs, name, kind.split) for pairs, name in sources]
        if not all(parts):
            return Foreseen(None)
        sized, first = list(chain.from_iterable(parts)), any(self._find(pairs.id) is None for pairs, _ in sources)
        trained = sized if first or kind.split == "policy" else _trained(sized)
        lengths, read = kind.count(trained, job.params)
        what = f"{job.kind} on {' and '.join(kind.objectives(job.params))}"
        refuse_unreadable(what, read, self._context(job.needs["reference"]), job.kind)
        return Foreseen(lengths, len(sized) - len(trained), first)

    def _sized(self, reference: Job, pairs: Job, objective: str, split: str) -> list[_Sized]:
        """Return the pairs of an objective; none where they or the tokenizer are not here."""
        key = reference, pairs, objective, split
        if key not in self._sizes:
            tokenizer = self._tokenizer(reference)
            rows = [] if tokenizer is None else self._rows(pairs, objective, split)
            self._sizes[key] = [] if tokenizer is None else list(_sized(tokenizer, rows))
        return self._sizes[key]

    def _tokenizer(self, reference: Job) -> PreTrainedTokenizerBase | None:
        if reference not in self._tokenizers:
            done = self._find(reference.id)
            if done:
                self._tokenizers[reference] = read_tokenizer(done.path / "model")
            else:  # a GGUF file's takes ten seconds to make
                self._tokenizers[reference] = tokenizer_of(reference) if reference.kind == "checkpoint" else None
        return self._tokenizers[reference]

    def _context(self, reference: Job) -> int | None:
        if reference not in self._contexts:
            done = self._find(reference.id)
            outline = None if done else outline_of(reference)
            config = load_config(done.path / "model") if done else outline and outline.config
            self._contexts[reference] = config and context_length(config)
        return self._contexts[reference]

    def _rows(self, pairs: Job, objective: str, split: str) -> Sequence[TextRow]:
        done = self._find(pairs.id)
        if done:
            return read_rows(done.path / f"{objective}-{split}.jsonl", ("prompt_id", "prompt"))
        found = first_pairs(pairs, self._first).get(objective, []) if pairs.kind == "pairs" else []
        return [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in found]


def _sources(job: Job, objective: str) -> list[tuple[Job, str]]:
    """Return the jobs that make the pairs of an objective, or those that go into a mixture, with whose pairs."""
    pairs = job.needs.get(roles.pairs(objective)) or job.needs["pairs"]
    if pairs.kind != "mixed-pairs":
        return [(pairs, objective)]
    return [(pairs.needs[roles.pairs(name)], name) for name in pairs.params["objectives"]]


def _sized(tokenizer: PreTrainedTokenizerBase, rows: Sequence[TextRow]) -> Iterator[_Sized]:
    prompts = prompt_tokens(tokenizer, [row["prompt"] for row in rows])
    chosen = answer_tokens(tokenizer, [row.get("chosen", "") for row in rows])
    rejected = answer_tokens(tokenizer, [row.get("rejected", "") for row in rows])
    for row, prompt, *answers in zip(rows, prompts, chosen, rejected, strict=True):
        yield _Sized(row, len(prompt), max(map(len, answers)))


def _trained(sized: Sequence[_Sized]) -> list[_Sized]:
    """Return the pairs for scorers without those that a reward model holds out."""
    from peo_bench.training.reward_model import split_by_prompt

    _, held_out = split_by_prompt([pair.row for pair in sized])
    names = {row["prompt_id"] for row in held_out}
    return [pair for pair in sized if pair.row["prompt_id"] not in names]


def _policy(sized: Sequence[_Sized], params: Mapping[str, Any]) -> tuple[Lengths, list[int]]:
    """Count pairs: what leaves no room behind the prompt is dropped, longer answers are cut."""
    limit = dpo_settings(params).max_length
    longest = [pair.prompt + pair.answer for pair in sized if pair.prompt < limit]
    lengths = Lengths.of(longest, limit, dropped=len(sized) - len(longest))
    return lengths, [min(length, limit) for length in longest]


def _scorer(sized: Sequence[_Sized], params: Mapping[str, Any]) -> tuple[Lengths, list[int]]:
    """Count pairs: what is longer than the limit is dropped."""
    from peo_bench.training.reward_model import settings_of

    limit = settings_of(params).max_length
    read = [pair.prompt + pair.answer for pair in sized if pair.prompt + pair.answer <= limit]
    return Lengths(len(read), cut=0, dropped=len(sized) - len(read), limit=limit), read


def _online(sized: Sequence[_Sized], params: Mapping[str, Any]) -> tuple[Lengths, list[int]]:
    """Count prompts, each once: what leaves no room for an answer is dropped."""
    from peo_bench.training.online import prompts_lengths

    return prompts_lengths({pair.row["prompt"]: pair.prompt for pair in sized}.values(), params)


def _one(params: Mapping[str, Any]) -> Sequence[str]:
    return [params.get("objective") or params["objectives"][0]]


def _all(params: Mapping[str, Any]) -> Sequence[str]:
    names: Sequence[str] = params["objectives"]
    return names


FORESEEN = {
    "aspect": _Limited(_one, "policy", _policy),
    "modpo": _Limited(_one, "policy", _policy),
    "gradients": _Limited(_one, "policy", _policy),
    "frank-wolfe": _Limited(_all, "policy", _policy),
    "reward-model": _Limited(_one, "scorer", _scorer),
    "online": _Limited(_all, "policy", _online),
}
