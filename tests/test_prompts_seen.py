"""Which prompts are seen by whom: search and selection validation prompts only, reported numbers test prompts only."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_closed_form import PREFERENCES, world
from training_fixtures import handle, save_pairs, workspace

from peo_bench.core.spec import policy
from peo_bench.engine.engine import Answer, Request
from peo_bench.evaluation import answering, validation
from peo_bench.evaluation.generation import read_prompts
from peo_bench.evaluation.validation import Point
from peo_bench.files.jsonl import write_jsonl
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import Store
from peo_bench.results.operating_points import Scores
from peo_bench.training.online import reference_job

SPLITS = ("validation", "test", "benign")


class Recorder:
    """Stands for the engine and for every scorer: answers with the prompt's id and remembers which were asked."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def generate(self, requests: list[Request], decoding: object, on_batch) -> None:
        self.seen |= {request.prompt_id for request in requests}
        on_batch(range(len(requests)), [Answer((1,), request.prompt_id, False) for request in requests])

    def choose(self, requests: list[Request], drafts: dict[Request, Answer], *more: object) -> list[Answer]:
        return [drafts[request] for request in requests]

    def score(self, prompts: list[str], answers: list[str]) -> list[float]:
        return [float(len(answer) + i) for i, answer in enumerate(answers)]

    def kl(self, requests: list[Request], answers: list[Answer], *more: object) -> list[float]:
        return [0.0] * len(requests)

    kl_bound = kl


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    for module in (validation, answering):
        monkeypatch.setattr(module, "make_engine", lambda *args: recorder)
        monkeypatch.setattr(module, "scorer_columns", lambda scorers, precision: dict.fromkeys(scorers, recorder))
    return recorder


def save_prompts(path: Path) -> Handle:
    """Three prompts of every split, mixed."""
    path.mkdir(exist_ok=True)
    rows = [
        {"prompt_id": f"{split}-{i}", "prompt": f"how {split} {i}", "category": "all", "split": split}
        for i in range(3)
        for split in SPLITS
    ]
    write_jsonl(path / "prompts.jsonl", rows)
    return handle(path, {})


def specs(n: int) -> list:
    return [policy("ref", [("one", i / n)]).to_json() for i in range(n)]


SEARCH = {
    "phis": [[0.0, 1.0], [1.0, 0.0]],
    "region": "soup",
    "max_kl": 2.0,
    "maximise": {"reward": True, "cost": False},
}
LINE = world().validation_job("candidates", {"specs": specs(2)}, world().aspects)
MEASURED = asdict(Point({"reward": [0.0, 1.0, 2.0], "cost": [0.0, 1.0, 2.0]}, kl=1.0, kl_upper=1.5))
UNITS = {"reward": [0.0, 1.0], "cost": [0.0, 1.0]}
SEES_VALIDATION = {
    "candidates": world().validation_job("candidates", {"specs": specs(4)}, world().aspects),
    "candidates, for units alone": world().validation_job("candidates", {"specs": []}, []),
    "extrapolation": world().validation_job(
        "extrapolation", SEARCH | {"budget": 9, "strategy": "grid"}, world().aspects, line=LINE
    ),
    "reference-scores, what online training normalises by": reference_job(world()),
}


@pytest.mark.parametrize("job", SEES_VALIDATION.values(), ids=SEES_VALIDATION)
def test_search_and_selection_see_validation_prompts_only(recorder: Recorder, tmp_path: Path, job: Job) -> None:
    inputs = {role: Handle(need.id, tmp_path / need.id, {}, None, 0.0) for role, need in job.needs.items()}
    inputs["prompts"] = save_prompts(tmp_path / "prompts")
    if "line" in inputs:
        inputs["line"] = handle(tmp_path, {"reference": UNITS, "points": [MEASURED] * 2})
    JOB_KINDS.get(job.kind).run(job, inputs, workspace(tmp_path / "work"))
    assert recorder.seen == {f"validation-{i}" for i in range(3)}


def test_online_training_sees_no_test_prompt_but_those_of_its_pairs(recorder: Recorder, tmp_path: Path) -> None:
    """The reference's answers to training prompts come from the pairs, never from the prompts that are measured on."""
    job = reference_job(world(), samples=2)
    inputs = {role: Handle(need.id, tmp_path / need.id, {}, None, 0.0) for role, need in job.needs.items()}
    inputs["prompts"] = save_prompts(tmp_path / "prompts")
    pairs = save_pairs(tmp_path / "pairs", count=4)
    inputs |= {role: pairs for role in job.needs if role.startswith("pairs:")}
    JOB_KINDS.get(job.kind).run(job, inputs, workspace(tmp_path / "work"))
    assert {seen.partition("-")[0] for seen in recorder.seen} == {"validation", "train"}


def test_selection_asks_the_proxies_and_not_those_of_the_report() -> None:
    """Where the report has scorers of its own, no validation job, and no utility of a selection, needs them."""
    reported = {"reward": Job("scorer", {"sha256": "a"}), "cost": Job("scorer", {"sha256": "b"})}
    mine = replace(world(), evaluation=reported)
    needed = set(mine.validation_job("candidates", {"specs": []}, mine.aspects).needs.values())
    assert not needed & set(reported.values())
    assert needed >= set(mine.proxies.values())
    utility = validation.answer_utility(mine, mine.preferences[1], {"reward": [0.0, 1.0], "cost": [0.0, 1.0]})
    assert {name for name, _ in utility.terms} == {job.id for job in mine.proxies.values()}


@pytest.mark.parametrize("split", SPLITS)
def test_an_evaluation_sees_the_prompts_of_its_split(recorder: Recorder, tmp_path: Path, split: str) -> None:
    store, prompts = Store(tmp_path), Job("sandbox-prompts")
    store.adopt(prompts, lambda work: save_prompts(work.dir).result, 0.0)
    params = {"spec": policy("ref").to_json(), "split": split, "n_prompts": 9, "scorers": {}, "seed": 0}
    job = Job("answers", params, {"reference": Job("sft"), "prompts": prompts})
    answering.evaluate_together(store, [job], lambda fraction, note: None)
    assert recorder.seen == {f"{split}-{i}" for i in range(3)}


def test_reported_scores_are_those_of_test_prompts() -> None:
    """Answers of other splits, and of single policies, are in the table and in no score."""
    rows = [
        {"method": "peo", "seed": 0, "split": split, "preference": w, "prompt_id": f"{split}-{i}", "reward": value}
        for w, _ in PREFERENCES
        for i in range(2)
        for split, value in (("test", w), ("validation", 100.0), ("benign", 100.0))
    ]
    rows.append(rows[0] | {"preference": np.nan, "method": "reference", "reward": 100.0})
    scores = Scores.of(pd.DataFrame(rows), ["helpful", "harmless"])
    assert scores.methods == ["peo"]
    found = scores.array("peo", [0], ["reward"])
    assert found[0, :, :, 0].tolist() == [[w, w] for w, _ in PREFERENCES]


def test_as_many_prompts_as_were_asked_for(tmp_path):
    """A search on a tenth of the prompts must not see the rest of them."""
    rows = [{"split": split, "prompt_id": f"{split}{i}"} for i in range(4) for split in ("test", "validation")]
    write_jsonl(tmp_path / "prompts.jsonl", rows)
    prompts = Handle("prompts-x", tmp_path, {}, Cost(), 0.0)
    assert [row["prompt_id"] for row in read_prompts(prompts, "validation", 2)] == ["validation0", "validation1"]
    assert len(read_prompts(prompts, "test")) == 4
