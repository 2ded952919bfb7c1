"""What a checkpoint's files show is refused or told when a run is planned: in every role, without reading weights."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from models import (
    SPECIAL,
    TEMPLATE,
    WORDS,
    edit_config,
    gemma2,
    gpt2,
    lfm2,
    llama,
    qwen2,
    save_base,
    save_lora,
    tokenizer,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
)

from peo_bench.core.method import Objective
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job
from peo_bench.models import loading
from peo_bench.models.loading import read_model, read_outline, read_tokenizer
from peo_bench.runs.config import RunConfig
from peo_bench.runs.job_notes import foreseen_notes
from peo_bench.runs.world import build_world
from peo_bench.sandbox.small_world import build_model, build_tokenizer
from peo_bench.scorers.kinds import scorer_job
from peo_bench.scorers.settings import ScorerConfig
from peo_bench.suites.suite import SuiteConfig, suite_task
from peo_bench.training.foresight import Foresight

ROLES = ("base", "delta", "scorer")
NOTHING = Foresight({}.get, 200)


def mixtral():
    config = MixtralConfig(
        vocab_size=5 + len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=2, eos_token_id=2,
    )  # fmt: skip
    return MixtralForCausalLM(config)


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")


@pytest.fixture
def no_weights(monkeypatch):
    """No value of a weight is read."""
    monkeypatch.setattr(loading, "_check_values", lambda model, folder: pytest.fail("weights were loaded"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole checkpoint for each role."""
    root = tmp_path_factory.mktemp("foreseen")
    base = save_base(root, "base", llama()).path / "model"
    scorer = save_base(root, "scorer", LlamaForSequenceClassification(llama().config)).path / "model"
    return {"base": base, "delta": base, "scorer": scorer}


def planned(role, folder, made):
    """Return the job of a checkpoint in a role."""
    if role == "scorer":
        labels = {"layout": "sequence-classification", "model": str(folder), "columns": {"reward": 0}}
        return scorer_job("reward", ScorerConfig.model_validate(labels), [Objective("helpful", "reward", True)])
    base = checkpoint_job(str(folder if role == "base" else made["base"]), "base")
    return base if role == "base" else checkpoint_job(str(folder), "delta", base)


