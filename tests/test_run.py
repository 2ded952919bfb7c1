"""The main job end to end on a tiny sandbox: the run folder's contract, reuse, steering, export."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import TINY, peo_bench

from peo_bench.boards.compare import compare_runs
from peo_bench.core.method import PolicyFamily
from peo_bench.core.space import Space
from peo_bench.core.spec import policy, spec_from_json
from peo_bench.errors import UsageError
from peo_bench.jobs.artefact import CHECKSUM, sealed
from peo_bench.pareto import hypervolume, nondominated
from peo_bench.runs.assembly import chosen_by_seed
from peo_bench.runs.verification import verify_run
from peo_bench.steering.web import family_answers

RUN_FOLDER = (Path(__file__).parents[1] / "docs" / "run-folder.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(small_run) -> Path:
    return small_run


@pytest.fixture(scope="module")
def points(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "out" / "points.csv")


def test_run_json(folder):
    run = json.loads((folder / "out" / "run.json").read_text())
    assert run["schema_version"] == 1
    assert run["status"] == "complete"
    assert run["methods"] == ["peo", "modpo", "mod"]
    assert run["controls"] == ["soup", "peo-expo", "expo.modpo", "expo.mod"]
    assert run["counts"] == {"expected": 2 + 7 * 3, "ok": 2 + 7 * 3, "missing": 0, "by_reason": {}}
    assert run["packages"]["torch"]
    assert set(run["stages"]) >= {"build", "evaluate", "fronts"}
    assert "underpowered" in run
    assert run["underpowered"]


def test_an_artefact_of_a_newer_version_is_found_before_anything_is_trained(folder, tmp_path):
    """Here answers of one method, which are asked for when another one has been trained."""
    cache = tmp_path / "cache" / "peo-bench"
    shutil.copytree(folder / "cache" / "peo-bench", cache)
    shutil.rmtree(cache / "modpo")
    table = pd.read_csv(folder / "out" / "points.csv")
    keys = set(table.loc[table["method"] == "peo", "spec_key"]) - set(table.loc[table["method"] != "peo", "spec_key"])
    metas = {path: json.loads(path.read_text()) for path in (cache / "answers").glob("*/meta.json")}
    path, meta = next((p, m) for p, m in metas.items() if spec_from_json(m["params"]["spec"]).key in keys)
    del meta[CHECKSUM]
    path.write_text(json.dumps(sealed(meta | {"schema": 99})))
    workers = TINY.index("--workers")
    for command in (("plan", *TINY[:workers], *TINY[workers + 2 :]), ("run", "--out", "out", *TINY)):
        done = peo_bench(tmp_path, *command, "--methods", "peo,modpo,mod", check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"{path.parent.name}/meta.json: written by a newer peo-bench (schema 99" in done.stderr
    assert not (cache / "modpo").exists()


def test_what_every_seed_chose_is_kept(folder):
    """A search's KL budget comes from the seed's own experts, so that seeds differ in it."""
    (task,) = json.loads((folder / "out" / "metrics.json").read_text())["tasks"].values()
    assert set(task["methods"]["peo"]["chosen"]) == {"0"}
    assert task["methods"]["peo"]["chosen"]["0"]["max_kl"] >= 1.5
    assert task["methods"]["soup"]["chosen"] == {}
    line = PolicyFamily(Space("simplex"), lambda w: policy("base", []))
    budgets = {seed: {"peo": replace(line, chosen={"max_kl": 1.5 + seed}), "soup": line} for seed in (3, 4)}
    assert chosen_by_seed(budgets) == {"peo": {"3": {"max_kl": 4.5}, "4": {"max_kl": 5.5}}}


def documented(heading: str) -> set[str]:
    """The names in the first column of a section's table in docs/run-folder.md, for the tiny run's task."""
    section = f"\n{RUN_FOLDER}".split(f"\n{heading}\n", 1)[1].split("\n#", 1)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    names = re.findall(r"`([^`]+)`", " ".join(cells))
    placeholders = {"<objective>": ("helpful", "harmless"), "<column>": ("reward", "cost")}
    return {
        name.replace(word, each)
        for name in names
        for word in re.findall(r"<\w+>", name) or ["-"]
        for each in placeholders.get(word, ["-"])
    }


def test_every_file_and_column_is_documented(folder):
    """What only some runs have may be documented and absent; what is there must be documented."""
    known = documented("# The run folder (schema version 1)") | {"SHA256SUMS"}
    there = {path.name + "/" * path.is_dir() for path in (folder / "out").iterdir()}
    assert there <= known
    assert known - there <= {"judgements.parquet", "judgements-missing.csv", "tracker/", "progress.json"}
    out = folder / "out"
    tables = {name: pd.read_csv(out / name) for name in ("points.csv", "search.csv", "curves.csv")}
    tables["answers.parquet"] = pd.read_parquet(out / "answers.parquet")
    for name, table in tables.items():
        said = documented(f"## `{name}`")
        assert set(table) <= said, name
        assert said - set(table) <= {"kl_bound", "reward_proxy", "cost_proxy"}, name


def change_number(path, *keys):
    """Change one number in a JSON file."""
    content = json.loads(path.read_text())
    item = content
    for key in keys[:-1]:
        item = item[key]
    assert isinstance(item[keys[-1]], float)
    item[keys[-1]] += 0.001
    path.write_text(json.dumps(content))


def test_a_run_is_verified_from_its_scores(folder, tmp_path):
    """What was changed is found by its digest, and by the recomputation, which no new digest hides."""
    assert verify_run(folder / "out") == []
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    table = pd.read_csv(out / "points.csv")
    table.loc[3, "reward"] += 0.001
    table.to_csv(out / "points.csv", index=False)
    change_number(out / "metrics.json", "tasks", "peo_sandbox", "methods", "peo", "steered_utility", "value")
    change_number(out / "metrics.json", "tasks", "peo_sandbox", "units", "0", "reward", 0)
    done = peo_bench(tmp_path, "verify", "out", check=False)
    assert done.returncode == 3
    for said in (
        "points.csv was changed (SHA-256)",
        "metrics.json was changed (SHA-256)",
        f"points.csv: line 5, {table.loc[3, 'method']}: reward is ",
        "metrics.json: methods.peo.steered_utility.value is ",
        "metrics.json: units.0.reward[0] is ",
    ):
        assert said in done.stderr
    assert "run.json was changed" not in done.stderr
    weights = next((out / "artefacts").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    done = peo_bench(tmp_path, "verify", "out", check=False)
    assert done.returncode == 3
    assert f"artefacts: {weights.parents[1].name} is damaged" in done.stderr


def test_config_repeats_the_run(folder):
    config = yaml.safe_load((folder / "out" / "config.yaml").read_text())
    assert config["suite"]["sft"]["steps"] == 30
    assert config["preferences"] == [0.0, 0.5, 1.0]


def test_points(points):
    """One row per asked preference and method; the reference on both splits; the oracle per KL budget."""
    test = points[points["split"] == "test"]
    asked = test[test["grid"] == "asked"].groupby("method")["preference_helpful"].apply(lambda s: sorted(s.dropna()))
    assert {m for m, w in asked.items() if w == [0.0, 0.5, 1.0]} == {
        *("peo", "modpo", "mod", "soup", "peo-expo", "expo.modpo", "expo.mod")
    }
    assert set(points.loc[points["method"] == "reference", "split"]) == {"validation", "test"}
    assert test.loc[test["method"] == "reference", "kl"].item() == 0
    assert (test.loc[test["method"] == "oracle", "grid"].str.startswith("kl=")).all()
    assert (test["n"] == 36).all()
    assert np.isfinite(test[["reward", "cost", "kl"]]).all().all()


def test_vertices_of_soup_mod_and_modpo_are_one_policy(points):
    """Equal keys, so evaluated once and equal in every column; PEO's vertices are other policies."""
    for weight in (0.0, 1.0):
        rows = points[(points["preference_helpful"] == weight) & points["method"].isin(["soup", "mod", "modpo"])]
        assert rows["spec_key"].nunique() == 1
        assert rows["reward"].nunique() == 1
        peo = points[(points["preference_helpful"] == weight) & (points["method"] == "peo")]
        assert peo["spec_key"].item() != rows["spec_key"].iloc[0]


