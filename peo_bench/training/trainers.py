"""What every TRL trainer here shares. Imports torch and transformers: import this module inside a job's `run` only.

Rows are tokenised up front (TRL's own `map` passes cost more than training a small model does) and handed over as the
columns that TRL would have produced: `prompt_ids`, `chosen_ids`, `rejected_ids` for DPO, `chosen_ids`, `rejected_ids`
(prompt included) for reward models, `input_ids`, `labels` for SFT. An answer is its own tokens plus EOS, behind the
prompt's tokens exactly as generation sees them; nothing merges across the boundary and no second BOS appears.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from peo_bench.errors import Diverged, JobFailed
from peo_bench.files.atomic import write_json
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.jobs.workspace import Workspace
from peo_bench.kill_points import is_due, kill_point
from peo_bench.process import device
from peo_bench.training.checkpoints import last_checkpoint, seal
from peo_bench.training.settings import DPOSettings
from peo_bench.training.tracker import tracked

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

CHECKPOINT_SECONDS = 15.0
"""A checkpoint is written this often at most. By the clock, because a step takes from 20 ms to 20 s, and short jobs
write none. Saving consumes no random numbers, so *when* does not change the result."""
CHECKPOINT_SHARE = 0.05
"""What checkpoints may take of the time of training, at most: those of full fine-tunes of large models are written more
seldom."""

POINTS_PER_CURVE = 25
MEMORY = "memory.json"
BEGINNING = 4096


# --- data -------------------------------------------------------------------------------------------------------------


# --- configuration ----------------------------------------------------------------------------------------------------


def base_config(
    work: Workspace,
    *,
    seed: int,
    steps: int,
    precision: str,
    warmup_ratio: float = 0.0,
    gradient_checkpointing: bool = False,
    **settings: object,
) -> dict[str, Any]:
    """Return the keyword arguments shared by every TRL config: AdamW, cosine decay, gradient norm clipped at 1.

    TRL's defaults (bf16, gradient checkpointing, trackers, tqdm) are meant for large models on GPUs and are off unless
    a suite turns the first two on; `--tracker` turns one tracker on, see `training.tracker`.
    Rows are taken as they lie in the dataset, once: see `training_order`. The rate of the first step of a warm-up is 0,
    so a training of one step has none.
    """
    return {
        "output_dir": str(work.scratch / "trainer"),
        "use_cpu": device() == "cpu",
        "seed": seed,
        "train_sampling_strategy": "sequential",
        "num_train_epochs": 1,
        "bf16": precision == "bfloat16",
        "gradient_checkpointing": gradient_checkpointing,
        "lr_scheduler_type": "cosine",
        "warmup_steps": warmup_ratio if steps > 1 else 0,
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": max(1, steps // POINTS_PER_CURVE),
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "save_total_limit": 2,
        "dataloader_pin_memory": False,
        **settings,
    }


def batches(batch_size: int, micro_batch_size: int) -> dict[str, int]:
    """Split a batch into micro batches whose gradients are accumulated; they divide it, as settings are checked to."""
    micro = min(batch_size, micro_batch_size)
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": batch_size // micro}


def one_device(config: TrainingArguments) -> TrainingArguments:
    """Keep a config on one device: several visible GPUs would select DataParallel, which TRL refuses."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


def attention_options(attention: str | None) -> dict[str, object]:
    """Return transformers' options for a way of computing attention; none where the model's own is taken."""
    return {"attn_implementation": attention} if attention else {}


def trunk_options(settings: DPOSettings) -> dict[str, object]:
    """Return transformers' options for a policy's trunk that is trained: its attention, how weights are held."""
    options = attention_options(settings.attention)
    if settings.quantization:
        from transformers import BitsAndBytesConfig

        computing = getattr(torch, settings.precision)
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        four |= {"bnb_4bit_compute_dtype": computing}
        held = four if settings.quantization == "4bit" else {"load_in_8bit": True}
        options |= {"quantization_config": BitsAndBytesConfig(**held), "device_map": {"": device()}}
    return options


