"""Finished runs side by side, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_folder_fixture import write_run_folder

from peo_bench import pareto
from peo_bench.results.folder import read_run_folder


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """Runs that share PEO and the controls to the last policy, and differ in their other method."""
    a = write_run_folder(tmp_path / "a", methods=("peo", "modpo"), controls=("soup",))
    b = write_run_folder(tmp_path / "b", methods=("peo", "modpo"), controls=("soup",), noise_seed=8)
    return a, b


def compared(folder: Path) -> dict[str, Any]:
    run = json.loads((folder / "run.json").read_text())
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["tasks"][run["task"]]
    return found


def test_methods_of_both_runs_are_compared_prompt_by_prompt(peo_bench, two_runs, tmp_path):
    code, out, err = peo_bench("compare", str(two_runs[0]), str(two_runs[1]), "--out", "both")
    assert (code, err) == (0, "")
    assert "modpo@a" in out
    metrics = compared(tmp_path / "both")
    assert list(metrics["methods"]) == [f"{m}@{run}" for run in "ab" for m in ("peo", "modpo", "soup")]
    gap = next(row for row in metrics["comparisons"] if (row["a"], row["b"]) == ("peo@a", "peo@b"))
    arrays = []
    for folder in two_runs:
        own = pd.read_parquet(folder / "answers.parquet").query("method == 'peo'")
        arrays.append([t[["reward", "cost"]].to_numpy() for _, t in own.groupby("preference")])
    centre, scale = np.array([metrics["reference_units"][c] for c in ("reward", "cost")]).T
    weights = [[w, 1 - w] for w in (0, 0.25, 0.5, 0.75, 1)]
    by_prompt = [pareto.utility_by_prompt((np.array(a) - centre) / scale, weights, [True, False])[0] for a in arrays]
    difference = by_prompt[0] - by_prompt[1]
    assert gap["difference"] == pytest.approx(difference.mean())
    assert gap["covers"] == "prompts"
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    assert gap["ci_high"] - gap["ci_low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert (tmp_path / "both" / "report.html").exists()
    assert "modpo@b" in (tmp_path / "both" / "report.md").read_text().lower()


def test_equal_policies_are_shown_once(peo_bench, two_runs, tmp_path):
    twin = write_run_folder(tmp_path / "twin", methods=("peo", "mod"), controls=("soup",))
    code, out, _ = peo_bench("compare", str(two_runs[0]), str(twin), "--out", "both", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found["metrics"]["methods"]) == ["peo", "modpo", "soup", "mod"]
    assert "peo of twin offers the same policies as peo of a; it is shown once." in found["run"]["notes"]
    assert found["run"]["controls"] == ["soup"]
    points = read_run_folder(tmp_path / "both").points
    assert (points["method"] == "reference").sum() == 1


def test_several_seeds_are_part_of_the_difference(peo_bench, tmp_path):
    runs = [write_run_folder(tmp_path / name, seeds=(1, 2, 3), noise_seed=i) for i, name in enumerate("ab")]
    assert peo_bench("compare", *map(str, runs), "--out", "both")[0] == 0
    metrics = compared(tmp_path / "both")
    assert {row["covers"] for row in metrics["comparisons"]} == {"prompts and training seeds"}
    gap = next(row for row in metrics["comparisons"] if (row["a"], row["b"]) == ("peo@a", "peo@b"))
    units = json.loads((runs[0] / "metrics.json").read_text())["tasks"]["sandbox"]["units"]
    assert units["1"] != units["2"] != units["3"]
    means = [[_utility(run, seed, units[str(seed)]) for seed in (1, 2, 3)] for run in runs]
    assert gap["difference"] == pytest.approx(np.mean(means[0]) - np.mean(means[1]), rel=1e-9)


def _utility(run: Path, seed: int, units: dict[str, list[float]]) -> float:
    """PEO's steered utility in units of one seed, the mean over prompts and preferences of w reward - (1 - w) cost."""
    own = pd.read_parquet(run / "answers.parquet").query(f"method == 'peo' and seed == {seed}")
    reward, cost = ((own[c] - units[c][0]) / units[c][1] for c in ("reward", "cost"))
    return float((own["preference"] * reward - (1 - own["preference"]) * cost).mean())


