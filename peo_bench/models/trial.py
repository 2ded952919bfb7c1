"""Does a base run as the engine runs it? A model can load from a configuration under which no forward pass works.

The engine reads prompts padded on the left and then token by token, with a cache. That must give what the model gives
for the text alone and at once: a model that reads what follows (BERT), or keeps no cache, gives other numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.models.files import reason
from peo_bench.models.loading import unreadable

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TOKENS = 8

TOLERANCE = 1e-3
"""Largest difference of logits, in units of the largest. Rounding stays below 1e-5; BERT is off by 0.1 and more."""


def check_runs(model: PreTrainedModel, folder: Path) -> None:
    """Raise `UsageError` unless a causal language model runs token by token, with finite logits, as it does at once."""
    import torch

    model.eval()
    ids = torch.arange(1, TOKENS + 1)[None] % len(model.get_input_embeddings().weight)
    try:
        with torch.inference_mode():
            whole, stepped = model(input_ids=ids).logits[:, -1].float(), _by_token(model, ids)
    except unreadable() as error:
        raise UsageError(
            f"{folder}: loads as a model that does not run ({type(error).__name__}: {reason(error)}): check its "
            "config.json, or give a causal decoder"
        ) from None
    if not torch.isfinite(whole.logsumexp(dim=-1)).all():
        raise UsageError(f"{folder}: its logits are not finite (nan or inf): copy the weights or save them again")
    gap = float((whole - stepped).abs().max() / whole.abs().max().clamp(min=1.0))
    if not gap <= TOLERANCE:
        raise UsageError(
            f"{folder}: its logits token by token are not those of the text at once (off by {gap:.2g} of the largest), "
            "as of a model that reads what follows: give a causal decoder"
        )


def _by_token(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return the last logits (1, vocabulary) of ids (1, tokens) padded on the left, the last token with a cache."""
    import torch

    width = ids.shape[1] + 2
    padded = torch.nn.functional.pad(ids, (2, 0))
    mask = (torch.arange(width) >= 2).long()[None]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = None
    for span in (slice(0, width - 1), slice(width - 1, width)):
        output = model(
            input_ids=padded[:, span],
            attention_mask=mask[:, : span.stop],
            position_ids=positions[:, span],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
    return output.logits[:, -1].float()