def lora_config(rank: int, alpha: float, task: str, **settings: object) -> LoraConfig:
    """Return plain LoRA (Hu et al. 2021) on every linear layer of the trunk; the head is left alone."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type=task, **settings
    )


def pair_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    settings: DPOSettings,
    kept: Memo = FORGETFUL,
) -> tuple[list[float], list[float]]:
    """Return the log-probabilities (nats, summed over answer tokens) of chosen and rejected answers.

    By the same collator, kernel and autocast as TRL's own pass over the reference, so that the two can be subtracted.
    Batches that are `kept` are not computed again.
    """
    from trl.trainer.dpo_trainer import DataCollatorForPreference
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model.get_base_model() if hasattr(model, "peft_config") else model)
    model.eval().to(device())
    collate = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id, max_length=settings.max_length)
    size = min(settings.batch_size, settings.micro_batch_size)

    def log_probs(start: int) -> tuple[list[float], ...]:
        batch = collate(dataset.select(range(start, min(start + size, len(dataset)))).to_list())
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        batch = {name: value.to(model.device) for name, value in batch.items()} | {"labels": labels.to(model.device)}
        with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, settings.precision == "bfloat16"):
            found = model(**batch, use_cache=False, fused_lm_head=True).log_probs
        return tuple(half.tolist() for half in found.sum(dim=1).chunk(2))

    rows = [kept.value([start, size], partial(log_probs, start)) for start in range(0, len(dataset), size)]
    chosen, rejected = ([value for row in rows for value in row[side]] for side in (0, 1))
    return chosen, rejected


# --- training ---------------------------------------------------------------------------------------------------------


class Guard:
    """Mixin in front of a TRL trainer: no telemetry, and a loss that is not finite ends the job as `Diverged`."""

    def _send_telemetry(self) -> None:
        """Send nothing."""

    def training_step(self, *args: object, **kwargs: object) -> torch.Tensor:
        """Do TRL's step; check its loss."""
        return self.checked(super().training_step(*args, **kwargs))  # type: ignore[misc]

    def checked(self, loss: torch.Tensor) -> torch.Tensor:
        """Return `loss`; raise `Diverged` if it is not finite."""
        if not torch.isfinite(loss):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise Diverged(f"the training loss is {loss.item()} at step {step}: lower the learning rate")
        return loss


class WholeBatch:
    """Mixin in front of a TRL trainer: losses know the whole batch of an optimiser step, of which they see a part."""

    _whole: tuple[int, int] | None = None

    def get_batch_samples(self, *args: object) -> tuple[list[dict[str, torch.Tensor]], object]:
        """Return the micro-batches of an optimiser step; remember the size of the whole."""
        samples, items = super().get_batch_samples(*args)  # type: ignore[misc]
        self._whole = _size(samples)
        return samples, items

    def whole_size(self, inputs: dict[str, torch.Tensor]) -> tuple[int, int]:
        """Return the pairs and the preferred answers' tokens of the batch that a micro-batch is part of."""
        return self._whole or _size([inputs])

    def batch_mean(self, losses: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return a micro-batch's share of the batch's mean of `losses` (..., pairs), as `Trainer` wants it.

        `Trainer` divides by the number of micro-batches, as if all were of one size.
        """
        pairs, _ = self.whole_size(inputs)
        return losses.sum(dim=-1) * (getattr(self, "current_gradient_accumulation_steps", 1) / pairs)


def _size(samples: Sequence[Mapping[str, torch.Tensor]]) -> tuple[int, int]:
    """Return how many pairs are in some micro-batches and how many tokens their preferred answers have."""
    chosen = [sample["completion_mask"].chunk(2)[0] for sample in samples]
    return sum(map(len, chosen)), sum(int(mask.sum()) for mask in chosen)


class KeepsReference:
    """Mixin in front of a TRL trainer: log-probabilities of the reference that are `kept` are not computed again."""

    kept: Memo

    def _precompute_ref_logps(self, dataset: Dataset, *args: object) -> Dataset:
        """Let TRL find none that it has computed before: it looks by data and weights, not by length and precision."""
        dataset._fingerprint = secrets.token_hex(16)
        return super()._precompute_ref_logps(dataset, *args)  # type: ignore[misc]

    def compute_ref_log_probs(self, model: PreTrainedModel, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what TRL computes of a batch: tensors (rows,), or None."""

        def compute() -> list[list[float] | None]:
            found = super(KeepsReference, self).compute_ref_log_probs(model, inputs)  # type: ignore[misc]
            return [None if values is None else values.float().tolist() for values in found]

        batch = {name: value.tolist() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        kinds = self.kept.value(batch, compute)
        return tuple(None if values is None else torch.tensor(values, device=model.device) for values in kinds)


class Remembers:
    """Mixin in front of a TRL trainer: what it keeps in `memory`, JSON values, goes into checkpoints and comes back."""

    memory: dict[str, Any]

    def _save_checkpoint(self, model: PreTrainedModel, trial: object) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
        write_json(folder / MEMORY, self.memory)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: object) -> object:
        """Train; from a checkpoint on with its memory."""
        if resume_from_checkpoint:
            self.memory.update(json.loads((Path(resume_from_checkpoint) / MEMORY).read_text(encoding="utf-8")))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)  # type: ignore[misc]


