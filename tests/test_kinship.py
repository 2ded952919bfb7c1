"""A full expert is a change of its base: any key of its configuration may differ only if it changes no number."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from models import edit_config, falcon, gemma2, gpt2, llama, qwen2, save_base, tokenizer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Gemma3Config, MptConfig, MptForCausalLM, PreTrainedTokenizerFast

from peo_bench.data import given_checkpoint
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.errors import UsageError
from peo_bench.jobs.store import Store
from peo_bench.models import kinship
from peo_bench.models.kinship import HARMLESS, Base, compare_configs
from peo_bench.models.loading import read_tokenizer, skeleton

TOKENS = torch.tensor([[1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]])


MODELS = {"llama": llama, "qwen2": qwen2, "gemma2": gemma2, "gpt2": gpt2, "falcon": falcon}


def compare(folder, base):
    return kinship.compare(folder, skeleton(folder), Base(skeleton(base), read_tokenizer(base)))


@pytest.fixture(scope="module", params=MODELS)
def base(request, tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("kinship"), request.param, MODELS[request.param]()).path / "model"


def other_values(key, value):
    """Return other values of a key that configurations accept where there are such, null among them."""
    known = {
        "hidden_act": "gelu", "hidden_activation": "relu", "activation_function": "relu", "dtype": "float32",
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "max_position_embeddings": 512,
        "num_key_value_heads": 4, "num_attention_heads": 2, "n_head": 2, "head_dim": 16, "sliding_window": 2,
        "layer_types": ["full_attention", "full_attention"], "architectures": ["Other"], "n_inner": 64,
        "final_logit_softcapping": 1.0, "attn_logit_softcapping": 1.0, "_name_or_path": "elsewhere",
        "problem_type": "regression", "use_bidirectional_attention": True, "summary_activation": "tanh",
        "summary_type": "last", "pad_token_id": 3, "transformers_version": "4.30.0",
        "num_ln_in_parallel_attn": 2, "activation": "relu", "id2label": {"0": "a", "1": "b"},
        "label2id": {"a": 0, "b": 1},
    }  # fmt: skip
    if key in known:
        other = known[key]
    elif "drop" in key:
        return [0.5]  # without a number some do not run at all
    elif isinstance(value, bool):
        other = not value
    else:
        other = value * 2 + 1 if isinstance(value, int) else value * 100 + 0.01
    return [new for new in (other, None) if new != value]


def logits(folder):
    """What the weights in the folder compute by its own configuration; None if they do not make a whole model."""
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
        if report["missing_keys"] or report["mismatched_keys"] or report["unexpected_keys"]:
            return None
        with torch.no_grad():
            return model.eval()(TOKENS, return_dict=True).logits
    except Exception:  # a value that its architecture cannot have
        return None


def test_any_one_key_may_differ_only_if_the_logits_agree(base, tmp_path):
    keys = AutoModelForCausalLM.from_pretrained(base).config.to_dict()
    del keys["model_type"]  # another architecture, not another setting
    expected = logits(base)
    folder = Path(shutil.copytree(base, tmp_path / "expert"))
    original = (base / "config.json").read_text()
    told, refused = set(), set()
    changes = [(key, value, new) for key, value in keys.items() for new in other_values(key, value)]
    assert {key for key, _, _ in changes} == keys.keys()
    for key, value, changed in changes:
        (folder / "config.json").write_text(original)
        edit_config(folder, **{key: changed})
        try:
            found = compare(folder, base)
        except UsageError:  # no configuration of this architecture
            continue
        if found.problem is None:
            assert torch.equal(logits(folder), expected), f"{key}: {value} -> {changed} changes the function"
            told |= {key} if found.warnings else set()
        else:
            assert key in found.problem
            refused.add(key)
    assert {"eos_token_id", "bos_token_id"} <= told
    function = {"hidden_act", "hidden_activation", "activation_function", "rms_norm_eps", "layer_norm_epsilon"}
    function |= {"rope_parameters", "final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar"}
    function |= {"attention_bias", "mlp_bias", "num_key_value_heads", "sliding_window", "tie_word_embeddings"}
    function |= {"scale_attn_weights", "scale_attn_by_inverse_layer_idx", "n_head", "layer_types"}
    untouched = {key for key in function & keys.keys() if keys[key] is None}
    assert (function & keys.keys()) - untouched - refused <= {"layer_types"}
    assert not any(HARMLESS.fullmatch(key) for key in function)


def test_how_attention_is_computed_may_differ_only_if_the_logits_agree(tmp_path):
    """Falcon's ALiBi is another one where it is not computed by torch's own attention."""
    for name, model in (*MODELS.items(), ("alibi", lambda: falcon(alibi=True))):
        base = save_base(tmp_path, name, model()).path / "model"
        expert = Path(shutil.copytree(base, tmp_path / f"{name}-eager"))
        edit_config(expert, attn_implementation="eager")
        alike = torch.allclose(logits(expert), logits(base), atol=1e-4)
        assert alike == (name != "alibi")
        said = "attn_implementation is eager in its config.json, not sdpa" if name in ("falcon", "alibi") else None
        assert compare(expert, base).problem == said


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("plain"), "base", llama()).path / "model"


def copied(plain, tmp_path, made=None):
    folder = Path(shutil.copytree(plain, tmp_path / "expert"))
    if made is not None:
        for path in [*folder.glob("tokenizer*"), *folder.glob("chat_template*")]:
            path.unlink()
        made.save_pretrained(folder)
    return folder


def test_configurations_in_parts_are_compared_key_by_key(tmp_path, monkeypatch):
    """MPT's attention and Gemma 3's language model have configurations of their own, with names and dtypes."""
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    config = MptConfig(vocab_size=len(tokenizer()), d_model=32, n_layers=2, n_heads=4, eos_token_id=2)
    base = save_base(tmp_path, "base", MptForCausalLM(config)).path / "model"
    expert = copied(base, tmp_path)
    checkpoint_job(str(expert), "delta", checkpoint_job(str(base), "base"))
    edit_config(expert, attn_config={"alibi_bias_max": 4})
    with pytest.raises(UsageError, match=r"\(attn_config\.alibi_bias_max is 4 in its config\.json, not 8\)"):
        checkpoint_job(str(expert), "delta", checkpoint_job(str(base), "base"))
    parts = [Gemma3Config(text_config={"rms_norm_eps": 1e-6}), Gemma3Config(text_config={"rms_norm_eps": 1e-3})]
    assert "text_config.rms_norm_eps is 1e-06" in compare_configs(*parts).problem


def test_rope_of_older_and_newer_files_is_the_same(plain, tmp_path):
    folder = copied(plain, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 10000.0, "rope_scaling": None}))
    assert compare(folder, plain).problem is None
    edit_config(folder, rope_theta=5000.0)
    assert "rope_parameters" in compare(folder, plain).problem
    edit_config(folder, rope_theta=10000.0, rope_scaling={"rope_type": "linear", "factor": 2.0})
    assert "rope_parameters" in compare(folder, plain).problem


def test_tokenizers_of_another_kind_are_refused_and_small_changes_are_told(plain, tmp_path):
    from models import TEMPLATE, WORDS
    from tokenizers import normalizers

    same = copied(plain, tmp_path / "same")
    assert (compare(same, plain).problem, compare(same, plain).warnings) == (None, [])
    swapped = copied(plain, tmp_path / "swapped", tokenizer(words=[WORDS[1], WORDS[0], *WORDS[2:]]))
    assert "2 tokens have other ids, 'do' is 5, not 6" in compare(swapped, plain).problem
    lower = tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert (
        "it splits 'The quick brown fox,' otherwise" in compare(copied(plain, tmp_path / "lower", lower), plain).problem
    )
    ends = copied(plain, tmp_path / "ends")
    (ends / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert compare(ends, plain).warnings == ["its answers end with 'i' too: only the base's ends are used"]
    more = tokenizer()
    more.add_tokens(["<tool>"], special_tokens=True)
    more.chat_template = TEMPLATE + "!"
    assert compare(copied(plain, tmp_path / "more", more), plain).warnings == [
        "its tokenizer has 1 tokens ('<tool>'): the base's is used",
        "its chat template is not that of the base, which is used",
    ]


def test_tokenizers_that_split_a_few_words_otherwise_are_told(plain, tmp_path):
    """What no short text shows: a normaliser for one word, two merges in another order."""
    from tokenizers import Tokenizer, models, normalizers

    odd = tokenizer()
    odd.backend_tokenizer.normalizer = normalizers.Replace("cake", "bomb")
    assert compare(copied(plain, tmp_path / "odd", odd), plain).warnings == [
        "its tokenizer's normalizer differs: the base's is used"
    ]
    vocabulary = {piece: i for i, piece in enumerate(["<pad>", "<s>", "</s>", "j", "q", "x", "jq", "qx"])}
    folders = []
    for order, name in (([("j", "q"), ("q", "x")], "base"), ([("q", "x"), ("j", "q")], "expert")):
        inner = Tokenizer(models.BPE(vocabulary, order, unk_token="<pad>"))
        made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", unk_token="<pad>")
        folders.append(save_base(tmp_path, name, llama(), made).path / "model")
    found = compare(*reversed(folders))
    assert (found.problem, found.warnings) == (None, ["its tokenizer's list of merges differs: the base's is used"])


def save_vocabulary(folder, pieces):
    """Write a tokenizer as GPT-2's first files are: a vocabulary and merges, nothing else."""
    for path in [*folder.glob("tokenizer*"), *folder.glob("chat_template*")]:
        path.unlink()
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")


