"""FW-Merging: the steps on known losses, the gradient against finite differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_factors import PARAMS, artefacts  # noqa: F401 - the fixture
from training_fixtures import foreseen, workspace

from peo_bench.core.spec import Weights
from peo_bench.engine.engine import Engine
from peo_bench.jobs.job import Handle, Job
from peo_bench.models.loading import load_tokenizer
from peo_bench.training.frank_wolfe import add_gradient, frank_wolfe, log_ratios, merge_by_gradients
from peo_bench.training.pair_rows import tokenised_pairs
from peo_bench.training.settings import dpo_settings

NAMES = ("helpful", "harmless")


def test_it_converges_to_the_hulls_optimum_at_the_known_rate():
    """f(c) = |c - p|^2, p outside the hull: f(c_t) - f* <= 2 C / (t + 2), C = 2 diam^2 = 4 (Jaggi 2013, theorem 1)."""
    p = np.array([0.9, 0.6])
    best = np.array([0.65, 0.35])
    for t, c in enumerate(frank_wolfe(lambda c: 2 * (c - p), 2, 60)[1:], 1):
        gap = ((c - p) ** 2).sum() - ((best - p) ** 2).sum()
        assert -1e-12 <= gap <= 2 * 4 / (t + 2)
        assert c.sum() == pytest.approx(1)
        assert (c >= 0).all(), "it stays in the hull: it cannot extrapolate"


def test_the_first_step_goes_to_an_expert():
    assert frank_wolfe(lambda c: np.array([1.0, -1.0, 0.0]), 3, 1)[1].tolist() == [0, 1, 0]


def job(weights: list[float], **more: Any) -> Job:
    return Job(
        "frank-wolfe", PARAMS | {"objectives": list(NAMES), "weights": weights, "pairs": 12, "iterations": 4} | more
    )


def inputs(found: dict[str, Handle]) -> dict[str, Handle]:
    return {
        "reference": found["reference"],
        "pairs": found["pairs"],
        **{f"delta:{i}": found[n] for i, n in enumerate(NAMES)},
    }


def test_the_slope_is_the_derivative_of_the_loss(artefacts, tmp_path: Path) -> None:  # noqa: F811
    """d L / d c_i by the gradient's inner product with tau_i, against central differences of the loss itself."""
    models = Engine(artefacts.__getitem__, noise_seed=0).models
    settings = dpo_settings(PARAMS)
    tokenizer = load_tokenizer(artefacts["reference"].path / "model")
    pairs = tokenised_pairs(artefacts, "helpful", tokenizer, 64).select(range(10))
    reference = log_ratios(models.merged(Weights("reference")), tokenizer, pairs, settings)

    def at(c: list[float]) -> Any:
        return models.merged(Weights("reference", tuple(zip(NAMES, c, strict=True))))

    def loss(c: list[float]) -> float:
        gaps = np.array(log_ratios(at(c), tokenizer, pairs, settings)) - reference
        return float(np.log1p(np.exp(-settings.beta * gaps)).mean())

    model = at([0.5, 0.3])
    add_gradient(model, tokenizer, pairs, reference, settings, 1.0)
    for i, name in enumerate(NAMES):
        delta = models.delta("reference", name)
        found = sum(float((p.grad * delta[n]).sum()) for n, p in model.named_parameters() if n in delta)
        step, middle = np.eye(2)[i] * 0.004, np.array([0.5, 0.3])
        numeric = (loss((middle + step).tolist()) - loss((middle - step).tolist())) / 0.008
        assert found == pytest.approx(numeric, rel=0.02, abs=1e-5)


def test_all_weight_on_one_objective_ends_at_its_expert(artefacts, tmp_path: Path) -> None:  # noqa: F811
    result = merge_by_gradients.run(job([1.0, 0.0]), inputs(artefacts), workspace(tmp_path))
    assert result["coefficients"] == pytest.approx([1.0, 0.0])
    assert len(result["path"]) == 5
    asked = Job("frank-wolfe", {**job([1.0, 0.0]).params}, {"reference": Job("sft"), "pairs": Job("pairs")})
    done = {role: inputs(artefacts)[role] for role in asked.needs}
    lengths = foreseen(asked, done).lengths
    assert result["lengths"] == lengths.to_json()
    assert lengths.whole + lengths.cut + lengths.dropped == 2 * 48
