"""Loading checkpoints: what is not whole is refused by name, in every role; what is whole loads as it is."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from models import edit_adapter, edit_config, llama, qwen2, save_base, save_lora, tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BloomConfig, Gemma3Config, GPT2Config, LlamaConfig

import peo_bench
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.engine.row_lora import load_adapter
from peo_bench.errors import UsageError
from peo_bench.jobs.store import Store
from peo_bench.models.loading import (
    context_length,
    load_causal,
    load_config,
    load_policy,
    new_classifier,
    read_tokenizer,
    skeleton,
)

TOKENS = torch.tensor([[1, 5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("whole"), "base", llama()).path / "model"


def edited(whole, tmp_path, edit, **config):
    """A copy of a checkpoint whose tensors went through `edit`."""
    folder = Path(shutil.copytree(whole, tmp_path / "edited"))
    save_file(edit(load_file(whole / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, **config)
    return folder


def without(*parts):
    return lambda tensors: {name: t for name, t in tensors.items() if not any(part in name for part in parts)}


def renamed(prefix):
    return lambda tensors: {prefix + name: t for name, t in tensors.items()}


def with_(name, value):
    return lambda tensors: tensors | {name: value}


def first_is(value):
    def edit(tensors):
        tensors["model.norm.weight"][0] = value
        return tensors

    return edit


DAMAGE = {
    "no output layer": (without("lm_head"), r"lack lm_head\.weight"),
    "no mlp": (without("layers.1.mlp"), r"lack model\.layers\.1\.mlp\.down_proj\.weight, .*up_proj"),
    "one renamed": (
        lambda t: with_("model.layers.1.mlp.w2.weight", t.pop("model.layers.1.mlp.down_proj.weight"))(t),
        r"lack model\.layers\.1\.mlp\.down_proj\.weight .*hold model\.layers\.1\.mlp\.w2\.weight",
    ),
    "a bias too many": (
        with_("model.layers.0.self_attn.q_proj.bias", torch.ones(32)),
        r"hold model\.layers\.0\.self_attn\.q_proj\.bias, for which",
    ),
    "a third layer": (with_("model.layers.2.mlp.up_proj.weight", torch.ones(64, 32)), r"hold model\.layers\.2\.mlp"),
    "another shape": (with_("lm_head.weight", torch.ones(5, 32)), r"lack lm_head\.weight \(or in the right shape\)"),
    "a wrapper's names": (renamed("module."), r"begin with 'module\.', which a wrapper left"),
    "a compiled module's names": (renamed("_orig_mod."), r"begin with '_orig_mod\.'"),
    "a nan": (first_is(float("nan")), r"model\.norm\.weight not finite"),
    "an infinity": (first_is(float("inf")), r"model\.norm\.weight not finite"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_model_that_is_not_whole_is_refused_by_name(whole, tmp_path, what):
    edit, said = DAMAGE[what]
    folder = edited(whole, tmp_path, edit)
    with pytest.raises(UsageError, match=said) as raised:
        load_causal(folder)
    assert "\n" not in str(raised.value)
    if "output layer" not in what and "another shape" not in what:  # the trunk of a reward model is read alike
        with pytest.raises(UsageError, match=said.split(" .*")[0]):
            new_classifier(folder, "float32")


def test_what_is_whole_loads_as_transformers_loads_it(whole, tmp_path):
    buffers = with_("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4))  # older versions saved it
    for folder in (whole, edited(whole, tmp_path, buffers)):
        expected = AutoModelForCausalLM.from_pretrained(folder)(TOKENS).logits
        assert torch.equal(load_causal(folder)(TOKENS).logits, expected)


def test_a_tied_output_layer_may_be_absent_but_not_different(tmp_path):
    folder = save_base(tmp_path, "tied", qwen2()).path / "model"
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_causal(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    other = with_("lm_head.weight", torch.ones(model.lm_head.weight.shape))
    with pytest.raises(UsageError, match=r"ties the output layer .* set tie_word_embeddings to false"):
        load_causal(edited(folder, tmp_path, other))


@pytest.mark.parametrize("name", ["embed_tokens.weight", "layers.0.self_attn.q_proj.weight"])
def test_a_parameter_under_two_names_is_refused(whole, tmp_path, name):
    """With and without the trunk's prefix: transformers reads one of them, silently."""
    other = load_file(whole / "model.safetensors")[f"model.{name}"] + 1
    folder = edited(whole, tmp_path, with_(name, other))
    for load in (load_causal, lambda folder: new_classifier(folder, "float32")):
        with pytest.raises(UsageError, match=rf"hold both model\.{name} and {name}, which are one parameter"):
            load(folder)


