"""Supervised fine-tuning of the reference policy from an initialised model (the sandbox's is built from scratch).

Cross-entropy of the answer and its EOS given the prompt, with TRL's SFTTrainer: AdamW (betas 0.9 and 0.99, for short
runs from scratch), cosine decay, gradient norm clipped at 1. One step sees `batch_size` rows; the corpus is passed
over as often as `steps` needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind, outline_of, outlined, tokenizer_of
from peo_bench.jobs.workspace import Workspace
from peo_bench.training.settings import SFTSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

IGNORED = -100


def sft_settings(params: Mapping[str, object]) -> SFTSettings:
    """Return the SFT settings among a job's parameters."""
    return SFTSettings.model_validate({name: params[name] for name in SFTSettings.model_fields if name in params})


def examples(job: Job) -> Cost:
    """Return the examples trained on: exact."""
    settings = sft_settings(job.params)
    return Cost(examples_trained=settings.steps * settings.batch_size)


@outlined(lambda job: outline_of(job.needs["corpus"]), lambda job: tokenizer_of(job.needs["corpus"]))
@job_kind("sft", version=2, bound=examples, defaults=SFTSettings().model_dump(mode="json"), common=True)
def train_sft(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Train the model in the corpus job's `init/` on its `corpus.jsonl`; write `model/`."""
    from peo_bench.models.quiet import quiet
    from peo_bench.training import trainers

    with quiet():
        trainer = build_trainer(job.params, inputs["corpus"].path, work)
        curves = trainers.train(trainer, work, {"loss": "loss", "accuracy": "mean_token_accuracy"})
        trainer.model.save_pretrained(work.dir / "model")
        trainer.processing_class.save_pretrained(work.dir / "model")
    work.charge(examples(job))
    return {"form": "base", "curves": curves}


def build_trainer(params: Mapping[str, Any], corpus: Path, work: Workspace) -> Trainer:
    """Return TRL's SFTTrainer on the tokenised corpus, ready to train."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from peo_bench.models.loading import load_causal, load_tokenizer
    from peo_bench.training import trainers
    from peo_bench.training.training_rows import training_order

    settings = sft_settings(params)
    set_seed(params["seed"])
    tokenizer = load_tokenizer(corpus / "init")
    rows = tokenised_corpus(tokenizer, corpus / "corpus.jsonl")
    epochs = settings.steps * settings.batch_size / len(rows)
    order = training_order([len(ids) for ids, _ in rows], settings.batch_size, epochs, params["seed"])
    columns = {"input_ids": [rows[i][0] for i in order], "labels": [rows[i][1] for i in order]}
    config = trainers.base_config(
        work,
        seed=params["seed"],
        steps=settings.steps,
        precision="float32",
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        adam_beta2=0.99,
        warmup_ratio=settings.warmup_ratio,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return trainers.guarded(SFTTrainer)(
        model=load_causal(corpus / "init"),
        args=trainers.one_device(SFTConfig(**config)),
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )


def tokenised_corpus(tokenizer: PreTrainedTokenizerBase, path: Path) -> list[tuple[list[int], list[int]]]:
    """Return input ids and labels per row; the labels of the prompt are ignored by the loss."""
    from peo_bench.models.rendering import answer_tokens, prompt_tokens
    from peo_bench.training.training_rows import read_rows

    rows = read_rows(path, ("prompt", "answer"))
    prompts = prompt_tokens(tokenizer, [row["prompt"] for row in rows])
    answers = answer_tokens(tokenizer, [row["answer"] for row in rows])
    both = zip(prompts, answers, strict=True)
    return [(prompt + answer, [IGNORED] * len(prompt) + answer) for prompt, answer in both]
