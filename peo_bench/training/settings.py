"""Settings of the trainings that a suite asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from peo_bench.errors import UsageError
from peo_bench.files.json_types import JsonObject
from peo_bench.process import DeviceKind, Precision, device, settled
from peo_bench.settings import Frozen
from peo_bench.training.learners import LEARNERS

Attention = Literal["eager", "sdpa", "flash_attention_2"]
"""What computes attention, as transformers calls it."""


def with_micro_batches(value: object) -> object:
    """Return settings with a micro-batch that divides the batch, where the batch alone is given."""
    size = value.get("batch_size") if isinstance(value, dict) else None
    if not isinstance(value, dict) or "micro_batch_size" in value or not isinstance(size, int) or size < 1:
        return value
    return value | {"micro_batch_size": max(n for n in range(1, 5) if size % n == 0)}


T = TypeVar("T", "DPOSettings", "RewardModelSettings")


def with_whole_batches(settings: T) -> T:
    """Return settings; raise `ValueError` where micro-batches do not make up the batch."""
    if settings.batch_size % min(settings.batch_size, settings.micro_batch_size):
        raise ValueError(
            f"batch_size {settings.batch_size} is not a multiple of micro_batch_size {settings.micro_batch_size}: "
            "choose one that is"
        )
    return settings


class DPOSettings(Frozen):
    """Phase 1: DPO (Rafailov et al. 2023, eq. 7), or another learner."""

    learner: str = "dpo"
    """Phase 1's loss, see `list learners`."""
    learner_beta: float | None = Field(None, gt=0)
    """Its beta, by default its own or, where its scale is that of DPO's, `beta`."""
    form: Literal["lora", "full"] = "lora"
    """`lora`: adapters on all linear layers of the trunk; `full`: every parameter."""
    beta: float = Field(0.1, gt=0)
    """Strength of the KL term (DPO paper: 0.1 to 0.5), also of methods with a loss of their own."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak of the schedule."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    batch_size: int = Field(16, gt=0)
    """Pairs per optimiser step."""
    micro_batch_size: int = Field(4, gt=0)
    """Pairs per forward pass: a divisor of `batch_size`, by default one of at most 4; a larger one counts as it."""
    max_length: int = Field(512, gt=0)
    """Tokens of prompt and answer; longer ones are cut, and counted."""
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises."""
    lora_rank: int = Field(16, gt=0)
    """Rank of the adapters."""
    lora_alpha: float = Field(32, gt=0)
    """Their scale is alpha / rank."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the weights while training; `auto`: bfloat16 on a CUDA device that computes in it, else float32."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Compute activations twice instead of keeping them: less memory, about a third more time, the same weights;
    `auto`: on CUDA devices.
    """
    attention: Attention | None = Field(None, exclude_if=lambda value: value is None)
    """How attention is computed, by default as transformers chooses for the model; `flash_attention_2` needs a CUDA
    device and the package flash-attn.
    """
    quantization: Literal["4bit", "8bit"] | None = Field(None, exclude_if=lambda value: value is None)
    """Hold the trunk's weights so while an adapter is trained (QLoRA, Dettmers et al. 2023, arXiv 2305.14314: 4-bit
    NormalFloat, twice quantised): needs a CUDA device and the package bitsandbytes. The adapter is used on the weights
    as they are.
    """

    _micro = model_validator(mode="before")(with_micro_batches)
    _whole = model_validator(mode="after")(with_whole_batches)

    @field_validator("learner")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            LEARNERS.get(name)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _kto_compares_pairs(self) -> DPOSettings:
        if self.learner == "kto" and min(self.batch_size, self.micro_batch_size) < 2:
            raise ValueError("learner kto compares pairs of one micro-batch: set micro_batch_size to 2 or more")
        return self

    @model_validator(mode="after")
    def _quantised_under_adapters(self) -> DPOSettings:
        if self.quantization and self.form != "lora":
            raise ValueError(f"quantization {self.quantization} is for form: lora, whose trunk is not trained")
        return self

    @property
    def trunk_precision(self) -> Precision:
        """How the reference policy's weights are held: bf16 under an adapter only, what is trained stays fp32."""
        return settled(self.precision) if self.form == "lora" else "float32"

    @property
    def aspect_beta(self) -> float:
        """The beta of phase 1's learner."""
        return self.learner_beta or LEARNERS.get(self.learner).beta or self.beta

    def job_params(self) -> JsonObject:
        """Return the settings as a job's parameters, with the version of the learner."""
        said = self.model_dump(mode="json") | settled_of(self)
        return said | {"learner_version": LEARNERS.get(self.learner).version}


