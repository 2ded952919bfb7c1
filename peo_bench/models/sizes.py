"""How large a model is: what memory, disk and time follow from, known from its configuration without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.files.json_types import Json
from peo_bench.models.files import read_object
from peo_bench.models.known import KNOWN, repository

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Sizes:
    """Numbers of a causal language model, or of the trunk of a scorer.

    `parameters` counts tied weights once; `linear` is the sum of inputs and outputs of all linear layers of the trunk:
    a LoRA of rank r has r times as many; `matrices` are their weights. `queries` and `keys` are the widths of these in
    a layer's attention.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    queries: int
    keys: int
    vocabulary: int
    linear: int
    matrices: int


def sizes_of(config: PretrainedConfig) -> Sizes:
    """Return the sizes of the causal language model of a configuration, which is made without weights."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    from peo_bench.models.loading import unfilled

    model, text = unfilled(config), config.get_text_config()
    head = model.get_output_embeddings()
    linear = [layer for layer in model.modules() if isinstance(layer, Linear | Conv1D) and layer is not head]
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    shared = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return Sizes(
        parameters=model.num_parameters(),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        queries=width * text.num_attention_heads,
        keys=width * shared,
        vocabulary=text.vocab_size,
        linear=sum(sum(layer.weight.shape) for layer in linear),
        matrices=sum(layer.weight.numel() for layer in linear),
    )


@lru_cache(maxsize=32)
def sizes_at(path_or_id: str) -> Sizes | None:
    """Return the sizes of a checkpoint: a folder, or one of the hub; None where its configuration cannot be had now."""
    known = KNOWN.get(repository(path_or_id))
    if known is not None:
        return _of_keys(known.config)
    folder = next((place for place in (Path(path_or_id), Path(path_or_id) / "model") if _has_config(place)), None)
    if folder is not None:
        return _of_keys(read_object(folder / "config.json"))
    path = _from_hub(path_or_id)
    return None if path is None else _of_keys(read_object(path))


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _of_keys(keys: Mapping[str, Json]) -> Sizes | None:
    from transformers import AutoConfig

    try:
        return sizes_of(AutoConfig.for_model(**keys))
    except (ValueError, TypeError, LookupError, AttributeError):  # an architecture that transformers does not know
        return None


def _from_hub(path_or_id: str) -> Path | None:
    from huggingface_hub import hf_hub_download

    name, _, revision = path_or_id.partition("@")
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision or None))
    except Exception:  # the errors of huggingface_hub's HTTP library change with its version
        return None
