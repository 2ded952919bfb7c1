"""What ends an answer: the tokens at which generation stops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.models.loading import SAFE, load_config

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


def generation_config(folder: Path) -> GenerationConfig:
    """Return a checkpoint's generation config; where it has none, what its config.json says, as transformers does."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder, **SAFE)
    return GenerationConfig.from_model_config(load_config(folder))


def _declared(folder: Path) -> int | list[int] | None:
    if not (folder / "config.json").is_file():
        return None
    found: int | list[int] | None = generation_config(folder).eos_token_id
    return getattr(load_config(folder), "eos_token_id", None) if found is None else found


def stop_ids(tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> tuple[int, ...]:
    """Return the tokens that end an answer: the tokenizer's end token and all that the checkpoint declares.

    The checkpoint's are those of its generation_config.json, or of its config.json where that is absent or names none.
    `folder` is None for a tokenizer that is of no checkpoint. Raises `UsageError` if there is no end token at all.
    """
    declared = None if folder is None else _declared(folder)
    more = [] if declared is None else [declared] if isinstance(declared, int) else list(declared)
    ids = tuple(dict.fromkeys(([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]) + more))
    if not ids:
        raise UsageError(f"{folder}: the tokenizer has no end-of-sequence token, so answers could not end")
    return ids
