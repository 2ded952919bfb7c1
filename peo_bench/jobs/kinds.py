"""The kinds of jobs, by name: where each one is carried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peo_bench.registry import Registry

if TYPE_CHECKING:
    from peo_bench.jobs.job import JobKind


def _is_kind(thing: object) -> bool:
    from peo_bench.jobs.job import JobKind

    return isinstance(thing, JobKind)


JOB_KINDS: Registry[JobKind] = Registry(
    "job kind",
    "peo_bench.job_kinds",
    {
        "aspect": "peo_bench.training.aspect:train_aspect",
        "averaged-factors": "peo_bench.training.factors:average_factors",
        "candidates": "peo_bench.evaluation.validation:score_candidates",
        "capability": "peo_bench.lm_eval.capabilities:CAPABILITY",
        "checkpoint": "peo_bench.data.given_checkpoint:import_checkpoint",
        "extrapolation": "peo_bench.training.extrapolation:extrapolate",
        "frank-wolfe": "peo_bench.training.frank_wolfe:merge_by_gradients",
        "given-answers": "peo_bench.data.given_answers:match_answers",
        "gguf": "peo_bench.data.given_checkpoint:import_gguf",
        "gradients": "peo_bench.training.gradients:train_combined",
        "online": "peo_bench.training.online:train_online",
        "reference-scores": "peo_bench.training.online:score_reference",
        "merged": "peo_bench.training.merged:write_merged",
        "mixed-pairs": "peo_bench.training.mixed_pairs:mix_pairs",
        "log-probs": "peo_bench.training.log_probs:compute_log_probs",
        "modpo": "peo_bench.training.modpo:train_modpo",
        "pairs": "peo_bench.data.pairs:build_pairs",
        "prompts": "peo_bench.data.pairs:build_prompts",
        "answers": "peo_bench.evaluation.answering:ANSWERING",
        "reward-model": "peo_bench.training.reward_model:train_reward_model",
        "safety-zero": "peo_bench.evaluation.safety:fit_on_labels",
        "sandbox-corpus": "peo_bench.sandbox.kinds:draw_corpus",
        "sandbox-pairs": "peo_bench.sandbox.kinds:label_pairs",
        "sandbox-prompts": "peo_bench.sandbox.kinds:draw_prompts",
        "sandbox-reference": "peo_bench.sandbox.reference:unpack",
        "sandbox-oracle": "peo_bench.sandbox.kinds:sample_reference",
        "scorer": "peo_bench.scorers.kinds:import_scorer",
        "sft": "peo_bench.training.sft:train_sft",
    },
    expected="a function decorated with peo_bench.jobs.job.job_kind",
    valid=_is_kind,
)