def guarded(trainer: type) -> type:
    """Return `trainer` with `Guard` in front."""
    return type(trainer.__name__, (Guard, trainer), {})


def keeping(trainer: type, work: Workspace) -> type:
    """Return `trainer` with `KeepsReference` in front and a memo of the job."""
    return type(trainer.__name__, (KeepsReference, trainer), {"kept": work.memo("reference")})


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports progress and asks for a checkpoint now and then, see `CHECKPOINT_SECONDS` and `CHECKPOINT_SHARE`."""

    def __init__(self, work: Workspace) -> None:
        """Report to `work.progress`."""
        self.work = work
        self.points = kill_names(work.name)
        self.saved = time.monotonic()
        self.asked = self.saved
        self.wait = CHECKPOINT_SECONDS

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Report the step; decide on a checkpoint."""
        self.work.progress(state.global_step / state.max_steps, f"step {state.global_step}/{state.max_steps}")
        self.asked = time.monotonic()
        due = self._is_killed(state) or self.asked - self.saved >= self.wait
        control.should_save = due and state.global_step < state.max_steps
        if self._is_killed(state) and not control.should_save:
            kill_point(*self.points)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Seal the checkpoint: one that is not sealed is never resumed from."""
        seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.saved = time.monotonic()
        self.wait = max(CHECKPOINT_SECONDS, (self.saved - self.asked) / CHECKPOINT_SHARE)
        if self._is_killed(state):
            kill_point(*self.points)

    def _is_killed(self, state: Any) -> bool:
        return is_due(*self.points) and state.global_step >= max(1, state.max_steps // 2)


def kill_names(work: str) -> tuple[str, str]:
    """Return the names of the kill points of a training: its kind, and its kind with what follows.

    >>> kill_names("aspect helpful 82fb04d4")
    ('aspect', 'aspect-helpful')
    """
    kind, follows, *_ = [*work.split(), ""]
    return kind, f"{kind}-{follows}"


def train(trainer: Trainer, work: Workspace, curve: dict[str, str]) -> list[dict[str, float]]:
    """Train, from the last whole checkpoint if there is one; return the curve.

    `curve` maps names of the result ("margin") to TRL's ("rewards/margins"). Raises `Diverged` if a loss or, at the
    end, a weight is not finite, and `JobFailed` if no weight has moved.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch(work))
    before = _beginnings(trainer.model)
    with tracked(trainer, work):
        checkpoint = last_checkpoint(Path(trainer.args.output_dir))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise Diverged(f"weight {name} is not finite after training: lower the learning rate")
    if all(torch.equal(values, before[name]) for name, values in _beginnings(trainer.model).items()):
        raise JobFailed(
            f"no weight moved in {trainer.state.global_step} steps: raise the learning rate, or train on more pairs"
        )
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{"step": entry["step"]} | {ours: entry[theirs] for ours, theirs in curve.items()} for entry in logs]


def _beginnings(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the first values of every weight that is trained: enough to see a step of Adam, cheap for any model."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    return {name: parameter.detach().flatten()[:BEGINNING].cpu().clone() for name, parameter in trained}
