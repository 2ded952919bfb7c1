"""Read a model from a GGUF file: its weights dequantised, its tokenizer as the model was trained with it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.models.loading import SAFE, load_model, unfilled

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_gguf(path: Path) -> PreTrainedModel:
    """Return the model of a GGUF file in fp32; `UsageError` unless it is whole."""
    from transformers import AutoModelForCausalLM, GgufConfig

    quantised = GgufConfig(gguf_file=str(path), dequantize=True)
    return load_model(AutoModelForCausalLM, path.parent, gguf_file=path.name, quantization_config=quantised)


@lru_cache(maxsize=1)
def gguf_outline(path: Path) -> PreTrainedModel:
    """Return the model of a GGUF file without its weights."""
    from transformers import AutoConfig

    return unfilled(AutoConfig.from_pretrained(path.parent, gguf_file=path.name, **SAFE))


@lru_cache(maxsize=1)
def gguf_tokenizer(path: Path, scheme: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a GGUF file, digits split as the model was trained.

    transformers ignores the file's `tokenizer.ggml.pre`. "smollm" splits single digits off before byte-level BPE;
    without that, white space before a number is tokenised as the model never saw it: the blank line before an item of a
    numbered list as two line breaks instead of one token, which costs several nats per list.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, **SAFE)
    if scheme == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    return tokenizer
