"""What is fuzzed: every reader of what others may have written, and something whole for it to read."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fuzzing import VALUES, Rng, Target, change_and_renew, renew
from judge_server import says
from run_folder_fixture import write_run_folder
from test_closed_form import X, world
from training_fixtures import tiny_model, tiny_tokenizer

from peo_bench.boards import leaderboard
from peo_bench.boards.compare import read_finished
from peo_bench.cli import received
from peo_bench.cli.pareto import pareto, read_points
from peo_bench.core.rounds import Building
from peo_bench.data.fetched import FetchedFile, FetchedRepository, Manifest, look_offline, verified
from peo_bench.data.given_answers import read_given
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.data.schema import PairSource
from peo_bench.data.sources import LOCATIONS, read_source, source_identity
from peo_bench.errors import UsageError
from peo_bench.evaluation.validation import Point
from peo_bench.files.atomic import write_json
from peo_bench.files.digest import digest, file_digest
from peo_bench.files.journal import Journal, Memo
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.artefact import Damaged
from peo_bench.jobs.job import Job, job_kind
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.records import JOBS, read_records, write_records
from peo_bench.jobs.runner import Outcome
from peo_bench.jobs.store import Store
from peo_bench.judges.endpoint import Endpoint, Reply, _Transient
from peo_bench.judges.judge import make_judge
from peo_bench.judges.labelled import read_labelled
from peo_bench.judges.openai_judge import KeptReply
from peo_bench.judges.replies import Replies
from peo_bench.judges.settings import JudgeSettings
from peo_bench.methods import make_method
from peo_bench.models.convert import convert
from peo_bench.report.build import build_report
from peo_bench.report.contents import task_views
from peo_bench.results.answers import answers_of
from peo_bench.results.folder import read_run_folder
from peo_bench.results.progress import headline, is_running, read_progress, running
from peo_bench.runs.config import resolve_config
from peo_bench.runs.judging import calibration, save_calibration
from peo_bench.runs.request import RunRequest
from peo_bench.settings import read_yaml
from peo_bench.steering.families import asked_for, load_family, save_families
from peo_bench.steering.web import _question
from peo_bench.suites import SUITES, TASKS
from peo_bench.suites.suite import TaskConfig, load_suite, suite_task
from peo_bench.training.checkpoints import last_checkpoint, seal
from peo_bench.winrates.annotations import read_annotations, read_model_outputs
from peo_bench.winrates.difficulty import read_difficulty, read_regulariser

# ---- files that a user gives ---------------------------------------------------------------------------------------


def write_suites(folder: Path) -> None:
    for name in SUITES.names():
        shutil.copy(SUITES.get(name), folder / f"{name}.yaml")


def read_suite(folder: Path, rng: Rng) -> None:
    for path in folder.iterdir():
        suite_task(load_suite(str(path)))


def write_tasks(folder: Path) -> None:
    for name in TASKS.names():
        shutil.copy(TASKS.get(name), folder / f"{name}.yaml")


def read_task(folder: Path, rng: Rng) -> None:
    for path in folder.iterdir():
        read_yaml(path, TaskConfig, "metadata")


PKU = {"prompt": "how?", "response_0": "so", "response_1": "no", "better_response_id": 0, "safer_response_id": 1}
HH = {"chosen": "\n\nHuman: how?\n\nAssistant: so", "rejected": "\n\nHuman: how?\n\nAssistant: no"}
PAIR = {"prompt": "how?", "chosen": "so", "rejected": "no"}
LAYOUTS = {"pairs": PAIR, "hh": HH, "pku": PKU | {"is_response_0_safe": True, "is_response_1_safe": False}}


def write_pairs(folder: Path) -> None:
    for layout, row in LAYOUTS.items():
        rows = [row | {"prompt": f"how {i}?"} for i in range(4)]
        text = "".join(json.dumps(one) + "\n" for one in rows)
        (folder / f"{layout}.jsonl").write_text(text)
        (folder / f"{layout}.json").write_text(json.dumps(rows))
        (folder / f"{layout}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        pd.DataFrame(rows).to_csv(folder / f"{layout}.csv", index=False)
        pd.DataFrame(rows).to_parquet(folder / f"{layout}.parquet")


def read_pairs(folder: Path, rng: Rng) -> None:
    os.environ[LOCATIONS] = "{}"
    for path in folder.iterdir():
        source = PairSource(objective="helpful", path=path.name, layout=path.name.partition(".")[0])  # type: ignore[arg-type]
        read_source(source_identity(source, folder))


ANNOTATION = {
    "instruction": "q", "output_1": "a", "generator_1": "b", "output_2": "c", "generator_2": "m", "annotator": "x",
    "preference": 1,
}  # fmt: skip
GAMED = {"not_gamed_baseline": False, "gamed_baseline": "b", "std_delta_len": 0.5, "instruction_difficulty": 0.2}
PANDALM = {"idx": 0, "instruction": "q", "input": "", "response1": "a", "response2": "b", "annotator1": 1}
LLMBAR = {"input": "q", "output_1": "a", "output_2": "b", "label": 1}
OURS = {"id": "p", "prompt": "q", "answer_a": "x", "answer_b": "y", "label": "a", "verdicts": {"ab": "a", "ba": None}}
SAID = {"swap = False": {"completion": ["Output (a) is better."], "winner": "1"}, "swap = True": {"winner": "2"}}


def write_annotations(folder: Path) -> None:
    rows = [ANNOTATION | {"instruction": f"q{i}", "preference": 1 + i % 2} for i in range(6)]
    (folder / "annotations.json").write_text(json.dumps(rows))
    (folder / "annotations.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    pd.DataFrame(rows).to_csv(folder / "annotations.csv", index=False)
    outputs = [{"dataset": "d", "instruction": f"q{i}", "output": "a", "generator": "m"} for i in range(6)]
    (folder / "outputs.json").write_text(json.dumps(outputs))
    answers = [{"prompt": f"q{i}", "answer": "a"} for i in range(6)]
    (folder / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    pd.DataFrame(answers).to_csv(folder / "given.csv", index=False)
    pd.DataFrame(answers).to_parquet(folder / "given.parquet")
    (folder / "ours.jsonl").write_text(4 * (json.dumps(OURS) + "\n"))
    (folder / "pandalm.json").write_text(json.dumps([PANDALM | {"idx": i} for i in range(3)]))
    (folder / "llmbar.json").write_text(json.dumps([LLMBAR | {"results": [SAID]}, LLMBAR]))
    difficulty = [{"index": i, "instruction_difficulty": i / 7, "instruction_sha256": digest(i)} for i in range(4)]
    pd.DataFrame(difficulty).to_csv(folder / "difficulty.csv", index=False)
    pd.DataFrame([GAMED | {"preference": i / 5} for i in range(6)]).to_csv(folder / "gamed.csv", index=False)


def read_verdicts(folder: Path, rng: Rng) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "annotations": read_annotations, "outputs": read_model_outputs, "difficulty": read_difficulty,
        "gamed": read_regulariser, "given": read_given,
    }  # fmt: skip
    for path in folder.iterdir():
        name = path.name.partition(".")[0]
        readers.get(name, partial(read_labelled, layout=name))(path)


def write_points(folder: Path) -> None:
    rows = [("peo" if i % 2 else "soup", i / 7, 1 - i / 5) for i in range(8)]
    text = "method,reward,cost\n" + "".join(f"{m},{r},{c}\n" for m, r, c in rows)
    (folder / "points.csv").write_text(text)


def analyse_points(folder: Path, rng: Rng) -> None:
    read_points(folder / "points.csv", ["reward", "cost"], "method")
    given: dict[str, Any] = {"maximize": ["reward"], "minimize": ["cost"], "group": "method", "as_json": True}
    pareto(folder / "points.csv", **given, reference=rng.choice((None, "-1,2", "1e308,-1e308")))


OPTIONS = {
    "methods": "peo,modpo", "suite": "sandbox", "model": "sandbox", "set": ["peo.budget=24"], "seeds": "0,1",
    "preferences": "0,0.5,1", "limit": 64, "max_kl": 1.0, "expert": [], "policy": [], "judge": ["scorers"],
    "capabilities": "",
}  # fmt: skip
ODD_YAML = ("[" * 5000, "!!int x", "2024-13-45", "{a: *b}", "!!timestamp x", "&a [*a]")
SETTINGS = (
    *("peo.budget", "training.beta", "sft.steps", "data.corpus", "decoding.top_p", "judge.prompts", "model"),
    "scorers",
)


def write_request(folder: Path) -> None:
    (folder / "options.json").write_text(json.dumps(OPTIONS))


def change_request(rng: Rng, path: Path, outside: Path | None) -> None:
    """Put hostile text where text is typed, hostile numbers where numbers are."""
    text = str(rng.choice(VALUES)).replace("\x00", "").encode("utf-8", "replace").decode()
    odd = {
        "methods": rng.choice((text, "peo," + text, "expo." * rng.randrange(40) + "soup", "rps.rps.soup")),
        "suite": text, "model": text,
        "set": [f"{rng.choice(SETTINGS)}={rng.choice((text, *ODD_YAML))}"],
        "seeds": rng.choice((text, "٣", "1" * 30)),
        "preferences": rng.choice((text, "1,nan", "²", "0." + "3" * 400)),
        "limit": rng.choice((-1, 0, 2, 10**30)),
        "max_kl": rng.choice((-1.0, float("nan"), float("inf"), 1e-300)),
        "expert": [rng.choice(("helpful=", "helpful=" + text, text, "../x=y"))],
        "policy": [rng.choice(("a=" + text, text, "mine\n=x", "peo=x"))],
        "judge": [rng.choice(("openai:m@", "alpaca_eval:", "openai:m@http://[", "scorers", "")) + text],
        "capabilities": text + ".yaml",  # names are looked up in a list that takes seconds to make
    }  # fmt: skip
    chosen = rng.sample(sorted(odd), rng.choice((1, 1, 2)))
    path.write_text(json.dumps(OPTIONS | {name: odd[name] for name in chosen}))


def read_request(folder: Path, rng: Rng) -> None:
    resolve_config(RunRequest(**json.loads((folder / "options.json").read_text())))


def write_models(folder: Path) -> None:
    """A model, an adapter, and an older checkpoint with pickles."""
    from peft import LoraConfig, get_peft_model

    for name in ("base", "older"):
        tiny_model(8, 1).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    weights = folder / "older" / "model.safetensors"
    torch.save(tiny_model(8, 1).state_dict(), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    adapted = get_peft_model(tiny_model(8, 1), LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(folder / "adapter")


def read_models(folder: Path, rng: Rng) -> None:
    """As `run --model base --expert helpful=adapter` does, and `convert`."""
    os.environ[LOCATIONS] = "{}"
    store = Store(folder.with_name("cache"))
    try:
        base = checkpoint_job(str(folder / "base"), "base")
        adapter = checkpoint_job(str(folder / "adapter"), "delta", base)
        with received(folder):
            convert(folder / "older", folder / "to")
        with received(folder):
            store.run(base)
            store.run(adapter)
    finally:
        shutil.rmtree(store.root, ignore_errors=True)


# ---- what other runs have left -------------------------------------------------------------------------------------


def write_families(run: Path) -> None:
    """Write the families of two methods with artefacts that fit them, which nobody has trained."""
    store = Store(run / "cache")
    scores = {"reward": [0.5 * i for i in range(X)], "cost": [0.1] * X}
    point: JsonObject = asdict(Point(scores, 0.1, 0.2))
    units: JsonObject = {"reward": [0.0, 1.0], "cost": [0.0, 1.0]}
    done: list[str] = []
    for name in ("peo", "soup"):
        building = Building(make_method(name, {}), world())
        while building.round:
            for job in building.jobs.values():
                evaluated = [point | {"coefficients": [0.9, 0.3]}, point | {"coefficients": [0.2, 1.0]}]
                result: JsonObject = {
                    "candidates": {"reference": units, "points": [point] * len(job.params.get("specs", ()))},
                    "extrapolation": {"max_kl": 1.5, "reference": units, "evaluations": evaluated},
                }.get(job.kind, {"form": "full"})  # type: ignore[assignment]
                store.adopt(job, lambda work, result=result: result, 0.0)  # type: ignore[misc]
                done.append(job.id)
            building.send({job_id: store[job_id] for job_id in building.jobs})
    save_families(run, store, ["peo", "soup"], {}, {1: world()}, done)
    shutil.rmtree(store.root)


def write_run(folder: Path) -> None:
    run = write_run_folder(folder / "run", rich=True, n_prompts=8, weights=(1.0, 0.5, 0.0), controls=("soup",))
    write_families(run)
    (run / "progress.json").write_text(json.dumps({
        "schema_version": 1, "stage": "build", "jobs": {"queued": 1, "done": 0, "failed": 0, "reused": 0},
        "running": [{"what": "x", "fraction": 0.5, "note": "", "started": 1.0}],
    }))  # fmt: skip
    (run / ".owner").write_text("pid 1 on nowhere")


def follow(run: Path) -> None:
    is_running(run)
    state = read_progress(run)
    if state is not None:
        headline(state)
        running(state.running, time.time())


def steer(run: Path) -> None:
    for method in ("peo", "soup"):
        family, known, _ = load_family(run, method, None)
        for weight in (0.0, 0.3, 1.0):
            assert family.resolve(asked_for(known, weight)).key


CHEAP: tuple[Callable[[Path], object], ...] = (follow, read_finished, steer, lambda run: answers_of(run, "peo", 0.5))
DEAR: tuple[Callable[[Path], object], ...] = (lambda run: task_views(read_run_folder(run)), build_report)


def read_run(folder: Path, rng: Rng) -> None:
    """Read it in some order, as several commands do, and now and then in a way that takes long."""
    readers = [*CHEAP, *((rng.choice(DEAR),) if rng.random() < 0.1 else ())]
    for reader in rng.sample(readers, len(readers)):
        with received(folder / "run"):
            reader(folder / "run")


def write_board(folder: Path) -> None:
    run = write_run_folder(folder / "run", n_prompts=8, weights=(1.0, 0.5, 0.0), controls=())
    leaderboard.add_run(folder / "boards", run, None)


def read_board(folder: Path, rng: Rng) -> None:
    with received(folder / "boards"):
        leaderboard.boards(folder / "boards")
        if rng.random() < 0.2:
            leaderboard.verify(folder / "boards")
    if rng.random() < 0.2:
        with received(folder / "boards"):
            leaderboard.add_run(folder / "boards", folder / "run", None)


# ---- what earlier attempts have left ------------------------------------------------------------------------------


@job_kind("test-fuzzed", version=1)
def do_fuzzed(job: Job, inputs: Any, work: Any) -> dict[str, Any]:
    """Twelve numbers, of which the journal and the memo keep what was there."""
    journal, memo = work.journal("numbers"), work.memo("squares")
    for i in range(len(journal.records), 12):
        journal.append(i)
    squares = [memo.value(i, lambda i=i: i * i) for i in range(12)]
    memo.write()
    (work.dir / "deep").mkdir(exist_ok=True)
    (work.dir / "deep" / "value.json").write_text("5")
    return {"value": 5.5, "squares": squares}


JOB_KINDS.add("test-fuzzed", do_fuzzed)
FUZZED = Job("test-fuzzed", {"value": 5})
BEGUN = Job("test-fuzzed", {"value": 6})
SQUARES = [i * i for i in range(12)]


def write_store(folder: Path) -> None:
    """A finished artefact, its record in a run folder, and one that was begun."""
    store = Store(folder / "cache")
    write_records(folder / JOBS, Outcome({FUZZED.id: store.run(FUZZED)}))
    work = store.workspace(BEGUN)
    for i in range(5):
        work.journal("numbers").append(i)
    memo = work.memo("squares")
    memo.keep({digest(i): i * i for i in range(5)})
    memo.write()


def read_store(folder: Path, rng: Rng) -> None:
    """A result is the right one or done again; where somebody renewed the checksum, it is what was written."""
    store = Store(folder / "cache")
    meta = store.path(FUZZED.id) / "meta.json"
    if rng.random() < 0.3 and meta.is_file() and not meta.is_symlink():
        renew(meta)
        Store(folder / "cache").get(FUZZED.id)
        return
    for job in (FUZZED, BEGUN):
        handle = store.run(job)
        assert handle.result == {"value": 5.5, "squares": SQUARES}, handle.result
        assert (handle.path / "deep" / "value.json").read_text() == "5"
    try:
        known = read_records(folder / JOBS, folder / "cache").outcome.handles
    except Damaged as reason:
        raise UsageError(f"{folder / JOBS}: {reason}") from None
    assert all(handle.result == {"value": 5.5, "squares": SQUARES} for handle in known.values())


REPLY = KeptReply(text="A", input_tokens=400, output_tokens=1)
JUDGE = make_judge("openai:m@http://127.0.0.1:9/v1", JudgeSettings())


def write_kept(folder: Path) -> None:
    """A journal, a checkpoint, a judge's reply and its calibration, as other attempts and other machines leave them."""
    journal = Journal(folder / "journal.jsonl")
    for i in range(4):
        journal.append({"i": i, "text": "é"})
    for step in (1, 2):
        checkpoint = folder / "trainer" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights.bin").write_bytes(bytes(50))
        seal(checkpoint)
    Replies(folder / "replies").put({"model": "m"}, REPLY)
    save_calibration(folder, JUDGE, {"agreement": 0.75})


