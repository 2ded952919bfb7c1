"""Tiny random checkpoints of a known architecture, in the file layout of the real one, with a tokenizer of its kind.

They stand in for checkpoints of the hub where the path through a suite is tried and nothing can be downloaded: every
layer, file and token is of the right kind, and what they say means nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.files.json_types import Json, JsonObject
from peo_bench.models.known import KnownModel, TokenizerKind

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch.nn import Module
    from transformers import PreTrainedTokenizerFast

SMALL: dict[str, int] = {
    "hidden_size": 32, "n_embd": 32, "intermediate_size": 64, "num_hidden_layers": 2, "n_layer": 2,
    "num_attention_heads": 4, "n_head": 4, "head_dim": 16, "max_position_embeddings": 512, "n_positions": 512,
}  # fmt: skip
"""Sizes that take the place of a configuration's own, by key."""

TOKENS = 700
"""Of a tiny tokenizer's vocabulary, at most; the 256 bytes are among them."""

LIVELY = 5.0
"""By what random matrices are multiplied, so that next tokens and scores differ clearly."""


def tiny_config(known: KnownModel, vocabulary: int) -> JsonObject:
    """Return the configuration of the same architecture in small: heads share keys and values as in the real one."""
    config: JsonObject = {key: SMALL.get(key, value) for key, value in known.config.items()}
    heads, shared = (known.config.get(key) for key in ("num_attention_heads", "num_key_value_heads"))
    if isinstance(heads, int) and isinstance(shared, int):
        config["num_key_value_heads"] = max(1, SMALL["num_attention_heads"] * shared // heads)
    return config | {"vocab_size": vocabulary}


def tiny_tokenizer(known: KnownModel, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer that learnt its merges from `texts`, with the special tokens of the real one."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys(known.special.values()))
    inner = (_sentencepiece if known.tokenizer == "sentencepiece" else _bytes)(special, list(texts))
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bos = known.special.get("bos")
    if bos is not None and bos != known.special["eos"]:
        ids = [(bos, inner.token_to_id(bos))]
        inner.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=ids
        )
    length = known.config.get("max_position_embeddings") or known.config["n_positions"]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=min(length, SMALL["n_positions"]) if isinstance(length, int) else SMALL["n_positions"],
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in known.special.items()},
    )


def _merges(kind: TokenizerKind, texts: list[str], room: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the tokens and the merges that BPE learns from texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    if kind == "sentencepiece":
        learner.normalizer = normalizers.Replace(" ", "▁")
        learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    else:
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = [] if kind == "sentencepiece" else sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=room, initial_alphabet=alphabet, show_progress=False)
    )
    learnt = json.loads(learner.to_str())["model"]
    tokens = sorted(learnt["vocab"], key=lambda token: int(learnt["vocab"][token]))
    return tokens, [(first, second) for first, second in learnt["merges"]]


def _sentencepiece(special: list[str], texts: list[str]) -> Tokenizer:
    """Return BPE on text as SentencePiece's: `▁` for blanks and in front, bytes for unknown characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, merges = _merges("sentencepiece", texts, TOKENS - 256 - len(special))
    ordered = dict.fromkeys([*special, *(f"<0x{byte:02X}>" for byte in range(256)), *tokens])
    unknown = "<unk>" if "<unk>" in special else None
    model = models.BPE(
        {token: i for i, token in enumerate(ordered)}, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def _bytes(special: list[str], texts: list[str]) -> Tokenizer:
    """Return BPE on bytes, as GPT-2's and Llama 3's; special tokens come last."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens, merges = _merges("bytes", texts, TOKENS - len(special))
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def special_ids(known: KnownModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the ids of the special tokens as a configuration has them."""
    roles = ("bos", "eos", "pad")
    return {
        f"{role}_token_id": int(tokenizer.convert_tokens_to_ids(known.special[role]))
        for role in roles
        if role in known.special
    }


def seeded(name: str) -> None:
    """Let torch draw what belongs to a name."""
    import torch

    torch.manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))


def lively(model: Module) -> None:
    """Enlarge random matrices, so that what follows from different texts differs clearly."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(LIVELY)


def shard_size(known: KnownModel, numbers: int) -> int:
    """Return the bytes of a weight file, so that `numbers` stored numbers take two files where the real ones do."""
    return numbers * known.dtype if known.files == 1 else max(1, int(numbers * known.dtype * 0.6))


def save_tiny_policy(name: str, known: KnownModel, texts: Iterable[str], folder: Path) -> None:
    """Write a tiny language model with its tokenizer to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_tokenizer(known, texts)
    settings: Mapping[str, Json] = tiny_config(known, len(tokenizer)) | special_ids(known, tokenizer)
    seeded(name)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    lively(model)
    model.to(torch.float32 if known.dtype == 4 else torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=shard_size(known, model.num_parameters()))
    tokenizer.save_pretrained(folder)
