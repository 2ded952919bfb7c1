"""Is a LoRA adapter whole? PEFT starts the factors that a file lacks afresh, which makes their layers the base's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.files.json_types import Json

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
"""Matches the name of a factor of a linear layer: the layer, then its side."""

RUN = "the engine runs plain LoRA on linear layers, or full fine-tunes"
"""What can be done with a fine-tune."""

_REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "lora_bias": "biases on B (lora_bias)",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "adapters on bare parameters",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "use_qalora": "QALoRA",
}
_BASE_CHANGING = ("pissa", "olora", "corda", "loftq", "lora_ga")


def unsupported(config: Mapping[str, Json]) -> str | None:
    """Say why an adapter with this configuration is no plain LoRA, and what is accepted."""
    used = [what for key, what in _REFUSED.items() if config.get(key)]
    start = str(config.get("init_lora_weights", True))
    patterns = config.get("alpha_pattern")
    alphas = [config.get("lora_alpha", 8), *(patterns.values() if isinstance(patterns, Mapping) else ())]
    why = None
    if config.get("peft_type") != "LORA":
        why = f"it is of type {config.get('peft_type')}"
    elif used:
        why = f"it uses {used[0]}"
    elif config.get("bias", "none") != "none":
        why = f"it has trained biases (bias={config['bias']!r})"
    elif start.lower().startswith(_BASE_CHANGING):
        why = f"its initialisation {start!r} changed the base weights"
    elif not all(isinstance(alpha, int | float) and math.isfinite(alpha) for alpha in alphas):
        why = "lora_alpha is no finite number"
    return None if why is None else f"{why}; {RUN}"


def lora_problem(folder: Path, tensors: Mapping[str, Tensor], linear: Iterable[str]) -> str | None:
    """Say why an adapter is not whole: a factor alone, one that is not finite, a targeted layer without factors
    and factors of a layer that is not targeted.

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
    problem = _rank_problem(folder, tensors)
    if problem:
        return problem
    asked = targets(folder, linear)
    if asked is None:
        return None
    lacking, surplus = sorted(asked - sides.keys()), sorted((sides.keys() & set(linear)) - asked)
    if lacking:
        return f"it lacks the factors of {lacking[0]}, which its config targets"
    return f"it holds factors of {surplus[0]}, which its config does not target" if surplus else None


def _rank_problem(folder: Path, tensors: Mapping[str, Tensor]) -> str | None:
    """Say which factor has another rank than the configuration, whose scaling would be another's."""
    from peft.utils.other import get_pattern_key

    config = _config(folder)
    for name, tensor in sorted(tensors.items()):
        match = FACTOR.fullmatch(name)
        if match:
            patterns = config.rank_pattern or {}
            rank = patterns.get(get_pattern_key(list(patterns), match[1]), config.r)
            found = tensor.shape[0 if match[2] == "A" else 1]
            if found != rank:
                return f"{name} has rank {found}, and its config says {rank}"
    return None


def _config(folder: Path) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig.from_pretrained(str(folder), local_files_only=True)


def targets(folder: Path, linear: Iterable[str]) -> set[str] | None:
    """Return those of the layers that the adapter's configuration targets; None where it names none."""
    from peft.tuners.tuners_utils import check_target_module_exists

    config = _config(folder)
    if not config.target_modules or config.target_modules == "all-linear":
        return None
    return {name for name in linear if check_target_module_exists(config, name)}
