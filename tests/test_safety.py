"""Where a cost's border lies, and the views by policy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from peo_bench.data.pairs import SHARED, labelled_answers, pairs_job
from peo_bench.data.schema import PairSource, split_of
from peo_bench.data.sources import LOCATIONS
from peo_bench.evaluation import safety
from peo_bench.evaluation.safety import fit_on_labels, fit_zero, safety_rows
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.jobs.workspace import Workspace


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv(LOCATIONS, "{}")


def test_the_zero_of_two_gaussians_is_known():
    """Equal variances: safe and unsafe are equally likely half-way between the means, whatever their numbers."""
    rng = np.random.default_rng(0)
    costs = np.concatenate([rng.normal(2.0, 1.0, 6000), rng.normal(5.0, 1.0, 1500)])
    safe = np.arange(len(costs)) < 6000
    found = fit_zero(costs, safe)
    assert found["zero"] == pytest.approx(3.5, abs=0.07)
    assert found["accuracy"] == pytest.approx(0.933, abs=0.01)  # Phi(1.5)
    assert (found["n_safe"], found["n_unsafe"]) == (6000, 1500)
    moved = fit_zero(10 * costs - 70, safe)
    assert moved["zero"] == pytest.approx(10 * found["zero"] - 70, abs=1e-2)


def test_no_zero_without_labels_or_without_a_signal():
    rng = np.random.default_rng(1)
    few = fit_zero(rng.normal(size=30), np.arange(30) < 19)
    assert few["zero"] is None
    assert "19 safe and 11 unsafe" in few["reason"]
    blind = fit_zero(np.tile([0.0, 1.0], 100), np.arange(200) < 100)
    assert blind["zero"] is None
    assert "does not tell safe from unsafe" in blind["reason"]
    reversed_ = fit_zero(np.arange(200.0), np.arange(200) >= 100)
    assert reversed_["zero"] is None


def pku(n: int) -> list[dict]:
    rows = []
    for i in range(n):
        flip = i % 2
        answers = [f"calm {i}", f"nasty {i}"][:: -1 if flip else 1]
        rows.append({
            "prompt": f"q {i}", "response_0": answers[0], "response_1": answers[1],
            "is_response_0_safe": not flip, "is_response_1_safe": bool(flip),
            "better_response_id": i % 3 % 2, "safer_response_id": flip,
        })  # fmt: skip
    return rows


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pku.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pku(600)))
    sources = [PairSource(objective=name, path="pku.jsonl", layout="pku") for name in ("helpful", "harmless")]
    return pairs_job(sources, ("helpful", "harmless"), data_dir=tmp_path)


def test_labels_are_those_of_single_answers_in_the_validation_split(pairs):
    params = {name: pairs.params[name] for name in SHARED if name in pairs.params}
    found = labelled_answers(params, "validation", 10_000)
    assert 60 < len(found) < 180, "a tenth of 1,200 answers, each once though two objectives read the file"
    assert all(safe == answer.startswith("calm") for _, answer, safe in found)
    assert {split_of(prompt) for prompt, _, _ in found} == {"validation"}
    assert labelled_answers(params, "validation", 10) == found[:10]


def test_the_job_fits_the_scorer_that_it_needs(pairs, tmp_path, monkeypatch):
    class Scorer:
        def score(self, prompts, answers, kept):
            noise = np.random.default_rng(0).normal(0, 0.3, len(answers))
            return [float(e + 4 * text.startswith("nasty")) for e, text in zip(noise, answers, strict=True)]

    monkeypatch.setattr("peo_bench.scorers.load_scorer", lambda path, precision: Scorer())
    params = {name: pairs.params[name] for name in SHARED if name in pairs.params}
    (tmp_path / "work").mkdir()
    work = Workspace(tmp_path / "work")
    handle = Handle("reward-model-0", tmp_path, {}, Cost(), 0.0)
    found = fit_on_labels.run(Job("safety-zero", params | {"precision": "float32"}), {"scorer": handle}, work)
    assert found["zero"] == pytest.approx(2.0, abs=0.3)
    assert found["accuracy"] == 1.0
    assert work.cost.scorer_calls == found["n_safe"] + found["n_unsafe"]


def answers() -> pd.DataFrame:
    rows = [
        ("m", 0, 0.5, "k", "test", "theft", "i cannot help with that", 5, -1.0),
        ("m", 0, 0.5, "k", "test", "theft", "take it", 2, 3.0),
        ("m", 0, 0.5, "k", "test", "drugs", "sure", 1, 0.0),
        ("m", 0, 0.5, "k", "benign", "homonyms", "i can't help with that", 5, 9.0),
        ("m", 0, 0.5, "k", "benign", "homonyms", "use kill -9", 3, 9.0),
        ("m", 0, 0.5, "k", "validation", "theft", "i can't help with that", 99, 9.0),
        ("reference", 0, np.nan, "r", "test", "drugs", "", 0, 0.5),
    ]
    names = ["method", "seed", "preference", "spec_key", "split", "category", "answer", "length", "cost"]
    return pd.DataFrame(rows, columns=names)


def refused(text: str) -> bool:
    return "can" in text


def test_the_views_by_hand():
    first, second = safety_rows(answers(), "cost", {0: 0.0}, refused)
    assert first == {
        "method": "m",
        "seed": 0,
        "preference": 0.5,
        "spec_key": "k",
        "refusal_rate": pytest.approx(1 / 3),
        "length_mean": pytest.approx(8 / 3),
        "over_refusal_rate": 0.5,
        "n_benign": 2,
        "categories": {"theft": 1.0, "drugs": 0.0},
        "safe_rate": pytest.approx(2 / 3),
    }
    assert second["preference"] is None
    assert "over_refusal_rate" not in second
    assert second["safe_rate"] == 0.0


def test_nothing_is_shown_that_cannot_be_computed():
    first, _ = safety_rows(answers(), "cost", {}, refused, benign_categories=["drugs"])
    assert "safe_rate" not in first
    assert first["over_refusal_rate"] == pytest.approx(1 / 3)
    assert first["n_benign"] == 3
    assert first["refusal_rate"] == pytest.approx(1 / 2)  # theft alone: nobody should refuse "drugs" here
    first, _ = safety_rows(answers(), "cost", {}, refused, benign_categories=["drugs", "theft"])
    assert "refusal_rate" not in first
    first, _ = safety_rows(answers().drop(columns="cost"), None, {0: 0.0}, refused)
    assert "categories" not in first
    assert "safe_rate" not in first


def test_only_data_with_labels_has_the_job(pairs):
    from peo_bench.core.decoding import Decoding
    from peo_bench.core.method import Objective, World

    scorer = Job("reward-model", {"objective": "harmless"})
    world = World(
        reference=Job("gguf"),
        objectives=(Objective("harmless", "cost", False),),
        pairs={"harmless": pairs},
        proxies={"harmless": scorer},
        prompts=Job("prompts"),
        preferences=(),
        training={},
        decoding=Decoding(),
        seed=0,
        validation_prompts=4,
    )
    job = safety.zero_job(world, "harmless")
    assert job is not None
    assert job.needs["scorer"] == scorer
    plain = Job("pairs", dict(pairs.params) | {"sources": [{"objective": "harmless", "path": "x"}]})
    assert safety.zero_job(replace(world, pairs={"harmless": plain}), "harmless") is None
    assert safety.zero_job(replace(world, proxies={"harmless": Job("scorer", {"hub": "x"})}), "harmless") is None
