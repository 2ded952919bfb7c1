"""Online training: TRL's trainers with our rewards, on tiny models whose optimum or update is known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import edit_config
from preferences import asked
from safetensors.torch import load_file
from training_fixtures import WORDS, handle, save_policy, workspace

from peo_bench.core.method import World
from peo_bench.core.preference import Preference
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Handle, Job
from peo_bench.methods import make_method
from peo_bench.models.loading import load_causal, load_tokenizer
from peo_bench.models.quiet import quiet
from peo_bench.models.rendering import prompt_tokens
from peo_bench.runs.config import RunConfig
from peo_bench.runs.world import build_world
from peo_bench.suites.suite import load_suite, suite_task
from peo_bench.training import online

OBJECTIVES = ("helpful", "harmless")


class FakeScorer:
    """Scores an answer by its first word: any function of the word will do."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def score(self, prompts: list[str], answers: list[str]) -> list[float]:
        words = [answer.split()[0] if answer.split() else "w0" for answer in answers]
        return [float(np.sin(self.factor * (WORDS.index(word) if word in WORDS else -1))) for word in words]


def fake_scorers(inputs: Any, precision: str, cost: float = 0.7) -> dict[str, FakeScorer]:
    return {"reward": FakeScorer(1.0), "cost": FakeScorer(cost)}


def write_inputs(path: Path) -> dict[str, Handle]:
    """A reference policy, four training prompts, and the reference's scores: mean 0 and deviation 1 in both columns."""
    reference = save_policy(path / "reference", hidden=16, layers=1)
    (path / "pairs").mkdir()
    for name in OBJECTIVES:
        rows = [{"prompt": f"w{i} w{i + 1}", "chosen": "w1", "rejected": "w2"} for i in range(4)]
        (path / "pairs" / f"{name}-policy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "scores").mkdir()
    flat = np.array([-1.0, 1.0]) / np.sqrt(2)
    np.savez(path / "scores" / "validation.npz", reward=flat, cost=flat)
    np.savez(path / "scores" / "training.npz", reward=np.arange(12.0).reshape(4, 3), cost=np.ones((4, 3)))
    pairs = {f"pairs:{name}": handle(path / "pairs", {}) for name in OBJECTIVES}
    return {"reference": reference, "scores": handle(path / "scores", {}), **pairs}


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Handle]:
    monkeypatch.setattr(online, "scorer_columns", fake_scorers)
    return write_inputs(tmp_path)


def params(combiner: str = "linear", weights: tuple[float, float] = (0.25, 0.75), **changes: Any) -> dict[str, Any]:
    return {
        **{"combiner": combiner, "weights": list(weights), "options": {}, "objectives": list(OBJECTIVES)},
        **{"columns": ["reward", "cost"], "maximise": [True, False], "seed": 0, "answers": 4},
        **{"form": "full", "beta": 0.5, "learning_rate": 1e-2, "units": 4.0, "batch_size": 8, "micro_batch_size": 8},
        **{"max_length": 64, "decoding": {"max_new_tokens": 1, "temperature": 0.7, "top_p": 0.9}},
        **changes,
    }


def train(inputs: dict[str, Handle], path: Path, **changes: Any) -> tuple[dict[str, Any], Any]:
    work = workspace(path)
    return online.train_online.run(Job("online", params(**changes)), inputs, work), work


def next_word(model: torch.nn.Module, tokenizer: Any, prompt: str) -> np.ndarray:
    ids = prompt_tokens(tokenizer, [prompt])
    with torch.no_grad():
        return model(torch.tensor(ids)).logits[0, -1].double().softmax(-1).numpy()


def utility_of_every_token(tokenizer: Any) -> np.ndarray:
    """(vocabulary, 2): reward and minus cost of the one-token answer."""
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], skip_special_tokens=True)
    return np.column_stack([FakeScorer(1.0).score(texts, texts), -np.asarray(FakeScorer(0.7).score(texts, texts))])