def settled_of(settings: DPOSettings | RewardModelSettings, planned: DeviceKind | None = None) -> JsonObject:
    """Return what settings that may be `auto` stand for on this machine, or on a device that is `planned` for."""
    asked = settings.gradient_checkpointing
    checkpointing = (planned or device()).startswith("cuda") if asked == "auto" else asked
    return {"precision": settled(settings.precision, planned), "gradient_checkpointing": checkpointing}


RECORDED: JsonObject = {"precision": "float32", "micro_batch_size": 16, "gradient_checkpointing": False}
"""What jobs mean that say nothing of these settings: the suites' first defaults."""
LATER: JsonObject = {"attention": None, "quantization": None}
"""Settings of how the trunk is held, which jobs of which nothing is said are recorded with."""
PLAIN = DPOSettings().model_dump(mode="json", exclude={"learner", "learner_beta"}) | LATER | RECORDED
"""Defaults of the training settings that methods with a loss of their own share with phase 1."""
PLAIN_DPO: JsonObject = {"learner": "dpo", "learner_beta": None, "learner_version": LEARNERS.get("dpo").version}
"""Those that phase 1 has beside them."""


class AnswersSettings(Frozen):
    """How much an online training answers."""

    answers: int = Field(4, gt=1)
    """Answers per prompt."""
    units: float = Field(1.0, gt=0)
    """How long it trains: 1 is as many answers, in as many optimiser steps, as an expert sees."""


class FrankWolfeSettings(Frozen):
    """How far Frank-Wolfe goes."""

    iterations: int = Field(10, ge=1)
    """Gradient steps."""
    pairs: int = Field(64, ge=1)
    """Training pairs of every objective that a gradient is taken on."""


class RewardModelSettings(Frozen):
    """Bradley-Terry reward model on the reference policy's trunk, trained with TRL's RewardTrainer."""

    form: Literal["lora", "full"] = "lora"
    """`lora`: adapters on all linear layers of the trunk; `full`: every parameter."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak of the schedule."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    batch_size: int = Field(16, gt=0)
    """Pairs per optimiser step."""
    micro_batch_size: int = Field(4, gt=0)
    """Pairs per forward pass: a divisor of `batch_size`, by default one of at most 4; a larger one counts as it."""
    max_length: int = Field(512, gt=0)
    """Tokens of prompt and answer; longer ones are cut, and counted."""
    lora_rank: int = Field(16, gt=0)
    """Rank of the adapters."""
    lora_alpha: float = Field(32, gt=0)
    """Their scale is alpha / rank."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the weights while training; `auto`: bfloat16 on a CUDA device that computes in it, else float32."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Compute activations twice instead of keeping them: less memory, about a third more time, the same weights;
    `auto`: on CUDA devices.
    """
    attention: Attention | None = Field(None, exclude_if=lambda value: value is None)
    """How attention is computed, by default as transformers chooses for the model; `flash_attention_2` needs a CUDA
    device and the package flash-attn.
    """

    _micro = model_validator(mode="before")(with_micro_batches)
    _whole = model_validator(mode="after")(with_whole_batches)

    def job_params(self) -> JsonObject:
        """Return the settings as a job's parameters."""
        return self.model_dump(mode="json") | settled_of(self)


class SFTSettings(Frozen):
    """Supervised fine-tuning of the reference policy with TRL's SFTTrainer, on answers only."""

    learning_rate: float = Field(3e-3, gt=0)
    """Peak of the schedule."""
    steps: int = Field(400, gt=0)
    """Optimiser steps."""
    batch_size: int = Field(64, gt=0)
    """Texts per step."""
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises."""


def dpo_settings(params: Mapping[str, object]) -> DPOSettings:
    """Return the DPO settings among a job's parameters."""
    known = {name: params[name] for name in DPOSettings.model_fields if name in params}
    return DPOSettings.model_validate(RECORDED | known)
