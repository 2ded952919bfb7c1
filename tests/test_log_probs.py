"""Log-probabilities that trainings share: the same weights as where each computes them itself, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_closed_form import world
from training_fixtures import save_pairs, save_policy, shared_log_probs, workspace

from peo_bench.core import roles
from peo_bench.core.method import READ
from peo_bench.core.rounds import Building
from peo_bench.jobs.job import Handle, Job, closure
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.methods import make_method
from peo_bench.training import aspect
from peo_bench.training.settings import DPOSettings

PARAMS: dict[str, Any] = {
    **{"objective": "helpful", "seed": 1, "beta": 0.2, "learning_rate": 1e-3, "lora_rank": 4, "epochs": 1.0},
    **{"batch_size": 8, "micro_batch_size": 4},
}
FILES = {"lora": "adapter/adapter_model.safetensors", "full": "model/model.safetensors"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    root = tmp_path_factory.mktemp("inputs")
    return {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs")}


@pytest.mark.parametrize(
    "changes",
    [
        {"form": "lora"},
        {"form": "full"},
        {"form": "lora", "precision": "bfloat16"},
        {"form": "full", "precision": "bfloat16"},
        {"form": "lora", "learner": "ipo", "max_length": 14},
    ],
    ids=str,
)
def test_weights_are_those_of_a_training_that_computes_them_itself(inputs, tmp_path: Path, changes) -> None:
    params = PARAMS | changes
    read = {name: value for name, value in params.items() if name in ("objective", *READ)}
    shared = inputs | {roles.LOG_PROBS: shared_log_probs(inputs, tmp_path / "shared", **read)}
    weights = []
    for name, needs in (("alone", inputs), ("with", shared)):
        aspect.train_aspect.run(Job("aspect", params), needs, workspace(tmp_path / name))
        weights.append(load_file(tmp_path / name / FILES[params["form"]]))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_swapped_labels_swap_them(inputs, tmp_path: Path) -> None:
    params = PARAMS | {"form": "full", "swapped": True}
    read = {name: value for name, value in params.items() if name in ("objective", *READ)}
    shared = inputs | {roles.LOG_PROBS: shared_log_probs(inputs, tmp_path / "shared", **read)}
    alone, given = (
        aspect.build_trainer(params, needs, workspace(tmp_path / name), lambda order: aspect.trainer_class(None, order))
        for name, needs in (("alone", inputs), ("with", shared))
    )
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        assert given.train_dataset[column][:] == pytest.approx(alone.train_dataset[column][:], abs=1e-4)
    assert alone.train_dataset["ref_chosen_logps"][:] != alone.train_dataset["ref_rejected_logps"][:]


def test_those_of_another_training_are_refused(inputs, tmp_path: Path) -> None:
    other = shared_log_probs(
        inputs | {"reference": save_policy(tmp_path / "another")}, tmp_path / "shared", objective="helpful"
    )
    wrong = inputs | {roles.LOG_PROBS: other}
    with pytest.raises(AssertionError, match="they are of another training"):
        aspect.train_aspect.run(Job("aspect", PARAMS), wrong, workspace(tmp_path / "work"))


def test_a_run_computes_them_once_for_each_policy_and_objective() -> None:
    """Experts, MODPO's points and merged gradients share the reference's; MODPO's points the expert's."""
    jobs: dict[str, Job] = {}
    for name in ("peo", "modpo", "preference-vector"):
        building = Building(make_method(name, {}), world())
        jobs |= {job.id: job for job in closure(building.round.jobs)}
    shared = [job for job in jobs.values() if job.kind == "log-probs"]
    said = sorted((job.params["objective"], "policy" in job.needs) for job in shared)
    assert said == [("harmless", False), ("helpful", False), ("helpful", True)]
    trained = [job for job in jobs.values() if job.kind in ("aspect", "modpo")]
    assert len(trained) >= 7
    for job in trained:
        found = job.needs[roles.LOG_PROBS]
        assert (found.params["objective"], found.needs["reference"]) == (
            job.params["objective"],
            job.needs["reference"],
        )


def test_every_setting_that_changes_them_is_among_their_parameters() -> None:
    """Of the others, none has a say in how a text is read."""
    others = {
        *("learner", "learner_beta", "beta", "learning_rate", "epochs", "warmup_ratio", "lora_rank", "lora_alpha"),
        "gradient_checkpointing",
    }
    assert {*READ} | others == DPOSettings.model_fields.keys()
    assert JOB_KINDS.get("log-probs").defaults.keys() == {*READ}