@pytest.mark.slow
def test_morlhf_reaches_the_closed_form_on_a_bandit(inputs: dict[str, Handle], tmp_path: Path) -> None:
    """Answers of one token make a bandit with an arm per word: the optimum is pi_ref exp(w . u / beta) / Z."""
    reference = load_causal(inputs["reference"].path / "model")
    tokenizer = load_tokenizer(inputs["reference"].path / "model")
    settings: dict[str, Any] = {"units": 12800.0, "batch_size": 256, "micro_batch_size": 256, "answers": 64}
    result, work = train(inputs, tmp_path / "job", learning_rate=5e-3, beta=0.4, **settings)
    trained = load_causal(work.dir / "model")
    utility = utility_of_every_token(tokenizer) @ [0.25, 0.75]
    for i in range(4):
        before, after = (next_word(model, tokenizer, f"w{i} w{i + 1}") for model in (reference, trained))
        optimum = before * np.exp(utility / 0.4)
        optimum /= optimum.sum()
        assert np.abs(before - optimum).sum() / 2 > 0.4, "the task is not trivial"
        assert np.abs(after - optimum).sum() / 2 < 0.06
    exact = float((optimum * np.log(optimum / before)).sum())
    assert result["curves"][-1]["kl"] == pytest.approx(exact, rel=0.2), "the curve's KL is that of an answer, in nats"