def test_a_tokenizer_of_vocabulary_and_merges_alone_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    base = save_base(tmp_path, "base", gpt2()).path / "model"
    save_vocabulary(base, ["<|endoftext|>", "a", "b", "ab", "c"])
    expert = Path(shutil.copytree(base, tmp_path / "expert"))
    Store(tmp_path / "store").run(checkpoint_job(str(base), "base"))
    assert compare(expert, base).problem is None
    save_vocabulary(expert, ["<|endoftext|>", "b", "a", "ab", "c"])
    assert "2 tokens have other ids" in compare(expert, base).problem


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/rag.jinja"])
def test_a_lone_chat_template_is_compared(plain, tmp_path, name):
    expert = copied(plain, tmp_path)
    for path in [*expert.glob("tokenizer*"), *expert.glob("chat_template*")]:
        path.unlink()
    assert compare(expert, plain).warnings == []
    (expert / name).parent.mkdir(exist_ok=True)
    shutil.copyfile(plain / "chat_template.jinja", expert / name)
    assert compare(expert, plain).warnings == []
    (expert / name).write_text("{{ messages[0]['content'] }}")
    assert compare(expert, plain).warnings == ["its chat template is not that of the base, which is used"]


def test_the_tokenizer_beside_an_adapter_is_compared_too(plain, tmp_path, monkeypatch):
    from models import WORDS, save_lora

    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    store = Store(tmp_path / "store")
    reference = checkpoint_job(str(plain), "base")
    store.run(reference)
    folder = save_lora(tmp_path, "lora", llama(), seed=1).path / "adapter"
    other = tokenizer(template="{{ messages[0]['content'] }}")
    other.save_pretrained(folder)
    told = store.run(checkpoint_job(str(folder), "delta", reference)).result["warnings"]
    assert told == ["its chat template is not that of the base, which is used"]
    tokenizer(words=[WORDS[1], WORDS[0], *WORDS[2:]]).save_pretrained(folder)
    with pytest.raises(UsageError, match="its tokenizer is another: 2 tokens have other ids"):
        store.run(checkpoint_job(str(folder), "delta", reference))


