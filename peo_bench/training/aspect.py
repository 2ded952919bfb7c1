"""Phase 1, aspect-specific learning: one DPO expert per objective, all from one reference policy.

DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), on pairs of one objective:

    L = -log sigma( beta [ log pi/pi_ref (y_w) - log pi/pi_ref (y_l) ] ),  log pi summed over answer tokens and EOS.

Published values: beta 0.1 to 0.5 (DPO; learners on another scale have their own), one to three epochs. The seed, and
with it LoRA's A factors and the order of the data, is the same for every objective, so the task vectors of two experts
differ by their labels alone.

MODPO is the same training with a shifted reference: `train_dpo` serves both. `training.learner` replaces DPO's loss by
another of `peo_bench.training.learners`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from peo_bench.core import roles
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.training.learners import LEARNERS, Loss, PairBatch
from peo_bench.training.pair_rows import REFERENCE, labelled_pairs, pair_lengths, shifted
from peo_bench.training.saving import save_trained
from peo_bench.training.settings import PLAIN, PLAIN_DPO, dpo_settings

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, Trainer

Shift = Callable[["Dataset"], tuple[list[float], list[float]]]
"""Maps tokenised pairs with their reference log-probabilities to what is added to those of chosen and rejected."""

CURVE = {"loss": "loss", "margin": "rewards/margins", "accuracy": "rewards/accuracies"}


def pairs_bound(job: Job, split: str = "policy") -> Cost:
    """Bound the pairs trained: what the pairs job is asked for times the epochs (0 where it is given no limit)."""
    count = _asked_pairs(job.needs["pairs"], split)
    return Cost(pairs_trained=math.ceil(count * job.params.get("epochs", 1.0)))


def _asked_pairs(pairs: Job, split: str) -> int:
    """Return how many pairs a job is asked for, or those that it mixes are."""
    own = pairs.params.get(split) or pairs.params.get("limit") or 0
    return own or sum(_asked_pairs(need, split) for role, need in pairs.needs.items() if roles.is_pairs(role))


@job_kind(
    "aspect",
    version=4,
    bound=pairs_bound,
    defaults=PLAIN | PLAIN_DPO | {"swapped": False},
    label=("objective",),
)
def train_aspect(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Train the DPO expert of `params["objective"]`; with `params["swapped"]` on pairs whose labels are swapped."""
    return train_dpo(job.params, inputs, work)


def train_dpo(
    params: Mapping[str, Any],
    inputs: Mapping[str, Handle],
    work: Workspace,
    weight: float = 1.0,
    shift: Shift | None = None,
    loss: Loss | None = None,
) -> JsonObject:
    """Train by DPO at beta / `weight` against the reference policy, its log-probabilities shifted by `shift`.

    `loss` takes the place of the learner's. Writes `adapter/` (LoRA) or `model/` (full) and returns the job's result.
    """
    from peo_bench.models.quiet import quiet
    from peo_bench.training import trainers

    settings = dpo_settings(params)
    with quiet():
        if settings.learner == "kto":
            from peo_bench.training import kto

            trainer, curve, rows_per_pair = kto.build_trainer(params, inputs, work), kto.CURVE, 2
        else:
            own = loss or LEARNERS.get(settings.learner).loss
            trainer = build_trainer(params, inputs, work, partial(trainer_class, shift, loss=own), weight)
            curve, rows_per_pair = CURVE, 1
        curves = trainers.train(trainer, work, curve)
        norm = save_trained(trainer, settings, inputs["reference"].path / "model", work.dir)
    trained = len(trainer.train_dataset) // rows_per_pair
    work.charge(Cost(pairs_trained=trained))
    return {
        "form": settings.form,
        "objective": params["objective"],
        "task_vector_norm": norm,
        "pairs": round(trained / settings.epochs),
        "lengths": trainer.lengths.to_json(),
        "curves": curves,
    }


