"""Proxy reward and cost models: Bradley-Terry on pairs of one objective, with TRL's RewardTrainer.

    L = -log sigma( s(x, y_w) - s(x, y_l) )

on the reference policy's trunk with one new linear head. A cost model is trained on swapped answers, so that its score
*is* a cost: higher is worse. Scores are stored and returned unflipped; whoever maximises negates a cost.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peo_bench.data.given_checkpoint import base_at_hand
from peo_bench.errors import UsageError
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.ends import generation_config
from peo_bench.models.loading import context_length, foresee_classifier, load_config, new_classifier
from peo_bench.scorers.trained import RewardModelScorer, scored_tokens, scoring_tokenizer
from peo_bench.training.aspect import pairs_bound
from peo_bench.training.lengths import Lengths, refuse_unreadable
from peo_bench.training.settings import RECORDED, RewardModelSettings
from peo_bench.training.training_rows import TextRow, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer

CURVE = {"loss": "loss", "accuracy": "accuracy", "margin": "margin"}


@job_kind(
    "reward-model",
    version=2,
    bound=lambda job: pairs_bound(job, "scorer"),
    # form: as before LoRA was the suites' default
    defaults=RewardModelSettings(form="full").model_dump(mode="json") | RECORDED | {"attention": None},
    keeps="nothing",
    label=("objective",),
)
def train_reward_model(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Train the model of `params["objective"]` in `params["direction"]`; write `model/`.

    `accuracy` is the share of held-out pairs (a tenth, by prompt) that the finished artefact orders correctly.
    """
    from peo_bench.models.quiet import quiet
    from peo_bench.training import trainers

    objective, direction = job.params["objective"], job.params["direction"]
    if direction not in ("reward", "cost"):
        raise UsageError(f"reward-model: direction {direction!r} is unknown: use reward or cost")
    training, held_out = scorer_pairs(inputs, objective)
    with quiet():
        reference = inputs["reference"].path / "model"
        trainer = build_trainer(job.params, reference, training, work)
        curves = trainers.train(trainer, work, CURVE)
        # Merged in fp32: in bf16 a small delta would round away.
        model = trainer.model.float()
        if settings_of(job.params).form == "lora":
            model = model.merge_and_unload()
        model.save_pretrained(work.dir / "model")
        trainer.processing_class.save_pretrained(work.dir / "model")
        generation_config(reference).save_pretrained(work.dir / "model")  # where answers end, for scoring
    work.charge(Cost(pairs_trained=len(trainer.train_dataset)))
    return {
        "objective": objective,
        "direction": direction,
        "accuracy": ranking_accuracy(RewardModelScorer(work.dir), held_out, direction, work.memo("kept")),
        "pairs": trainer.lengths.whole,
        "pairs_held_out": len(held_out),
        "lengths": trainer.lengths.to_json(),
        "curves": curves,
    }


@lru_cache(maxsize=64)
def foresee_reference(reference: Job) -> None:
    """Raise `UsageError` for a reference policy of which no reward model can be made, where it is a checkpoint here."""
    from peo_bench.models.quiet import quiet

    folder = base_at_hand(reference)
    if folder is not None:
        with quiet():
            foresee_classifier(folder)
            scoring_tokenizer(folder)


def settings_of(params: Mapping[str, object]) -> RewardModelSettings:
    """Return the reward-model settings among a job's parameters."""
    known = {name: params[name] for name in RewardModelSettings.model_fields if name in params}
    return RewardModelSettings.model_validate(RECORDED | known)


def scorer_pairs(inputs: Mapping[str, Handle], objective: str) -> tuple[list[TextRow], list[TextRow]]:
    """Return the pairs for scorers of `objective` to train on, and those held out."""
    path = inputs["pairs"].path / f"{objective}-scorer.jsonl"
    return split_by_prompt(read_rows(path, ("prompt_id", "prompt", "chosen", "rejected")))


