"""MODPO: the paper's formula, what the trainer really computes, and its end points."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_fixtures import handle, save_pairs, save_policy, shared_log_probs, workspace

from peo_bench.core.roles import MARGIN_LOG_PROBS
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.models.loading import load_causal, load_policy, load_tokenizer
from peo_bench.training import aspect, modpo, reward_model, trainers
from peo_bench.training.pair_rows import pairs_file, tokenised_pairs
from peo_bench.training.settings import dpo_settings

PARAMS: dict[str, Any] = {
    "objective": "helpful",
    "seed": 1,
    "form": "full",
    "beta": 0.2,
    "margin_beta": 0.3,
    "batch_size": 8,
    "micro_batch_size": 8,
    "learning_rate": 1e-3,
    "lora_rank": 4,
}


SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    """Reference policy, pairs, and the harmless expert (preferring the other word, harder trained) as the margin."""
    root = tmp_path_factory.mktemp("inputs")
    found = {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs")}
    params = PARAMS | {"objective": "harmless", "beta": 0.3, "epochs": 6.0}
    result = aspect.train_aspect.run(Job("aspect", params), found, workspace(root / "margin"))
    found["margin"] = handle(root / "margin", result)
    read = {name: PARAMS[name] for name in ("objective", "form", "batch_size", "micro_batch_size")}
    return found | {MARGIN_LOG_PROBS: shared_log_probs(found | {"policy": found["margin"]}, root / "log-probs", **read)}


@pytest.fixture(scope="module")
def cost_model(inputs: dict[str, Handle], tmp_path_factory: pytest.TempPathFactory) -> Handle:
    """A harmlessness model, higher is worse."""
    directory = tmp_path_factory.mktemp("cost")
    params = {"objective": "harmless", "direction": "cost", "seed": 1, "epochs": 2.0, "learning_rate": 2e-3}
    result = reward_model.train_reward_model.run(Job("reward-model", params), inputs, workspace(directory))
    return handle(directory, result)


def paper(
    pi_w: float, pi_l: float, ref_w: float, ref_l: float, r_w: float, r_l: float, beta: float, w: tuple[float, float]
) -> float:
    """Transcribe eq. 8 of arXiv 2310.03708 for one pair: k = 0 on its pairs, w = (w_k, w_-k), r the margin reward."""
    inside = beta / w[0] * (pi_w - ref_w) - beta / w[0] * (pi_l - ref_l) - 1 / w[0] * w[1] * (r_w - r_l)
    return math.log(1 + math.exp(-inside))


def log_probs(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Sum log pi over the answer's tokens, from plain logits in float64, one text at a time."""
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        logits = model(input_ids=ids).logits.double().log_softmax(-1)[0]
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


def loss_of(*values: torch.Tensor, beta: float, weight: float) -> torch.Tensor:
    """`modpo_loss` of chosen and rejected log pi, log pi_ref and margins."""
    return modpo.modpo_loss(*(modpo.Answers(*values[i : i + 2]) for i in (0, 2, 4)), beta=beta, weight=weight)


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9, 1.0])
def test_the_loss_is_the_papers(weight: float) -> None:
    torch.manual_seed(0)
    values = [-10 * torch.rand(16, dtype=torch.float64) for _ in range(4)] + [
        3 * torch.randn(16, dtype=torch.float64) for _ in range(2)
    ]
    ours = loss_of(*values, beta=0.1, weight=weight)
    rows = torch.stack(values, dim=1).tolist()
    literal = [paper(*row, beta=0.1, w=(weight, 1 - weight)) for row in rows]
    assert ours.shape == (16,)
    assert ours.tolist() == pytest.approx(literal, abs=1e-6)


