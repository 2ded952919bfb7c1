"""Row-scaled LoRA and materialised models against merged weights; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import Weights, policy
from peo_bench.engine import materialise
from peo_bench.engine.engine import Answer, Engine, Request
from peo_bench.engine.materialise import ByteCache
from peo_bench.errors import Diverged, PeoBenchError, UsageError
from peo_bench.jobs.job import Handle
from tests import models

ADAPTERS = ["lora-a", "lora-b", "lora-c"]
TOKENS = torch.tensor([[1, 3, 5, 6, 7, 4, 9, 10, 2]])
COEFFICIENT = st.integers(-512, 512).map(lambda n: n / 256)
TABLE = st.lists(st.tuples(COEFFICIENT, COEFFICIENT, COEFFICIENT), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def engine(artefacts: dict[str, Handle]) -> Engine:
    return Engine(artefacts.__getitem__, device="cpu")


@pytest.fixture(scope="module")
def exact(artefacts: dict[str, Handle]) -> Engine:
    """An engine that runs in float64."""
    made = Engine(artefacts.__getitem__, device="cpu")
    made.models.dtype = torch.float64
    return made


def row_logits(engine: Engine, rows: list[Weights]) -> torch.Tensor:
    """Return (rows, tokens, vocabulary) logits of one batch of the wrapped model."""
    module = engine.models.row_lora("base")
    adapters = [engine.models.adapter("base", job) for job in ADAPTERS]
    module.use(module.state(rows, adapters))
    with torch.inference_mode():
        return module.model(TOKENS.expand(len(rows), -1)).logits


def merged_logits(engine: Engine, weights: Weights) -> torch.Tensor:
    with torch.inference_mode():
        return engine.materialised(weights)[0](TOKENS).logits[0]


@settings(max_examples=25, deadline=None)
@given(table=TABLE)
def test_rows_equal_merged_weights_for_any_coefficients(exact: Engine, table: list[tuple[float, ...]]) -> None:
    """In float64, so that the whole model agrees to far more digits than a wrong formula could."""
    rows = [Weights("base", tuple(zip(ADAPTERS, row, strict=True))) for row in table]
    for logits, weights in zip(row_logits(exact, rows), rows, strict=True):
        with torch.inference_mode():
            expected = merged_in_float64(exact, weights)(TOKENS).logits[0]
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def merged_in_float64(engine: Engine, weights: Weights) -> torch.nn.Module:
    model = engine.materialised(Weights("base"))[0].double()
    for job, coefficient in weights.terms:
        for name, (a, b) in engine.models.adapter("base", job).factors.items():
            model.get_submodule(name).weight.data.add_(b.double() @ a.double(), alpha=coefficient)
    return model


@settings(max_examples=50, deadline=None)
@given(table=TABLE)
def test_one_layer_in_single_precision(engine: Engine, table: list[tuple[float, ...]]) -> None:
    module = engine.models.row_lora("base")
    adapters = [engine.models.adapter("base", job) for job in ADAPTERS]
    rows = [Weights("base", tuple(zip(ADAPTERS, row, strict=True))) for row in table]
    module.use(module.state(rows, adapters))
    layer = module.model.get_submodule("model.layers.1.self_attn.o_proj")
    x = torch.randn(len(rows), 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = layer(x)
    for i, weights in enumerate(rows):
        merged = dict(engine.materialised(weights)[0].named_modules())["model.layers.1.self_attn.o_proj"].weight
        scale = float((x[i].abs() @ merged.abs().T).max())
        torch.testing.assert_close(found[i], x[i] @ merged.T, rtol=0, atol=2e-6 * max(scale, 1.0))


@pytest.mark.parametrize("name", ADAPTERS)
def test_coefficient_one_equals_pefts_own_merge(engine: Engine, artefacts: dict[str, Handle], name: str) -> None:
    base = engine.materialised(Weights("base"))[0]
    peft_model = PeftModel.from_pretrained(base, artefacts[name].path / "adapter").merge_and_unload()
    with torch.inference_mode():
        expected = peft_model(TOKENS).logits[0]
    weights = Weights("base", ((name, 1.0),))
    torch.testing.assert_close(row_logits(engine, [weights])[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged_logits(engine, weights), expected, rtol=1e-5, atol=1e-5)
    assert float((expected - merged_logits(engine, Weights("base"))).abs().max()) > 0.05


def test_bfloat16_log_probabilities_are_close(artefacts: dict[str, Handle]) -> None:
    specs = [policy("base"), policy("base", [("lora-a", 1.2), ("lora-b", -0.3)]), policy("base", [("full-a", 1.0)])]
    requests = [Request(spec, prompt, prompt) for spec in specs for prompt in models.PROMPTS]
    exact = Engine(artefacts.__getitem__, device="cpu")
    answers = exact.generate(requests, Decoding(max_new_tokens=8))
    rough = Engine(artefacts.__getitem__, device="cpu", precision="bfloat16")
    errors = np.concatenate(
        [
            np.abs(a - b)
            for a, b in zip(exact.log_probs(requests, answers), rough.log_probs(requests, answers), strict=True)
        ]
    )
    assert 0 < np.median(errors) < 0.05
    assert errors.max() < 0.6
    assert all(isinstance(answer, Answer) for answer in rough.generate(requests, Decoding(max_new_tokens=8)))


@pytest.mark.parametrize("make", [models.llama, models.qwen2, models.gemma2, models.gpt2])
def test_in_bfloat16_a_model_is_what_loading_it_in_bfloat16_gives(tmp_path: Path, make: Callable[[], object]) -> None:
    """At late positions too, bit by bit: frequencies of rotary positions are buffers, which keep their precision."""
    handles = {"base": models.save_base(tmp_path, "base", make())}
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "base" / "model", dtype=torch.bfloat16)
    engine = Engine(handles.__getitem__, device="cpu", precision="bfloat16")
    long = torch.arange(127)[None] % 20 + 5
    with torch.inference_mode():
        expected = stock(long).logits
        for model in (engine.models.runnable(Weights("base")), engine.models.row_lora("base").model):
            assert torch.equal(model(long).logits, expected)


def test_the_output_layer_is_given_its_input_in_one_piece(artefacts: dict[str, Handle], monkeypatch) -> None:
    """`logits_to_keep` slices hidden states; the product with frozen weights would copy the weights once per row."""
    engine = Engine(artefacts.__getitem__, device="cpu", precision="bfloat16")
    seen: dict[torch.Size, set[bool]] = {}
    linear = torch.nn.functional.linear

    def watched(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        seen.setdefault(weight.shape, set()).add(x.is_contiguous())
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    output = engine.models.row_lora("base").model.get_output_embeddings()
    shape = getattr(output, "inner", output).weight.shape
    for spec in (policy("base", [("lora-a", 1.0)]), policy("base", [("full-a", 1.0)])):
        requests = [Request(spec, prompt, prompt) for prompt in models.PROMPTS]
        answers = engine.generate(requests, Decoding(max_new_tokens=3))
        engine.kl(requests, answers, policy("base"))
    assert seen[shape] == {True}


def test_full_fine_tunes_combine_exactly_and_leave_the_originals_alone(engine: Engine) -> None:
    base, a, b = (dict(engine.models._load(name).named_parameters()) for name in ("base", "full-a", "full-b"))
    for first, second in ((1.7, -0.4), (0.5, 0.5), (1.0, 0.0)):
        model = engine.materialised(Weights("base", (("full-a", first), ("full-b", second))))[0]
        for name, parameter in model.named_parameters():
            start = base[name].double()
            exact = start + first * (a[name].double() - start) + second * (b[name].double() - start)
            torch.testing.assert_close(parameter.double(), exact, rtol=1e-6, atol=1e-6)
    again = dict(engine.materialised(Weights("base"))[0].named_parameters())
    assert all(torch.equal(again[name], base[name]) for name in base)


def test_a_full_fine_tune_and_an_adapter_add_up(engine: Engine) -> None:
    both = engine.materialised(Weights("base", (("full-a", 0.5), ("lora-a", -1.5))))[0].state_dict()
    full = engine.materialised(Weights("base", (("full-a", 0.5),)))[0].state_dict()
    lora = engine.materialised(Weights("base", (("lora-a", -1.5),)))[0].state_dict()
    base = engine.materialised(Weights("base"))[0].state_dict()
    for name in base:
        torch.testing.assert_close(both[name] - full[name], lora[name] - base[name], rtol=0, atol=1e-5)


def test_a_wrong_combination_is_noticed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights("base", (("full-a", 0.5),))
    original = torch.Tensor.add_
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "add_", lambda self, other, alpha=1: original(self, other, alpha=alpha * 1.001))
        with pytest.raises(PeoBenchError, match="off the exact sum"):
            engine.materialised(weights)
    delta = engine.models.delta("base", "full-a")
    monkeypatch.setitem(delta, "lm_head.weight", delta["lm_head.weight"] * torch.inf)
    with pytest.raises(Diverged, match="not finite"):
        engine.materialised(weights)


def test_the_cache_drops_the_least_recently_used() -> None:
    cache = ByteCache(limit=20)
    made: list[str] = []

    def value(key: str) -> dict[str, torch.Tensor]:
        return cache.get(key, lambda: made.append(key) or {"x": torch.zeros(2)})  # type: ignore[func-returns-value]

    for key in ("a", "b", "a", "c", "a", "b"):
        value(key)
    assert made == ["a", "b", "c", "b"]


def test_materialised_models_are_reused_within_the_bound(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights("base", (("full-a", 0.25),))
    assert engine.models.runnable(weights) is engine.models.runnable(weights)
    monkeypatch.setattr(engine.models, "_cache", materialise.ByteCache(limit=1))
    first = engine.models.runnable(weights)
    engine.models.runnable(Weights("base", (("full-b", 0.25),)))
    assert engine.models.runnable(weights) is not first


@pytest.mark.parametrize(
    ("config", "edit", "message"),
    [
        ({"use_dora": True}, {}, "DoRA"),
        ({"bias": "lora_only"}, {}, "biases"),
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save"),
        ({"target_modules": ["embed_tokens"]}, {}, "lora_embedding"),
        ({}, {"peft_type": "LOHA"}, "LOHA"),
        ({}, {"init_lora_weights": "pissa_niter_4"}, "changed the base weights"),
        ({}, {"alora_invocation_tokens": [1]}, "activated LoRA"),
    ],
)
@pytest.mark.parametrize("other", [[], [("full-a", 1.0)]])
def test_adapters_that_are_not_plain_lora_are_refused(
    tmp_path: Path, config: dict, edit: dict, message: str, other: list[tuple[str, float]]
) -> None:
    model = models.llama()
    handles = {
        "base": models.save_base(tmp_path, "base", model),
        "full-a": models.save_full(tmp_path, "full-a", model, 0.1, 1),
        "odd": models.save_lora(tmp_path, "odd", model, seed=1, **config),
    }
    models.edit_adapter(handles["odd"], **edit)
    engine = Engine(handles.__getitem__, device="cpu")
    with pytest.raises(UsageError, match=message) as caught:
        engine.generate([Request(policy("base", [("odd", 1.0), *other]), "stop", "p")], Decoding(max_new_tokens=1))
    assert "adapter odd:" in str(caught.value)


def test_an_adapter_or_fine_tune_of_another_architecture_is_refused(tmp_path: Path) -> None:
    bigger = models.llama(hidden=64)
    handles = {
        "base": models.save_base(tmp_path, "base", models.llama()),
        "lora-a": models.save_lora(tmp_path, "lora-a", bigger, seed=1),
        "full-a": models.save_full(tmp_path, "full-a", bigger, 0.1, seed=1),
    }
    engine = Engine(handles.__getitem__, device="cpu")
    for name, message in (
        ("lora-a", "in the base policy"),
        ("full-a", "are not those of the base"),
        ("base", "cannot be"),
    ):
        with pytest.raises(UsageError, match=message):
            engine.generate([Request(policy("base", [(name, 1.0)]), "stop", "p")], Decoding(max_new_tokens=1))


def test_unchanged_saved_base_weights_are_accepted_and_changed_ones_refused(tmp_path: Path) -> None:
    model = models.llama()
    handles = {
        "base": models.save_base(tmp_path, "base", model),
        "head": models.save_lora(tmp_path, "head", model, seed=1, target_modules=["lm_head"]),
    }
    requests = [Request(policy("base", [("head", 1.0)]), "stop", "p")]
    Engine(handles.__getitem__, device="cpu").generate(requests, Decoding(max_new_tokens=1))
    path = handles["head"].path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    changed = next(key for key in tensors if "base_layer" in key)
    save_file(tensors | {changed: tensors[changed] + 1}, path)
    with pytest.raises(UsageError, match="base_layer"):
        Engine(handles.__getitem__, device="cpu").generate(requests, Decoding(max_new_tokens=1))


def test_an_adapter_on_tied_output_embeddings_is_refused(tmp_path: Path) -> None:
    model = models.qwen2()
    handles = {
        "base": models.save_base(tmp_path, "base", model),
        "lora-a": models.save_lora(tmp_path, "lora-a", model, seed=1),
    }
    path = handles["lora-a"].path / "adapter" / "adapter_model.safetensors"
    tensors = {"base_model.model.lm_head.lora_A.weight": torch.ones(4, 32)}
    tensors["base_model.model.lm_head.lora_B.weight"] = torch.ones(model.config.vocab_size, 4)
    save_file(tensors, path)
    models.edit_adapter(handles["lora-a"], target_modules=["lm_head"])
    with pytest.raises(UsageError, match="tied to the input embeddings"):
        Engine(handles.__getitem__, device="cpu").generate(
            [Request(policy("base", [("lora-a", 1.0)]), "stop", "p")], Decoding(max_new_tokens=1)
        )


def test_an_exported_model_reloads_with_the_same_logits(engine: Engine, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = Weights("base", (("lora-a", 1.4), ("lora-b", -0.2)))
    model, tokenizer = engine.materialised(weights)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with torch.inference_mode():
        reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)(TOKENS).logits[0]
    torch.testing.assert_close(reloaded, merged_logits(engine, weights), rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"