def read_kept(folder: Path, rng: Rng) -> None:
    assert Replies(folder / "replies").get({"model": "m"}, KeptReply) in (None, REPLY)
    measured = calibration(folder, JUDGE)
    assert measured is None or measured["agreement"] == 0.75
    checkpoint = last_checkpoint(folder / "trainer")
    assert checkpoint is None or (checkpoint / "weights.bin").read_bytes() == bytes(50)
    if (folder / "journal.jsonl").is_file():
        Memo(folder / "journal.jsonl")
        records = Journal(folder / "journal.jsonl").records
        assert records == [{"i": i, "text": "é"} for i in range(len(records))]


# ---- copies of the hub ---------------------------------------------------------------------------------------------

COPIED = (("model", "a/b", "config.json"), ("dataset", "a/c", "helpful/train.jsonl"))


def write_copies(folder: Path) -> None:
    entries = []
    for kind, name, file in COPIED:
        entry = FetchedRepository(kind=kind, id=name, revision=None, commit="c" * 40, patterns=("*",), files={})
        path = folder / entry.place / file
        path.parent.mkdir(parents=True)
        path.write_text('{"prompt": "how?"}\n')
        files = {file: FetchedFile(size=path.stat().st_size, sha256=file_digest(path))}
        entries.append(entry.model_copy(update={"files": files}))
    write_json(folder / "fetched.json", Manifest(repositories=tuple(entries)).model_dump(mode="json"))


