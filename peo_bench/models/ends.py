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


def declared_ends(folder: Path) -> tuple[int, ...]:
    """Return the tokens that a checkpoint declares to end an answer, none for a folder without a model.

    They are those of its generation_config.json, or of its config.json where that is absent or names none.
    """
    if not (folder / "config.json").is_file():
        return ()
    found = generation_config(folder).eos_token_id
    if found is None or found == []:
        found = getattr(load_config(folder), "eos_token_id", None)
    ids = [] if found is None else found if isinstance(found, list | tuple) else [found]
    if not all(isinstance(token, int) for token in ids):
        raise UsageError(f"{folder}: eos_token_id is {ids!r} in its generation_config.json: give whole numbers")
    return tuple(ids)


def stop_ids(tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> tuple[int, ...]:
    """Return the tokens that end an answer: the tokenizer's end token and all that the checkpoint declares.

    `folder` is None for a tokenizer that is of no checkpoint. Raises `UsageError` if there is no end token at all.
    """
    own = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    ids = tuple(dict.fromkeys((*own, *(() if folder is None else declared_ends(folder)))))
    if not ids:
        raise UsageError(f"{folder}: the tokenizer has no end-of-sequence token, so answers could not end")
    return ids
