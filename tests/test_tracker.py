"""Training curves in an experiment tracker: real event files, and errors that say what to type."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from training_fixtures import save_pairs, save_policy

from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job
from peo_bench.jobs.workspace import Workspace
from peo_bench.training import aspect
from peo_bench.training.tracker import TRACKERS, tracking

SETTINGS = {"objective": "helpful", "seed": 1, "batch_size": 8, "micro_batch_size": 8, "lora_rank": 4, "form": "lora"}


def logged(folder: Path, tag: str) -> dict[int, float]:
    """Return value by step of one quantity of one run."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def test_a_training_writes_its_curves_for_tensorboard_and_learns_the_same(tmp_path: Path) -> None:
    inputs = {"reference": save_policy(tmp_path / "reference"), "pairs": save_pairs(tmp_path / "pairs")}
    job = Job("aspect", SETTINGS)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    without = aspect.train_aspect.run(job, inputs, Workspace(tmp_path / "a"))
    with tracking("tensorboard", tmp_path / "tracker"):
        tracked = aspect.train_aspect.run(job, inputs, Workspace(tmp_path / "b", name="aspect [0.5, 0.5] ab12"))
    assert tracked == without
    (run,) = (tmp_path / "tracker").iterdir()
    assert run.name == "aspect-0.5-0.5-ab12"
    for tag, name in (("train/loss", "loss"), ("train/rewards/margins", "margin")):
        found = logged(run, tag)
        assert list(found) == [entry["step"] for entry in tracked["curves"]]
        assert np.allclose(list(found.values()), [entry[name] for entry in tracked["curves"]], rtol=1e-6)
    assert not list((tmp_path / "a").rglob("*tfevents*"))


def test_an_unknown_tracker_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    message = r"unknown tracker 'tensorbord': did you mean tensorboard.*trackio, wandb"
    with pytest.raises(UsageError, match=message), tracking("tensorbord", tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_not_installed_says_what_to_type(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = f"--tracker {tracker}: .*pip install {tracker}"
    with pytest.raises(UsageError, match=message), tracking(tracker, tmp_path / "out"):
        pass