def build_trainer(
    params: Mapping[str, Any],
    inputs: Mapping[str, Handle],
    work: Workspace,
    make_class: Callable[..., type],
    weight: float = 1.0,
    signs: Sequence[str] = (),
) -> Trainer:
    """Return a DPOTrainer, ready to train (the reference log-probabilities are computed here, once).

    Its `lengths` say what `max_length` did to the pairs. `make_class` gets the `order` of training; the data carry the
    `signs` of these objectives, see `tokenised_pairs`.
    """
    from transformers import set_seed
    from trl import DPOConfig

    from peo_bench.models.loading import load_causal, load_tokenizer
    from peo_bench.training import trainers
    from peo_bench.training.training_rows import training_order

    settings = dpo_settings(params)
    set_seed(params["seed"])
    reference = inputs["reference"].path / "model"
    tokenizer = load_tokenizer(reference)
    dataset, lengths = labelled_pairs(params, inputs, tokenizer, signs)
    order = training_order(pair_lengths(dataset), settings.batch_size, settings.epochs, params["seed"])
    lora = settings.form == "lora"
    config = trainer_arguments(params, work, len(order)) | {"beta": settings.aspect_beta / weight}
    trainer = trainers.keeping(make_class(order=order), work)(
        model=load_causal(reference, settings.trunk_precision, **trainers.trunk_options(settings)),
        args=trainers.one_device(DPOConfig(**config, **LEARNERS.get(settings.learner).options)),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=trainers.lora_config(settings.lora_rank, settings.lora_alpha, "CAUSAL_LM") if lora else None,
    )
    trainer.lengths = lengths
    return trainer


def trainer_arguments(params: Mapping[str, Any], work: Workspace, pairs: int) -> dict[str, Any]:
    """Return the arguments of TRL's preference trainers for training on so many pairs."""
    from peo_bench.training import trainers

    settings = dpo_settings(params)
    return trainers.base_config(
        work,
        seed=params["seed"],
        steps=math.ceil(pairs / settings.batch_size),
        precision=settings.precision,
        gradient_checkpointing=settings.gradient_checkpointing is True,
        **trainers.batches(settings.batch_size, settings.micro_batch_size),
        learning_rate=settings.learning_rate,
        warmup_ratio=settings.warmup_ratio,
        beta=settings.aspect_beta,
        max_length=settings.max_length,
        precompute_ref_log_probs=True,
    )


def trainer_class(shift: Shift | None, order: list[int], loss: Loss | None = None) -> type:
    """Return DPOTrainer on tokenised pairs in our order of training; the reference may be shifted, the loss ours."""
    from trl import DPOTrainer

    from peo_bench.training import trainers

    class ShiftedDPOTrainer(trainers.Guard, trainers.WholeBatch, DPOTrainer):  # type: ignore[misc]
        """Overrides how TRL prepares the pairs, not how it trains on them."""

        def _prepare_dataset(self, dataset: Dataset, *args: object) -> Dataset:
            return dataset

        def _precompute_ref_logps(self, dataset: Dataset, *args: object) -> Dataset:
            # Shifted outside TRL's function: its cache key knows nothing of the shift.
            if not {*REFERENCE} <= {*dataset.column_names}:
                dataset = super()._precompute_ref_logps(dataset, *args)
            if shift is not None:
                dataset = shifted(dataset, *shift(dataset))
            return dataset.select(order).flatten_indices()

        def log_ratios(
            self, model: PreTrainedModel, inputs: dict[str, Tensor]
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Return log pi/pi_ref of chosen and of rejected answers, then log pi of both, each (rows,)."""
            labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
            tokens = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            output = model(**tokens, labels=labels, use_cache=False, fused_lm_head=True)
            chosen, rejected = output.log_probs.sum(dim=1).chunk(2)
            ratios = chosen - inputs["ref_chosen_logps"], rejected - inputs["ref_rejected_logps"]
            return *ratios, chosen, rejected

    if loss is None:
        return ShiftedDPOTrainer
    own = loss

    class OwnLossTrainer(trainers.Remembers, ShiftedDPOTrainer):
        """Replaces TRL's loss on the same forward pass."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            self.memory = {}
            super().__init__(*args, **kwargs)

        def _compute_loss(self, model: PreTrainedModel, inputs: dict[str, Tensor], return_outputs: bool) -> Tensor:
            ratio_w, ratio_l, log_pi_w, log_pi_l = self.log_ratios(model, inputs)
            tokens_w, tokens_l = inputs["completion_mask"].sum(dim=1).chunk(2)
            margin = self.beta * (ratio_w - ratio_l).detach()
            logged = self._metrics["train" if model.training else "eval"]
            logged["rewards/margins"].append(margin.mean().item())
            logged["rewards/accuracies"].append((margin > 0).float().mean().item())
            whole = self.whole_size(inputs)
            pairs = PairBatch(ratio_w, ratio_l, log_pi_w, log_pi_l, tokens_w, tokens_l, self.beta, self.memory, *whole)
            return self.batch_mean(own(pairs), inputs)

    return OwnLossTrainer