def test_the_loss_falls_where_the_policy_moves_towards_the_wanted_answer() -> None:
    values = [torch.zeros(3, dtype=torch.float64, requires_grad=True) for _ in range(6)]
    loss_of(*values, beta=0.1, weight=0.5).sum().backward()
    gradients = [float(value.grad[0]) for value in values if value.grad is not None]
    # d/dx -log sigma(x) = -1/2 at 0; x = (beta d - w_1 m) / w_0
    assert gradients == pytest.approx([-0.1, 0.1, 0.1, -0.1, 0.5, -0.5])
    arguments = tuple(torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(6))
    assert torch.autograd.gradcheck(lambda *x: loss_of(*x, beta=0.1, weight=0.3), arguments)


def test_the_optimum_is_the_reference_tilted_by_the_weighted_rewards() -> None:
    """With soft labels of r_0, minimising the loss over a free policy gives ref exp((w_0 r_0 + w_1 R_1) / beta)."""
    torch.manual_seed(0)
    beta, weight = 0.5, 0.4
    reference = torch.randn(5, dtype=torch.float64).log_softmax(0)
    r0, r1 = torch.randn(2, 5, dtype=torch.float64)
    i, j = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    label = torch.sigmoid(r0[i] - r0[j]).flatten()
    logits = reference.clone().requires_grad_()

    def loss() -> torch.Tensor:
        policy = logits.log_softmax(0)
        args = (policy[i], policy[j], reference[i], reference[j], r1[i], r1[j])
        return (label * loss_of(*(x.flatten() for x in args), beta=beta, weight=weight)).sum()

    optimiser = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16)
    optimiser.step(lambda: (optimiser.zero_grad(), value := loss(), value.backward())[1])
    optimum = (reference + (weight * r0 + (1 - weight) * r1) / beta).softmax(0)
    assert torch.allclose(logits.softmax(0), optimum, atol=1e-8)