def test_other_seeds_are_averaged_and_said_to_be(peo_bench, tmp_path):
    runs = [write_run_folder(tmp_path / str(s), seeds=s, noise_seed=s[0]) for s in ((1,), (2, 3))]
    for folder in runs:  # registered scorers: comparable whatever the seed
        run = json.loads((folder / "run.json").read_text())
        run["measure"]["units"] = "raw"
        (folder / "run.json").write_text(json.dumps(run))
    code, out, err = peo_bench("compare", *map(str, runs), "--out", "both")
    assert (code, err) == (0, "")
    assert "different seeds" in out
    verdict = json.loads((tmp_path / "both" / "report.json").read_text())["tasks"]["sandbox"]["verdict"]
    assert "training variance not included" in " ".join(answer["said"] for answer in verdict["answers"])
    assert {row["covers"] for row in compared(tmp_path / "both")["comparisons"]} == {"prompts"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scorers": {"reward": ["other v1"], "cost": ["sandbox-cost v1"]}}, "scorers:"),
        ({"judges": {"helpful": "gpt"}}, "judges:"),
        ({"version": 2}, "version: 1 against 2"),
        ({"prompts": {"n": 60, "sha256": "0"}}, "prompts:"),
        ({"decoding": {"max_new_tokens": 64, "temperature": 1.0, "top_p": 1.0}}, "decoding:"),
    ],
)
def test_runs_that_were_measured_otherwise_are_refused(peo_bench, two_runs, tmp_path, change, says):
    run = json.loads((two_runs[1] / "run.json").read_text())
    run["measure"] |= change
    (two_runs[1] / "run.json").write_text(json.dumps(run))
    code, _, err = peo_bench("compare", str(two_runs[0]), str(two_runs[1]), "--out", "both")
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "both").exists()


def test_a_finished_run_is_never_overwritten(peo_bench, two_runs):
    a, b = map(str, two_runs)
    before = (two_runs[0] / "run.json").read_bytes()
    code, _, err = peo_bench("compare", a, b, "--out", a)
    assert code == 2
    assert "holds something else than a comparison" in err
    assert (two_runs[0] / "run.json").read_bytes() == before
    assert peo_bench("compare", a, b, "--out", "both")[0] == 0
    assert peo_bench("compare", a, b, "--out", "both")[0] == 0, "a comparison may be made again"


def test_equal_folder_names_stay_apart(peo_bench, tmp_path):
    runs = [
        write_run_folder(tmp_path / d / n, noise_seed=i)
        for i, (d, n) in enumerate((("1", "x"), ("2", "x"), ("3", "x-2")))
    ]
    assert peo_bench("compare", *map(str, runs), "--out", "all")[0] == 0
    assert len([m for m in compared(tmp_path / "all")["methods"] if m.startswith("modpo@")]) == 3


def test_another_reference_policy_is_said(peo_bench, two_runs):
    points = pd.read_csv(two_runs[1] / "points.csv")
    points.loc[points["method"] == "reference", "spec_key"] = "another"
    points.to_csv(two_runs[1] / "points.csv", index=False)
    out = peo_bench("compare", *map(str, two_runs), "--out", "both")[1]
    assert "began at another reference policy" in out


def test_folders_that_cannot_be_compared(peo_bench, two_runs, tmp_path):
    a = str(two_runs[0])
    assert "at least two" in peo_bench("compare", a)[2]
    assert "not a finished run folder" in peo_bench("compare", a, str(tmp_path))[2]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    assert "choose another folder" in peo_bench("compare", a, str(two_runs[1]), "--out", "taken")[2]
    run = json.loads((two_runs[1] / "run.json").read_text())
    del run["measure"]
    (two_runs[1] / "run.json").write_text(json.dumps(run))
    assert "older version" in peo_bench("compare", a, str(two_runs[1]))[2]
    (two_runs[1] / "metrics.json").write_text("{")
    assert "is damaged or of another version (not JSON" in peo_bench("compare", a, str(two_runs[1]))[2]
    assert "not a finished run folder" in peo_bench("compare", a, str(two_runs[1] / "points.csv"))[2]
