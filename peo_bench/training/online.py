"""Online training on combined rewards: RLOO and GRPO, on TRL's trainers.

The policy answers the prompts that the offline methods train on, the run's proxy scorers score the answers, a combiner
(`peo_bench.training.rewards`) makes one reward of the scores, and the policy is updated with a KL penalty against the
reference policy. RLOO (Ahmadian et al. 2024, arXiv 2402.14740) subtracts beta KL from the reward of an answer and
takes the mean of the other answers to the prompt as baseline, so its optimum is pi_ref exp(reward / beta). GRPO (Shao
et al. 2024, arXiv 2402.03300) divides by the standard deviation within the prompt, which makes the exchange rate of
reward and KL depend on the prompt: no closed form there.

TRL has no PPO any more; RLOO estimates the same policy gradient without a value head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from peo_bench.core import roles
from peo_bench.core.decoding import decoding_of, sampling_params
from peo_bench.core.method import World
from peo_bench.errors import UsageError
from peo_bench.evaluation.generation import charge, generate, score
from peo_bench.evaluation.validation import Validator
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.files.jsonl import read_jsonl
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.ends import stop_ids
from peo_bench.models.loading import context_length, load_causal, load_config, load_tokenizer
from peo_bench.models.quiet import quiet
from peo_bench.models.rendering import answer_texts, prompt_tokens
from peo_bench.scorers.columns import count_scorers, score_texts, scorer_columns
from peo_bench.training.lengths import Lengths, refuse_unreadable
from peo_bench.training.rewards import COMBINERS, Combiner, Transform
from peo_bench.training.saving import save_trained
from peo_bench.training.settings import PLAIN, AnswersSettings, dpo_settings
from peo_bench.training.training_rows import training_order

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

Floats = npt.NDArray[np.float64]
Row = dict[str, object]
"""A prompt as TRL hands it round."""
Score = Callable[[list[str], list[str], list[bool]], Floats]


# --- what the reference policy scores ---------------------------------------------------------------------------------


def reference_job(world: World, samples: int = 0) -> Job:
    """Return the job that scores the reference policy: on validation prompts, and `samples` times on training ones."""
    params: JsonObject = {"samples": samples, "objectives": world.names}
    base = world.validation_job("reference-scores", params, [])
    return Job(base.kind, base.params, {**base.needs, **_pairs(world)})


def _pairs(world: World) -> dict[str, Job]:
    return {roles.pairs(name): job for name, job in world.pairs.items()}


def training_prompts(inputs: Mapping[str, Handle], objectives: Sequence[str]) -> tuple[list[str], int]:
    """Return the prompts of the pairs that offline methods train on, each once, and the most pairs an expert has."""
    pairs = [read_jsonl(inputs[roles.pairs(name)].path / f"{name}-policy.jsonl") for name in objectives]
    return list(dict.fromkeys(row["prompt"] for rows in pairs for row in rows)), max(map(len, pairs))


def _pairs_bound(job: Job) -> tuple[int, int]:
    """Bound the pairs that an expert is trained on, and all training prompts (0 where the pairs have no limit)."""
    names = job.params["objectives"]
    asked = job.needs[roles.pairs(names[0])].params
    shared, own = asked.get("policy"), asked.get("limit") or 0
    return (shared, shared) if shared else (own, len(names) * own)


def _scores_bound(job: Job) -> Cost:
    answers = job.params["n_prompts"] + job.params["samples"] * _pairs_bound(job)[1]
    tokens = answers * decoding_of(job.params).max_new_tokens
    return Cost(answers=answers, tokens_generated=tokens, scorer_calls=answers * len(roles.scorers(job.needs)))


@job_kind("reference-scores", version=3, bound=_scores_bound, defaults=sampling_params(), keeps="nothing")
def score_reference(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `validation.npz`, scores by column (n_prompts,), and `training.npz`, by column (prompts, samples)."""
    validator, kept = Validator(job, inputs, work), work.memo("kept")
    scores = {name: values[0] for name, values in validator.scores([validator.reference], kept).items()}
    np.savez(work.dir / "validation.npz", **scores)  # type: ignore[arg-type]
    work.charge(validator.cost)
    samples = job.params["samples"]
    if samples:
        prompts, _ = training_prompts(inputs, job.params["objectives"])
        rows = [
            {"prompt_id": f"train-{i}/{k}", "prompt": text} for i, text in enumerate(prompts) for k in range(samples)
        ]
        requests, answers = generate(
            validator.engine, [validator.reference], rows, validator.decoding, [kept], work.progress
        )
        columns = score(validator.scorers, requests, answers, kept).columns
        trained = {name: np.reshape(values, (len(prompts), samples)) for name, values in columns.items()}
        np.savez(work.dir / "training.npz", **trained)  # type: ignore[arg-type]
        work.charge(charge(requests, answers, count_scorers(validator.scorers), 0))
    return {"samples": samples}


