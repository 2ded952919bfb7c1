"""Is a LoRA adapter exactly what the engine runs? Whole, plain, and on linear layers of its base.

PEFT starts the factors that a file lacks afresh, which makes their layers the base's, and knows many settings under
which the same factors are another function. So every setting is known here: read, harmless or refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.files.json_types import Json
from peo_bench.models.files import read_object

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"

FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
"""Matches the name of a factor of a linear layer: the layer, then its side."""

RUN = "the engine runs plain LoRA on linear layers, or full fine-tunes"
"""What can be done with a fine-tune."""

READ = frozenset(
    {
        "peft_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "bias",
        "init_lora_weights",
    }
)
"""Settings that the engine follows, or refuses by their value."""

HARMLESS = frozenset(
    {
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "lora_dropout",
        "fan_in_fan_out",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "megatron_core",
        "qalora_group_size",
        "runtime_config",
        "ensure_weight_tying",
    }
)
"""Settings that say nothing of what finished factors on linear layers compute."""

REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "lora_bias": "biases on B (lora_bias)",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "adapters on bare parameters",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "use_qalora": "QALoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow",
    "megatron_config": "Megatron's parallel layers",
}
"""Settings that make another function of the factors, or need more than them, by what they are called."""

STARTS = {"true", "false", "none", "gaussian", "eva", "orthogonal", "mica"}
"""Initialisations that leave the base weights as they are."""


def unsupported(config: Mapping[str, Json]) -> str | None:
    """Say why an adapter with this configuration is no plain LoRA, and what is accepted."""
    used = [what for key, what in REFUSED.items() if config.get(key)]
    unknown = [key for key in config.keys() - READ - HARMLESS - REFUSED.keys() if config[key]]
    start = str(config.get("init_lora_weights", True))
    why = None
    if config.get("peft_type") != "LORA":
        why = f"it is of type {config.get('peft_type')}"
    elif used:
        why = f"it uses {used[0]}"
    elif unknown:
        why = f"its {ADAPTER_CONFIG} sets {min(unknown)}, which is not known here"
    elif config.get("bias", "none") != "none":
        why = f"it has trained biases (bias={config['bias']!r})"
    elif start.lower() not in STARTS:
        why = f"its initialisation {start!r} may have changed the base weights"
    else:
        why = _no_number(config)
    return None if why is None else f"{why}; {RUN}"


def _no_number(config: Mapping[str, Json]) -> str | None:
    """Name a rank, an alpha or a layer that is no number."""
    for key, pattern, default in (("r", "rank_pattern", 8), ("lora_alpha", "alpha_pattern", 8)):
        patterns = config.get(pattern) or {}
        values = [config.get(key, default), *(patterns.values() if isinstance(patterns, Mapping) else [None])]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            return f"{key} is no finite number"
    layers = config.get("layers_to_transform")
    numbers = layers if isinstance(layers, list) else [] if layers is None else [layers]
    return None if all(isinstance(n, int) for n in numbers) else "layers_to_transform is no list of whole numbers"


def adapter_problem(folder: Path, tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Module]) -> str | None:
    """Say why an adapter is no plain LoRA on linear layers of a base, or is not whole.

    `tensors` are those of its file, `layers` the base's modules by name; on the meta device their values are not asked.
    """
    from torch import nn

    def problems() -> Iterator[str | None]:
        yield unsupported(read_object(folder / ADAPTER_CONFIG))
        yield from (_alien(key, tensor, layers) for key, tensor in sorted(tensors.items()))
        config, sides = lora_config(folder), factors(tensors)
        yield None if sides else "it holds no LoRA factors"
        embeddings = {id(layer.weight) for layer in layers.values() if isinstance(layer, nn.Embedding)}
        yield from (_misfit(config, name, sides[name], layers.get(name), embeddings) for name in sorted(sides))
        yield _untargeted(
            config, sides.keys(), [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
        )

    return next(filter(None, problems()), None)


def base_copies(tensors: Iterable[str]) -> list[str]:
    """Return the base's names of what is no factor in a file: PEFT saves some of its weights beside them."""
    return [_of_base(key) for key in tensors if not FACTOR.fullmatch(key)]


def _of_base(key: str) -> str:
    return key.removeprefix("base_model.model.").replace(".base_layer.", ".")


def factors(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return by layer the factors "A" (rank, in) and "B" (out, rank) that a file holds."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = FACTOR.fullmatch(key)
        if match:
            found.setdefault(match[1], {})[match[2]] = tensor
    return found


def scaling(config: LoraConfig, layer: str) -> float:
    """Return alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023), with PEFT's patterns applied."""
    rank = _by_pattern(config.rank_pattern, layer, config.r)
    alpha = _by_pattern(config.alpha_pattern, layer, config.lora_alpha)
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)