def test_weights_of_another_name_are_not_read(whole, tmp_path):
    folder = edited(whole, tmp_path, dict)
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    edit_config(folder, transformers_weights="other.safetensors")
    with pytest.raises(UsageError, match=r"takes the weights from other\.safetensors \(transformers_weights\)"):
        load_causal(folder)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(
        UsageError, match=r"model\.fp16\.safetensors is not the name of weights that are read; expected"
    ):
        checkpoint_job(str(folder), "base")


def test_one_file_beside_shards_is_refused(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "both"))
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UsageError, match=r"both model\.safetensors and model\.safetensors\.index\.json"):
        load_causal(folder)


def sharded(path):
    """Save the base in several files and return the last of them."""
    llama().save_pretrained(path, max_shard_size="20KB")
    tokenizer().save_pretrained(path)
    return sorted(path.glob("model-*.safetensors"))[-1]


def test_shards_are_one_model_and_no_two(tmp_path, whole):
    """All of them together are the single file; one tensor twice, or a single file beside them, is refused."""
    last = sharded(tmp_path / "shards")
    assert torch.equal(load_causal(last.parent)(TOKENS).logits, load_causal(whole)(TOKENS).logits)
    tensors = load_file(last)
    save_file(tensors | {"model.embed_tokens.weight": torch.zeros(24, 32)}, last, {"format": "pt"})
    with pytest.raises(UsageError, match=rf"both model-0.* and {last.name} hold model\.embed_tokens\.weight"):
        load_causal(last.parent)
    index = last.parent / "model.safetensors.index.json"
    whole_index = index.read_text()
    renamed = last.with_name("weights-2.safetensors")
    save_file(tensors | {"model.embed_tokens.weight": torch.zeros(24, 32)}, renamed, {"format": "pt"})
    index.write_text(whole_index.replace(last.name, renamed.name))
    last.unlink()
    with pytest.raises(UsageError, match=r"hold model\.embed_tokens\.weight"):
        load_causal(last.parent)
    save_file(tensors, last, {"format": "pt"})
    renamed.unlink()
    index.unlink()
    shutil.copy(whole / "model.safetensors", last.parent)
    with pytest.raises(UsageError, match=r"both model\.safetensors and model-00001-of-.*\.safetensors"):
        load_causal(last.parent)


def test_quantised_weights_are_refused(whole, tmp_path):
    folder = edited(whole, tmp_path, dict, quantization_config={"quant_method": "fp8"})
    with pytest.raises(UsageError, match="its weights are quantised"):
        load_causal(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("shards", [False, True])
def test_quantised_weights_are_refused_where_the_config_does_not_say_so(tmp_path, dtype, shards):
    """Read as they are, without their scales, they would be other weights."""
    size = {"max_shard_size": "20KB"} if shards else {}
    llama().save_pretrained(tmp_path, **size)
    file = sorted(tmp_path.glob("model*.safetensors"))[-1]
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if name.endswith("proj.weight") or name == "lm_head.weight")
    save_file(tensors | {name: tensors[name].to(dtype)}, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=rf"its weights are quantised \({name} is (I8|U8|F8_E\w+)\)"):
        load_causal(tmp_path)


def test_a_quantization_that_is_null_is_none(whole, tmp_path):
    folder = edited(whole, tmp_path, dict, quantization_config=None)
    assert torch.equal(load_causal(folder)(TOKENS).logits, load_causal(whole)(TOKENS).logits)


def test_half_precision_that_overflowed_is_refused(whole, tmp_path):
    def halved(tensors):
        halves = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
        halves["lm_head.weight"][3, 1] = -torch.inf
        return halves

    with pytest.raises(UsageError, match=r"lm_head\.weight not finite"):
        load_causal(edited(whole, tmp_path, halved))