class ReferenceScores:
    """The reference policy's scores as utilities (higher is better), of the objectives in a job's order."""

    def __init__(self, path: Path, columns: Sequence[str], maximise: Sequence[bool]) -> None:
        """Read the artefact at `path`."""
        self.signs = np.where(np.asarray(maximise, dtype=bool), 1.0, -1.0)
        with np.load(path / "validation.npz") as scores:
            values = np.column_stack([scores[name] for name in columns]) * self.signs
        self.means, self.deviations = values.mean(axis=0), values.std(axis=0, ddof=1)
        self.validation: Floats = (values - self.means) / self.deviations
        self._training = path / "training.npz"
        self._columns = columns

    def utilities(self, scores: Floats) -> Floats:
        """Return (answers, objectives) raw scores in standard deviations of the reference policy, higher is better."""
        return np.asarray((scores * self.signs - self.means) / self.deviations)

    def anchors(self, prompts: Sequence[str], quantile: float) -> dict[str, Floats]:
        """Return by training prompt the `quantile` of the reference's signed raw scores, shape (objectives,)."""
        with np.load(self._training) as scores:
            stacked = np.stack([scores[name] for name in self._columns], axis=-1) * self.signs
        return dict(zip(prompts, np.quantile(stacked, quantile, axis=1), strict=True))


# --- training ---------------------------------------------------------------------------------------------------------

GROUPED = {"gdpo": "normalize_then_sum", "mo-grpo": "sum_then_normalize"}
"""Combiners that are GRPO's own: how TRL calls what it does with several rewards."""


BATCHES = ("batch_size", "micro_batch_size")


def online_job(
    world: World, combiner: str, weights: Sequence[float], units: float, samples: int = 0, **params: Json
) -> Job:
    """Return the online training at `weights`.

    `params` replace training settings (beta, learning_rate) and add `units`, how many answers are trained on (1: as
    many as an expert sees in its training; the job counts in epochs), `answers` per prompt, and the combiner's
    `options`; `samples` reference answers per training prompt give its anchors. Batches are counted in answers here: of
    twice the experts' pairs, so that one unit has as many optimiser steps as an expert.
    """
    batches: JsonObject = {name: 2 * world.training[name] for name in BATCHES if name in world.training}
    batches["units"] = units * world.training.get("epochs", 1.0)
    shared: JsonObject = {
        **{"combiner": combiner, "weights": list(weights)},
        "objectives": world.names,
        "columns": [o.column for o in world.objectives],
        "maximise": [o.maximise for o in world.objectives],
    }
    base = world.validation_job("online", world.plain_training | batches | shared | params, [])
    return Job(base.kind, base.params, {**base.needs, **_pairs(world), "scores": reference_job(world, samples)})


def _bound(job: Job) -> Cost:
    answers = math.ceil(2 * job.params["units"] * _pairs_bound(job)[0]) + job.params["batch_size"]
    return _cost(job, answers, answers * decoding_of(job.params).max_new_tokens)


def _cost(job: Job, answers: int, tokens: int) -> Cost:
    calls = answers * len(job.params["columns"])
    return Cost(examples_trained=answers, answers=answers, tokens_generated=tokens, scorer_calls=calls)


