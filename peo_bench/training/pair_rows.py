"""Tokenised preference pairs, as the preference trainers read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peo_bench.core import roles
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Handle
from peo_bench.models.loading import context_length, load_config
from peo_bench.models.rendering import answer_tokens, prompt_tokens
from peo_bench.training.lengths import Lengths, refuse_unreadable
from peo_bench.training.settings import dpo_settings
from peo_bench.training.training_rows import TextRow, read_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
"""TRL's columns of log-probabilities under the reference policy."""
LOG_PROBS_FILE = "log-probs.npz"
LogProbs = tuple[list[float], list[float]]
"""Of chosen and of rejected answers, in nats, summed over tokens, in the order of `tokenised_pairs`."""


def shifted(dataset: Dataset, chosen: list[float], rejected: list[float]) -> Dataset:
    """Return the dataset with `chosen` and `rejected` added to the reference log-probabilities."""
    for column, values in zip(REFERENCE, (chosen, rejected), strict=True):
        total = [old + new for old, new in zip(dataset[column], values, strict=True)]
        dataset = dataset.remove_columns(column).add_column(column, total)
    return dataset


def pairs_file(inputs: Mapping[str, Handle], objective: str) -> Path:
    """Return the file with the pairs on which policies are trained."""
    return inputs["pairs"].path / f"{objective}-policy.jsonl"


def tokenised_pairs(
    inputs: Mapping[str, Handle],
    objective: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    signs: Sequence[str] = (),
) -> Dataset:
    """Return a dataset with `prompt_ids`, `chosen_ids`, `rejected_ids` and the texts, sorted by length.

    A pair whose prompt leaves no room for an answer within `max_length` tokens is dropped; TRL cuts longer answers.
    With `signs`, the column of this name has for each of these objectives 1 if it prefers the chosen answer, else -1;
    `UsageError` where a pair lacks such a label, or is longer than the reference policy reads.
    """
    from datasets import Dataset

    path = pairs_file(inputs, objective)
    rows = read_rows(path, ("prompt", "chosen", "rejected"))
    prompts = prompt_tokens(tokenizer, [row["prompt"] for row in rows])
    chosen = answer_tokens(tokenizer, [row["chosen"] for row in rows])
    rejected = answer_tokens(tokenizer, [row["rejected"] for row in rows])
    columns: dict[str, list[str] | list[list[int]]] = {
        name: [row[name] for row in rows] for name in ("prompt", "chosen", "rejected")
    }
    if signs:
        columns["signs"] = [_signs(path, row, signs) for row in rows]
    dataset = Dataset.from_dict({"prompt_ids": prompts, "chosen_ids": chosen, "rejected_ids": rejected, **columns})
    kept = [i for i in range(len(rows)) if len(prompts[i]) < max_length]
    if not kept:
        raise UsageError(f"{path}: every prompt is longer than max_length = {max_length} tokens")
    lengths = pair_lengths(dataset)
    context = context_length(load_config(inputs["reference"].path / "model"))
    refuse_unreadable(str(path), [min(lengths[i], max_length) for i in kept], context)
    return dataset.select(sorted(kept, key=lengths.__getitem__)).flatten_indices()


def labelled_pairs(
    params: Mapping[str, Any],
    inputs: Mapping[str, Handle],
    tokenizer: PreTrainedTokenizerBase,
    signs: Sequence[str] = (),
) -> tuple[Dataset, Lengths]:
    """Return the pairs on which any learner trains, and what `max_length` did to them; see `tokenised_pairs`.

    They have the reference policy's log-probabilities where a job among `inputs` has computed them. With
    `params["swapped"]`, what was chosen is rejected and the other way round; the order stays.
    """
    path, max_length = pairs_file(inputs, params["objective"]), dpo_settings(params).max_length
    dataset = tokenised_pairs(inputs, params["objective"], tokenizer, max_length, signs)
    lengths = pairs_lengths(dataset, path, max_length)
    for column, values in zip(REFERENCE, read_log_probs(inputs, params["objective"]) or (), strict=False):
        dataset = dataset.add_column(column, values)
    if params.get("swapped"):
        twins = [("chosen_ids", "rejected_ids"), ("chosen", "rejected"), REFERENCE]
        names = {a: b for pair in twins for a, b in (pair, pair[::-1]) if a in dataset.column_names}
        dataset = dataset.rename_columns(names)
    return dataset, lengths


def read_log_probs(inputs: Mapping[str, Handle], objective: str, role: str = roles.LOG_PROBS) -> LogProbs | None:
    """Return what the job under `role` computed; None for a training that has none and computes them itself."""
    if role not in inputs:
        return None
    said = inputs[role].result
    assert (said["objective"], said["of"]) == (objective, made_of(inputs)), "they are of another training"
    with np.load(inputs[role].path / LOG_PROBS_FILE) as found:
        return found["chosen"].tolist(), found["rejected"].tolist()


def made_of(inputs: Mapping[str, Handle]) -> list[str]:
    """Return the ids of the reference policy and the pairs, whose log-probabilities fit no others."""
    return [inputs[role].id for role in ("reference", "pairs")]


def pairs_lengths(dataset: Dataset, path: Path, max_length: int) -> Lengths:
    """Return what `max_length` did to the pairs in the file at `path`, of which `dataset` holds those trained on."""
    dropped = len(read_rows(path, ())) - len(dataset)
    return Lengths.of(pair_lengths(dataset), max_length, dropped)


def _signs(path: Path, row: TextRow, objectives: Sequence[str]) -> list[int]:
    labels = row.get("labels") or {}
    lost = [name for name in objectives if labels.get(name) not in (-1, 1)]
    if lost:
        raise UsageError(f"{path}: a pair has no label for {lost[0]!r}: this method needs both labels on every pair")
    return [labels[name] for name in objectives]


def pair_lengths(dataset: Dataset) -> list[int]:
    """Return the tokens per pair, in a way that does not depend on which answer was chosen."""
    answers = zip(dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
    longest = [max(len(chosen), len(rejected)) for chosen, rejected in answers]
    return [len(prompt) + answer for prompt, answer in zip(dataset["prompt_ids"], longest, strict=True)]
