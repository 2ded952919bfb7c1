"""Reward and cost models: sign, layout, held-out accuracy, batching, and refusing what is not a reward model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_fixtures import (
    count_recomputed,
    foreseen,
    handle,
    pair_rows,
    save_pairs,
    save_policy,
    tiny_tokenizer,
    workspace,
)

from peo_bench.core.spec import policy
from peo_bench.engine.engine import Answer, Request
from peo_bench.errors import Diverged, UsageError
from peo_bench.evaluation.generation import score
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.scorers.columns import Label
from peo_bench.training import reward_model
from peo_bench.training.foresight import Foreseen
from peo_bench.training.lengths import Lengths
from peo_bench.training.reward_model import RewardModelScorer

SETTINGS = {"seed": 1, "form": "full", "batch_size": 16, "learning_rate": 2e-3, "epochs": 3.0, "lora_rank": 4}
PROMPTS = ["w1 w2", "w3", "w4 w5 w6", "w3"]
ANSWERS = ["good w7", "bad w8 w9 w10 w11 w12", "good", "bad w8"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    """A reference policy and pairs."""
    root = tmp_path_factory.mktemp("inputs")
    return {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs", 120)}


def train(inputs: dict[str, Handle], directory: Path, **changes: Any) -> dict[str, Any]:
    """Train one reward model into `directory`."""
    params = {"objective": "helpful", "direction": "reward"} | SETTINGS | changes
    return reward_model.train_reward_model.run(Job("reward-model", params), inputs, workspace(directory))


@pytest.fixture(scope="module")
def trained(inputs: dict[str, Handle], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished model of "helpful", whose pairs prefer "good"."""
    directory = tmp_path_factory.mktemp("trained")
    return directory, train(inputs, directory)


def test_a_reward_is_higher_for_what_is_preferred(trained: tuple[Path, dict[str, Any]]) -> None:
    directory, result = trained
    good, bad = RewardModelScorer(directory).score(["w1 w2"] * 2, ["good w3", "bad w3"])
    assert good > bad
    assert result["accuracy"] > 0.9
    assert result["curves"][-1]["loss"] < result["curves"][0]["loss"]
    assert result["pairs"] + result["pairs_held_out"] == 120
    assert result["pairs_held_out"] == 12
    assert result["lengths"] == {"whole": 108, "cut": 0, "dropped": 0, "limit": 512}
    json.dumps(result, allow_nan=False)


def test_what_a_limit_drops_is_told_and_known_before(inputs: dict[str, Handle], tmp_path: Path) -> None:
    """By hand: <s>, <user>, <assistant> around the prompt's words, </s> behind the answer's."""
    rows, _ = reward_model.scorer_pairs(inputs, "helpful")
    sizes = [4 + len(row["prompt"].split()) + len(row["rejected"].split()) for row in rows]  # the longer ones
    found = {"objective": "helpful", "direction": "reward"} | SETTINGS | {"max_length": 20}
    trainer = reward_model.build_trainer(found, inputs["reference"].path / "model", rows, workspace(tmp_path))
    whole = sum(size <= 20 for size in sizes)
    assert trainer.lengths == Lengths(whole, cut=0, dropped=108 - whole, limit=20)
    assert 0 < whole < 108
    needs = {"reference": Job("checkpoint", {}), "pairs": Job("pairs", {})}
    assert foreseen(Job("reward-model", found, needs), inputs) == Foreseen(trainer.lengths, held_out=12)


@pytest.mark.parametrize("form", ["full", "lora"])
def test_a_cost_is_higher_for_what_is_worse(form: str, inputs: dict[str, Handle], tmp_path: Path) -> None:
    rate = {"full": 2e-3, "lora": 1e-2}[form]
    result = train(inputs, tmp_path, direction="cost", form=form, learning_rate=rate)
    good, bad = RewardModelScorer(tmp_path).score(["w1 w2"] * 2, ["good w3", "bad w3"])
    assert bad > good
    assert result["accuracy"] > 0.9
    assert result["direction"] == "cost"