def test_a_tokenizer_with_tokens_beyond_the_embeddings_is_refused(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    longer = tokenizer()
    longer.add_tokens(["[PAD]"])
    folder = Path(shutil.copytree(whole, tmp_path / "longer"))
    longer.save_pretrained(folder)
    with pytest.raises(UsageError, match=r"'\[PAD\]' is token \d+, and the model has embeddings for \d+ tokens"):
        Store(tmp_path / "store").run(checkpoint_job(str(folder), "base"))


def test_a_checkpoint_that_is_no_model_says_so_in_one_line(whole, tmp_path):
    folder = edited(whole, tmp_path, dict, model_type="mystery")
    with pytest.raises(UsageError, match=r"cannot be loaded as a model \(.*mystery") as raised:
        load_causal(folder)
    assert "\n" not in str(raised.value)


def test_an_adapter_lacks_nothing_and_holds_no_more(whole, tmp_path):
    artefact = save_lora(tmp_path, "lora", llama(), seed=1)
    file = artefact.path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    moved = load_policy(whole, artefact)(TOKENS).logits
    assert not torch.allclose(moved, load_causal(whole)(TOKENS).logits)
    name = next(iter(tensors))
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(UsageError, match=r"lack .*lora_"):
        load_policy(whole, artefact)
    save_file(tensors | {name.replace("layers.0", "layers.7"): tensors[name].clone()}, file)
    with pytest.raises(UsageError, match=r"hold .*layers\.7"):
        load_policy(whole, artefact)


def with_nan(tensors, name):
    return tensors | {name: torch.full_like(tensors[name], float("nan"))}


def without_module(tensors, name):
    return {key: value for key, value in tensors.items() if name.rpartition(".lora_")[0] not in key}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda tensors, name: {key: t for key, t in tensors.items() if key != name}, "q_proj has lora_B alone"),
        (without_module, r"lacks the factors of model\.layers\.0\.self_attn\.q_proj, which its config targets"),
        (with_nan, r"q_proj\.lora_A\.weight is not finite"),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused_when_taken_over_and_when_run(whole, tmp_path, monkeypatch, edit, said):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    store, reference = Store(tmp_path / "store"), checkpoint_job(str(whole), "base")
    store.run(reference)
    artefact = save_lora(tmp_path, "lora", llama(), seed=1)
    folder = artefact.path / "adapter"
    assert store.run(checkpoint_job(str(folder), "delta", reference)).result["form"] == "lora"
    load_adapter("mine", folder, load_causal(whole))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file(edit(load_file(folder / "adapter_model.safetensors"), name), folder / "adapter_model.safetensors")
    with pytest.raises(UsageError, match=said):
        store.run(checkpoint_job(str(folder), "delta", reference))
    with pytest.raises(UsageError, match=said):
        load_adapter("mine", folder, load_causal(whole))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 8}, r"down_proj\.lora_A\.weight has rank 4, and its config says 8"),
        ({"rank_pattern": {"v_proj": 2}}, r"v_proj\.lora_A\.weight has rank 4, and its config says 2"),
        ({"use_dora": True}, "it uses DoRA; the engine runs plain LoRA"),
        ({"lora_alpha": float("nan")}, "lora_alpha is no finite number"),
        ({"bias": "all"}, "it has trained biases"),
        ({"target_modules": ["q_proj"]}, "holds factors of model.layers.0.mlp.down_proj, which its config does not"),
        ({"layers_to_transform": [0]}, "holds factors of model.layers.1.mlp.down_proj, which its config does not"),
    ],
)
def test_an_adapter_whose_config_says_something_else_is_refused_when_taken_over(
    whole, tmp_path, monkeypatch, changes, said
):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    store, reference = Store(tmp_path / "store"), checkpoint_job(str(whole), "base")
    store.run(reference)
    artefact = save_lora(tmp_path, "lora", llama(), seed=1)
    edit_adapter(artefact, **changes)
    with pytest.raises(UsageError, match=said):
        store.run(checkpoint_job(str(artefact.path / "adapter"), "delta", reference))
    with pytest.raises(UsageError, match=said):
        load_adapter("mine", artefact.path / "adapter", load_causal(whole))


def test_named_templates_in_files_of_their_own_are_taken_over(whole, tmp_path, monkeypatch):
    """Left behind, they would leave a chat model without any template, and nobody the wiser."""
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    folder = Path(shutil.copytree(whole, tmp_path / "named"))
    (folder / "additional_chat_templates").mkdir()
    (folder / "chat_template.jinja").rename(folder / "additional_chat_templates" / "rag.jinja")
    with pytest.raises(UsageError, match="chat templates named rag and no default"):
        Store(tmp_path / "store").run(checkpoint_job(str(folder), "base"))