def split_by_prompt(rows: Sequence[TextRow]) -> tuple[list[TextRow], list[TextRow]]:
    """Return the rows to train on and a held-out tenth of the prompts (one at least); no prompt is in both."""
    prompts = sorted({row["prompt_id"] for row in rows}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(prompts) < 2:
        raise UsageError("a reward model needs pairs on at least two prompts, one of them held out")
    held = set(prompts[: max(1, len(prompts) // 10)])
    return [row for row in rows if row["prompt_id"] not in held], [row for row in rows if row["prompt_id"] in held]


def ranking_accuracy(
    scorer: RewardModelScorer, rows: Sequence[TextRow], direction: str, kept: Memo = FORGETFUL
) -> float:
    """Return the share of pairs whose chosen answer has the higher reward or the lower cost; ties count half."""
    prompts = [row["prompt"] for row in rows]
    chosen = scorer.score(prompts, [row["chosen"] for row in rows], kept)
    rejected = scorer.score(prompts, [row["rejected"] for row in rows], kept)
    sign = -1 if direction == "cost" else 1
    correct = [0.5 if a == b else float(sign * (a - b) > 0) for a, b in zip(chosen, rejected, strict=True)]
    return sum(correct) / len(correct)


def build_trainer(params: Mapping[str, Any], reference: Path, rows: Sequence[TextRow], work: Workspace) -> Trainer:
    """Return TRL's RewardTrainer on the tokenised rows, ready to train."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    from peo_bench.training import trainers
    from peo_bench.training.training_rows import training_order

    settings = settings_of(params)
    set_seed(params["seed"])
    tokenizer = scoring_tokenizer(reference)
    pairs = tokenised(tokenizer, rows, settings.max_length, swap=params["direction"] == "cost")
    lengths = [max(len(chosen), len(rejected)) for chosen, rejected in pairs]
    context = context_length(load_config(reference))
    refuse_unreadable("reward-model", lengths, context, "reward-model")
    order = training_order(lengths, settings.batch_size, settings.epochs, params["seed"])
    config = trainers.base_config(
        work,
        seed=params["seed"],
        steps=math.ceil(len(order) / settings.batch_size),
        precision=settings.precision,
        gradient_checkpointing=settings.gradient_checkpointing is True,
        **trainers.batches(settings.batch_size, settings.micro_batch_size),
        learning_rate=settings.learning_rate,
        max_length=None,
    )
    lora = settings.form == "lora"
    adapter = trainers.lora_config(settings.lora_rank, settings.lora_alpha, "SEQ_CLS", modules_to_save=["score"])
    trainer = trainers.guarded(RewardTrainer)(
        model=new_classifier(
            reference, settings.precision if lora else "float32", **trainers.attention_options(settings.attention)
        ),
        args=trainers.one_device(RewardConfig(**config)),
        train_dataset=Dataset.from_dict(
            {"chosen_ids": [pairs[i][0] for i in order], "rejected_ids": [pairs[i][1] for i in order]}
        ),
        processing_class=tokenizer,
        peft_config=adapter if lora else None,
    )
    trainer.lengths = Lengths(whole=len(pairs), cut=0, dropped=len(rows) - len(pairs), limit=settings.max_length)
    return trainer


def tokenised(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[TextRow], max_length: int, swap: bool
) -> list[tuple[list[int], list[int]]]:
    """Return (preferred, other) token ids of every pair that fits `max_length`; `swap` trains a cost."""
    prompts = [row["prompt"] for row in rows]
    chosen = scored_tokens(tokenizer, prompts, [row["chosen"] for row in rows])
    rejected = scored_tokens(tokenizer, prompts, [row["rejected"] for row in rows])
    pairs = [
        (low, high) if swap else (high, low)
        for high, low in zip(chosen, rejected, strict=True)
        if max(len(high), len(low)) <= max_length
    ]
    if not pairs:
        raise UsageError(f"every pair is longer than max_length = {max_length} tokens")
    return pairs
