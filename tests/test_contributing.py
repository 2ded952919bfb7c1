"""CONTRIBUTING.md's examples are executed as they stand there."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from preferences import asked
from test_closed_form import INTERIOR, Tabular, world
from training_fixtures import save_pairs, save_policy, workspace

from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.methods import METHODS, make_method
from peo_bench.scorers import SCORERS, registered_scorer
from peo_bench.scorers.columns import score_texts
from peo_bench.scorers.settings import by_column
from peo_bench.suites import TASKS
from peo_bench.suites.suite import load_task
from peo_bench.training.learners import LEARNERS, PairBatch
from peo_bench.training.settings import DPOSettings

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
LIMITS = {"method": 30, "method that trains": 30, "learner": 10, "scorer": 5, "task": 12}


def example(heading: str) -> str:
    """The code under "Add a `heading`", checked to be as short as it is said to be."""
    section = TEXT.split(f"## Add a {heading}\n", 1)[1].split("\n## ", 1)[0]
    code = re.search(r"```(?:python|yaml)\n(.*?)```", section, flags=re.S)
    assert code is not None
    assert len(code[1].splitlines()) <= LIMITS[heading]
    return code[1]


def executed(heading: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(example(heading), names)
    return names


def test_the_method_works_literally(monkeypatch):
    """Its policies are the soup's."""
    monkeypatch.setitem(METHODS._entries, "my-soup", executed("method")["MySoup"])
    tabular = Tabular()
    mine, soup = tabular.build("my-soup"), tabular.build("soup")
    assert [mine.resolve(asked(w)).key for w in INTERIOR] == [soup.resolve(asked(w)).key for w in INTERIOR]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    root = tmp_path_factory.mktemp("inputs")
    return {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs", count=8)}


def test_the_method_that_trains_works_literally(monkeypatch, inputs, tmp_path: Path):
    """It trains once per preference, and its loss starts at w log 2: pi is the reference policy there."""
    names = executed("method that trains")
    monkeypatch.setitem(JOB_KINDS._entries, "my-anchored", names["train_my_anchored"])
    monkeypatch.setitem(METHODS._entries, "my-anchored", names["MyAnchored"])
    jobs = next(make_method("my-anchored", {}).build(world())).jobs
    assert [job.params["weight"] for job in jobs] == [0.0, 0.25, 0.5, 0.75, 1.0]
    params = {"objective": "helpful", "weight": 0.25, "seed": 1, "form": "full", "beta": 0.3}
    result = JOB_KINDS.get("my-anchored").run(Job("my-anchored", params), inputs, workspace(tmp_path / "work"))
    assert result["curves"][0]["loss"] == pytest.approx(0.25 * math.log(2), abs=1e-5)


def test_the_learner_works_literally(monkeypatch):
    """exp(-beta (1.5 - (-0.5))) at beta 0.5 is 1/e."""
    monkeypatch.setitem(LEARNERS._entries, "my-exponential", executed("learner")["MY_EXPONENTIAL"])
    assert DPOSettings(learner="my-exponential").job_params()["learner"] == "my-exponential"
    w, v = torch.tensor([1.5]), torch.tensor([-0.5])
    loss = LEARNERS.get("my-exponential").loss
    assert loss is not None
    torch.testing.assert_close(loss(PairBatch(w, v, w, v, w, v, 0.5, {}, 1, 1)), torch.tensor([0.36787944]))


def test_the_scorer_and_the_task_work_literally(monkeypatch, tmp_path: Path):
    """The task finds the scorer, and the scorer counts words."""
    (tmp_path / "my_task.yaml").write_text(example("task"))
    monkeypatch.setitem(TASKS._entries, "my_task", tmp_path / "my_task.yaml")
    monkeypatch.setitem(SCORERS._entries, "my-brevity", executed("scorer")["MyBrevity"])
    scorers = {column: registered_scorer(s.model) for column, s in by_column(load_task("my_task").scorers).items()}
    assert score_texts(scorers, ["?", "?"], ["one two three", ""]).columns == {"brevity": [-3.0, 0.0]}
