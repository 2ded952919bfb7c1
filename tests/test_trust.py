"""Files of others run no code: where models and pickles are opened, and what becomes of the latter."""

from __future__ import annotations

import ast
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_fixtures import tiny_model, tiny_tokenizer

from peo_bench.errors import UsageError
from peo_bench.models.convert import convert
from peo_bench.models.files import adapter_tensors
from peo_bench.models.loading import load_causal, load_tokenizer

PACKAGE = Path(__file__).parents[1] / "peo_bench"


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of something whose last part is `name`, with the file that holds it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
                yield path.relative_to(PACKAGE).as_posix(), node


def test_models_and_tokenizers_are_loaded_in_one_room_and_run_no_code() -> None:
    """`trust_remote_code` is off by being written, and weights are safetensors by being asked for."""
    found = list(calls("from_pretrained"))
    assert {file.split("/")[0] for file, _ in found} == {"models"}
    configurations = {"PeftConfig", "LoraConfig"}  # plain JSON, of classes that are named here
    for file, call in found:
        if ast.unparse(call.func).split(".")[0] not in configurations:
            assert "SAFE" in ast.unparse(call), f"{file}:{call.lineno}"
    assert "trust_remote_code=True" not in "".join(path.read_text() for path in PACKAGE.rglob("*.py"))


def test_pickles_are_opened_in_one_place_and_only_as_tensors() -> None:
    found = [(file, ast.unparse(call)) for file, call in calls("load") if ast.unparse(call.func) == "torch.load"]
    assert [file for file, _ in found] == ["models/convert.py"]
    assert "weights_only=True" in found[0][1]
    assert not [file for file, call in calls("load") if "allow_pickle" in ast.unparse(call)]
    risky = {"pickle.loads", "pickle.Unpickler", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load", "eval"}
    for name in {full.split(".")[-1] for full in risky}:
        assert not [file for file, call in calls(name) if ast.unparse(call.func) in risky]


def older(folder: Path) -> dict[str, torch.Tensor]:
    """Write a checkpoint as torch did before safetensors, its weights in two files; return them."""
    model = tiny_model()
    model.config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    weights = model.state_dict()
    names = sorted(weights)
    parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in parts.items():
        torch.save({name: weights[name] for name in part}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "training_args.bin").write_bytes(b"a pickle")
    return weights


def test_an_older_checkpoint_is_converted_and_loads_as_the_same_model(tmp_path: Path, peo_bench) -> None:
    weights = older(tmp_path / "old")
    code, out, err = peo_bench("convert", "old", "--to", "new")
    assert (code, out, err) == (0, "new\n", "")
    model = load_causal(tmp_path / "new")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    assert load_tokenizer(tmp_path / "new").eos_token == "</s>"
    assert not list((tmp_path / "new").glob("*.bin*")), "no pickle is taken along"
    assert "exists already" in peo_bench("convert", "old", "--to", "new")[2]
    assert "nothing to convert" in peo_bench("convert", "new", "--to", "newer")[2]


def test_tied_weights_and_adapters_are_converted(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "b": shared, "turned": shared.T}, tmp_path / "adapter_model.bin")
    convert(tmp_path, tmp_path / "new")
    found = load_file(tmp_path / "new" / "adapter_model.safetensors")
    assert all(
        torch.equal(found[name], value) for name, value in {"a": shared, "b": shared, "turned": shared.T}.items()
    )


class Evil:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("content", ["evil", "evil in a table", "cut off", "a list"])
def test_a_pickle_that_is_no_table_of_tensors_is_refused_and_runs_nothing(tmp_path: Path, content: str) -> None:
    proof, old = tmp_path / "proof", tmp_path / "old"
    old.mkdir()
    path = old / "pytorch_model.bin"
    if content == "cut off":
        torch.save({"a": torch.zeros(3)}, path)
        path.write_bytes(path.read_bytes()[:100])
    else:
        evil = {"evil": Evil(proof), "evil in a table": {"a": Evil(proof)}, "a list": [torch.zeros(3)]}[content]
        torch.save(evil, path) if content == "a list" else path.write_bytes(pickle.dumps(evil))
    with pytest.raises(UsageError, match="is no plain table of tensors") as refused:
        convert(old, tmp_path / "new")
    assert "\n" not in str(refused.value)
    assert not proof.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["old"], "nothing is left behind"


def test_weights_that_are_pickles_are_named_with_the_converter_wherever_they_are_loaded(tmp_path: Path) -> None:
    """A run folder's artefacts, too: they are read by no command that looks at the names of files first."""
    older(tmp_path / "old")
    said = r"pytorch_model-00001-of-00002.bin is a pickle, .* `peo-bench convert FOLDER --to DIR`"
    with pytest.raises(UsageError, match=said):
        load_causal(tmp_path / "old")
    torch.save({"a": torch.zeros(3)}, tmp_path / "adapter_model.bin")
    with pytest.raises(UsageError, match=r"adapter_model.bin is a pickle, .* `peo-bench convert FOLDER --to DIR`"):
        adapter_tensors(tmp_path)


def test_a_pipe_among_pickles_is_not_opened(tmp_path: Path, peo_bench) -> None:
    older(tmp_path / "old")
    weights = tmp_path / "old" / "pytorch_model-00001-of-00002.bin"
    weights.unlink()
    os.mkfifo(weights)
    assert peo_bench("convert", "old", "--to", "new")[0] == 0
    assert not (tmp_path / "new" / "model-00001-of-00002.safetensors").exists()
