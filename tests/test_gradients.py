"""DPO with several gradients: the combiners as numbers, the trainer against literal formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_fixtures import count_recomputed, handle, pair_rows, save_policy, workspace

from peo_bench.errors import UsageError
from peo_bench.jobs.job import Handle, Job
from peo_bench.models.loading import load_causal
from peo_bench.training import aspect, gradients

C = 0.4


def gram_of(seed: int, m: int, spread: float = 1.0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(m, 6)) * np.exp(spread * np.arange(m))[:, None]
    return np.asarray(vectors @ vectors.T)


def simplex(seed: int, m: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).dirichlet(np.ones(m))


def objective(p: np.ndarray, gram: np.ndarray, w: np.ndarray, c: float = C) -> float:
    return float(p @ gram @ w + c * np.sqrt(w @ gram @ w) * np.sqrt(max(p @ gram @ p, 0)))


def grid(m: int) -> np.ndarray:
    if m == 2:
        alpha = np.linspace(0, 1, 20_001)
        return np.column_stack([alpha, 1 - alpha])
    return np.random.default_rng(0).dirichlet(np.full(m, 0.5), 20_000)


# ---- combiners ----


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 4]))
def test_the_conflict_averse_solution_is_at_least_as_good_as_a_grid(seed: int, m: int) -> None:
    gram, w = gram_of(seed, m), simplex(seed, m)
    step = gradients.cagrad(gram, w, C)
    p = step - w
    p = p / p.sum()
    best = min(objective(point, gram, w) for point in grid(m))
    assert objective(p, gram, w) <= best + 1e-7 * abs(best)
    correction = step - w
    radius = C * np.sqrt(w @ gram @ w)
    assert np.sqrt(correction @ gram @ correction) == pytest.approx(radius, rel=1e-9)
    assert step @ gram @ w >= (1 - C) * (w @ gram @ w) - 1e-9 * gram.max(), "never leaves the ball around g_0"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_the_clip_never_gives_an_objective_more_than_asked_for(seed: int, m: int) -> None:
    gram, w = gram_of(seed, m), simplex(seed, m)
    free, clipped = gradients.cagrad(gram, w, C) - w, gradients.raco(gram, w, C) - w
    p = free / free.sum()
    expected = np.minimum(p, w)
    np.testing.assert_allclose(clipped / clipped.sum(), expected / expected.sum(), atol=1e-9)
    if m == 2 and not np.allclose(p, w, atol=1e-9):
        assert np.count_nonzero(p > w) == 1, "of two exactly one is clipped"
    assert (gradients.raco(gram, w, C, clip=False) == gradients.cagrad(gram, w, C)).all()


def test_edges() -> None:
    w = np.array([0.3, 0.7])
    gram = gram_of(1, 2)
    assert (gradients.cagrad(gram, w, 0.0) == w).all(), "c = 0 is the weighted loss"
    np.testing.assert_allclose(gradients.raco(np.ones((2, 2)), w, C).sum(), 1 + C)  # g_1 = g_2: (1 + c) g_0
    assert (gradients.raco(np.zeros((2, 2)), w, C) == w).all()
    opposed = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert (gradients.cagrad(opposed, np.array([0.5, 0.5]), C) == 0.5).all(), "g_0 = 0: nothing to correct"
    assert np.isfinite(gradients.raco(opposed, w, C)).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_mgda_is_the_closed_form_for_two(seed: int) -> None:
    """Sener & Koltun 2018: gamma = ((g_2 - g_1) . g_2) / |g_1 - g_2|^2, clipped to [0, 1]."""
    gram = gram_of(seed, 2, spread=0.5)
    gamma = np.clip((gram[1, 1] - gram[0, 1]) / (gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]), 0, 1)
    np.testing.assert_allclose(gradients.mgda(gram, np.array([0.9, 0.1])), [gamma, 1 - gamma], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_mgda_decreases_every_objective(seed: int) -> None:
    """At the min-norm point d, g_i . d >= |d|^2 for every i (the KKT conditions)."""
    gram = gram_of(seed, 3, spread=0.3)
    p = gradients.mgda(gram, np.full(3, 1 / 3))
    assert ((gram @ p) >= (p @ gram @ p) - 1e-5 * gram.max()).all()


# ---- the trainer ----

PARAMS: dict[str, Any] = {
    "combiner": "weighted",
    "weights": [0.3, 0.7],
    "objectives": ["helpful", "harmless"],
    "seed": 1,
    "form": "full",
    "beta": 0.2,
    "batch_size": 8,
    "micro_batch_size": 4,
    "learning_rate": 1e-3,
    "lora_rank": 4,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    """Pairs with both labels: half of them conflict."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "pairs").mkdir()
    rows = pair_rows(48, "good")
    for name in ("helpful", "harmless"):
        lines = []
        for i, row in enumerate(rows):
            sign = -1 if i % 2 else 1
            if name == "harmless" and sign < 0:
                row = row | {"chosen": row["rejected"], "rejected": row["chosen"]}
            labels = {"helpful": 1, "harmless": sign} if name == "helpful" else {"helpful": sign, "harmless": 1}
            lines.append(json.dumps(row | {"labels": labels}))
        (root / "pairs" / f"{name}-policy.jsonl").write_text("\n".join(lines) + "\n")
    return {"reference": save_policy(root / "reference"), "pairs": handle(root / "pairs", {})}


