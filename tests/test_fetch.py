"""Copies of what a suite reads of the hub, through huggingface_hub's own code, and runs from them without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, serving

from peo_bench.data import made_up
from peo_bench.data.fetched import MANIFEST, Wanted, fetch, look_offline, read_manifest
from peo_bench.data.prompts import PromptSource
from peo_bench.data.schema import PairSource
from peo_bench.errors import UsageError
from peo_bench.files.jsonl import write_jsonl
from peo_bench.models.known import repository
from peo_bench.runs.config import resolve_config
from peo_bench.runs.repositories import wanted
from peo_bench.runs.request import RunRequest
from peo_bench.suites.suite import load_suite, task_of

SUITE = "paper-llama1-7b"
BRIEF = (
    *("--suite", SUITE, "--methods", "soup", "--preferences", "3", "--limit", "12", "--workers", "1"),
    *("--set", "decoding.max_new_tokens=6", "--set", "training.batch_size=8", "--set", "training.epochs=1"),
    *("--set", "training.lora_rank=4", "--set", "over_refusal_prompts=8"),
)


@pytest.fixture(autouse=True)
def _online_again():
    yield
    look_offline(None)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """What the suite reads, in small: the tiny stand-ins and made-up rows, under the real ids."""
    place = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        tiny = resolve_config(RunRequest(suite=SUITE, methods="soup", substitute="tiny")).suite
    real = load_suite(SUITE)
    task, small = task_of(real), task_of(tiny)
    found = Hub()
    for name, folder in (
        (real.model, tiny.model),
        *((task.scorers[column].model, small.scorers[column].model) for column in task.scorers),
    ):
        key = f"models/{repository(name)}"
        found.folders[key] = place / key
        shutil.copytree(folder, place / key)
        (place / key / "pytorch_model.bin").write_bytes(b"a pickle that nobody fetches")
        (place / key / "README.md").write_text("---\nlicense: other\n---\n")
        found.licences[key] = "other"
    sources = [(source, "pairs") for source in real.data.sources[:1]]
    sources += [(task.prompts, "prompts"), (task.benign, "benign")]
    for source, use in sources:
        folder = place / "datasets" / source.hub
        folder.mkdir(parents=True)
        found.folders[f"datasets/{source.hub}"] = folder
        both = PairSource(objective="helpful", hub="a/b", layout="pku") if use == "pairs" else source
        write_jsonl(folder / f"{source.split}.jsonl", made_up.rows(both, use))
        (folder / "load.py").write_text("raise SystemExit('code of others')")
    for item in wanted(resolve_config(RunRequest(suite=SUITE, methods="soup"))):
        if item.revision:
            found.commits[f"{item.kind}s/{item.id}"] = item.revision
    return found


@pytest.fixture(scope="module")
def copies(hub, tmp_path_factory):
    """A folder that `fetch` wrote, and what it told."""
    folder, told = tmp_path_factory.mktemp("copies"), []
    with pytest.MonkeyPatch.context() as patch, serving(hub, patch):
        fetch(wanted(resolve_config(RunRequest(suite=SUITE, methods="soup"))), folder, told.append)
    return folder, told


def test_what_a_suite_reads_is_copied_with_its_commits_and_digests_and_no_code(copies, hub):
    folder, told = copies
    entries = {entry.id: entry for entry in read_manifest(folder).repositories}
    assert {f"{entry.kind}s/{entry.id}" for entry in entries.values()} == set(hub.folders)
    assert len(told) == len(entries)
    assert entries["PKU-Alignment/alpaca-7b-reproduced"].commit.startswith("f4f1d993")
    assert entries["PKU-Alignment/beaver-7b-v1.0-cost"].commit == COMMIT
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"config.json", "tokenizer.json", "train.jsonl", "README.md", MANIFEST} <= files
    assert not {"pytorch_model.bin", "load.py"} & files
    assert not list(folder.rglob(".cache"))
    assert all(entry.files for entry in entries.values())


def test_fetching_again_downloads_what_is_new_or_not_whole(copies, hub, tmp_path, monkeypatch):
    folder = shutil.copytree(copies[0], tmp_path / "copies")
    items = wanted(resolve_config(RunRequest(suite=SUITE, methods="soup")))
    cost = next(item for item in items if item.id.endswith("cost"))
    (folder / f"models--{cost.id.replace('/', '--')}" / "config.json").write_text("")
    told = []
    with serving(hub, monkeypatch):
        fetch(items, folder, told.append)
    assert told == [f"model {cost.id} at {COMMIT}"]
    with pytest.raises(UsageError, match="is wanted at its newest commit and at v2: fetch them into two folders"):
        fetch([cost, Wanted("model", cost.id, "v2", cost.patterns)], folder)


def test_more_of_a_repository_and_another_commit_of_it_are_fetched_anew(tmp_path, monkeypatch):
    """Of another commit nothing of the old one is left."""
    rows = tmp_path / "rows"
    for part in ("helpful", "harmless"):
        (rows / part).mkdir(parents=True)
        (rows / part / "train.jsonl").write_text(part)
    hub, copies = Hub({"datasets/a/b": rows}), tmp_path / "copies"
    helpful, harmless = (Wanted("dataset", "a/b", None, (f"{part}/*.jsonl",)) for part in ("helpful", "harmless"))
    with serving(hub, monkeypatch):
        fetch([helpful], copies)
        (entry,) = fetch([harmless], copies).repositories
        assert set(entry.files) == {"helpful/train.jsonl", "harmless/train.jsonl"}
        told = []
        fetch([helpful, harmless], copies, told.append)
        assert told == []
        (rows / "helpful" / "train.jsonl").rename(rows / "helpful" / "new.jsonl")
        hub.commits["datasets/a/b"] = "beef" * 10
        (entry,) = fetch([helpful], copies, told.append).repositories
    assert told == [f"dataset a/b at {'beef' * 10}"]
    assert set(entry.files) == {"helpful/new.jsonl"}
    assert not (copies / entry.place / "helpful" / "train.jsonl").exists()


def test_a_run_reads_the_copies_and_asks_nobody(copies, hub, peo_bench, tmp_path):
    """HF_HUB_OFFLINE is set and no server runs: all that is read is in the folder."""
    asked = len(hub.asked)
    code, out, err = peo_bench("plan", *BRIEF, "--offline", str(copies[0]), "--gpu", "cpu", "--json")
    needed = json.loads(out)["resources"]
    assert (code, err, needed["download_bytes"]) == (0, "", {})
    assert needed["host_bytes"] < 1e7, "sizes are those of the copies"
    code, _, err = peo_bench("run", *BRIEF, "--offline", str(copies[0]), "--out", "run")
    assert code == 0, err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["status"] == "complete"
    assert run["model"].startswith("PKU-Alignment/alpaca-7b-reproduced@")
    assert run["scorers"]["0"]["cost"]["source"] == f"PKU-Alignment/beaver-7b-v1.0-cost@{COMMIT}"
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda place: (place / MANIFEST).unlink(),
            "no fetched.json there: give the folder that `peo-bench fetch --to`",
        ),
        (
            lambda place: shutil.rmtree(place / "models--PKU-Alignment--alpaca-7b-reproduced"),
            "is missing or not whole: copy .* again, or fetch it anew",
        ),
        (
            lambda place: (place / MANIFEST).write_text('{"schema_version": 1, "repositories": []}'),
            "holds no model PKU-Alignment/.*: type `peo-bench fetch --suite NAME --to .*` where there is a network",
        ),
        (
            lambda place: (place / "models--PKU-Alignment--alpaca-7b-reproduced" / "model.safetensors").write_text(""),
            "model.safetensors: was not fetched, and may be read for what was: delete it",
        ),
        (lambda place: (place / MANIFEST).write_text('{"schema_version": 2}'), "fetched.json: key 'schema_version'"),
    ],
)
def test_a_folder_that_is_not_whole_is_told_before_anything_is_done(copies, peo_bench, tmp_path, spoil, said):
    import re

    folder = shutil.copytree(copies[0], tmp_path / "copies")
    spoil(folder)
    code, out, err = peo_bench("plan", *BRIEF, "--offline", str(folder))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(said, err)


def test_a_changed_file_is_not_taken_over(copies, peo_bench, tmp_path):
    """Of the same size, so that its digest alone tells."""
    folder = shutil.copytree(copies[0], tmp_path / "copies")
    path = next(folder.glob("datasets--PKU-Alignment--PKU-SafeRLHF/*.jsonl"))
    path.write_text(path.read_text().replace("care", "cart"))
    code, _, err = peo_bench("doctor", "--suite", SUITE, "--offline", str(folder), "--json")
    assert code == 2, err
    look_offline(folder)
    from peo_bench.data.sources import read_source, source_identity

    source = load_suite(SUITE).data.sources[0]
    with pytest.raises(UsageError, match=r"train.jsonl: is not the file that was fetched \(SHA-256\): copy it again"):
        read_source(source_identity(source), PairSource)


def doctor(peo_bench, *args):
    code, out, err = peo_bench("doctor", "--suite", SUITE, "--json", *args)
    assert err == ""
    return code, {row["what"]: row for row in json.loads(out)}


def test_doctor_says_what_can_be_had_before_any_gpu_time(hub, peo_bench, monkeypatch):
    """Access, revision, licence and form, a line each; from a copy the digests."""
    with serving(hub, monkeypatch):
        code, rows = doctor(peo_bench)
    model = rows["model PKU-Alignment/alpaca-7b-reproduced"]
    assert code == 0
    assert (model["ok"], model["found"]) == (True, "commit f4f1d993c68a; licence: other")
    assert rows["dataset PKU-Alignment/BeaverTails-Evaluation"]["found"].endswith("licence: cc-by-nc-4.0")
    assert rows["architectures"]["found"] == "llama"
    assert rows["versions"]["ok"]


def test_doctor_says_what_to_do_for_each_that_cannot(hub, peo_bench, monkeypatch, tmp_path):
    from dataclasses import replace

    bare = tmp_path / "bare"
    shutil.copytree(hub.folders["models/PKU-Alignment/beaver-7b-v1.0-cost"], bare)
    for path in bare.glob("*.safetensors*"):
        path.unlink()
    spoilt = replace(
        hub,
        folders={key: path for key, path in hub.folders.items() if "XSTest" not in key}
        | {"models/PKU-Alignment/beaver-7b-v1.0-cost": bare},
        gated={"models/PKU-Alignment/beaver-7b-v1.0-reward"},
        commits=hub.commits | {"models/PKU-Alignment/alpaca-7b-reproduced": "f" * 40},
    )
    with serving(spoilt, monkeypatch):
        code, rows = doctor(peo_bench)
    told = {name: (row["found"], row["fix"]) for name, row in rows.items() if not row["ok"] and not row["optional"]}
    assert code == 2
    assert told["model PKU-Alignment/alpaca-7b-reproduced"] == (
        "has no such revision; licence: non-commercial (Llama 1, Alpaca)",
        "correct the revision in the suite",
    )
    assert told["model PKU-Alignment/beaver-7b-v1.0-reward"][1] == (
        "accept its licence at https://huggingface.co/PKU-Alignment/beaver-7b-v1.0-reward and set HF_TOKEN"
    )
    assert "pytorch_model.bin is a pickle" in " ".join(told["model PKU-Alignment/beaver-7b-v1.0-cost"])
    assert told["dataset Paul/XSTest"][0].startswith("is not there, or not for this account")


def test_without_a_network_each_is_one_line(peo_bench, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, rows = doctor(peo_bench)
    unreachable = [row for row in rows.values() if row["found"].startswith("unreachable (")]
    assert code == 2
    assert len(unreachable) == 6
    assert all("\n" not in row["found"] and row["fix"] == "check the network" for row in unreachable)


def test_a_copy_passes_and_an_option_alone_is_refused(copies, peo_bench):
    code, rows = doctor(peo_bench, "--offline", str(copies[0]))
    assert code == 0
    assert rows["dataset Paul/XSTest"]["found"] == f"copy of {COMMIT[:12]}, digests agree; licence: cc-by-4.0"
    code, _, err = peo_bench("doctor", "--offline", str(copies[0]))
    assert (code, err) == (2, "error: --offline belongs to --suite NAME: whose copies are to be looked at?\n")


def test_fetch_from_the_command_line(hub, peo_bench, monkeypatch, tmp_path):
    with serving(hub, monkeypatch):
        code, out, err = peo_bench("fetch", "--suite", SUITE, "--to", "copies")
        assert (code, err) == (0, "")
        assert "6 repositories" in out
        monkeypatch.setitem(hub.folders, "datasets/Paul/XSTest", tmp_path / "nothing")
        hub.gated.add("models/PKU-Alignment/beaver-7b-v1.0-cost")
        code, _, err = peo_bench("fetch", "--suite", SUITE, "--to", "others")
        hub.gated.clear()
    assert (code, err.count("\n")) == (2, 1)
    assert "model PKU-Alignment/beaver-7b-v1.0-cost: no access: accept its licence at" in err
    code, _, err = peo_bench("fetch", "--suite", "sandbox", "--to", "copies")
    assert (code, err) == (2, "error: suite sandbox reads nothing of the hub: there is nothing to fetch\n")


def test_a_data_set_is_copied_as_far_as_it_is_read():
    from peo_bench.data.fetched import dataset_wanted

    plain = dataset_wanted(PromptSource(hub="a/b", file="one.json"))
    assert plain.patterns == ("README.md", "one.json")
    part = dataset_wanted(PairSource(objective="helpful", hub="a/b", data_dir="helpful-base"))
    assert "helpful-base/*.gz" in part.patterns
    assert dataset_wanted(PairSource(objective="helpful", path="x.jsonl")) is None
    assert not any(pattern.endswith(".py") for pattern in part.patterns)
    assert Path("x.py").suffix not in "".join(part.patterns)
