"""Every method by name, through the command line, on a tiny sandbox."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import TINY, peo_bench

from peo_bench.runs.verification import verify_run

MERGING = ("slerp", "della")
METHODS = (
    *("soup", "sacpo", "preference-vector", "peo-past-expert", "peo-bonesoup", "map", "fw-merge"),
    *MERGING,
    *("dpo-lw", "cagrad", "raco", "mgda", "amopo", "data-mix"),
)
ONLINE = ("morlhf", "gdpo", "mo-grpo", "transform-combine", "maxmin", "lagrangian", "tchebycheff")
SHORT = (*TINY[:-4], "--set", "training.form=lora", "--set", "training.lora_rank=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("methods")
    small = (
        "--set",
        "map.budget=8",
        "--set",
        "peo-past-expert.budget=7",
        "--set",
        "peo-past-expert.grid=3",
        "--set",
        "peo-bonesoup.budget=6",
    )
    small += tuple(item for name in MERGING for item in ("--set", f"{name}.budget=8"))
    small += ("--set", "fw-merge.iterations=2", "--set", "fw-merge.pairs=8")
    peo_bench(where, "run", "--methods", ",".join(METHODS), "--out", "out", *SHORT, *small)
    return where


@pytest.fixture(scope="module")
def online(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("online")
    few = [item for name in ONLINE for item in ("--set", f"{name}.units=0.4")]
    peo_bench(where, "run", "--methods", ",".join(ONLINE), "--out", "out", *SHORT, *few)
    return where


def test_online_methods_run_and_are_charged(online):
    assert json.loads((online / "out" / "run.json").read_text())["status"] == "complete"
    points = pd.read_csv(online / "out" / "points.csv")
    costs = json.loads((online / "out" / "costs.json").read_text())["methods"]
    for method in ONLINE:
        assert (points["method"] == method).sum() == 3, method
        runs = 1 if method == "maxmin" else 3
        assert costs[method]["examples_trained"] == runs * 32, "0.4 of an expert's 72, in batches of 8"
        assert costs[method]["scorer_calls"] >= runs * 64
    assert points[points["method"] == "maxmin"]["spec_key"].nunique() == 1
    assert points[points["method"] == "lagrangian"]["spec_key"].nunique() == 3


def test_all_appear_in_fronts_scoreboard_and_costs(folder):
    run = json.loads((folder / "out" / "run.json").read_text())
    assert run["status"] == "complete"
    points = pd.read_csv(folder / "out" / "points.csv")
    metrics = json.loads((folder / "out" / "metrics.json").read_text())["tasks"]["peo_sandbox"]["methods"]
    costs = json.loads((folder / "out" / "costs.json").read_text())["methods"]
    for method in METHODS:
        assert (points["method"] == method).sum() == 3, method
        assert metrics[method]["hypervolume"]["value"] > 0
        assert costs[method]["train_units"] is not None
    page = (folder / "out" / "report.md").read_text()
    assert all(name in page for name in ("SACPO", "RACO", "MGDA", "MAP"))


def test_costs_are_those_of_the_method_alone(folder):
    """Units of one expert's training: two for what merges two experts, four for preference vectors, and so on."""
    costs = json.loads((folder / "out" / "costs.json").read_text())["methods"]
    units = {m: round(costs[m]["train_units"] - costs[m]["proxy_units"], 2) for m in METHODS}
    searches = {"map", "peo-bonesoup", "peo-past-expert", *MERGING}
    assert {m for m in METHODS if costs[m]["proxy_units"]} == searches
    assert all(units[name] == 2 for name in (*searches, "soup", "sacpo", "data-mix"))
    assert units["preference-vector"] == 4
    assert units["mgda"] == pytest.approx(5 / 3, abs=0.02)
    assert units["raco"] == units["cagrad"] == pytest.approx(5, abs=0.05)
    assert units["dpo-lw"] == units["amopo"] == pytest.approx(3, abs=0.02), "one backward pass each"
    assert costs["map"]["validation_evaluations"] == 2 + 6 + 1  # experts, sample, and the reference once
    assert costs["soup"]["validation_evaluations"] == 0


def test_mgda_offers_one_policy_and_says_so(folder):
    points = pd.read_csv(folder / "out" / "points.csv")
    mine = points[points["method"] == "mgda"]
    assert mine["spec_key"].nunique() == 1
    assert (mine["projected_helpful"] == 0.5).all()


def test_sacpo_ends_at_the_second_adapter_on_the_first_policy(folder, tmp_path):
    """The exported policy at helpful 0 against PEFT's own merge of step 2's adapter into step 1's policy."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    peo_bench(folder, "export", "out", "--method", "sacpo", "--helpful", "0", "--to", str(tmp_path / "policy"))
    store = folder / "cache"
    (start,) = store.rglob("merged-*/model")
    steps = [
        path
        for path in store.rglob("aspect-*/adapter")
        if not json.loads((path.parent / "meta.json").read_text())["params"]["swapped"]
    ]
    assert steps
    (adapter,) = (path for path in steps if start.parent.name in (path.parent / "meta.json").read_text())
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), adapter).merge_and_unload()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    for (name, a), b in zip(found.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_every_number_of_every_method_follows_from_scores_and_jobs(folder):
    assert verify_run(folder / "out") == []
