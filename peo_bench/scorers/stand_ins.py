"""Tiny reward and cost models in the file layouts of published ones, whose heads order the anchor pairs as declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.models.known import KnownModel
from peo_bench.models.tiny import lively, seeded, shard_size, special_ids, tiny_config, tiny_tokenizer
from peo_bench.scorers import open_scorer
from peo_bench.scorers.anchors import ANCHORS, Anchor

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

HEADS = {"beaver": "score_head", "hh-gpt2": "score", "sequence-classification": "score"}
"""The head of a model of each layout."""

Wanted = Mapping[int, tuple[Sequence[Anchor], float]]
"""By label the pairs that its score shall order, and the sign of the better answer's score."""


def anchor_texts() -> list[str]:
    """Return all texts of the built-in anchor pairs."""
    return [text for anchors in ANCHORS.values() for anchor in anchors for text in anchor]


def save_tiny_scorer(
    name: str, known: KnownModel, layout: str, texts: Iterable[str], folder: Path, wanted: Wanted
) -> None:
    """Write a tiny scorer of a layout with its tokenizer to `folder`.

    Its head is fitted to what its trunk makes of the anchor pairs: the better answer scores `sign`, the other -`sign`.
    """
    from transformers import AutoConfig

    tokenizer = tiny_tokenizer(known, texts)
    labels = 1 + max(wanted, default=0)
    settings = tiny_config(known, len(tokenizer)) | special_ids(known, tokenizer)
    config = AutoConfig.for_model(**settings, **({} if layout == "beaver" else {"num_labels": labels}))
    tensors = _trunk(name, config, layout)
    tokenizer.save_pretrained(folder)
    _save(tensors, config, known, folder)
    head = f"{HEADS[layout]}.weight"
    for label, row in fitted(folder, layout, HEADS[layout], wanted).items():
        tensors[head][label] = row
    _save(tensors, config, known, folder)


def fitted(folder: Path, layout: str, head: str, wanted: Wanted) -> dict[int, Tensor]:
    """Return by label the weights (hidden,) that give the wanted scores to the anchor pairs, by least squares.

    What the head reads is caught on its way in, one text at a time, so that padding plays no part.
    """
    import torch

    scorer = open_scorer(folder, layout)
    caught: list[Tensor] = []
    scorer.model.get_submodule(head).register_forward_pre_hook(
        lambda _, inputs: caught.append(inputs[0].reshape(-1, inputs[0].shape[-1])[-1].clone())
    )
    found = {}
    for label, (anchors, sign) in wanted.items():
        caught.clear()
        for prompt, *answers in anchors:
            for answer in answers:
                scorer.score([prompt], [answer])
        target = torch.tensor([sign, -sign] * len(anchors))
        found[label] = torch.linalg.lstsq(torch.stack(caught).float(), target[:, None]).solution[:, 0]
    return found


def _trunk(name: str, config: PretrainedConfig, layout: str) -> dict[str, Tensor]:
    """Return a random model's tensors as the layout's files name them."""
    import torch
    from transformers import AutoModelForSequenceClassification, LlamaModel

    seeded(name)
    if layout == "beaver":
        config.update({"architectures": ["LlamaForScore"], "score_type": "reward", "score_dim": 1, "score_bias": True})
        trunk = LlamaModel(config)
        lively(trunk)
        tensors = {f"model.{key}": value for key, value in trunk.state_dict().items()}
        tensors |= {"score_head.weight": torch.randn(1, config.hidden_size), "score_head.bias": torch.zeros(1)}
        normalizer = {"mean": torch.zeros(1), "var": torch.ones(1), "count": torch.ones(1)}
        return tensors | {f"normalizer.{key}": value for key, value in normalizer.items()}
    model = AutoModelForSequenceClassification.from_config(config)
    lively(model)
    return {key: value.clone() for key, value in model.state_dict().items()}


def _save(tensors: Mapping[str, Tensor], config: PretrainedConfig, known: KnownModel, folder: Path) -> None:
    import torch
    from huggingface_hub import save_torch_state_dict

    dtype = torch.float32 if known.dtype == 4 else torch.bfloat16
    size = shard_size(known, sum(tensor.numel() for tensor in tensors.values()))
    stored = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    config.save_pretrained(folder)
    save_torch_state_dict(stored, folder, max_shard_size=size, metadata={"format": "pt"})