def test_named_chat_templates_need_a_default(tmp_path):
    named = tokenizer()
    folder = tmp_path / "named"
    named.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    templates = [{"name": "rag", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": templates}))
    with pytest.raises(UsageError, match=r"chat templates named rag, tool_use and no default: set tok"):
        read_tokenizer(folder)
    templates.append({"name": "default", "template": "{{ messages[0]['content'] }}"})
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": templates}))
    assert read_tokenizer(folder).chat_template == "{{ messages[0]['content'] }}"


READERS = {"from_pretrained", "from_file", "safe_open", "load_file", "load_safetensors", "deserialize"}
"""What reads a model, a tokenizer or a file of weights, but for `torch.load`."""


def calls(tree, name):
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == name]


def reads_weights(tree):
    """Does a module call what opens weights, or import it, under whatever name?"""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and READERS & {alias.name for alias in node.names}:
            return True
        if isinstance(node, ast.Import) and any(alias.name.startswith("safetensors") for alias in node.names):
            return True
        if isinstance(node, ast.Attribute) and (node.attr in READERS or ast.unparse(node) == "torch.load"):
            return True
    return False


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_models_and_tokenizers_are_loaded_in_one_room_and_trl_is_used_in_one():
    root = Path(peo_bench.__file__).parent
    trees = {path.relative_to(root): ast.parse(path.read_text(encoding="utf-8")) for path in root.rglob("*.py")}
    assert {path.parts[0] for path, tree in trees.items() if reads_weights(tree)} == {"models"}
    users = {path for path, tree in trees.items() if any(name.split(".")[0] == "trl" for name in imports(tree))}
    users -= {Path("jobs/runner.py")}  # a worker imports it early, to save its first job the wait
    assert {path.parts[0] for path in users} == {"training"}
    for path, tree in trees.items():
        for call in calls(tree, "from_pretrained"):
            keywords = {keyword.arg for keyword in call.keywords}
            assert None in keywords or "local_files_only" in keywords, f"{path}:{call.lineno}"  # None: **SAFE


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda file: file.unlink(),
            r"adapter: .*adapter_model\.safetensors: save (it again|the adapter) with save_pre",
        ),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), r"adapter_model\.safetensors: damaged \("),
    ],
)
def test_an_adapter_without_its_weights_is_one_line_wherever_it_is_read(whole, tmp_path, monkeypatch, damage, said):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    artefact = save_lora(tmp_path, "lora", llama(), seed=1)
    folder, reference = artefact.path / "adapter", checkpoint_job(str(whole), "base")
    damage(folder / "adapter_model.safetensors")
    (folder / "other.safetensors").write_bytes(b"")
    for read in (
        lambda: load_adapter("mine", folder, load_causal(whole)),
        lambda: load_policy(whole, artefact),
        lambda: checkpoint_job(str(folder), "delta", reference),
    ):
        with pytest.raises(UsageError, match=said) as raised:
            read()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**7}, {"text_config": {"n_layer": 10**7}}])
def test_more_layers_than_tensors_are_refused_before_they_are_made(whole, tmp_path, change):
    """A received config.json could keep a machine busy for days."""
    folder = edited(whole, tmp_path, dict, **change)
    for load in (load_causal, skeleton):
        with pytest.raises(UsageError, match=r"config\.json: says 10000000 layers, and the files hold \d+ tensors"):
            load(folder)


def test_a_damaged_file_of_weights_is_named(whole, tmp_path):
    folder = edited(whole, tmp_path, dict)
    file = folder / "model.safetensors"
    for content in (file.read_bytes()[:-100], (2**62).to_bytes(8, "little") + b"{}"):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r"model\.safetensors: damaged"):
            load_causal(folder)


def test_a_context_is_that_of_the_language_model_wherever_the_configuration_says_it():
    """Gemma 3's kind says it in a part of the configuration; ALiBi's models need not say it."""
    kinds = [GPT2Config(n_positions=77), LlamaConfig(max_position_embeddings=78), BloomConfig()]
    assert [context_length(config) for config in kinds] == [77, 78, None]
    nested = Gemma3Config(text_config={"max_position_embeddings": 4096})
    assert context_length(nested) == 4096


@pytest.mark.parametrize(
    "change",
    [
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation": "kernels-community/flash-attn2@main:f"},
        {"text_config": {"attn_implementation": {"": "paged|evil/kernel"}}},
        {"experts_implementation": "evil/kernel"},
    ],
)
def test_code_on_the_hub_that_a_configuration_names_is_refused(whole, tmp_path, change):
    """transformers would fetch it, in any revision, where the package kernels is installed."""
    folder = edited(whole, tmp_path, dict, **change)
    for load in (load_causal, skeleton, load_config):
        with pytest.raises(UsageError, match=r"config\.json: \w+_implementation names code on the hub"):
            load(folder)
    assert load_causal(edited(whole, tmp_path / "own", dict, attn_implementation="eager")) is not None