def test_the_advantage_is_rloos_formula(
    inputs: dict[str, Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R_i - mean of the others' R, R = w . u - beta log pi/pi_ref, here at pi = pi_ref."""
    job = Job("online", params(decoding={"max_new_tokens": 3, "temperature": 1.0, "top_p": 1.0}))
    with quiet():
        trainer = online.build_trainer(job, inputs, workspace(tmp_path / "job"))
        trainer.model.train()
        prompts = [{"prompt": "w0 w1"}] * 4 + [{"prompt": "w1 w2"}] * 4
        batch = trainer._generate_and_score_completions(prompts)
    answers = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    reward = 0.25 * np.array(FakeScorer(1.0).score(answers, answers)) - 0.75 * np.array(
        FakeScorer(0.7).score(answers, answers)
    )
    expected = [reward[i] - np.mean([reward[j] for j in range(8) if j // 4 == i // 4 and j != i]) for i in range(8)]
    np.testing.assert_allclose(batch["advantages"].numpy(), expected, atol=1e-5)
    ids = prompt_tokens(trainer.processing_class, ["w0 w1"])[0]
    row = batch["prompt_ids"][0][batch["prompt_mask"][0].bool()].tolist()
    assert row == ids, "the prompt is tokenised as for generation, with one BOS"


@pytest.mark.parametrize("generation", [{"eos_token_id": [2, 7]}, {"bos_token_id": 1}, None])
def test_answers_end_at_every_declared_end(
    generation: dict[str, Any] | None, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    """By generation_config.json; by config.json where that names none or is absent."""
    folder = inputs["reference"].path / "model"
    edit_config(folder, eos_token_id=2 if generation == {"eos_token_id": [2, 7]} else [2, 7])
    (folder / "generation_config.json").unlink()
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    trainer = online.build_trainer(Job("online", params()), inputs, workspace(tmp_path / "job"))
    assert trainer.eos_token_ids == trainer.generation_config.eos_token_id == [2, 7]


def test_answers_that_were_cut_are_scored_as_such(
    inputs: dict[str, Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[bool]] = []
    score_texts = online.score_texts
    monkeypatch.setattr(online, "score_texts", lambda *a, ended: seen.append(ended) or score_texts(*a, ended=ended))
    with quiet():
        trainer = online.build_trainer(Job("online", params()), inputs, workspace(tmp_path / "job"))
        trainer._calculate_rewards([{}] * 4, ["w0"] * 4, [""] * 4, [[5, 2], [5, 6], [2], []])
    assert seen == [[True, False, True, False]]


@pytest.mark.parametrize("combiner", ["gdpo", "mo-grpo"])
def test_grpo_normalises_before_or_after_the_sum(combiner: str, inputs: dict[str, Handle], tmp_path: Path) -> None:
    with quiet():
        trainer = online.build_trainer(Job("online", params(combiner)), inputs, workspace(tmp_path / "job"))
        trainer.model.train()
        batch = trainer._generate_and_score_completions([{"prompt": "w0 w1"}] * 4 + [{"prompt": "w1 w2"}] * 4)
    answers = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    u = np.column_stack([FakeScorer(1.0).score(answers, answers), -np.array(FakeScorer(0.7).score(answers, answers))])
    groups = u.reshape(2, 4, 2)
    if combiner == "gdpo":
        each = (groups - groups.mean(1, keepdims=True)) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)
        total = each.reshape(8, 2) @ [0.25, 0.75]
        expected = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
    else:
        total = groups @ [0.25, 0.75]
        expected = (total - total.mean(1, keepdims=True)) / (total.std(1, ddof=1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(batch["advantages"].numpy(), expected.reshape(-1), atol=2e-3)


def test_only_one_weight_is_the_single_objective(
    inputs: dict[str, Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MORLHF at w = (1, 0) is RLOO on the first reward: the second scorer is not felt at all."""
    _, first = train(inputs, tmp_path / "a", weights=(1.0, 0.0))
    monkeypatch.setattr(online, "scorer_columns", partial(fake_scorers, cost=0.3))
    _, second = train(inputs, tmp_path / "b", weights=(1.0, 0.0))
    a, b = (load_file(work.dir / "model" / "model.safetensors") for work in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_anchors_are_quantiles_of_the_prompts_own_answers(inputs: dict[str, Handle]) -> None:
    scores = online.ReferenceScores(inputs["scores"].path, ["reward", "cost"], [True, False])
    anchors = scores.anchors(["a", "b", "c", "d"], 0.5)
    assert {name: value.tolist() for name, value in anchors.items()} == {
        "a": [1.0, -1.0],
        "b": [4.0, -1.0],
        "c": [7.0, -1.0],
        "d": [10.0, -1.0],
    }
    np.testing.assert_allclose(scores.utilities(np.array([[2.0, 3.0]])), [[2.0, -3.0]])


@pytest.mark.parametrize(
    ("combiner", "options", "logged"),
    [
        ("transform", {"quantile": 0.85}, set()),
        ("worst", {"quantile": 0.95}, {"chosen"}),
        ("lagrangian", {"quantile": 0.5, "rate": 0.1, "most": 5.0, "constrained": 1}, {"multiplier"}),
        ("gdpo", {}, set()),
    ],
)
def test_every_combiner_trains_and_logs(
    combiner: str, options: dict[str, Any], logged: set[str], inputs: dict[str, Handle], tmp_path: Path
) -> None:
    result, work = train(inputs, tmp_path / "job", combiner=combiner, options=options, form="lora", lora_rank=2)
    assert (work.dir / "adapter" / "adapter_model.safetensors").exists()
    assert result["task_vector_norm"] > 0
    keys = {"step", "reward", "kl", "length", "utility_helpful", "utility_harmless"} | logged
    assert [set(row) for row in result["curves"]] == [keys] * 4
    assert work.cost.to_json() == {
        **{"examples_trained": 32, "answers": 32, "tokens_generated": 32, "scorer_calls": 64}
    }


def test_a_unit_is_as_many_answers_as_an_expert_sees(inputs: dict[str, Handle]) -> None:
    """Also where objectives have pairs, and prompts, of their own: their union is longer and is not gone through."""
    tokenizer = load_tokenizer(inputs["reference"].path / "model")
    prompts = [f"w{i} w{i + 1}" for i in range(40)]  # 20 of each objective
    once = online.ordered(tokenizer, prompts, 2 * 20, params())
    assert len(once) * 4 == 40
    assert len(set(once)) == 10
    assert len(online.ordered(tokenizer, prompts, 6 * 2 * 20, params())) * 4 == 240, "prompts take turns"
    with pytest.raises(UsageError, match=r"no prompt of at most 2 tokens: raise training.max_length"):
        online.ordered(tokenizer, prompts, 40, params(max_length=3))


def test_answers_per_prompt_must_divide_the_batch_before_anything_is_trained() -> None:
    method = make_method("morlhf", {"morlhf": {"answers": 3}})
    with pytest.raises(UsageError, match=r"64 pairs of training.batch_size are no multiple of morlhf.answers = 3"):
        method.job(sandbox_world(), (0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lagrangian", {"quantile": 0.7, "rate": 0.1, "most": 5.0, "constrained": 1}),
        ("tchebycheff", {"quantile": 0.95}),
        ("transform-combine", {"quantile": 0.85}),
        ("morlhf", {}),
        ("maxmin", {}),
    ],
)
def test_the_combiner_gets_its_options_and_the_weights_in_order(name: str, expected: dict[str, float]) -> None:
    """Lagrangian: the weight of harmlessness is the quantile its average has to reach."""
    job = make_method(name).job(sandbox_world(), asked((0.3, 0.7)))
    assert job.params["options"] == expected
    assert job.params["weights"] == [0.3, 0.7]
    assert job.params["columns"] == ["reward", "cost"]
    assert job.params["maximise"] == [True, False]
    assert job.needs["scores"].params["samples"] == (8 if name == "transform-combine" else 0)


def test_lagrangian_constrains_the_same_objective_in_whatever_order_a_task_lists_them() -> None:
    """The second objective of the task was constrained: helpfulness, where it comes last."""
    world = sandbox_world()
    turned = replace(world, objectives=world.objectives[::-1])
    job = make_method("lagrangian").job(turned, Preference.of(["harmless", "helpful"], helpful=0.3))
    assert job.params["columns"][job.params["options"]["constrained"]] == "cost"
    assert job.params["options"]["quantile"] == 0.7
    with pytest.raises(UsageError, match="lagrangian needs two objectives, one of them 'brief'"):
        make_method("lagrangian", {"lagrangian": {"objective": "brief"}}).job(world, asked((0.3, 0.7)))


def sandbox_world() -> World:
    suite = load_suite("sandbox")
    return build_world(RunConfig(suite=suite, methods=("soup",), preferences=(0.5,)), suite_task(suite), 0)


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_online
from training_fixtures import handle, workspace
from peo_bench.jobs.job import Job
from peo_bench.training import online, trainers
from peo_bench.models.loading import load_causal, load_tokenizer
from peo_bench.models.rendering import prompt_tokens
from peo_bench.models.quiet import quiet
online.scorer_columns = test_online.fake_scorers
trainers.CHECKPOINT_SECONDS, trainers.CHECKPOINT_SHARE = 0.0, float("inf")
work = workspace(Path({work!r}))
work.progress = lambda fraction, note: fraction >= 0.6 and os.kill(os.getpid(), signal.SIGKILL)
inputs = {{role: handle(Path(path), {{}}) for role, path in {inputs!r}.items()}}
online.train_online.run(Job("online", {params!r}), inputs, work)
"""


@pytest.mark.parametrize("combiner", ["lagrangian", "gdpo"])
def test_killed_and_run_again_gives_the_uninterrupted_weights(
    combiner: str, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    """The combiner's memory and the random numbers of sampling go on where they stopped; tokens are counted once."""
    options = {"quantile": 0.5, "rate": 0.5, "most": 5.0, "constrained": 1} if combiner == "lagrangian" else {}
    asked: dict[str, Any] = {"combiner": combiner, "options": options, "units": 12.0, "micro_batch_size": 4}
    paths = {role: str(value.path) for role, value in inputs.items()}
    script = CHILD.format(
        tests=str(Path(__file__).parent), work=str(tmp_path / "killed"), inputs=paths, params=params(**asked)
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.returncode == -9, child.stderr
    result, work = train(inputs, tmp_path / "killed", **asked)
    expected, whole = train(inputs, tmp_path / "whole", **asked)
    a, b = (load_file(item.dir / "model" / "model.safetensors") for item in (work, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert result == expected
    assert work.cost == whole.cost