@job_kind(
    "online",
    version=4,
    bound=_bound,
    defaults=PLAIN | AnswersSettings().model_dump() | sampling_params() | {"options": {}},
    label=("combiner", "weights"),
)
def train_online(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Train one policy; the result's curves hold reward, KL per answer (nats), length and every objective's utility."""
    from peo_bench.training import trainers

    settings = dpo_settings(job.params)
    with quiet():
        trainer = build_trainer(job, inputs, work)
        curve = {"reward": "reward", "kl": "kl_per_answer", "length": "completions/mean_length"}
        curve |= {f"utility_{name}": f"utility/{name}" for name in job.params["objectives"]}
        curve |= {name: f"combiner/{name}" for name in trainer.combiner.logs}
        curves = trainers.train(trainer, work, curve)
        norm = save_trained(trainer, settings, inputs["reference"].path / "model", work.dir)
    work.charge(_cost(job, trainer.state.global_step * settings.batch_size, int(trainer.memory["tokens"])))
    return {
        "form": settings.form,
        "weights": job.params["weights"],
        "task_vector_norm": norm,
        "lengths": trainer.lengths.to_json(),
        "curves": curves,
    }


def build_trainer(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> Trainer:
    """Return TRL's RLOO or GRPO trainer with our prompts, scorers and combiner, ready to train."""
    from datasets import Dataset
    from transformers import set_seed

    from peo_bench.training import trainers

    params, settings = job.params, dpo_settings(job.params)
    set_seed(params["seed"])
    reference = inputs["reference"].path / "model"
    tokenizer = load_tokenizer(reference)
    texts, pairs = training_prompts(inputs, params["objectives"])
    scores = ReferenceScores(inputs["scores"].path, params["columns"], params["maximise"])
    scorers = scorer_columns(roles.scorers(inputs), params["precision"])

    def score_answers(prompts: list[str], answers: list[str], ended: list[bool]) -> Floats:
        found = score_texts(scorers, prompts, answers, ended=ended).columns
        return np.column_stack([found[column] for column in params["columns"]])

    kind = COMBINERS["linear" if params["combiner"] in GROUPED else params["combiner"]]
    combiner = kind(params["weights"], scores.validation, **params["options"])
    anchors = scores.anchors(texts, combiner.quantile) if isinstance(combiner, Transform) else {}
    make = _trainer_class(params, combiner, scores, score_answers, anchors)
    lora = settings.form == "lora"
    lengths, read = prompts_lengths(map(len, prompt_tokens(tokenizer, texts)), params)
    refuse_unreadable("online", read, context_length(load_config(reference)))
    prompts = ordered(tokenizer, texts, 2 * params["units"] * pairs, params)
    model = load_causal(reference, settings.trunk_precision, **trainers.trunk_options(settings))
    model.generation_config.eos_token_id = list(stop_ids(tokenizer, reference))  # where TRL ends answers
    trainer = make(
        model=model,
        args=_config(params, work, steps=len(prompts) * params["answers"] // settings.batch_size),
        reward_funcs=[_placeholder] * (len(params["objectives"]) if params["combiner"] in GROUPED else 1),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        peft_config=trainers.lora_config(settings.lora_rank, settings.lora_alpha, "CAUSAL_LM") if lora else None,
    )
    trainer.lengths = lengths
    return trainer


def _placeholder(**inputs: object) -> list[float]:
    """TRL wants functions; `OnlineTrainer` scores answers itself."""
    raise NotImplementedError


def _config(params: Mapping[str, Any], work: Workspace, steps: int) -> TrainingArguments:
    """Return the trainer's configuration: sampling at temperature 1, since that is where KL is measured."""
    from trl import GRPOConfig, RLOOConfig

    from peo_bench.training import trainers

    settings = dpo_settings(params)
    shared = trainers.base_config(
        work,
        seed=params["seed"],
        steps=steps,
        precision=settings.precision,
        gradient_checkpointing=settings.gradient_checkpointing is True,
        **trainers.batches(settings.batch_size, settings.micro_batch_size),
        learning_rate=settings.learning_rate,
        warmup_ratio=settings.warmup_ratio,
        beta=settings.beta,
        num_generations=params["answers"],
        max_completion_length=decoding_of(params).max_new_tokens,
        **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "shuffle_dataset": False},
    )
    if params["combiner"] not in GROUPED:
        return trainers.one_device(RLOOConfig(**shared))
    grouped = {"multi_objective_aggregation": GROUPED[params["combiner"]], "reward_weights": params["weights"]}
    grouped |= {"loss_type": "grpo"}  # TRL's default is DAPO's
    return trainers.one_device(GRPOConfig(**shared, **grouped))


def ordered(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], answers: float, params: Mapping[str, Any]
) -> list[str]:
    """Return the prompts in the order of training, as many as give about `answers` answers, in whole batches.

    Those without room for an answer are dropped; the others take turns.
    """
    settings, room = dpo_settings(params), _room(params)
    lengths = [len(ids) for ids in prompt_tokens(tokenizer, list(prompts))]
    kept = [i for i, length in enumerate(lengths) if length <= room]
    if not kept:
        raise UsageError(f"online training: no prompt of at most {room} tokens: raise training.max_length")
    size = settings.batch_size // params["answers"]
    batches = max(1, round(answers / settings.batch_size))
    epochs = batches * size / len(kept)
    order = training_order([lengths[i] for i in kept], size, epochs, params["seed"])
    return [prompts[kept[i]] for i in order[: batches * size]]