def read_copies(folder: Path, rng: Rng) -> None:
    """What is taken over is what was fetched."""
    try:
        look_offline(folder)
        for kind, name, file in COPIED:
            place = verified(kind, name, None)
            assert (place / file).read_text() == '{"prompt": "how?"}\n'
    finally:
        look_offline(None)


# ---- what comes over the network -----------------------------------------------------------------------------------


def write_question(folder: Path) -> None:
    (folder / "question.json").write_text(json.dumps({"prompt": "how?", "helpful": 0.5}))


def ask(folder: Path, rng: Rng) -> None:
    prompt, helpful = _question((folder / "question.json").read_bytes())
    assert prompt.strip()
    assert 0 <= helpful <= 1


def write_completion(folder: Path) -> None:
    (folder / "completion.json").write_bytes(says("Because.\nVerdict: A").body)


def read_completion(folder: Path, rng: Rng) -> None:
    """A fault is retried; what is read costs no less than can be true."""
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m", JudgeSettings(), threading.Event())
    try:
        reply: Reply = endpoint._read((folder / "completion.json").read_bytes().decode("utf-8", "replace"), 1000)
    except _Transient as fault:
        raise UsageError(str(fault)) from None
    assert all(count is None or count > 0 for count in asdict(reply.tokens).values())
    reply.text.encode()


