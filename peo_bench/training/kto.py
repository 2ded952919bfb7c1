"""KTO as a learner of phase 1: answers that are good or bad on their own, on TRL's KTOTrainer.

Ethayarajh et al. 2024, arXiv 2402.01306: 1 - sigma(beta (log u(y) - z)) for a good answer and 1 - sigma(beta (z - log
u(y))) for a bad one, u = pi/pi_ref, z the KL estimated from answers to other prompts of the micro-batch, not below 0. A
pair gives one good and one bad answer, so both weigh the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peo_bench.jobs.job import Handle
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.loading import context_length, load_causal, load_config, load_tokenizer
from peo_bench.training import aspect
from peo_bench.training.lengths import refuse_unreadable
from peo_bench.training.pair_rows import labelled_pairs, pair_lengths
from peo_bench.training.settings import dpo_settings
from peo_bench.training.training_rows import training_order

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

CURVE = {"loss": "loss", "margin": "rewards/margins", "kl": "kl"}


def build_trainer(params: Mapping[str, Any], inputs: Mapping[str, Handle], work: Workspace) -> Trainer:
    """Return a KTOTrainer, ready to train (the reference log-probabilities are computed here, once)."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import KTOConfig

    from peo_bench.training import trainers

    settings = dpo_settings(params)
    set_seed(params["seed"])
    reference = inputs["reference"].path / "model"
    tokenizer = load_tokenizer(reference)
    pairs, lengths = labelled_pairs(params, inputs, tokenizer)
    order = training_order(pair_lengths(pairs), settings.batch_size, settings.epochs, params["seed"])
    config = aspect.trainer_arguments(params, work, len(order))
    micro = config["per_device_train_batch_size"]
    rows = [row for start in range(0, len(order), micro) for row in answers(pairs, order[start : start + micro])]
    config["per_device_train_batch_size"] = 2 * micro
    joined = [min(len(row["prompt_ids"]) + len(row["KL_completion_ids"]), settings.max_length) for row in rows]
    what = f"kto on {params['objective']}, prompts with answers to others"
    refuse_unreadable(what, joined, context_length(load_config(reference)))
    lora = settings.form == "lora"
    trainer = trainers.keeping(_trainer_class(), work)(
        model=load_causal(reference, settings.trunk_precision, **trainers.trunk_options(settings)),
        args=trainers.one_device(KTOConfig(**config)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=trainers.lora_config(settings.lora_rank, settings.lora_alpha, "CAUSAL_LM") if lora else None,
    )
    trainer.lengths = lengths
    return trainer


def answers(pairs: Dataset, batch: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of a micro-batch of pairs: good answers first, so that neighbours belong to other prompts.

    `KL_completion_ids` is the answer of the row before, around the end.
    """
    chosen = pairs.select(batch).to_list()
    rows = [
        {"prompt_ids": pair["prompt_ids"], "completion_ids": pair[column], "label": label}
        for column, label in (("chosen_ids", True), ("rejected_ids", False))
        for pair in chosen
    ]
    return [row | {"KL_completion_ids": rows[i - 1]["completion_ids"]} for i, row in enumerate(rows)]


def _trainer_class() -> type:
    from trl import KTOTrainer

    from peo_bench.training import trainers

    class TokenisedKTOTrainer(trainers.Guard, KTOTrainer):  # type: ignore[misc]
        """Takes rows that are tokenised and ordered already."""

        def _prepare_dataset(self, dataset: Dataset, *args: object) -> Dataset:
            return dataset

    return TokenisedKTOTrainer