def _room(params: Mapping[str, Any]) -> int:
    """Return how many tokens a prompt may have beside an answer."""
    return dpo_settings(params).max_length - decoding_of(params).max_new_tokens


def prompts_lengths(prompts: Iterable[int], params: Mapping[str, Any]) -> tuple[Lengths, list[int]]:
    """Return how many prompts of so many tokens leave room for an answer; and the lengths of these with the longest.

    The other prompts are dropped.
    """
    room, prompts = _room(params), list(prompts)
    read = [length + decoding_of(params).max_new_tokens for length in prompts if length <= room]
    return Lengths(whole=len(read), cut=0, dropped=len(prompts) - len(read), limit=room), read


def _trainer_class(
    params: Mapping[str, Any],
    combiner: Combiner,
    scores: ReferenceScores,
    score_answers: Score,
    anchors: Mapping[str, Floats],
) -> type:
    """Return TRL's trainer with rewards that are combined from the scorers' columns."""
    import torch
    from trl import GRPOTrainer, RLOOTrainer

    from peo_bench.training import trainers

    names, grouped = params["objectives"], params["combiner"] in GROUPED
    base: type = GRPOTrainer if grouped else RLOOTrainer

    class OnlineTrainer(trainers.Guard, trainers.Remembers, base):  # type: ignore[misc,valid-type]
        """Overrides what an answer is worth and how prompts are tokenised, not how TRL trains on it."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            self.combiner, self.memory = combiner, combiner.state
            self.memory["tokens"] = 0
            super().__init__(*args, **kwargs)

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, object]]:
            return prompt_tokens(self.processing_class, prompts), None, {}

        def _calculate_rewards(
            self, inputs: list[Row], prompts: list[str], completions: list[str], completion_ids_list: list[list[int]]
        ) -> torch.Tensor:
            texts = answer_texts(self.processing_class, completion_ids_list, self.eos_token_ids)
            ended = [bool(ids) and ids[-1] in self.eos_token_ids for ids in completion_ids_list]
            raw = score_answers(prompts, [text.strip() for text in texts], ended)  # as the engine gives them
            utilities = scores.utilities(raw)
            metrics = self._metrics["train"]
            for name, mean in zip(names, utilities.mean(axis=0), strict=True):
                metrics[f"utility/{name}"].append(float(mean))
            self.memory["tokens"] += sum(map(len, completion_ids_list))
            rewards = utilities
            if not grouped:
                own = np.stack([anchors[prompt] for prompt in prompts]) if anchors else np.zeros_like(raw)
                rewards = _combine(self.combiner, utilities, raw * scores.signs, own)[:, None]
            for name, value in self.combiner.logged().items():
                metrics[f"combiner/{name}"].append(value)
            return torch.tensor(rewards, dtype=torch.float32, device=self.accelerator.device)

        def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Tensor]:
            batch: dict[str, Tensor] = super()._generate_and_score_completions(inputs)
            if not grouped:
                _log_kl(self._metrics["train"], batch["completion_mask"])
            return batch

        def _compute_loss(self, model: PreTrainedModel, inputs: dict[str, Tensor]) -> torch.Tensor:
            loss: torch.Tensor = super()._compute_loss(model, inputs)
            if grouped:
                _log_kl(self._metrics["train"], inputs["completion_mask"])
            return loss

    return OnlineTrainer


def _log_kl(metrics: dict[str, list[float]], mask: torch.Tensor) -> None:
    """Log the KL per answer (nats): TRL's mean per token times the tokens per answer."""
    metrics["kl_per_answer"].append(metrics["kl"][-1] * float(mask.sum()) / len(mask))


def _combine(combiner: Combiner, utilities: Floats, signed: Floats, anchors: Floats) -> Floats:
    """Let the combiner see the batch; return its rewards (answers,) of utilities, or of signed raw scores."""
    combiner.observe(utilities.mean(axis=0))
    return combiner.combine(signed if combiner.raw else utilities, anchors)
