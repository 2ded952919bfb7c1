"""Damaged and hostile files for every reader of what others may have written, and what a reader may do with them.

A `Target` writes a whole file or folder once; `damaged` copies it and changes something; `attempt` lets the reader at
it. A reader may be content or refuse with one line; whatever else it does is in the exception that `attempt` lets pass.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from run_folder_fixture import write_run_folder

from peo_bench.boards import leaderboard
from peo_bench.boards.compare import read_finished
from peo_bench.cli import received
from peo_bench.cli.pareto import read_points
from peo_bench.data.schema import PairSource
from peo_bench.data.sources import LOCATIONS, read_source, source_identity
from peo_bench.errors import PeoBenchError
from peo_bench.files.digest import digest
from peo_bench.files.journal import Journal, Memo
from peo_bench.jobs.artefact import CHECKSUM, sealed
from peo_bench.jobs.job import Job, job_kind
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import Store
from peo_bench.judges.labelled import read_labelled
from peo_bench.judges.openai_judge import KeptReply
from peo_bench.judges.replies import Replies
from peo_bench.report.contents import task_views
from peo_bench.results.folder import read_run_folder
from peo_bench.results.progress import is_running, read_progress
from peo_bench.results.verification import verify_run
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.steering.families import load_family, read_families
from peo_bench.steering.web import _question
from peo_bench.suites import SUITES, TASKS
from peo_bench.suites.suite import load_suite, suite_task
from peo_bench.training.checkpoints import last_checkpoint, seal
from peo_bench.winrates.annotations import read_annotations, read_model_outputs

Rng = random.Random
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 0.5, 1e308, -1e308, 1e-320, 10**400, float("nan"), float("inf")),
    *("", "x", "nan", "../../outside", "/etc/passwd", "mine\n", "=1+1", "a[/]b", "\u202e", "\x00", "\ud800"),
    *("1e999", "9" * 5000, "x" * 70_000, [], [[]], {}, {"x": None}, [None] * 3, {"": ""}),
)
"""What is put in the place of a value."""
BYTES = (
    *(b"\x00", b"\xff\xfe", b"\xe9", b"\xef\xbb\xbf", b"\r", b'"', b",", b"NaN", b"-Infinity", b"1e999"),
    *(
        b"9" * 5000,
        b"[" * 50_000,
        b'{"a":' * 20_000,
        b"\\ud800",
        b"!!int x",
        b"!!timestamp x",
        b"2024-13-45",
        b"&a [*a]",
    ),
)
"""What is put between the bytes of a file."""


# ---- damage ------------------------------------------------------------------------------------------------------


def change_bytes(rng: Rng, content: bytes) -> bytes:
    """Cut, flip, insert, repeat or leave out bytes."""
    at = rng.randrange(len(content) + 1)
    to = min(len(content), at + rng.choice((1, 1, 8, 200)))
    return rng.choice((
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + content[to:],
        lambda: content[:to] + content[at:],
        lambda: content[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in content[at:to]) + content[to:],
        lambda: content[:at] + rng.choice(BYTES) + content[at:],
        lambda: content[:at] + rng.choice(BYTES) + content[to:],
        lambda: b"",
    ))()  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) of nested JSON."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def change_value(rng: Rng, value: Any) -> Any:
    """Replace, leave out, rename or repeat something in nested JSON, once to three times."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        where = list(places(value))
        if not where:
            return rng.choice(VALUES)
        container, key = rng.choice(where)
        how = rng.choice(("value", "value", "value", "gone", "name", "twice", "other"))
        if how == "value":
            container[key] = rng.choice(VALUES)
        elif how == "gone":
            del container[key]
        elif how == "other":
            other, name = rng.choice(where)
            with suppress(LookupError):
                container[key] = json.loads(json.dumps(other[name]))
        elif isinstance(container, dict):
            container[str(rng.choice(VALUES))[:80]] = container.pop(key) if how == "name" else container[key]
        else:
            container.insert(key, container[key])
    return value