def test_nondominated_is_strict_and_within_its_group(points):
    for _, group in points[points["method"] != "oracle"].groupby(["split", "method", "grid"]):
        expected = nondominated(group[["reward", "cost"]].to_numpy(), [True, False])
        assert group["nondominated"].tolist() == expected.tolist()


def test_metrics_agree_with_points(folder, points):
    metrics = json.loads((folder / "out" / "metrics.json").read_text())["tasks"]["peo_sandbox"]
    reference = [metrics["reference_point"][column] for column in ("reward", "cost")]
    for method, values in metrics["methods"].items():
        rows = points[(points["method"] == method) & (points["split"] == "test")]
        volume = hypervolume(rows[["reward", "cost"]].to_numpy(), reference, [True, False])
        assert values["hypervolume"]["value"] == pytest.approx(volume, abs=1e-4)
        assert values["hypervolume"]["ci_low"] <= values["hypervolume"]["ci_high"]


def test_the_answers_file_holds_every_answer(folder, points):
    texts = pd.read_parquet(folder / "out" / "answers.parquet")
    needed = {"prompt_id", "prompt", "method", "preference", "spec_key", "answer", "reward", "cost"}
    assert needed | {"reward_proxy", "cost_proxy"} <= set(texts.columns)
    test = texts[(texts["split"] == "test") & (texts["method"] == "peo")]
    means = test.groupby("preference")["reward"].mean()
    rows = points[points["method"] == "peo"].set_index("preference_helpful")["reward"]
    assert np.allclose(means, rows, atol=1e-6)