def lora_config(folder: Path) -> LoraConfig:
    """Return an adapter's configuration, defaults filled in; `UsageError` if PEFT cannot make one of it."""
    from peft import LoraConfig

    try:
        config = LoraConfig.from_pretrained(str(folder), local_files_only=True)
        _targeted(config, ["layers.0.any"])
        for patterns in (config.rank_pattern, config.alpha_pattern):
            _by_pattern(patterns, "layers.0.any", 1)
        return config
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, re.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{folder / ADAPTER_CONFIG}: cannot be used ({reason}): save the adapter again") from None


def _by_pattern(patterns: Mapping[str, float] | None, layer: str, default: float) -> float:
    from peft.utils.other import get_pattern_key

    known = patterns or {}
    return float(known.get(get_pattern_key(list(known), layer), default))


def _alien(key: str, tensor: Tensor, layers: Mapping[str, nn.Module]) -> str | None:
    """Refuse what is no factor, but for an unchanged base weight: PEFT saves it with adapters on the output layer."""
    import torch

    if FACTOR.fullmatch(key):
        if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            return f"{key} is {str(tensor.dtype).removeprefix('torch.')}, quantised; {RUN}"
        return None if torch.isfinite(tensor).all() else f"{key} is not finite (nan or inf)"
    layer, _, leaf = _of_base(key).rpartition(".")
    original = getattr(layers.get(layer), leaf, None)
    if isinstance(original, torch.Tensor) and original.shape == tensor.shape:
        unchanged = original.is_meta or torch.equal(original.to("cpu", tensor.dtype), tensor)
        if unchanged:
            return None
    return f"it holds {key!r}, which is no LoRA factor of a linear layer; {RUN}"


def refuse_unadaptable(model: PreTrainedModel, folder: Path) -> None:
    """Raise `UsageError` for a base whose layers, as trainings adapt all of them, would get what is not run here."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    odd = [name for name, layer in model.named_modules() if isinstance(layer, Conv1D)]
    odd += [name for name, weight in model.named_parameters() if ".experts." in name and weight.ndim == 3]
    linear = any(isinstance(layer, nn.Linear) for layer in model.modules())
    if odd or not linear:
        named = odd[0] if odd else "no linear layer"
        raise UsageError(
            f"{folder}: adapters on its layers ({named}) are not run here, those on linear layers alone are: type "
            "--set training.form=full"
        )


def _misfit(
    config: LoraConfig, name: str, sides: Mapping[str, Tensor], layer: nn.Module | None, embeddings: set[int]
) -> str | None:
    """Say why these factors are none of this layer."""
    from torch import nn

    if layer is None:
        return f"it has no layer {name}"
    if not isinstance(layer, nn.Linear):
        return f"its target {name} is {type(layer).__name__}, not Linear, in the base policy; {RUN}"
    if id(layer.weight) in embeddings:
        return f"its target {name} is tied to the input embeddings; {RUN}"
    rank = _by_pattern(config.rank_pattern, name, config.r)
    for side, tensor in sorted(sides.items()):
        key, (wide, narrow) = f"{name}.lora_{side}.weight", (1, 0) if side == "A" else (0, 1)
        if tensor.ndim != 2 or tensor.shape[wide] != layer.weight.shape[wide]:
            return f"{name} is {tuple(layer.weight.shape)} in the base policy, {key} is {tuple(tensor.shape)}"
        if tensor.shape[narrow] != rank:
            return f"{key} has rank {tensor.shape[narrow]}, and its config says {rank:g}"
    return None if len(sides) == 2 else f"{name} has lora_{next(iter(sides))} alone"


def _untargeted(config: LoraConfig, found: Iterable[str], linear: Iterable[str]) -> str | None:
    """Name a layer that the configuration targets without factors, or one with factors that it does not target."""
    asked = _targeted(config, linear)
    if asked is None:
        return None
    held = set(found)
    lacking, surplus = sorted(asked - held), sorted(held - asked)
    if lacking:
        return f"it lacks the factors of {lacking[0]}, which its config targets"
    return f"it holds factors of {surplus[0]}, which its config does not target" if surplus else None


def _targeted(config: LoraConfig, layers: Iterable[str]) -> set[str] | None:
    """Return the layers that the configuration targets; None where it names none."""
    from peft.tuners.tuners_utils import check_target_module_exists

    if not config.target_modules or config.target_modules == "all-linear":
        return None
    return {name for name in layers if check_target_module_exists(config, name)}
