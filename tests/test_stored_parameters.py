"""How many numbers a method must keep to serve its family, against what the trained modules themselves say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_fixtures import handle, save_pairs, save_policy, tiny_model, workspace

from peo_bench.core.spec import PolicySpec, Utility, policy
from peo_bench.jobs.job import Handle, Job
from peo_bench.models.loading import load_policy
from peo_bench.runs.costs import stored_parameters
from peo_bench.training import aspect

SETTINGS = {"seed": 1, "batch_size": 8, "micro_batch_size": 8, "lora_rank": 4}


@pytest.fixture(scope="module")
def handles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    """A reference, one expert as an adapter, one as a full model, a scorer."""
    root = tmp_path_factory.mktemp("artefacts")
    found = {"ref": save_policy(root / "ref"), "scorer": save_policy(root / "scorer", layers=1)}
    inputs = {"reference": found["ref"], "pairs": save_pairs(root / "pairs", count=8)}
    for name, form in (("lora", "lora"), ("full", "full")):
        job = Job("aspect", SETTINGS | {"objective": "helpful", "form": form})
        result = aspect.train_aspect.run(job, inputs, workspace(root / name))
        found[name] = handle(root / name, result)
    return found


def count(module: Any, trained: str = "") -> int:
    return sum(weight.numel() for name, weight in module.named_parameters() if trained in name)


def test_adapters_and_full_models_count_as_they_are_stored_each_once(handles: dict[str, Handle]) -> None:
    adapter = load_policy(handles["ref"].path / "model", handles["lora"])
    lora, full = count(adapter, "lora_"), count(tiny_model())
    assert 0 < lora < full
    soup = [policy("ref", [("lora", w), ("full", 1 - w)]) for w in (0.0, 0.25, 0.5, 1.0)]
    assert stored_parameters(soup, handles, "ref") == lora + full
    assert stored_parameters([policy("ref", [("lora", w)]) for w in (0.5, 1.0)], handles, "ref") == lora
    assert stored_parameters([policy("ref")], handles, "ref") == 0


def test_what_selections_ask_counts_too(handles: dict[str, Handle]) -> None:
    drawn = policy("ref")
    best = PolicySpec(candidates=(drawn, drawn), utility=Utility((("scorer/reward", 0.5), ("scorer/cost", -0.5))))
    assert stored_parameters([best], handles, "ref") == count(tiny_model(layers=1))


def test_half_precision_counts_and_other_formats_are_unknown(handles: dict[str, Handle], tmp_path: Path) -> None:
    tiny_model().bfloat16().save_pretrained(tmp_path / "half" / "model")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"")
    known = handles | {name: handle(tmp_path / name, {}) for name in ("half", "old")}
    assert stored_parameters([policy("ref", [("half", 1.0)])], known, "ref") == count(tiny_model())
    assert stored_parameters([policy("ref", [("half", 1.0), ("old", 1.0)])], known, "ref") is None