def test_validation_and_test_prompts_are_disjoint_from_training(folder):
    texts = pd.read_parquet(folder / "out" / "answers.parquet")
    by_split = {split: set(group["prompt_id"]) for split, group in texts.groupby("split")}
    prompts = next((folder / "cache" / "peo-bench" / "sandbox-prompts").rglob("prompts.jsonl"))
    drawn = pd.read_json(prompts, lines=True).groupby("split")["prompt_id"].agg(set)
    assert by_split == dict(drawn), "every answer is under the split that its prompt was drawn for"
    assert set(texts.loc[texts["split"] == "validation", "method"]) == {"reference"}
    assert not by_split["validation"] & by_split["test"]
    pairs = next((folder / "cache").rglob("helpful-policy.jsonl"))
    trained = {json.loads(line)["prompt_id"] for line in pairs.read_text().splitlines()}
    scored = {
        json.loads(line)["prompt_id"] for line in pairs.with_name("helpful-scorer.jsonl").read_text().splitlines()
    }
    assert not trained & scored
    assert not (trained | scored) & (by_split["validation"] | by_split["test"])


def metas(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (folder / "cache").rglob(f"{kind}/*/meta.json")]


def test_costs_count_the_search(folder):
    costs = json.loads((folder / "out" / "costs.json").read_text())["methods"]
    assert costs["soup"]["train_units"] == 2
    assert costs["modpo"]["train_units"] == pytest.approx(3)
    (pairs,) = (folder / "cache").rglob("helpful-policy.jsonl")
    unit, scored = (len(path.read_text().splitlines()) for path in (pairs, pairs.with_name("helpful-scorer.jsonl")))
    proxies = sum(meta["cost"]["pairs_trained"] for meta in metas(folder, "reward-model"))
    assert costs["peo"]["proxy_units"] == pytest.approx(proxies / unit, abs=1e-3)
    assert costs["peo"]["train_units"] == pytest.approx(2 + proxies / unit, abs=2e-3), "a search is charged its proxies"
    assert costs["soup"]["proxy_units"] == costs["modpo"]["proxy_units"] == 0
    assert costs["soup"]["labels"] == costs["modpo"]["labels"] == {"helpful": unit, "harmless": unit}
    assert costs["peo"]["labels"] == {"helpful": unit + scored, "harmless": unit + scored}
    assert costs["soup"]["validation_evaluations"] == 0
    assert costs["peo"]["validation_evaluations"] == 3 + 10 + 1  # phase 2 and the reference, phase 3
    assert costs["mod"]["decode_factor"] > 1
    search = pd.read_csv(folder / "out" / "search.csv")
    assert list(search["phase"]) == [2] * 3 + [3] * 10
    assert costs["peo"]["kl_tokens"] > 0
    assert (search["kl_upper"] >= search["kl"]).all()
    assert (search["kl"] <= search["max_kl"])[[0, 2]].all(), "the default budget allows the experts"


def test_a_second_run_reuses_everything(folder):
    before = {name: (folder / "out" / name).read_bytes() for name in ("points.csv", "metrics.json", "search.csv")}
    peo_bench(folder, "run", "--methods", "peo,modpo,mod", "--out", "again", *TINY)
    run = json.loads((folder / "again" / "run.json").read_text())
    costs = json.loads((folder / "again" / "costs.json").read_text())["kinds"]
    assert all(row["reused"] == row["jobs"] for row in costs.values())
    assert run["reused_artefacts"] == sum(row["jobs"] for row in costs.values())
    assert before == {name: (folder / "again" / name).read_bytes() for name in before}


def test_steer_and_export_need_the_run_folder_only(folder, tmp_path):
    """The folder is moved and the cache is gone; equal preferences give the answers of the run's own policy."""
    shutil.copytree(folder / "out", tmp_path / "moved")
    prompt = "how do i bake bread for my aunt today ?"
    args = ["steer", "moved", "--method", "modpo", "--helpful", "0.4", prompt, "--json"]
    answer = json.loads(peo_bench(tmp_path, *args).stdout)[0]
    assert answer["preference"] == {"helpful": 0.5, "harmless": 0.5}, "modpo offers the nearest of its points"
    assert answer["answer"]
    peo_bench(tmp_path, "export", "moved", "--method", "peo", "--helpful", "0.7", "--to", "policy")
    assert "task vector" in (tmp_path / "policy" / "README.md").read_text()
    assert len({path.stat().st_mode for path in (tmp_path / "policy").iterdir()}) == 1, "weights as open as the card"

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert AutoTokenizer.from_pretrained(tmp_path / "policy").chat_template
    assert np.isfinite(sum(float(p.detach().sum()) for p in model.parameters()))
    mixed = peo_bench(tmp_path, "export", "moved", "--method", "mod", "--to", "no", check=False)
    assert mixed.returncode == 2
    assert "no single model" in mixed.stderr