def edited(folder, tmp_path, edit):
    copy = Path(shutil.copytree(folder, tmp_path / "edited"))
    save_file(edit(load_file(folder / "model.safetensors")), copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def with_(name, *shape):
    return lambda tensors: tensors | {name: torch.ones(shape)}


UP = "model.layers.1.mlp.up_proj.weight"
DAMAGE = {
    "a tensor missing": (without(UP), UP),
    "another shape": (with_(UP, 3, 3), UP),
    "a tensor too many": (with_("model.layers.2.mlp.up_proj.weight", 64, 32), "model.layers.2.mlp.up_proj.weight"),
    "a wrapper's names": (lambda tensors: {f"module.{key}": t for key, t in tensors.items()}, "begin with 'module.'"),
    "two names": (with_("embed_tokens.weight", 28, 32), "which are one parameter"),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", DAMAGE)
def test_tensors_that_do_not_fit_are_refused_before_anything_runs(made, tmp_path, no_weights, role, what):
    edit, said = DAMAGE[what]
    folder = edited(made[role], tmp_path, edit)
    planned(role, made[role], made)
    with pytest.raises(UsageError) as raised:
        planned(role, folder, made)
    assert str(raised.value).startswith(f"{folder}: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["generation_config.json", "vocab.json", "merges.txt", "model.safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_what_is_no_file_is_never_opened(made, tmp_path, role, name, make):
    """A device without an end filled the memory until the kernel killed the run; a pipe would be waited for."""
    folder = Path(shutil.copytree(made[role], tmp_path / "odd"))
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(UsageError) as raised:
        planned(role, folder, made)
    assert str(raised.value) == f"{folder / name}: is no file: copy it again, or save the checkpoint anew"


@pytest.mark.parametrize("model", [llama, qwen2, gemma2, gpt2, mixtral])
@pytest.mark.parametrize("kind", [AutoModelForCausalLM, AutoModelForSequenceClassification])
def test_names_alone_fit_as_the_loaded_tensors_do(tmp_path, model, kind):
    """What transformers itself reports of the loading, tied, renamed and merged tensors included."""
    folder = save_base(tmp_path, "base", model()).path / "model"
    names = sorted(load_file(folder / "model.safetensors"))
    for change in (dict, without(names[0]), with_("extra.weight", 2), with_(names[-1], 5, 5), without(names[-1])):
        copy = edited(folder, tmp_path, change)
        outline, fit = read_outline(kind, copy)
        assert {parameter.device.type for parameter in outline.parameters()} == {"meta"}
        assert fit == read_model(kind, copy)[1]
        shutil.rmtree(copy)


@pytest.mark.parametrize("role", ROLES)
def test_named_chat_templates_without_a_default_are_refused_before_anything_runs(made, tmp_path, no_weights, role):
    folder = Path(shutil.copytree(made[role], tmp_path / "named"))
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": "rag", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    with pytest.raises(UsageError, match=r"named: the tokenizer has chat templates named rag, tool_use and no default"):
        planned(role, folder, made)


@pytest.mark.parametrize("role", ["base", "scorer"])
def test_a_tokenizer_that_reads_control_tokens_as_text_is_refused_before_anything_runs(
    made, tmp_path, no_weights, role
):
    folder = Path(shutil.copytree(made[role], tmp_path / "split"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"split_special_tokens": True}))
    with pytest.raises(UsageError, match=r"split: split_special_tokens is true .*: take it out"):
        planned(role, folder, made)


CLASSES = ("Qwen2Tokenizer", "LlamaTokenizer", "GemmaTokenizer", "GPT2Tokenizer", "BertTokenizer", "T5Tokenizer",
           "CodeLlamaTokenizer", "DebertaV2Tokenizer")  # fmt: skip


def without_vocabulary(folder, name):
    """Leave of a tokenizer the settings alone, with all its special tokens, for a class."""
    read = read_tokenizer(folder)
    added = {str(i): {"content": token.content, "special": True} for i, token in read.added_tokens_decoder.items()}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for path in folder.glob("tokenizer*"):
        path.unlink()
    settings |= {"tokenizer_class": name, "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("role", ["base", "delta", "lora", "scorer"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_tokenizer_without_its_vocabulary_is_refused_before_anything_runs(made, tmp_path, no_weights, role, name):
    """transformers makes one of special tokens alone, which would read every text as the same."""
    folder = lora(made, tmp_path) if role == "lora" else Path(shutil.copytree(made[role], tmp_path / "lost"))
    without_vocabulary(folder, name)
    with pytest.raises(
        UsageError, match=rf"{folder}: its tokenizer has no vocabulary \(a {name} reads it from .*: copy all"
    ):
        planned("delta" if role == "lora" else role, folder, made)


BROKEN_CHATS = {
    "{{ raise_exception('no answers') }}": "does not take a user's message and an answer (no answers)",
    "{% for m in messages %}{{ m['content'] }}": "does not take a user's message and an answer (",
    "{{ strftime_now('%Q') }}{% for m in messages %}{{ m['content'] }}{% endfor %}": "its date format %Q is not known",
    "{{ messages[0]['content'] }}": "its chat template leaves out the answer: ",
    "{{ messages[-1]['content'] }}": "its chat template leaves out the prompt: ",
}


@pytest.mark.parametrize("template", BROKEN_CHATS)
def test_a_scorers_chat_template_is_tried_before_anything_runs(made, tmp_path, no_weights, template):
    folder = Path(shutil.copytree(made["scorer"], tmp_path / "chat"))
    (folder / "chat_template.jinja").write_text(template)
    labels = {"layout": "sequence-classification", "model": str(folder), "columns": {"reward": 0}, "template": "chat"}
    with pytest.raises(UsageError) as raised:
        scorer_job("reward", ScorerConfig.model_validate(labels), [Objective("helpful", "reward", True)])
    assert BROKEN_CHATS[template] in str(raised.value)
    assert str(folder) in str(raised.value)


def lora(made, tmp_path):
    adapter = save_lora(tmp_path, "lora", llama(), seed=1).path / "adapter"
    for path in [*made["base"].glob("tokenizer*"), *made["base"].glob("chat_template*")]:
        shutil.copy(path, adapter)
    return adapter


@pytest.mark.parametrize("form", ["full", "lora"])
def test_what_an_experts_tokenizer_tells_is_told_before_anything_runs(made, tmp_path, no_weights, form):
    folder = lora(made, tmp_path) if form == "lora" else Path(shutil.copytree(made["base"], tmp_path / "expert"))
    assert foreseen_notes(planned("delta", folder, made), NOTHING) == []
    tokenizer(template="{{ messages[0]['content'] }}").save_pretrained(folder)
    told = [f"{folder}: its chat template is not that of the base, which is used."]
    assert foreseen_notes(planned("delta", folder, made), NOTHING) == told
    tokenizer(words=[WORDS[1], WORDS[0], *WORDS[2:]]).save_pretrained(folder)
    with pytest.raises(UsageError, match=r"its tokenizer is another: 2 tokens have other ids"):
        planned("delta", folder, made)


def test_an_expert_of_the_sandbox_is_compared_with_what_the_sandbox_will_train(tmp_path, no_weights):
    reference = Job("sft", {}, {"corpus": Job("sandbox-corpus", {"n": 8, "seed": 0})})
    build_model(0).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    assert foreseen_notes(checkpoint_job(str(tmp_path), "delta", reference), NOTHING) == []
    other = build_tokenizer()
    other.chat_template = "{{ messages[0]['content'] }}"
    other.save_pretrained(tmp_path)
    (note,) = foreseen_notes(checkpoint_job(str(tmp_path), "delta", reference), NOTHING)
    assert note.endswith("its chat template is not that of the base, which is used.")


def test_what_is_unusual_of_a_base_or_a_scorer_is_told_before_anything_runs(made, tmp_path, no_weights):
    folder = Path(shutil.copytree(made["base"], tmp_path / "base"))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "top_k": 5}))
    end, note = foreseen_notes(planned("base", folder, made), NOTHING)
    assert end.startswith(f"{folder}: its chat template writes no end behind an answer")
    assert note.startswith(f"{folder}: its generation_config.json sets top_k 5: ")
    scorer = Path(shutil.copytree(made["scorer"], tmp_path / "scorer"))
    (scorer / "chat_template.jinja").write_text(
        "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    chat = ScorerConfig(layout="sequence-classification", model=str(scorer), template="chat", columns={"reward": 0})
    (note,) = foreseen_notes(scorer_job("reward", chat, []), NOTHING)
    assert note == f"{scorer}: its chat template writes the date, which is 2024-07-26 here whatever the day."


def one_special_token(folder):
    """Leave a base the end token alone, as GPT-2's."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *WORDS])}, unk_token="</s>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict.fromkeys(("eos_token", "pad_token", "bos_token", "unk_token"), "</s>")
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)


@pytest.mark.parametrize(
    ("model", "edit", "said"),
    [
        (lfm2, lambda folder: None, "transformers has no sequence classification for lfm2"),
        (llama, one_special_token, "it has no special token but the one that ends answers, and padding needs another"),
    ],
)
def test_a_base_of_which_no_reward_model_can_be_made_is_refused_where_the_run_trains_some(
    made, tmp_path, no_weights, model, edit, said
):
    folder = save_base(tmp_path, "base", model()).path / "model"
    edit(folder)
    row = {"prompt": "how", "chosen": "sure", "rejected": "no"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    sources = [{"objective": name, "path": str(tmp_path / "pairs.jsonl")} for name in ("helpful", "harmless")]
    suite = {"schema_version": 1, "name": "x", "title": "x", "task": "peo_pairs", "model": str(folder),
             "data": {"kind": "pairs", "sources": sources}}  # fmt: skip
    with pytest.raises(UsageError, match=rf"{folder}: no reward model can be trained from it \({said}") as raised:
        world_of(suite)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("give the suite `proxies` for every column")
    scorer = {"layout": "sequence-classification", "model": str(made["scorer"])}
    proxies = {"scorer": scorer | {"columns": {"reward": 0, "cost": 0}}}
    world_of(suite | {"proxies": proxies})


def world_of(suite):
    config = RunConfig(suite=SuiteConfig.model_validate(suite), methods=("soup",), preferences=(0.5,))
    return build_world(config, suite_task(config.suite), 0)


def test_labels_of_a_scorer_are_counted_before_anything_runs(made, tmp_path, no_weights):
    folder = Path(shutil.copytree(made["scorer"], tmp_path / "three"))
    edit_config(folder, id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2})
    save_file(
        with_("score.weight", 3, 32)(load_file(folder / "model.safetensors")),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    planned("scorer", folder, made)
    with pytest.raises(UsageError, match=r"the checkpoint has 3 labels: say which"):
        scorer_job("reward", ScorerConfig(layout="sequence-classification", model=str(folder)), [])
