"""safe-rlhf's score models: `PKU-Alignment/beaver-7b-v1.0-reward` and `-cost` (Dai et al. 2023, arXiv 2310.12773).

A Llama trunk (`model.*`) with a linear `score_head` (hidden, 1), read at the last attended token. Checkpoints also
hold `normalizer.{mean,var,count}`, which act only with `do_normalize`; no published one sets it. The cost is higher for
worse answers and 0 is its border between safe and unsafe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.files.dialogue import USER, Turn, folded
from peo_bench.models.files import tensor_shapes
from peo_bench.models.loading import ModelClass, load_config
from peo_bench.scorers.model import Encoded, ModelScorer, encode_forms, last_attended

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

BEGINNING, ASKED, SAID = "BEGINNING OF CONVERSATION: ", "USER: {} ", "ASSISTANT:{}"
"""The authors' text: one space before a question, none before the answer, no end-of-sequence token."""

HEAD = "score_head.weight"


class Beaver(ModelScorer):
    """A Llama with a score head."""

    layout = "beaver"
    unused = re.compile(r"normalizer\.|lm_head\.")

    def source(self, folder: Path) -> tuple[ModelClass, PretrainedConfig]:
        """Return what reads the model, and the configuration with the size of the file's head."""
        shapes = tensor_shapes(folder)
        config = load_config(folder)
        if config.model_type != "llama":
            raise UsageError(f"layout beaver is a Llama with a score head, and this is {config.model_type}")
        if getattr(config, "do_normalize", False):
            raise UsageError("do_normalize is set in this checkpoint's config.json: only raw scores are read")
        config.num_labels = shapes.get(HEAD, (1,))[0]
        declared, found = getattr(config, "score_bias", True), "score_head.bias" in shapes  # safe-rlhf's default
        if found and not declared:
            raise UsageError(f"{folder}: holds score_head.bias, and config.json says score_bias: false: correct one")
        bias = found or declared
        return _model_class(bias), config

    def encode(self, prompts: list[str], answers: list[str], limit: int | None = None) -> list[Encoded]:
        """Return the tokens of the filled template, the tokenizer's own BOS in front."""
        form = partial(_form, self.tokenizer.eos_token or "")
        return encode_forms(self.tokenizer, form, prompts, answers, special=True, limit=limit)

    def end_scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the scores (n_texts, n_labels) at the last attended token, wherever the padding is."""
        return self.model(batch["input_ids"], batch["attention_mask"])


def _form(end: str, turns: Sequence[Turn]) -> str:
    """Return turns as the authors write them, `end` behind earlier answers; a system turn begins the first question.

    >>> _form("</s>", [("user", "hello"), ("assistant", "hi")])
    'BEGINNING OF CONVERSATION: USER: hello ASSISTANT:hi'
    """
    said = [(ASKED if role == USER else SAID).format(content) for role, content in folded(turns)]
    return BEGINNING + "".join(text + end * (i % 2) for i, text in enumerate(said[:-1])) + said[-1]


def _model_class(bias: bool) -> type[PreTrainedModel]:
    """Return the model's class; made here, since its bases need torch."""
    import torch
    from transformers import LlamaModel, LlamaPreTrainedModel

    class LlamaForScore(LlamaPreTrainedModel):  # type: ignore[misc]
        """Names its parts as the checkpoint does."""

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            self.model = LlamaModel(config)
            self.score_head = torch.nn.Linear(config.hidden_size, config.num_labels, bias=bias)
            self.post_init()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
            last = last_attended(attention_mask)
            return self.score_head(hidden[torch.arange(len(last), device=last.device), last])

    return LlamaForScore
