"""The sandbox's reference policy that comes with the package."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from peo_bench.core.method import World
from peo_bench.errors import PeoBenchError
from peo_bench.jobs.workspace import Workspace
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.runs.world import build_world
from peo_bench.sandbox import reference
from peo_bench.sandbox.small_world import build_tokenizer
from peo_bench.suites.suite import load_task


def world(seed: int = 0, **asked: object) -> World:
    config = resolve_config(RunRequest(methods="soup", seed=seed, **asked))
    return build_world(config, load_task(config.suite.task), seed)


@pytest.mark.parametrize("suite", ["sandbox", "sandbox-short", "sandbox-v2", "sandbox-v2-short"])
def test_every_version_of_the_world_takes_the_shipped_policy_for_seed_0(suite: str) -> None:
    assert world(suite=suite).reference.kind == "sandbox-reference"


@pytest.mark.parametrize(
    "asked", [{"from_scratch": True}, {"seed": 1}, {"set": ["sft.steps=30"]}, {"set": ["data.corpus=512"]}]
)
def test_a_policy_that_was_not_shipped_is_trained(asked: dict[str, object]) -> None:
    assert world(**asked).reference.kind == "sft"


def test_the_record_names_todays_training() -> None:
    """If not, `benchmarks/ship_reference.py` has to be run."""
    assert world(from_scratch=True).reference.id == reference.record()["job"]
    assert hashlib.sha256(reference.WEIGHTS.read_bytes()).hexdigest() == reference.record()["sha256"]


def test_the_job_writes_the_shipped_weights_with_the_worlds_tokenizer(tmp_path: Path) -> None:
    job = world().reference
    work = Workspace(tmp_path)
    assert reference.unpack.run(job, {}, work) == {"form": "base"}
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == reference.WEIGHTS.read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == build_tokenizer().get_vocab()
    model, shipped = AutoModelForCausalLM.from_pretrained(tmp_path / "model"), load_file(str(reference.WEIGHTS))
    assert all(torch.equal(value, shipped[name]) for name, value in model.state_dict().items() if name in shipped)


def test_a_file_that_is_not_the_shipped_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "reference.safetensors"
    changed.write_bytes(reference.WEIGHTS.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr(reference, "WEIGHTS", changed)
    with pytest.raises(PeoBenchError, match=r"is not the shipped file .*--from-scratch"):
        reference.unpack.run(world().reference, {}, Workspace(tmp_path))


@pytest.mark.slow
def test_training_it_anew_gives_the_same_policy(tmp_path: Path) -> None:
    """To rounding: processors differ in the last bits, which training carries along."""
    from peo_bench.jobs.runner import Runner

    trained = world(from_scratch=True).reference
    with Runner(tmp_path, workers=1) as runner:
        folder = runner.run([trained])[trained.id].path / "model"
    shipped = load_file(str(reference.WEIGHTS))
    for name, value in load_file(str(folder / "model.safetensors")).items():
        torch.testing.assert_close(value, shipped[name], atol=2e-3, rtol=0)