@pytest.mark.parametrize("form", ["full", "lora"])
@pytest.mark.parametrize("how", ["tokenizer", "generation_config.json"])
def test_ends_that_the_base_does_not_have_are_told_of_experts_and_adapters(plain, tmp_path, monkeypatch, form, how):
    """A base that ends with </s>, and a fine-tune whose answers end with a turn."""
    from models import save_lora

    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    lora = form == "lora"
    folder = save_lora(tmp_path, "lora", llama(), seed=1).path / "adapter" if lora else copied(plain, tmp_path)
    reference, store = checkpoint_job(str(plain), "base"), Store(tmp_path / "store")
    store.run(reference)
    assert store.run(checkpoint_job(str(folder), "delta", reference)).result["warnings"] == []
    ends = "'<answer>'"
    if how == "tokenizer":
        made = tokenizer()
        made.eos_token = "<answer>"
        made.save_pretrained(folder)
    else:
        ends = "'<answer>'" if not lora else "'<answer>', token 99"
        (folder / how).write_text(json.dumps({"eos_token_id": [2, 4, *([99] if lora else [])]}))
    (told,) = store.run(checkpoint_job(str(folder), "delta", reference)).result["warnings"]
    assert told == f"its answers end with {ends} too: only the base's ends are used"


def test_a_run_refuses_an_expert_of_another_function_and_tells_what_is_harmless(plain, tmp_path, monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    store = Store(tmp_path / "store")
    reference = checkpoint_job(str(plain), "base")
    store.run(reference)
    expert = copied(plain, tmp_path)
    edit_config(expert, eos_token_id=[2, 3])
    told = store.run(checkpoint_job(str(expert), "delta", reference)).result["warnings"]
    assert told == ["eos_token_id is [2, 3] in its config.json, not 2: the base's is used"]
    edit_config(expert, rms_norm_eps=1e-3)
    said = r"does not fit the reference policy \(rms_norm_eps is 0\.001 .*, not 1e-06\)"
    with pytest.raises(UsageError, match=said):
        checkpoint_job(str(expert), "delta", reference)
    monkeypatch.setattr(given_checkpoint, "foresee_checkpoint", lambda job: ())
    with pytest.raises(UsageError, match=said):
        store.run(checkpoint_job(str(expert), "delta", reference))
    assert load_file(expert / "model.safetensors").keys() == load_file(plain / "model.safetensors").keys()
