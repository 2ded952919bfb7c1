"""What ends an answer: the tokens at which generation stops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.models.files import read_object
from peo_bench.models.loading import SAFE, load_config, unreadable

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

DRAWS = (
    "repetition_penalty", "no_repeat_ngram_size", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "top_h", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "forced_bos_token_id",
    "forced_eos_token_id", "min_length", "min_new_tokens", "exponential_decay_length_penalty", "stop_strings",
    "num_beams", "penalty_alpha", "dola_layers", "guidance_scale", "watermarking_config",
)  # fmt: skip
"""Settings with which stock transformers draws other answers; here the suite's decoding settings alone count."""


def generation_config(folder: Path) -> GenerationConfig:
    """Return a checkpoint's generation config; where it has none, what its config.json says, as transformers does."""
    from transformers import GenerationConfig

    file = folder / "generation_config.json"
    if file.is_file():
        read_object(file)
        try:
            return GenerationConfig.from_pretrained(folder, **SAFE)
        except unreadable() as error:
            raise UsageError(f"{file}: cannot be used ({error}): save it again, or delete it") from None
    return GenerationConfig.from_model_config(load_config(folder))


def unused_settings(folder: Path) -> list[str]:
    """Return the settings of a checkpoint's generation_config.json that change stock transformers' answers, if any."""
    config = generation_config(folder)
    found = {name: getattr(config, name, None) for name in DRAWS}
    told = [f"{name} {value!r}" for name, value in found.items() if value not in (None, 0, 1, [], {})]
    if not told:
        return []
    return [
        f"its generation_config.json sets {', '.join(told)}: answers are drawn without, by the suite's own settings"
    ]


def declared_ends(folder: Path) -> tuple[int, ...]:
    """Return the tokens that a checkpoint declares to end an answer; a folder without a model may declare none.

    They are those of its generation_config.json, or of its config.json where that is absent or names none: of the whole
    first, then of its language model.
    """
    config = load_config(folder) if (folder / "config.json").is_file() else None
    stated = config or (folder / "generation_config.json").is_file()
    said: list[int | list[int] | None] = [generation_config(folder).eos_token_id] if stated else []
    said += [getattr(part, "eos_token_id", None) for part in (config, config.get_text_config())] if config else []
    found = next((ids for ids in said if ids not in (None, [])), None)
    ids = [] if found is None else found if isinstance(found, list | tuple) else [found]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise UsageError(f"{folder}: eos_token_id is {ids!r} in its generation_config.json: give whole numbers")
    return tuple(ids)


def known_ends(folder: Path) -> tuple[int, ...]:
    """Return the ends that a checkpoint declares; `UsageError` for one that is no token of its model, if it has one."""
    declared = declared_ends(folder)
    if declared and (folder / "config.json").is_file():
        size = load_config(folder).get_text_config().vocab_size
        outside = [token for token in declared if not 0 <= token < size]
        if outside:
            raise UsageError(
                f"{folder}: its eos_token_id names token {outside[0]}, and its tokens are 0 to {size - 1}: "
                "correct eos_token_id in its generation_config.json and config.json"
            )
    return declared


def stop_ids(tokenizer: PreTrainedTokenizerBase, folder: Path | None) -> tuple[int, ...]:
    """Return the tokens that end an answer: the tokenizer's end token and all that the checkpoint declares.

    `folder` is None for a tokenizer that is of no checkpoint. Raises `UsageError` if there is no end token at all, and
    for one that is no token of the model.
    """
    own = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    ids = tuple(dict.fromkeys((*own, *(() if folder is None else known_ends(folder)))))
    if not ids:
        raise UsageError(f"{folder}: the tokenizer has no end-of-sequence token, so answers could not end")
    return ids