RUN_FILES = (
    *("run/*.json", "run/*.csv", "run/*.parquet", "run/config.yaml", "run/.owner"),
    *("run/families.json", "run/artefacts/*/*/*"),
)
STORED = (
    *("cache/test-fuzzed/*/*.json", "cache/test-fuzzed/*/deep/*", JOBS),
    *("cache/partial/*/*.jsonl", "cache/partial/*/*/*.jsonl"),
)
KEPT = ("*.jsonl", "trainer/*/*", "replies/*/*", "judge-calibrations/*")
BOARD_FILES = ("boards/*/board.json", "boards/*/scores/*", "run/*")
TARGETS: dict[str, Target] = {
    "suite": Target(write_suites, read_suite, apart=True, kinds=True),
    "task": Target(write_tasks, read_task, apart=True, kinds=True),
    "pairs": Target(write_pairs, read_pairs, apart=True, kinds=True),
    "annotations": Target(write_annotations, read_verdicts, apart=True, kinds=True),
    "points": Target(write_points, analyse_points, kinds=True),
    "request": Target(write_request, read_request, change=change_request),
    "models": Target(write_models, read_models, ("*/*",), kinds=True),
    "run folder": Target(write_run, read_run, RUN_FILES, kinds=True, change=change_and_renew),
    "board": Target(write_board, read_board, BOARD_FILES, kinds=True),
    "store": Target(write_store, read_store, STORED, kinds=True),
    "copies": Target(write_copies, read_copies, ("*.json", "*/*", "*/*/*"), kinds=True),
    "kept": Target(write_kept, read_kept, KEPT, kinds=True),
    "question": Target(write_question, ask),
    "completion": Target(write_completion, read_completion),
}
