"""Write what was trained, and measure how far it moved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.models.loading import load_causal
from peo_bench.training.settings import DPOSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer


def save_trained(trainer: Trainer, settings: DPOSettings, reference: Path, directory: Path) -> float:
    """Write the adapter or model; return ||tau||, the norm of the task vector over all parameters."""
    if settings.form == "lora":
        trainer.model.save_pretrained(directory / "adapter")
        return lora_norm(trainer.model)
    trainer.model.save_pretrained(directory / "model")
    trainer.processing_class.save_pretrained(directory / "model")
    return full_norm(trainer.model, reference)


def lora_norm(model: PreTrainedModel) -> float:
    """Return sqrt(sum ||scaling B A||_F^2), by ||B A||_F^2 = trace((B^T B)(A A^T)), in float64."""
    total = 0.0
    for module in model.modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            a, b = (getattr(module, name)["default"].weight.detach().double() for name in ("lora_A", "lora_B"))
            total += module.scaling["default"] ** 2 * float(((b.T @ b) * (a @ a.T)).sum())
    return math.sqrt(max(total, 0.0))


def full_norm(model: PreTrainedModel, reference: Path) -> float:
    """Return ||theta - theta_ref|| over all parameters (tied ones once), in float64."""
    before = dict(load_causal(reference).named_parameters())
    after = dict(model.named_parameters())
    squares = ((after[name].detach().cpu().double() - before[name].detach().double()).square() for name in before)
    return math.sqrt(sum(float(square.sum()) for square in squares))
