"""A configuration that makes no model, or one that does not run as the engine runs it, is one line in every role."""

import shutil
from pathlib import Path

import pytest
import scorer_checkpoints
import torch
from models import edit_config, gemma2, gpt2, llama, qwen2, save_base, tokenizer
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel

from peo_bench.core.method import Objective
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.errors import UsageError
from peo_bench.jobs.store import Store
from peo_bench.models.loading import load_causal
from peo_bench.models.trial import check_runs
from peo_bench.scorers.kinds import scorer_job
from peo_bench.scorers.settings import ScorerConfig

POLICIES = [
    {"num_attention_heads": -1},
    {"num_attention_heads": 0},
    {"num_key_value_heads": 0},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
    {"rms_norm_eps": "x"},
    {"hidden_act": "no_such_function"},
]
SCORERS = [
    {"num_attention_heads": -1},
    {"num_attention_heads": 0},
    {"layer_norm_eps": "x"},
    {"hidden_act": "no_such_function"},
    {"position_buckets": -3, "relative_attention": True},
]


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("trial"), "base", llama()).path / "model"


def taken_as(role, folder, base, store):
    """Take a checkpoint over in a role."""
    if role == "scorer":
        config = ScorerConfig.model_validate(
            {"layout": "sequence-classification", "model": str(folder), "columns": {"reward": 0}}
        )
        store.run(scorer_job("reward", config, [Objective("helpful", "reward", True)]))
        return
    reference = checkpoint_job(str(folder if role == "base" else base), "base")
    store.run(reference)
    if role == "expert":
        store.run(checkpoint_job(str(folder), "delta", reference))


@pytest.mark.parametrize(
    ("role", "change"),
    [(role, change) for role in ("base", "expert") for change in POLICIES] + [("scorer", change) for change in SCORERS],
    ids=str,
)
def test_a_configuration_that_makes_no_model_that_runs_is_one_line(base, tmp_path, role, change):
    made = scorer_checkpoints.save_deberta(tmp_path / "made") / "model" if role == "scorer" else base
    folder = Path(shutil.copytree(made, tmp_path / "odd"))
    edit_config(folder, **change)
    with pytest.raises(UsageError) as raised:
        taken_as(role, folder, base, Store(tmp_path / "store"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("model", [llama, qwen2, gemma2, gpt2])
def test_what_runs_token_by_token_as_at_once_is_accepted(tmp_path, model):
    check_runs(load_causal(save_base(tmp_path, "base", model()).path / "model"), tmp_path)


def test_a_base_that_reads_what_follows_is_refused(tmp_path):
    """Fed token by token without a cache, BERT would see the last token alone; stock transformers feeds it the text."""
    words = tokenizer()
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        is_decoder=False, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    folder = save_base(tmp_path, "bert", BertLMHeadModel(config)).path / "model"
    with pytest.raises(UsageError, match=r"bert/model: (its logits token by token|loads as a model that does not run)"):
        taken_as("base", folder, folder, Store(tmp_path / "store"))


def test_logits_that_are_not_finite_are_refused(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "huge"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.full_like(tensors["lm_head.weight"], 3e38)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for role in ("base", "expert"):
        with pytest.raises(UsageError, match=r"huge: its logits are not finite"):
            taken_as(role, folder, base, Store(tmp_path / "store"))
