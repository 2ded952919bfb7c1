"""Is a LoRA adapter whole? PEFT starts the factors that a file lacks afresh, which makes their layers the base's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
"""Matches the name of a factor of a linear layer: the layer, then its side."""


def lora_problem(folder: Path, tensors: Mapping[str, Tensor], linear: Iterable[str]) -> str | None:
    """Say why an adapter is not whole: a factor alone, one that is not finite, a targeted layer without factors.

    `linear` are the names of the base's linear layers; what is no factor is not looked at.
    """
    import torch

    sides: dict[str, set[str]] = {}
    for name, tensor in sorted(tensors.items()):
        match = FACTOR.fullmatch(name)
        if match:
            sides.setdefault(match[1], set()).add(match[2])
            if not torch.isfinite(tensor).all():
                return f"{name} is not finite (nan or inf)"
    for module, found in sides.items():
        if found != {"A", "B"}:
            return f"{module} has lora_{next(iter(found))} alone"
    lacking = sorted(set(targets(folder, linear)) - sides.keys())
    return f"it lacks the factors of {lacking[0]}, which its config targets" if lacking else None


def targets(folder: Path, linear: Iterable[str]) -> Collection[str]:
    """Return those of the layers that the adapter's configuration targets."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
    if not config.target_modules or config.target_modules == "all-linear":
        return ()
    return [name for name in linear if check_target_module_exists(config, name)]