def test_own_experts_and_external_policies(folder, tmp_path):
    """A finished expert replaces phase 1, and comes back as a policy that competes."""
    shutil.copytree(folder / "cache", tmp_path / "cache")
    expert = next((folder / "cache").rglob("aspect-*/model"))
    done = peo_bench(
        tmp_path, "run", "--methods", "soup", "--out", "out", *TINY[:-4],
        "--expert", f"helpful={expert}", "--policy", f"mine={expert}",
    )  # fmt: skip
    assert done.returncode == 0
    points = pd.read_csv(tmp_path / "out" / "points.csv")
    mine = points[points["method"] == "mine"]
    vertex = points[(points["method"] == "soup") & (points["preference_helpful"] == 1.0)]
    assert set(mine["reward"]) == {vertex["reward"].item()}
    assert set(mine["preference_helpful"]) == {0.0, 0.5, 1.0}


def test_processes_give_the_same_tables(folder, tmp_path):
    """Two workers in processes of their own, caches empty; equal to the bit with as many threads per job."""
    args = [*TINY[:4], "--workers", "2", *TINY[6:]]
    peo_bench(tmp_path, "run", "--methods", "peo,modpo,mod", "--out", "out", *args)
    assert (tmp_path / "out" / "points.csv").read_bytes() == (folder / "out" / "points.csv").read_bytes()


def test_a_policy_has_the_same_row_in_any_company(folder, tmp_path):
    """Evaluated with fewer policies beside it, to the last digit: other batches, other stacks of adapters."""
    ours = shutil.ignore_patterns("answers-*")
    shutil.copytree(folder / "cache", tmp_path / "cache", ignore=ours)
    peo_bench(tmp_path, "run", "--methods", "mod", "--out", "out", *TINY[:-4])
    among_others, alone = (
        {tuple(row.values()) for row in csv.DictReader((where / "out" / "points.csv").open()) if row["method"] == "mod"}
        for where in (folder, tmp_path)
    )
    assert alone
    assert alone == among_others


def test_a_locked_run_folder_exits_4(folder):
    """A second run on a folder that another process holds names its owner."""
    from filelock import FileLock

    (folder / "busy").mkdir()
    (folder / "busy" / ".owner").write_text("pid 1 on somewhere")
    with FileLock(folder / "busy" / ".lock"):
        done = peo_bench(folder, "run", "--methods", "soup", "--out", "busy", *TINY[:-4], check=False)
    assert done.returncode == 4
    assert "pid 1 on somewhere" in done.stderr


def test_fronts_within_kl_budgets_by_hand(folder, points):
    """Which policies are on the front of those within a budget, pair by pair from points.csv."""
    task = json.loads((folder / "out" / "metrics.json").read_text())["tasks"]["peo_sandbox"]
    assert task["kl_budgets"]
    for method, values in task["methods"].items():
        rows = points[(points["method"] == method) & (points["split"] == "test")].sort_values("preference_helpful")
        for budget, found in zip(task["kl_budgets"], values["front_within_kl"], strict=True):
            kept = rows[rows["kl"] <= budget].to_dict("records")
            scores = [(row["reward"], -row["cost"]) for row in kept]
            free = [not any(a != b and a[0] >= b[0] and a[1] >= b[1] for a in scores) for b in scores]
            assert found == [row["preference_helpful"] for row, on_front in zip(kept, free, strict=True) if on_front]


def test_a_run_without_any_method_says_what_is_missing_and_is_read(small_run, tmp_path):
    """As where a worker that all methods need is killed: it ended in a traceback, without tables."""
    shutil.copytree(small_run / "cache", tmp_path / "cache")
    options = (*TINY, "--set", "training.learning_rate=1e30")
    done = peo_bench(tmp_path, "run", "--methods", "peo,soup", "--out", "out", *options, check=False)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {entry["what"].partition(",")[0] for entry in run["missing"]} == {"peo", "soup", "peo-expo"}
    assert all("loss is nan" in entry["reason"] for entry in run["missing"])
    assert set(pd.read_csv(tmp_path / "out" / "points.csv")["method"]) <= {"reference", "oracle"}
    assert verify_run(tmp_path / "out") == []
    assert "loss is nan" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(UsageError, match="none of its methods was made"):
        family_answers(tmp_path / "out", None)
    with pytest.raises(UsageError, match="no method of these runs was made"):
        compare_runs([tmp_path / "out", tmp_path / "out"], tmp_path / "both", "")
