"""Forwards of some rows of a batch, and what rows of equal weights share: a prompt, or its beginning, is read once.

A batch is laid out as [beginning that all prompts share | padding | rest of each prompt]. The keys and values of the
beginning are computed once per weights, those of the rest once per weights and prompt, and then copied to the rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peo_bench.engine.row_lora import RowLora, State, narrowed

if TYPE_CHECKING:
    from transformers import Cache, PretrainedConfig, PreTrainedModel

LEAST_SHARED = 8
"""Tokens: below that a forward of its own costs more than it saves."""
ROTARY = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "gemma", "phi", "phi3"),
    *("gpt_neox", "stablelm", "starcoder2", "olmo", "olmo2", "olmoe", "granite", "cohere", "deepseek_v3"),
)
"""Architectures (`model_type`) that see where a token stands by rotary positions alone; a test tries each."""
MOVING = ("dynamic", "longrope")
"""Kinds of rotary positions whose frequencies depend on how long the text is."""


@dataclass(frozen=True)
class Pass:
    """One forward of `model` for some rows of a batch.

    `rows` (n,) are indices into the batch, possibly repeated; `coefficients` (n,) are the a_j. Rows of equal `weights`
    (n,) have the same policy. A base model with wrapped layers, `lora`, has `state`, the adapters and coefficients of
    these rows.
    """

    model: PreTrainedModel
    rows: Tensor
    coefficients: Tensor
    weights: Tensor
    lora: RowLora | None = None
    state: State | None = None

    def is_plain(self, rows: int) -> bool:
        """Tell whether this pass holds each of `rows` rows once, with coefficient 1."""
        return len(self.rows) == rows and bool((self.coefficients == 1).all())

    def logits(self, **inputs: Tensor | Cache | bool | int | None) -> tuple[Tensor, Cache]:
        """Return logits in the model's precision and the key-value cache."""
        if self.lora is not None:
            self.lora.use(self.state or {})
        output = self.model(**inputs)
        return output.logits, output.past_key_values

    def only(self, members: Tensor, rows: Tensor) -> Pass:
        """Return the pass of some of its members (k,), which are now the batch's `rows` (k,)."""
        state = None if self.state is None else narrowed(self.state, members)
        return replace(
            self, rows=rows, coefficients=self.coefficients[members], weights=self.weights[members], state=state
        )

    def beginning(self, ids: Tensor, shared: int) -> Cache | None:
        """Return the cache (n, ...) of the first `shared` columns of `ids`, equal in all rows; None for no columns."""
        if not shared:
            return None
        firsts, place = first_of_each(self.weights.tolist(), ids.device)
        part = self.only(firsts, self.rows[firsts])
        _, cache = part.logits(input_ids=ids[part.rows, :shared], use_cache=True, logits_to_keep=1)
        cache.batch_select_indices(place)
        return cache


def first_of_each(keys: Sequence[Hashable], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where each distinct key stands first (k,), and which of these every key is (n,)."""
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    number = {key: n for n, key in enumerate(first)}
    place = [number[key] for key in keys]
    return torch.tensor(list(first.values()), device=device), torch.tensor(place, device=device)


def left_padded(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device, shared: int = 0
) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, both (rows, width) int64; all but the first `shared` tokens are flush right."""
    width = max(map(len, prompts))
    ids = [[*prompt[:shared], *[pad] * (width - len(prompt)), *prompt[shared:]] for prompt in prompts]
    mask = [[*[1] * shared, *[0] * (width - len(prompt)), *[1] * (len(prompt) - shared)] for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions(mask: Tensor) -> Tensor:
    """Return position ids (rows, width): 0 at each row's first real token."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all prompts share, each with at least one more; 0 where it is not worth sharing."""
    rows = list(map(tuple, prompts))
    first, last = min(rows), max(rows)
    same = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    shared = min(same, min(map(len, rows)) - 1)
    return shared if shared >= LEAST_SHARED else 0


def allows_gaps(config: PretrainedConfig) -> bool:
    """Tell whether padding between a prompt's tokens changes nothing for models of this configuration.

    So it is where positions are rotary and of fixed frequencies and every layer attends to all that the mask shows:
    windows, convolutions and biases by distance count columns.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    text = config.get_text_config()
    if text.model_type not in ROTARY or text.rope_parameters["rope_type"] in MOVING:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=text).layers)