@pytest.mark.parametrize("form", ["lora", "full"])
def test_activations_that_are_computed_twice_give_the_same_scores(
    form: str, inputs: dict[str, Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recomputed = count_recomputed(monkeypatch)
    train(inputs, tmp_path / "kept", form=form, epochs=1.0)
    assert recomputed == []
    train(inputs, tmp_path / "twice", form=form, epochs=1.0, gradient_checkpointing=True)
    assert recomputed
    kept, twice = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("kept", "twice"))
    assert all(torch.equal(kept[name], twice[name]) for name in kept)


def test_a_merged_adapter_scores_like_the_model_that_was_trained(inputs: dict[str, Handle], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    train(inputs, tmp_path, form="lora", precision="bfloat16", learning_rate=2e-2)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert "score.weight" in weights
    assert not any("lora" in name or "original" in name for name in weights)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    good, bad = RewardModelScorer(tmp_path).score(["w1 w2"] * 2, ["good w3", "bad w3"])
    assert good > bad


def test_no_prompt_is_both_trained_on_and_held_out() -> None:
    training, held_out = reward_model.split_by_prompt(pair_rows(100))
    assert not {row["prompt_id"] for row in training} & {row["prompt_id"] for row in held_out}
    assert len({row["prompt_id"] for row in held_out}) == 5
    with pytest.raises(UsageError, match="two prompts"):
        reward_model.split_by_prompt(pair_rows(2))


def test_the_head_reads_the_eos_behind_the_answer_even_if_padding_was_eos(
    inputs: dict[str, Handle], tmp_path: Path
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    scoring = reward_model.scoring_tokenizer(tmp_path)
    assert scoring.pad_token_id != scoring.eos_token_id
    ids = reward_model.scored_tokens(scoring, ["w1"], ["w2 w3"])[0]
    assert ids[-1] == scoring.eos_token_id
    assert ids.count(scoring.bos_token_id) == 1
    chosen, rejected = reward_model.tokenised(
        scoring, [{"prompt": "w1", "chosen": "w2 w3", "rejected": "w4"}], 64, swap=False
    )[0]
    assert chosen == ids
    assert rejected != ids


def test_an_answer_that_was_cut_is_scored_without_an_end(trained: tuple[Path, dict[str, Any]]) -> None:
    """It is what generation wrote; with an end, a cut answer counted as one that ended."""
    scorer, ended = RewardModelScorer(trained[0]), [True, False, True, False]
    requests = [Request(policy("reference"), prompt, f"p{i}") for i, prompt in enumerate(PROMPTS)]
    answers = [Answer((), text, not whole) for text, whole in zip(ANSWERS, ended, strict=True)]
    found = score({"reward": Label(scorer)}, requests, answers).columns["reward"]
    both = reward_model.scored_tokens(scorer.tokenizer, PROMPTS, ANSWERS)
    for value, ids, whole in zip(found, both, ended, strict=True):
        assert ids[-1] == scorer.tokenizer.eos_token_id
        with torch.inference_mode():
            alone = scorer.model(torch.tensor([ids if whole else ids[:-1]])).logits.item()
        assert value == pytest.approx(alone, abs=1e-5)


def test_scores_do_not_depend_on_the_batch_or_the_order(trained: tuple[Path, dict[str, Any]]) -> None:
    together = RewardModelScorer(trained[0], batch_size=64).score(PROMPTS, ANSWERS)
    alone = RewardModelScorer(trained[0], batch_size=1)
    single = [alone.score([prompt], [answer])[0] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    backwards = alone.score(PROMPTS[::-1], ANSWERS[::-1])[::-1]
    assert together == pytest.approx(single, abs=1e-5)
    assert single == backwards


def test_equal_texts_are_scored_once(trained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = RewardModelScorer(trained[0])
    sizes: list[int] = []
    forward = scorer._forward
    monkeypatch.setattr(scorer, "_forward", lambda batch: sizes.append(len(batch)) or forward(batch))
    scores = scorer.score(["w1"] * 5 + ["w2"], ["w3"] * 6)
    assert sizes == [2]
    assert len(set(scores[:5])) == 1


def test_texts_beyond_the_context_are_cut_and_counted(trained: tuple[Path, dict[str, Any]]) -> None:
    scorer = RewardModelScorer(trained[0])
    scorer.score(["w1", "w1"], ["w2 " * 200, "w2"])
    assert scorer.truncated == 1


def test_a_policy_is_not_taken_for_a_reward_model(inputs: dict[str, Handle]) -> None:
    with pytest.raises(UsageError, match="not a trained reward model"):
        RewardModelScorer(inputs["reference"].path)


def test_a_score_that_is_not_finite_is_an_error(trained: tuple[Path, dict[str, Any]]) -> None:
    scorer = RewardModelScorer(trained[0])
    scorer.model.score.weight.data.fill_(float("nan"))
    with pytest.raises(Diverged, match="not finite"):
        scorer.score(["w1"], ["w2"])


def test_an_unknown_direction_is_refused(inputs: dict[str, Handle], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use reward or cost"):
        train(inputs, tmp_path, direction="harm")


def test_work_is_charged_within_its_bound(inputs: dict[str, Handle], tmp_path: Path) -> None:
    pairs = Job("sandbox-pairs", {"seed": 0, "policy": 5, "scorer": 120})
    params = {"objective": "helpful", "direction": "reward"} | SETTINGS
    job = Job("reward-model", params, {"pairs": pairs})
    work = workspace(tmp_path)
    reward_model.train_reward_model.run(job, inputs, work)
    assert work.cost == Cost(pairs_trained=3 * 108)
    assert job.bound == Cost(pairs_trained=360)


def test_pairs_that_are_too_long_are_reported(inputs: dict[str, Handle], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_length = 3"):
        train({**inputs, "pairs": handle(inputs["pairs"].path, {})}, tmp_path, max_length=3)
