"""Reward and cost models that peo-bench trains (`peo_bench.training.reward_model`), in a run or in an earlier one.

Prompt as generation sees it, answer and its end as generation writes them, by the same tokens in training and in
scoring; the head reads the end, or the last token of an answer that was cut.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.models.loading import context_length, load_tokenizer
from peo_bench.models.rendering import answer_end, answer_tokens, prompt_tokens, remarks
from peo_bench.scorers.model import UNLIMITED, Encoded, ModelScorer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RewardModelScorer(ModelScorer):
    """The model of a "reward-model" artefact: a reward (higher is better) or a cost (higher is worse)."""

    layout = "trained"

    def load_tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        """Return the tokenizer that the model was trained with."""
        return scoring_tokenizer(folder)

    def context(self) -> int:
        """Return the number of the model's positions."""
        return context_length(self.model.config) or UNLIMITED

    def remarks(self) -> list[str]:
        """Return those on its chat template."""
        return remarks(self.tokenizer)

    def encode(self, prompts: list[str], answers: list[str], limit: int | None = None) -> list[Encoded]:
        """Return prompt, answer and its end, cut behind."""
        return [{"input_ids": ids[:limit]} for ids in scored_tokens(self.tokenizer, prompts, answers)]

    def unended(self, text: Encoded) -> Encoded:
        """Return the text without an end, which generation did not write."""
        return {"input_ids": text["input_ids"][: -len(answer_end(self.tokenizer))]}


def check_artefact(model: str) -> None:
    """Raise `UsageError` unless `model` is the artefact (or its `model/`) of a reward model that peo-bench trained."""
    files = [folder / "meta.json" for folder in (Path(model), Path(model).absolute().parent)]
    if "reward-model" not in map(_kind, files):
        raise UsageError(
            f"{model}: layout trained is for reward and cost models that peo-bench trained, and this is no such "
            "artefact (no meta.json of kind reward-model): use layout: sequence-classification, beaver or hh-gpt2"
        )


def _kind(file: Path) -> object:
    """Return the kind of job that a meta.json names; None if it is absent or no record of an artefact."""
    try:
        meta = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return meta.get("kind") if isinstance(meta, dict) else None


def scoring_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer with a padding token that is not what ends answers.

    The head reads the last token that is not padding, which must be the end of the answer.
    """
    tokenizer = load_tokenizer(path)
    end = answer_end(tokenizer)[-1]
    eos = tokenizer.eos_token_id
    if tokenizer.pad_token_id in (eos, end):
        named = [name for name in (tokenizer.unk_token, tokenizer.bos_token) if name is not None]
        ids = [i for i in map(tokenizer.convert_tokens_to_ids, named) if i != eos]
        ids += [eos, *sorted(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)]
        free = [i for i in ids if i not in (None, end)]
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free[0]) if free else None
    if tokenizer.pad_token is None:
        raise UsageError(
            f"{path}: no reward model can be trained from it (it has no special token but the one that ends answers, "
            "and padding needs another): call tokenizer.add_special_tokens({'pad_token': '<pad>'}) and "
            "model.resize_token_embeddings(len(tokenizer)) and save both, or give the suite `proxies` for every column"
        )
    return tokenizer


def scored_tokens(tokenizer: PreTrainedTokenizerBase, prompts: list[str], answers: list[str]) -> list[list[int]]:
    """Return prompt, answer and its end as token ids: the same in training and in scoring."""
    both = zip(prompt_tokens(tokenizer, prompts), answer_tokens(tokenizer, answers), strict=True)
    return [prompt + answer for prompt, answer in both]
