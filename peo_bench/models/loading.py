"""Load language models and tokenizers from local folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peo_bench.jobs.job import Handle

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_causal(path: Path, precision: str = "float32") -> PreTrainedModel:
    """Load a causal language model from a local folder."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, precision), local_files_only=True)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with a padding token if it has none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(reference: Path, artefact: Handle, precision: str = "float32") -> Any:
    """Load the policy of a DPO artefact: the reference with its adapter, or the full model."""
    if artefact.result["form"] == "full":
        return load_causal(artefact.path / "model", precision)
    from peft import PeftModel

    return PeftModel.from_pretrained(load_causal(reference, precision), artefact.path / "adapter")