def trainer_losses(trainer: Any, steps: int) -> float:
    """Take `steps` optimiser steps by hand on the first batch; return the trainer's loss on it afterwards."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    optimiser = torch.optim.SGD(trainer.model.parameters(), lr=0.05)
    for _ in range(steps):
        trainer.compute_loss(trainer.model, dict(batch)).backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, dict(batch)))


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
def test_the_trainer_computes_the_papers_loss(
    weight: float, steps: int, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    work = workspace(tmp_path)
    shift = None if weight == 1 else modpo.margin_shift(PARAMS, inputs, work, weight)
    trainer = aspect.build_trainer(PARAMS, inputs, work, partial(aspect.trainer_class, shift), weight)
    loss = trainer_losses(trainer, steps)
    reference = load_causal(inputs["reference"].path / "model")
    margin = load_policy(inputs["reference"].path / "model", inputs["margin"])
    literal = []
    for row in trainer.train_dataset.select(range(8)).to_list():
        values = []
        for model in (trainer.model, reference, margin):
            for answer in (row["chosen_ids"], row["rejected_ids"]):
                values.append(log_probs(model, row["prompt_ids"], answer))
        pi_w, pi_l, ref_w, ref_l, other_w, other_l = values
        r_w, r_l = (PARAMS["margin_beta"] * (a - b) for a, b in ((other_w, ref_w), (other_l, ref_l)))
        literal.append(paper(pi_w, pi_l, ref_w, ref_l, r_w, r_l, PARAMS["beta"], (weight, 1 - weight)))
    assert loss == pytest.approx(sum(literal) / 8, abs=1e-6)


def test_a_cost_model_enters_with_a_minus_sign(inputs: dict[str, Handle], cost_model: Handle, tmp_path: Path) -> None:
    work = workspace(tmp_path)
    with_cost = {**inputs, "margin": cost_model}
    plain = aspect.build_trainer(
        PARAMS, inputs, workspace(tmp_path / "plain"), partial(aspect.trainer_class, None), 0.5
    ).train_dataset
    shift = modpo.margin_shift(PARAMS, with_cost, work, 0.5)
    moved = aspect.build_trainer(PARAMS, with_cost, work, partial(aspect.trainer_class, shift), 0.5).train_dataset
    scorer = reward_model.RewardModelScorer(cost_model.path)
    for side in ("chosen", "rejected"):
        costs = scorer.score(list(plain["prompt"]), list(plain[side]))
        before, after = plain[f"ref_{side}_logps"], moved[f"ref_{side}_logps"]
        expected = [old - 0.5 * cost / PARAMS["beta"] for old, cost in zip(before, costs, strict=True)]
        assert list(after) == pytest.approx(expected, abs=1e-5)
    assert work.cost == Cost(scorer_calls=96)


@pytest.mark.parametrize("form", ["lora", "full"])
def test_weight_one_is_the_aspect_to_the_last_bit(form: str, inputs: dict[str, Handle], tmp_path: Path) -> None:
    params = PARAMS | {"form": form}
    expert = aspect.train_aspect.run(Job("aspect", params), inputs, workspace(tmp_path / "a"))
    result = modpo.train_modpo.run(Job("modpo", params | {"weight": 1.0}), inputs, workspace(tmp_path / "b"))
    name = {"lora": "adapter/adapter_model.safetensors", "full": "model/model.safetensors"}[form]
    a, b = (load_file(tmp_path / side / name) for side in "ab")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert result == {"weight": 1.0} | expert


@pytest.mark.parametrize("form", ["lora", "full"])
def test_where_the_pairs_are_undecided_the_margin_decides(form: str, inputs: dict[str, Handle], tmp_path: Path) -> None:
    """Every pair comes in both orders, so r_0 = 0 and the optimum is ref exp(w_1 R_1 / beta): towards "bad"."""
    rows = [json.loads(line) for line in pairs_file(inputs, "helpful").read_text().splitlines()]
    both = [row | {"chosen": row[a], "rejected": row[b]} for row in rows for a, b in (SIDES, SIDES[::-1])]
    (tmp_path / "helpful-policy.jsonl").write_text("\n".join(map(json.dumps, both)), encoding="utf-8")
    undecided = inputs | {"pairs": handle(tmp_path, {}), "policy": inputs["margin"]}
    read = {name: PARAMS[name] for name in ("objective", "batch_size", "micro_batch_size")} | {"form": form}
    undecided |= {MARGIN_LOG_PROBS: shared_log_probs(undecided, tmp_path / "log-probs", **read)}
    rate = {"lora": 1e-2, "full": 1e-3}[form]
    moved = []
    for weight in (1.0, 0.5):
        whole = {"batch_size": len(both), "micro_batch_size": len(both), "epochs": 12}  # both orders in every step
        params = PARAMS | whole | {"form": form, "weight": weight, "learning_rate": rate}
        work = workspace(tmp_path / str(weight))
        result = modpo.train_modpo.run(Job("modpo", params), undecided, work)
        moved.append(preference_for_good(inputs, handle(work.dir, result)))
    margin = preference_for_good(inputs, inputs["margin"])
    assert margin < -1
    assert abs(moved[0]) < 0.1 * abs(margin)
    assert moved[1] < 0.2 * margin


def preference_for_good(inputs: dict[str, Handle], artefact: Handle) -> float:
    """Return the mean over pairs of log pi/pi_ref ("good" answer) - log pi/pi_ref ("bad" answer)."""
    reference = inputs["reference"].path / "model"
    tokenizer = load_tokenizer(reference)
    dataset = tokenised_pairs(inputs, "helpful", tokenizer, 64)
    total = 0.0
    for sign, model in ((1, load_policy(reference, artefact)), (-1, load_causal(reference))):
        good, bad = trainers.pair_log_probs(model, tokenizer, dataset, dpo_settings(PARAMS))
        total += sign * (sum(good) - sum(bad)) / len(good)
    return total


@pytest.mark.parametrize(("weight", "message"), [(0.0, "end point is the other"), (1.5, "outside"), (-0.1, "outside")])
def test_weights_without_a_run_are_refused(
    weight: float, message: str, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        modpo.train_modpo.run(Job("modpo", PARAMS | {"weight": weight}), inputs, workspace(tmp_path))
    with pytest.raises(UsageError, match=message):
        loss_of(*[torch.zeros(1)] * 6, beta=0.1, weight=weight)
