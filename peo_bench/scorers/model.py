"""What every scorer that is a checkpoint shares: batches, padding, truncation, and the refusal of random heads."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import Diverged, UsageError
from peo_bench.files.dialogue import ASSISTANT, turns_of
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.models.loading import (
    Fit,
    ModelClass,
    check_vocabulary,
    context_length,
    left_by_wrapper,
    load_tokenizer,
    read_model,
    read_outline,
    unreadable,
)
from peo_bench.models.rendering import Form, filled_ids, names_special

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

BATCH_TOKENS = 65_536
"""Tokens of one batch, padding included: what a 7B model's activations allow beside it on a 40 GB device."""

UNLIMITED = 2**31
"""Tokens of a text where the model does not say how many it can read."""

Encoded = dict[str, list[int]]
"""The model's inputs for one text, all of one length: `input_ids`, where it has them `token_type_ids`."""


Asked = tuple[tuple[int, ...], ...]
"""The same as a key: equal inputs are scored once."""


@dataclass(frozen=True)
class Scored:
    """Scores of texts: `labels` one row per text and one score per label, `cut` which texts were too long."""

    labels: list[tuple[float, ...]]
    cut: list[bool]


class ModelScorer(ABC):
    """Scores answers with the model in a folder, on the device jobs run on; scores are as the model gives them.

    Texts longer than `max_length` tokens are cut and counted in `truncated`. `name` tells it apart from other scorers.
    """

    def __init__(
        self, path: Path, precision: str | None = "float32", device: str | None = None, batch_size: int = 64
    ) -> None:
        """Load `path`, or the folder `model` in it; without a precision all but the weights, to be looked at.

        Raises `UsageError` if any weight, its head first of all, would be newly initialised.
        """
        from peo_bench import process
        from peo_bench.models.quiet import quiet

        folder = path if (path / "config.json").is_file() else path / "model"
        with quiet():
            try:
                kind, config = self.source(folder)
                if precision is None:
                    self.model, fit = read_outline(kind, folder, config)
                else:
                    self.model, fit = read_model(kind, folder, precision, **({"config": config} if config else {}))
                self.tokenizer = self.load_tokenizer(folder)
                check_vocabulary(self.tokenizer, self.model, folder)
            except UsageError as error:
                raise UsageError(f"scorer: {error}") from None
            except unreadable() as error:
                reason = str(error).strip().partition("\n")[0]
                raise UsageError(f"scorer: the checkpoint is not of layout {self.layout} ({reason})") from None
        _refuse_misfit(fit, self.layout, self.unused)
        self.check_kind()
        self.model.eval().requires_grad_(False)
        if precision is not None:
            self.model.to(device or process.device())
        self.name = path.name
        self.batch_size = batch_size
        self.max_length = self.context()
        self.truncated = 0

    layout: str
    unused = re.compile(r"(lm_head|pooler|cls)\.")
    """Tensors that a checkpoint may hold beside the model's: heads of other uses."""

    def source(self, folder: Path) -> tuple[ModelClass, PretrainedConfig | None]:
        """Return what reads the model in a folder, and with which configuration if not that of the folder."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification, None

    @abstractmethod
    def encode(self, prompts: list[str], answers: list[str], limit: int | None = None) -> list[Encoded]:
        """Return the model's inputs for every text, cut to `limit` tokens where one is given."""

    def unended(self, text: Encoded) -> Encoded:
        """Return the inputs for a text whose answer was cut; others' models read it as if it ended there."""
        return text

    def check_kind(self) -> None:  # noqa: B027 - most layouts take any model that loads
        """Raise `UsageError` if the model loads but is not what the layout stands for."""

    def load_tokenizer(self, folder: Path) -> PreTrainedTokenizerBase:
        """Return the tokenizer, with a padding token if it has none."""
        return load_tokenizer(folder)

    def context(self) -> int:
        """Return the longest text in tokens."""
        return int(min(self.tokenizer.model_max_length, context_length(self.model.config) or UNLIMITED))

    def end_scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the scores (n_texts, n_labels) of a padded batch."""
        return self.model(**batch, use_cache=False).logits

    def remarks(self) -> list[str]:
        """Return what a reader should know of the texts that the model reads, if it is unusual."""
        return []

    @property
    def n_labels(self) -> int:
        """The number of scores per text."""
        return int(self.model.config.num_labels)

    def score(self, prompts: list[str], answers: list[str], kept: Memo = FORGETFUL) -> list[float]:
        """Return the first label's score of every (prompt, answer)."""
        return [row[0] for row in self.score_labels(prompts, answers, kept).labels]

    def score_labels(
        self,
        prompts: list[str],
        answers: list[str],
        kept: Memo = FORGETFUL,
        ended: Sequence[bool] | None = None,
    ) -> Scored:
        """Return every label's score per (prompt, answer), equal texts scored once; `Diverged` if one is not finite.

        `ended` says which answers did not stop for lack of room, by default all. Batches that are `kept` are not scored
        again.
        """
        whole = ended or [True] * len(answers)
        encoded = zip(self.encode(prompts, answers), whole, strict=True)
        texts = [text if is_whole else self.unended(text) for text, is_whole in encoded]
        cut = [len(text["input_ids"]) > self.max_length for text in texts]
        for i in (i for i, too_long in enumerate(cut) if too_long):
            (texts[i],) = self.encode([prompts[i]], [answers[i]], self.max_length)
        self.truncated += sum(cut)
        asked = [tuple(map(tuple, text.values())) for text in texts]
        known = dict(zip(asked, texts, strict=True))
        unique = sorted(known, key=lambda key: (len(key[0]), key))
        scores: dict[Asked, tuple[float, ...]] = {}
        while len(scores) < len(unique):
            batch = self._next_batch(unique[len(scores) :])
            rows = kept.value([self.name, batch], partial(self._forward, [known[key] for key in batch]))
            scores |= zip(batch, map(tuple, rows), strict=True)
        if not all(math.isfinite(value) for row in scores.values() for value in row):
            raise Diverged("a reward model's score is not finite")
        return Scored([scores[key] for key in asked], cut)

    def _next_batch(self, waiting: list[Asked]) -> list[Asked]:
        """Return the longest run of texts, sorted by length, that a batch may hold; at least one."""
        size = 1
        while size < min(self.batch_size, len(waiting)) and (size + 1) * len(waiting[size][0]) <= BATCH_TOKENS:
            size += 1
        return waiting[:size]

    def _forward(self, batch: list[Encoded]) -> list[tuple[float, ...]]:
        import torch

        inputs = {name: [text[name] for text in batch] for name in batch[0]}
        padded = self.tokenizer.pad(inputs, padding_side="right", return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            scores = self.end_scores(padded)
        return [tuple(row) for row in scores.float().tolist()]


def last_attended(mask: Tensor) -> Tensor:
    """Return the position (n_texts,) of every text's last token by the attention mask, wherever the padding is."""
    import torch

    return (torch.arange(mask.shape[1], device=mask.device) * mask).argmax(dim=1)


def encode_forms(
    tokenizer: PreTrainedTokenizerBase,
    form: Form,
    prompts: list[str],
    answers: list[str],
    *,
    special: bool,
    limit: int | None,
) -> list[Encoded]:
    """Return the tokens of the form of a prompt's turns and an answer, per text, cut to `limit`.

    `special`: with the tokenizer's own. What stands in a turn is text: only the form writes special tokens.
    """
    dialogues = [[*turns_of(prompt), (ASSISTANT, answer)] for prompt, answer in zip(prompts, answers, strict=True)]
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    batch = encoded(tokenizer([form(turns) for turns in dialogues], add_special_tokens=special, **cut))
    for i, turns in enumerate(dialogues):
        if names_special(tokenizer, turns):
            ids = filled_ids(tokenizer, form, turns, add_special_tokens=special, limit=limit)
            batch[i] = {"input_ids": ids} | {name: [0] * len(ids) for name in batch[i] if name != "input_ids"}
    return batch


def encoded(tokens: Mapping[str, Sequence[list[int]]]) -> list[Encoded]:
    """Turn a tokenizer's batch into one `Encoded` per text, without the attention masks that padding makes anew."""
    names = [name for name in tokens if name != "attention_mask"]
    return [dict(zip(names, row, strict=True)) for row in zip(*(tokens[name] for name in names), strict=True)]


def _refuse_misfit(fit: Fit, layout: str, unused: re.Pattern[str]) -> None:
    """Raise `UsageError` for tensors that would be drawn at random, and for those that the model has no place for."""
    if fit.missing:
        hint = left_by_wrapper(fit.alien) or "give the finished reward model, not its base"
        if layout != "beaver" and "score_head.weight" in fit.alien:
            hint = "it has score_head.weight: use layout: beaver"
        elif fit.missing == ("score_head.bias",):
            hint = "copy the whole checkpoint, or set score_bias to false in its config.json if it was trained without"
        raise UsageError(
            f"scorer: the checkpoint holds no {', '.join(fit.missing[:3])} of the right shape, drawn at random then: "
            f"not a trained reward model of layout {layout}; {hint}"
        )
    alien = [name for name in fit.alien if not unused.match(name)]
    if alien:
        raise UsageError(
            f"scorer: the checkpoint holds {', '.join(alien[:3])}, for which a model of layout {layout} has no place: "
            "choose the layout it was made for, or save it again with save_pretrained()"
        )
