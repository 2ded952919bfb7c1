"""Buffers that checkpoints store: routers' corrections are part of the function, and no difference of parameters.

DeepSeek-V3, GLM-4-MoE and their kin choose experts by `e_score_correction_bias`.
"""

import pytest
import torch
from models import deepseek, save_base, save_full
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from peo_bench.core.method import Objective
from peo_bench.core.spec import Weights
from peo_bench.data import given_checkpoint
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.engine.engine import Engine
from peo_bench.errors import UsageError
from peo_bench.jobs.store import Store
from peo_bench.scorers.kinds import scorer_job
from peo_bench.scorers.settings import ScorerConfig

TOKENS = torch.arange(1, 12)[None]
BUFFER = "model.layers.1.mlp.gate.e_score_correction_bias"


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path, "base", deepseek()).path / "model"


@pytest.fixture
def expert(tmp_path):
    return save_full(tmp_path, "expert", deepseek(), 0.1, seed=4)


def correct(folder, values):
    """Write other values into the buffer of a checkpoint."""
    file = folder / "model.safetensors"
    save_file(load_file(file) | {BUFFER: values}, file, {"format": "pt"})


def logits(model):
    with torch.no_grad():
        return model.eval()(TOKENS).logits


def test_a_buffer_that_the_expert_shares_with_its_base_is_part_of_its_policy(base, expert, tmp_path):
    for folder in (base, expert.path / "model"):
        correct(folder, torch.arange(8.0))
    store, reference = Store(tmp_path / "store"), checkpoint_job(str(base), "base")
    given = checkpoint_job(str(expert.path), "delta", reference)
    for job in (reference, given):
        store.run(job)
    engine = Engine(store.__getitem__, device="cpu")
    for terms, folder in (((), base), (((given.id, 1.0),), expert.path / "model")):
        weights = Weights(reference.id, terms)
        stock = logits(AutoModelForCausalLM.from_pretrained(folder))
        assert torch.allclose(logits(engine.models.exportable(weights)), stock, atol=1e-4)


def test_an_expert_with_another_buffer_is_refused_by_name(base, expert, tmp_path, monkeypatch):
    """At weight 1 it would be off its own logits by 5, with the base's routes."""
    correct(expert.path / "model", torch.arange(8.0))
    reference, store = checkpoint_job(str(base), "base"), Store(tmp_path / "store")
    store.run(reference)
    said = rf"expert/model: does not fit the reference policy \(its buffer {BUFFER} is not the base's"
    with pytest.raises(UsageError, match=said) as raised:
        checkpoint_job(str(expert.path), "delta", reference)
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(given_checkpoint, "foresee_checkpoint", lambda job: ())
    with pytest.raises(UsageError, match=said):
        store.run(checkpoint_job(str(expert.path), "delta", reference))
    given = {reference.id: store[reference.id], expert.id: expert}
    with pytest.raises(UsageError, match=f"full fine-tune expert: its buffer {BUFFER} is not the base's"):
        Engine(given.__getitem__, device="cpu").models.delta(reference.id, expert.id)


def job_of(role, folder):
    """Return the job that takes a checkpoint over in a role."""
    if role == "scorer":
        config = ScorerConfig(layout="sequence-classification", model=str(folder), columns={"reward": 0})
        return scorer_job("reward", config, [Objective("helpful", "reward", True)])
    return checkpoint_job(str(folder), role)


@pytest.mark.parametrize("role", ["base", "delta", "scorer"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_buffer_that_is_not_finite_is_refused_in_every_role(base, tmp_path, role, value):
    if role == "scorer":
        AutoModelForSequenceClassification.from_config(deepseek().config).save_pretrained(base)
    values = torch.zeros(8)
    values[5] = value
    correct(base, values)
    with pytest.raises(UsageError, match=rf"{BUFFER} not finite \(nan or inf\)"):
        Store(tmp_path / "store").run(job_of(role, base))