def log_prob(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    ids = torch.tensor([prompt + answer])
    table = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return table.gather(1, torch.tensor(answer)[:, None]).sum()


def literal_gradients(trainer: Any, reference: Any, rows: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Write every objective's loss down and differentiate it, pair by pair."""
    found = []
    for i in range(2):
        total = torch.zeros(())
        for row in rows:
            ratios = [
                log_prob(trainer.model, row["prompt_ids"], row[side])
                - log_prob(reference, row["prompt_ids"], row[side]).detach()
                for side in ("chosen_ids", "rejected_ids")
            ]
            total = total - torch.nn.functional.logsigmoid(0.2 * row["signs"][i] * (ratios[0] - ratios[1]))
        parts = torch.autograd.grad(total / len(rows), list(trainer.model.parameters()))
        found.append(torch.cat([part.flatten() for part in parts]))
    return found


@pytest.mark.parametrize(("combiner", "options"), [("weighted", {}), ("raco", {"c": C, "clip": True}), ("mgda", {})])
def test_the_step_is_the_combination_of_literal_gradients(combiner, options, inputs, tmp_path: Path) -> None:
    """Over a batch of two micro-batches: what reaches the optimiser is sum_i a_i(G) g_i of the whole batch."""
    params = PARAMS | options | {"combiner": combiner}
    trainer = gradients.build_trainer(params, inputs, workspace(tmp_path))
    with torch.no_grad():  # away from the reference, where all gradients have the same size
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
    samples, _ = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 2, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 2
    for last, sample in zip((False, True), samples, strict=True):
        trainer.accelerator.gradient_state._set_sync_gradients(last)
        trainer.training_step(trainer.model, sample)
    written = torch.cat([p.grad.flatten() for p in trainer.model.parameters()])
    reference = load_causal(inputs["reference"].path / "model").eval()
    literal = literal_gradients(trainer, reference, trainer.train_dataset.select(range(8)).to_list())
    gram = np.array([[float(a.double() @ b.double()) for b in literal] for a in literal])
    w = np.array(PARAMS["weights"])
    coefficients = w if combiner == "weighted" else gradients.COMBINERS[combiner](gram, w, **options)
    expected = sum(float(a) * g for a, g in zip(coefficients, literal, strict=True))
    torch.testing.assert_close(written, expected, rtol=2e-3, atol=2e-6)


def test_the_weighted_loss_takes_one_backward_pass_and_is_charged_one(inputs, tmp_path: Path, monkeypatch) -> None:
    """48 pairs are a unit; two gradients are 5/3, a backward pass being two forward passes."""
    work = {name: workspace(tmp_path / name) for name in ("weighted", "mgda")}
    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "grad", None)  # what takes one gradient per objective
        result = gradients.train_combined.run(Job("gradients", PARAMS), inputs, work["weighted"])
    gradients.train_combined.run(Job("gradients", PARAMS | {"combiner": "mgda"}), inputs, work["mgda"])
    assert work["weighted"].cost.pairs_trained == 48
    assert work["mgda"].cost.pairs_trained == 80
    assert set(result["curves"][0]) == {"step", "loss", "loss_helpful", "loss_harmless"}


def test_amopo_is_free_of_the_reference_and_counts_per_token(inputs, tmp_path: Path) -> None:
    """L_k = -log sigma(s_k beta [log pi(y_w)/|y_w| - log pi(y_l)/|y_l|] - gamma), row by row."""
    options = {"combiner": "weighted", "beta": 0.8, "gamma": 0.5}
    trainer = gradients.build_trainer(PARAMS | options, inputs, workspace(tmp_path))
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        found = trainer.losses(trainer.model, batch)
        rows = trainer.train_dataset.select(range(len(batch["signs"]))).to_list()
        expected = torch.zeros(2)
        for row in rows:
            w, v = (
                log_prob(trainer.model, row["prompt_ids"], row[s]) / len(row[s]) for s in ("chosen_ids", "rejected_ids")
            )
            signs = torch.tensor(row["signs"], dtype=torch.float32)
            expected -= torch.nn.functional.logsigmoid(0.8 * signs * (w - v) - 0.5) / len(rows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_all_weight_on_one_objective_is_its_dpo_run(inputs, tmp_path: Path) -> None:
    one = PARAMS | {"weights": [1.0, 0.0], "epochs": 2.0}
    gradients.train_combined.run(Job("gradients", one), inputs, workspace(tmp_path / "one"))
    aspect.train_aspect.run(Job("aspect", one | {"objective": "helpful"}), inputs, workspace(tmp_path / "dpo"))
    a, b = (load_causal(tmp_path / name / "model") for name in ("one", "dpo"))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", ["lora", "full"])
def test_a_run_writes_its_policy_and_curves(form, inputs, tmp_path: Path) -> None:
    params = PARAMS | {"form": form, "combiner": "raco", "c": C, "epochs": 4.0}
    result = gradients.train_combined.run(Job("gradients", params), inputs, workspace(tmp_path))
    assert (tmp_path / ("adapter" if form == "lora" else "model")).is_dir()
    assert result["task_vector_norm"] > 0
    last = result["curves"][-1]
    assert set(last) >= {"step", "loss", "cosine", "loss_helpful", "loss_harmless", "coefficient_helpful"}
    assert -1 <= last["cosine"] <= 1
    assert last["loss_helpful"] < result["curves"][0]["loss_helpful"]


def test_activations_that_are_computed_twice_give_the_same_combined_step(inputs, tmp_path: Path, monkeypatch) -> None:
    recomputed = count_recomputed(monkeypatch)
    for name, twice in (("kept", False), ("twice", True)):
        params = PARAMS | {"combiner": "raco", "c": C, "gradient_checkpointing": twice}
        gradients.train_combined.run(Job("gradients", params), inputs, workspace(tmp_path / name))
        assert bool(recomputed) == twice
    a, b = (load_causal(tmp_path / name / "model") for name in ("kept", "twice"))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_pairs_without_both_labels_are_refused(inputs, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "helpful-policy.jsonl").write_text(json.dumps(pair_rows(1)[0]) + "\n")
    with pytest.raises(UsageError, match="no label for 'helpful'"):
        gradients.build_trainer(PARAMS, inputs | {"pairs": handle(tmp_path / "pairs", {})}, workspace(tmp_path / "w"))