def change_json(rng: Rng, content: bytes) -> bytes:
    return json.dumps(change_value(rng, json.loads(content))).encode()


def change_lines(rng: Rng, content: bytes) -> bytes:
    """Change one record of JSON lines."""
    lines = content.splitlines(keepends=True)
    i = rng.randrange(len(lines))
    lines[i] = json.dumps(change_value(rng, json.loads(lines[i]))).encode() + b"\n"
    return b"".join(lines)


def change_yaml(rng: Rng, content: bytes) -> bytes:
    changed = change_value(rng, yaml.safe_load(content))
    return yaml.safe_dump(changed, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def change_csv(rng: Rng, content: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(content.decode())))
    row = rng.choice(rows)
    column = rng.randrange(len(row))
    how = rng.choice(("cell", "cell", "cell", "more", "less", "column", "head"))
    said = str(rng.choice(VALUES)).encode("utf-8", "replace").decode()
    if how == "cell":
        row[column] = said
    elif how == "more":
        row.insert(column, said)
    elif how == "less":
        del row[column]
    elif how == "head":
        rows[0][rng.randrange(len(rows[0]))] = said
    else:
        for each in rows[1:]:
            each[column % len(each)] = said
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def change_parquet(rng: Rng, content: bytes) -> bytes:
    table = pd.read_parquet(io.BytesIO(content))
    column = rng.choice(list(table))
    how = rng.choice(("gone", "null", "text", "number", "cell", "rows", "twice", "lists", "dates"))
    if how == "gone":
        table = table.drop(columns=column)
    elif how == "rows":
        table = table.iloc[: rng.choice((0, 1, len(table) // 2))]
    elif how == "twice":
        table = pd.concat([table, table])
    elif how == "cell":
        cells = table[column].astype(object).copy()
        cells.iloc[rng.randrange(len(cells))] = None
        table[column] = cells
    else:
        values = {"null": None, "text": "=x", "number": 1e308, "dates": pd.Timestamp(0)}
        table[column] = [[1.0]] * len(table) if how == "lists" else values[how]
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


def change_gzip(rng: Rng, content: bytes) -> bytes:
    if rng.random() < 0.1:
        return gzip.compress(b" " * 40_000_000)
    return gzip.compress(change_bytes(rng, gzip.decompress(content)))


BY_FORMAT: dict[str, Callable[[Rng, bytes], bytes]] = {
    **{".json": change_json, ".jsonl": change_lines, ".yaml": change_yaml, ".csv": change_csv},
    **{".parquet": change_parquet, ".gz": change_gzip},
}


def change_kind(rng: Rng, path: Path, outside: Path) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    rng.choice((
        lambda: None,
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(outside),
        lambda: path.symlink_to(outside / "secret"),
        lambda: path.symlink_to(outside / "new"),
    ))()  # fmt: skip


def change_file(rng: Rng, path: Path, outside: Path | None) -> None:
    """Damage a file: its bytes, what it says, or, where there is something `outside`, what it is."""
    change = BY_FORMAT.get(path.suffix)
    if outside and rng.random() < 0.05:
        change_kind(rng, path, outside)
        return
    content = path.read_bytes()
    if change is None or rng.random() < 0.4:
        path.write_bytes(change_bytes(rng, content))
        return
    with suppress(ValueError, TypeError, ArithmeticError, yaml.YAMLError, UnicodeError):  # what no format can hold
        path.write_bytes(change(rng, content))


# ---- targets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A reader: `write(folder)` writes what it reads, `read(folder, rng)` reads it; files may be of other `kinds`.

    `files` are the patterns of those that are damaged, at once `most` of them.
    """

    write: Callable[[Path], object]
    read: Callable[[Path, Rng], object]
    files: tuple[str, ...] = ("*",)
    kinds: bool = False
    most: int = 2


def damaged(target: Target, whole: Path, copy: Path, rng: Rng) -> None:
    """Make a damaged `copy` of the folder `whole`."""
    shutil.copytree(whole, copy)
    outside = copy.with_name("outside") if target.kinds else None
    if outside:
        shutil.rmtree(outside, ignore_errors=True)
        outside.mkdir()
        (outside / "secret").write_text("secret")
    files = sorted(path for pattern in target.files for path in copy.glob(pattern) if path.is_file())
    for path in rng.sample(files, min(len(files), rng.choice((1, 1, target.most)))):
        change_file(rng, path, outside)


def attempt(target: Target, copy: Path, rng: Rng) -> str:
    """Read a damaged copy; return "read" or "refused". Whatever else happens, or is written outside, is raised."""
    beside = {path: path.read_bytes() if path.is_file() else b"" for path in sorted(copy.parent.iterdir())}
    try:
        return _attempt(target, copy, rng)
    finally:
        after = {path: path.read_bytes() if path.is_file() else b"" for path in sorted(copy.parent.iterdir())}
        outside = copy.with_name("outside")
        assert after == beside
        assert not outside.exists() or [path.name for path in outside.iterdir()] == ["secret"]
        assert not outside.exists() or (outside / "secret").read_text() == "secret"


def _attempt(target: Target, copy: Path, rng: Rng) -> str:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            target.read(copy, rng)
        except PeoBenchError as refusal:
            said = str(refusal)
            assert said.strip(), "a refusal says something"
            assert "\n" not in said, f"more than one line: {said!r}"
            assert len(said) < 3000, f"{len(said)} characters: {said[:200]!r}"
            return "refused"
    return "read"


def write_suites(folder: Path) -> None:
    for name in SUITES.names():
        shutil.copy(SUITES.get(name), folder / f"{name}.yaml")


def read_suite(folder: Path, rng: Rng) -> None:
    for path in folder.glob("*.yaml"):
        if path.read_bytes() != SUITES.get(path.stem).read_bytes():
            suite_task(load_suite(str(path)))


def write_tasks(folder: Path) -> None:
    for name in TASKS.names():
        shutil.copy(TASKS.get(name), folder / f"{name}.yaml")


def read_task(folder: Path, rng: Rng) -> None:
    from peo_bench.settings import read_yaml
    from peo_bench.suites.suite import TaskConfig

    for path in folder.glob("*.yaml"):
        if path.read_bytes() != TASKS.get(path.stem).read_bytes():
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
    for path in sorted(folder.iterdir()):
        layout = path.name.partition(".")[0]
        source = PairSource(objective="helpful", path=path.name, layout=layout)  # type: ignore[arg-type]
        read_source(source_identity(source, folder))


def write_annotations(folder: Path) -> None:
    rows = [
        {
            "instruction": f"q{i}", "output_1": "a", "generator_1": "b", "output_2": "c", "generator_2": "m",
            "annotator": "x", "preference": 1 + i % 2,
        }
        for i in range(6)
    ]  # fmt: skip
    (folder / "annotations.json").write_text(json.dumps(rows))
    (folder / "annotations.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    pd.DataFrame(rows).to_csv(folder / "annotations.csv", index=False)
    outputs = [{"dataset": "d", "instruction": f"q{i}", "output": "a", "generator": "m"} for i in range(6)]
    (folder / "outputs.json").write_text(json.dumps(outputs))
    ours = [
        {
            "id": f"p{i}", "prompt": "q", "answer_a": "x", "answer_b": "y", "label": "a", "objective": "helpful",
            "preferred": "a",
        }
        for i in range(4)
    ]  # fmt: skip
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ours))


def read_verdicts(folder: Path, rng: Rng) -> None:
    for path in sorted(folder.iterdir()):
        with suppress(PeoBenchError) if path.name.startswith("labelled") else redirect_stdout(io.StringIO()):
            if path.name.startswith("annotations"):
                read_annotations(path)
            elif path.name.startswith("outputs"):
                read_model_outputs(path)
            else:
                read_labelled(path, rng.choice(("ours", "pandalm", "llmbar")))


def write_points(folder: Path) -> None:
    rows = [("peo" if i % 2 else "soup", i / 7, 1 - i / 5) for i in range(8)]
    text = "method,reward,cost\n" + "".join(f"{m},{r},{c}\n" for m, r, c in rows)
    (folder / "points.csv").write_text(text)


def analyse_points(folder: Path, rng: Rng) -> None:
    from peo_bench.cli.pareto import pareto

    read_points(folder / "points.csv", ["reward", "cost"], "method")
    given = {"maximize": ["reward"], "minimize": ["cost"], "group": "method", "as_json": True}
    pareto(folder / "points.csv", **given, reference=rng.choice((None, "-1,2", "1e308,-1e308")))


def write_run(folder: Path) -> None:
    write_run_folder(folder / "run", rich=True, n_prompts=8, weights=(1.0, 0.5, 0.0), controls=("soup",))
    families = {"schema_version": 1, "methods": ["peo"], "settings": {}, "worlds": {"1": {"graph": {}}}}
    (folder / "run" / "families.json").write_text(json.dumps(families))
    (folder / "run" / "progress.json").write_text(json.dumps({
        "schema_version": 1, "stage": "build", "jobs": {"queued": 1, "done": 0, "failed": 0, "reused": 0},
        "running": [{"what": "x", "fraction": 0.5, "note": "", "started": 1.0}],
    }))  # fmt: skip
    (folder / "run" / ".owner").write_text("pid 1 on nowhere")


def read_run(folder: Path, rng: Rng) -> None:
    run = folder / "run"
    is_running(run)
    read_progress(run)
    with received(run):
        files = read_run_folder(run)
        if rng.random() < 0.1:
            task_views(files)
        if rng.random() < 0.1:
            verify_run(run)
        read_finished(run)
        read_families(run)
        load_family(run, "peo", None)


def write_board(folder: Path) -> None:
    run = write_run_folder(folder / "run", n_prompts=8, weights=(1.0, 0.5, 0.0), controls=())
    leaderboard.add_run(folder / "boards", run, None)


def read_board(folder: Path, rng: Rng) -> None:
    with received(folder / "boards"):
        leaderboard.boards(folder / "boards")
        if rng.random() < 0.3:
            leaderboard.verify(folder / "boards")
    if rng.random() < 0.3:
        with received(folder / "boards"):
            leaderboard.add_run(folder / "boards", folder / "run", None)


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
    """A finished artefact and one that was begun."""
    store = Store(folder / "cache")
    store.run(FUZZED)
    work = store.workspace(BEGUN)
    for i in range(5):
        work.journal("numbers").append(i)
    memo = work.memo("squares")
    memo.keep({digest(i): i * i for i in range(5)})
    memo.write()


def read_store(folder: Path, rng: Rng) -> None:
    """A result is the right one or done again; where somebody renewed the checksum, it is what was written."""
    store = Store(folder / "cache")
    path = store.path(FUZZED.id) / "meta.json"
    if rng.random() < 0.3 and path.is_file() and not path.is_symlink():
        with suppress(ValueError, TypeError, RecursionError):
            meta = json.loads(path.read_bytes())
            meta.pop(CHECKSUM, None)
            path.write_text(json.dumps(sealed(meta)))
            Store(folder / "cache").get(FUZZED.id)
            return
    for job in (FUZZED, BEGUN):
        handle = store.run(job)
        assert handle.result == {"value": 5.5, "squares": SQUARES}, handle.result
        assert (handle.path / "deep" / "value.json").read_text() == "5"


REPLY = KeptReply(text="A", input_tokens=400, output_tokens=1)


def write_kept(folder: Path) -> None:
    """A journal, a checkpoint and a judge's reply, as other attempts and other machines leave them."""
    journal = Journal(folder / "journal.jsonl")
    for i in range(4):
        journal.append({"i": i, "text": "é"})
    for step in (1, 2):
        checkpoint = folder / "trainer" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "weights.bin").write_bytes(bytes(50))
        seal(checkpoint)
    Replies(folder / "replies").put({"model": "m"}, REPLY)


def read_kept(folder: Path, rng: Rng) -> None:
    assert Replies(folder / "replies").get({"model": "m"}, KeptReply) in (None, REPLY)
    checkpoint = last_checkpoint(folder / "trainer")
    assert checkpoint is None or (checkpoint / "weights.bin").read_bytes() == bytes(50)
    if (folder / "journal.jsonl").is_file():
        Memo(folder / "journal.jsonl")
        records = Journal(folder / "journal.jsonl").records
        assert records == [{"i": i, "text": "é"} for i in range(len(records))]


def write_nothing(folder: Path) -> None:
    (folder / "nothing").touch()


ODD_YAML = ("[" * 5000, "!!int x", "2024-13-45", "{a: *b}", "!!timestamp x", "&a [*a]")
SETTINGS = (
    "peo.budget",
    "training.beta",
    "sft.steps",
    "data.corpus",
    "decoding.top_p",
    "judge.prompts",
    "model",
    "scorers",
)


def read_request(folder: Path, rng: Rng) -> None:
    """Options as typed: each takes hostile text."""
    text = lambda: str(rng.choice(VALUES)).replace("\x00", "").encode("utf-8", "replace").decode()  # noqa: E731
    options: dict[str, Callable[[], Any]] = {
        "methods": lambda: rng.choice((text(), "peo," + text(), "expo." * rng.randrange(40) + "soup", "rps.rps.soup")),
        "suite": text,
        "model": text,
        "set": lambda: [f"{rng.choice(SETTINGS)}={rng.choice((text(), *ODD_YAML))}"],
        "seeds": lambda: rng.choice((text(), "0,1", "٣", "1" * 30)),
        "preferences": lambda: rng.choice((text(), "0,1", "1,nan", "²", "0." + "3" * 400)),
        "limit": lambda: rng.choice((-1, 0, 2, 10**30)),
        "max_kl": lambda: rng.choice((-1.0, float("nan"), float("inf"), 1e-300)),
        "expert": lambda: [rng.choice(("helpful=", "helpful=" + text(), text(), "../x=y"))],
        "policy": lambda: [rng.choice(("a=" + text(), text(), "mine\n=x", "peo=x"))],
        "judge": lambda: [rng.choice(("openai:m@", "alpaca_eval:", "openai:m@http://[", "scorers", "")) + text()],
        "capabilities": lambda: text() + ".yaml",  # names are looked up in a list that takes seconds to make
    }  # fmt: skip
    chosen = rng.sample(sorted(options), rng.choice((1, 1, 2)))
    resolve_config(RunRequest(**{"methods": "peo", **{name: options[name]() for name in chosen}}))


def write_question(folder: Path) -> None:
    (folder / "question.json").write_text(json.dumps({"prompt": "how?", "helpful": 0.5}))


def ask(folder: Path, rng: Rng) -> None:
    prompt, helpful = _question((folder / "question.json").read_bytes())
    assert prompt.strip()
    assert 0 <= helpful <= 1


RUN_FILES = ("run/*.json", "run/*.csv", "run/*.parquet", "run/config.yaml", "run/.owner")
STORED = (
    "cache/test-fuzzed/*/*.json",
    "cache/test-fuzzed/*/deep/*",
    "cache/partial/*/*.jsonl",
    "cache/partial/*/*/*.jsonl",
)
TARGETS: dict[str, Target] = {
    "suite": Target(write_suites, read_suite),
    "task": Target(write_tasks, read_task),
    "pairs": Target(write_pairs, read_pairs),
    "annotations": Target(write_annotations, read_verdicts),
    "points": Target(write_points, analyse_points),
    "run folder": Target(write_run, read_run, RUN_FILES, kinds=True),
    "board": Target(write_board, read_board, ("boards/*/board.json", "boards/*/scores/*", "run/*"), kinds=True),
    "store": Target(write_store, read_store, STORED, kinds=True),
    "kept": Target(write_kept, read_kept, ("*.jsonl", "trainer/*/*", "replies/*/*"), kinds=True),
    "request": Target(write_nothing, read_request, files=()),
    "question": Target(write_question, ask),
}
