"""Averaged LoRA factors: what the public code does, and how far it is from the soup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_fixtures import handle, save_pairs, save_policy, workspace

from peo_bench.core.spec import policy
from peo_bench.engine.engine import Engine
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Handle, Job
from peo_bench.training import aspect
from peo_bench.training.factors import average_factors

PARAMS: dict[str, Any] = {
    **{"seed": 1, "form": "lora", "beta": 0.2, "learning_rate": 5e-3, "epochs": 4.0},
    **{"batch_size": 8, "micro_batch_size": 8, "lora_rank": 4, "lora_alpha": 8},
}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    root = tmp_path_factory.mktemp("experts")
    found = {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs")}
    for name in ("helpful", "harmless"):
        job = Job("aspect", PARAMS | {"objective": name})
        found[name] = handle(root / name, aspect.train_aspect.run(job, found, workspace(root / name)))
    return found


def averaged(artefacts: dict[str, Handle], weights: list[float], path: Path) -> Handle:
    inputs = {f"delta:{i}": artefacts[name] for i, name in enumerate(("helpful", "harmless"))}
    return handle(path, average_factors.run(Job("averaged-factors", {"weights": weights}), inputs, workspace(path)))


def task_vector(artefacts: dict[str, Handle], terms: list[tuple[str, float]]) -> torch.Tensor:
    engine = Engine(artefacts.__getitem__, noise_seed=0)
    merged, base = (engine.materialised(policy("reference", t).mix[0][1])[0] for t in (terms, []))
    pairs = zip(merged.parameters(), base.parameters(), strict=True)
    return torch.cat([(a - b).flatten() for a, b in pairs]).detach()


def test_factors_are_averaged_one_by_one_and_have_cross_terms(artefacts, tmp_path: Path) -> None:
    found = artefacts | {"mean": averaged(artefacts, [0.5, 0.5], tmp_path / "mean")}
    tables = [load_file(found[name].path / "adapter" / "adapter_model.safetensors") for name in ("helpful", "harmless")]
    mean = load_file(tmp_path / "mean" / "adapter" / "adapter_model.safetensors")
    for name, value in mean.items():
        torch.testing.assert_close(value, (tables[0][name] + tables[1][name]) / 2)
    a, b = (next(n for n in mean if part in n) for part in ("lora_A", "lora_B"))
    assert a.replace("lora_A", "") == b.replace("lora_B", "")
    exact = task_vector(found, [("helpful", 0.5), ("harmless", 0.5)])
    reproduced = task_vector(found, [("mean", 1.0)])
    assert (exact - reproduced).norm() > 0.01 * exact.norm(), "it is not the soup"


def test_a_vertex_is_the_expert(artefacts, tmp_path: Path) -> None:
    found = artefacts | {"one": averaged(artefacts, [1.0, 0.0], tmp_path / "one")}
    torch.testing.assert_close(task_vector(found, [("one", 1.0)]), task_vector(found, [("helpful", 1.0)]))


def test_full_fine_tunes_have_no_factors(artefacts, tmp_path: Path) -> None:
    full = Handle("full", tmp_path, {"form": "full"}, artefacts["helpful"].cost, 0.0)
    with pytest.raises(UsageError, match="full is a full fine-tune"):
        averaged(artefacts | {"helpful": full}, [0.5, 0.5], tmp_path / "x")
