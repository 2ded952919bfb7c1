"""Users without a home, terminals without UTF-8, brackets in names, nested and packed files: one line, or it works."""

from __future__ import annotations

import functools
import gzip
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow
import pytest
import yaml
from run_folder_fixture import write_run_folder

from peo_bench.errors import UsageError
from peo_bench.files.atomic import replacing
from peo_bench.files.rows import UNPACKED_LEAST, file_rows
from peo_bench.files.spreadsheet import inert
from peo_bench.results.folder import read_run_folder
from peo_bench.results.progress import OWNER, is_running
from peo_bench.runs import execute, judging
from peo_bench.settings import load_yaml, parse_yaml

ROOT = Path(__file__).parents[1]


def test_a_user_without_a_home_is_told_what_to_set(peo_bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: no HOME, and no entry in the system's list of users."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    for command in (("run", "--out", "out"), ("plan",)):
        code, _, err = peo_bench(*command)
        assert (code, err.count("\n")) == (2, 1)
        assert "no home folder" in err
        assert "set XDG_CACHE_HOME" in err


def test_a_terminal_without_utf_8_gets_the_table_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("who,reward,cost\ncafé ↑,1,0\nb,2,1\n", encoding="utf-8")
    program = "import sys; sys.argv[0] = 'peo-bench'; from peo_bench.cli import main; main()"
    arguments = ("pareto", "points.csv", "--maximize", "reward", "--minimize", "cost", "--group", "who")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"caf? ?" in done.stdout


def test_brackets_in_a_path_are_no_markup(peo_bench, tmp_path: Path) -> None:
    for name in "ab":
        write_run_folder(tmp_path / name, n_prompts=8, weights=(1.0, 0.5, 0.0))
    code, out, err = peo_bench("compare", "a", "b", "--out", "a[/]b")
    assert (code, err) == (0, "")
    assert "report: a[/]b/report.html" in out


@pytest.mark.parametrize("option", ["--capabilities", "--judge"])
def test_names_too_long_for_a_file_are_one_short_line(peo_bench, option: str) -> None:
    name = {"--capabilities": "x" * 5000 + ".yaml", "--judge": "alpaca_eval:" + "9" * 5000}[option]
    code, _, err = peo_bench("plan", option, name)
    assert (code, err.count("\n")) == (2, 1)
    assert "too long for the name of a file" in err
    assert len(err) < 2100


BOMB = "[&a0 [x, x], " + ", ".join(f"&a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(12)) + "]"
"""Aliases of aliases: 9 ** 12 values in ten lines."""
NESTED = {"yaml": "[" * 5000, "json": "[" * 200_000}
NO_YAML = (NESTED["yaml"], "2024-13-45", "!!int x", "!!timestamp x", "!!float [", "9" * 5000 + ":", "? {a: [b]}\n: c")


@pytest.mark.parametrize("text", NO_YAML, ids=lambda text: text[:12])
def test_what_is_no_yaml_is_one_error_of_one_kind(tmp_path: Path, peo_bench, text: str) -> None:
    try:
        parse_yaml(text)
    except yaml.YAMLError:
        (tmp_path / "mine.yaml").write_text(f"name: {text}\n")
        code, _, err = peo_bench("plan", "--set", f"sft.steps={text}")
        assert (code, err.count("\n")) == (2, 1)
        assert "is not YAML" in err
    (tmp_path / "mine.yaml").write_text(f"{text}\n")
    with pytest.raises(UsageError, match=r"mine.yaml"):
        load_yaml(tmp_path / "mine.yaml")


@pytest.mark.parametrize("text", [BOMB, "&a [*a]", "{x: &a {y: *a}}"], ids=["many", "circle", "circle of keys"])
def test_aliases_that_multiply_or_meet_themselves_are_one_line(peo_bench, tmp_path: Path, text: str) -> None:
    """pydantic would write a value out that stands for more than any memory holds."""
    assert parse_yaml("[&a [1, 2], *a]") == [[1, 2], [1, 2]]
    with pytest.raises(yaml.YAMLError, match="stands for more than 100,000 values"):
        parse_yaml(text)
    (tmp_path / "mine.yaml").write_text(f"data: {{kind: {text}}}\n")
    code, _, err = peo_bench("plan", "--suite", "mine.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "mine.yaml" in err


NAMED_BY_USERS = {
    "suite": ("mine.yaml", "plan --suite mine.yaml"),
    "capability": ("mine.yaml", "plan --capabilities mine.yaml"),
    "data of a capability": ("rows.jsonl", "plan --capabilities task.yaml"),
    "points": ("points.csv", "pareto points.csv --maximize reward --minimize cost"),
    "annotations": ("mine.json", "winrate mine.json"),
    "packed annotations": ("mine.json.gz", "winrate mine.json.gz"),
    "model outputs": ("mine.json", "annotate mine.json mine.json --annotator x --to to.json"),
    "labels": ("mine.jsonl", "judge calibrate --data mine.jsonl"),
    "packed labels": ("mine.jsonl.zst", "judge calibrate --data mine.jsonl.zst"),
    "verdicts": ("mine.json", "judge calibrate --data rows.json --layout pandalm --verdicts mine.json"),
    "difficulties": ("mine.csv", "winrate rows.json --difficulty mine.csv --gamed mine.csv"),
    "a checkpoint": ("mine", "plan --suite smollm2 --model mine --data-dir ."),
    "a scorer": ("mine", "scorer check mine --layout beaver"),
    "a run": ("mine", "figures mine"),
}
"""By what is read: what is a pipe there, and the command that would wait for it."""


@pytest.mark.parametrize(("pipe", "command"), NAMED_BY_USERS.values(), ids=NAMED_BY_USERS)
def test_a_pipe_in_the_place_of_a_file_is_not_opened(peo_bench, tmp_path: Path, pipe: str, command: str) -> None:
    (tmp_path / "task.yaml").write_text("task: t\ndataset_path: json\ndataset_kwargs: {data_files: rows.jsonl}\n")
    (tmp_path / "rows.json").write_text('[{"preference": 1, "instruction": "q", "output_1": "a", "output_2": "b"}]')
    os.mkfifo(tmp_path / pipe)
    code, _, err = peo_bench(*command.split())
    assert (code, err.count("\n")) == (2, 1)
    assert pipe in err


@pytest.mark.parametrize("ending", ["json", "jsonl", "jsonl.gz"])
def test_nested_rows_are_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    text = NESTED["json"].encode()
    path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    if ending == "json":
        with pytest.raises(UsageError, match="cannot be read as json"):
            list(file_rows(path, "rows"))
    else:
        ((_, row),) = file_rows(path, "rows")
        assert str(row) == "not JSON (nested too deeply)"


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_a_small_file_that_unpacks_to_very_much_is_refused(tmp_path: Path, packing: str) -> None:
    """A megabyte is always allowed, a hundred times the file's size too; zeros pack to a thousandth."""
    path = tmp_path / f"rows.jsonl.{packing}"
    pack = gzip.compress if packing == "gz" else functools.partial(pyarrow.compress, codec="zstd", asbytes=True)
    path.write_bytes(pack(b"\n" * UNPACKED_LEAST))
    assert list(file_rows(path, "rows")) == []
    path.write_bytes(pack(b"\n" * 30 * UNPACKED_LEAST))
    with pytest.raises(UsageError, match=r"unpacks to more than [\d,]+ bytes, 100 times its size"):
        list(file_rows(path, "rows"))


def test_points_that_overflow_are_null_in_json(peo_bench, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("reward,cost\n1e308,-1e308\n-1e308,1e308\n1,1\n")
    axes = ("--maximize", "reward", "--minimize", "cost", "--reference", "-1.7e308,1.7e308")
    code, out, _ = peo_bench("pareto", "points.csv", *axes, "--json")
    assert code == 0
    assert json.loads(out)["groups"]["all"]["hypervolume"] is None


def test_an_interrupt_while_the_report_is_written_says_how_to_go_on(peo_bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "execute", lambda *given, **named: SimpleNamespace())
    monkeypatch.setattr(import_module("peo_bench.report.build"), "build_report", interrupted)
    code, _, err = peo_bench("run", "--out", "out")
    assert code == 130
    assert err == "interrupted; finished work is kept: type `peo-bench run --out out` again to continue\n"


def test_what_a_killed_write_left_in_a_run_folder_is_swept(tmp_path: Path) -> None:
    left, kept = tmp_path / "out" / ".points.csv.0f12ab9c", tmp_path / "out" / ".hidden.csv"
    with execute._locked(tmp_path / "out"), replacing(tmp_path / "out" / "points.csv") as writing:
        pass
    assert left.name[:12] == writing.name[:12]
    for path in (left, kept):
        path.touch()
    with execute._locked(tmp_path / "out"):
        pass
    assert not left.exists()
    assert kept.exists()


def test_a_refused_run_leaves_no_folder(peo_bench, tmp_path: Path) -> None:
    """The suite's data are found to be missing when the run has its folder already."""
    code, _, err = peo_bench("run", "--suite", "beavertails", "--model", "sandbox")
    assert (code, err.count("\n")) == (2, 1), err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    peo_bench("run", "--suite", "beavertails", "--model", "sandbox", "--out", "mine")
    assert (tmp_path / "mine" / "notes.txt").exists()


@pytest.mark.parametrize("text", ["=1+1", "+1", "@x", "\tx", "-2+3", "-x", "- x", "-1e5cmd"])
def test_what_a_spreadsheet_would_compute_is_text(text: str) -> None:
    assert inert(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=b", "-1", "-0.5", "-1e-5", "-0.5 [-0.7, -0.3]", "-0.5 ± 0.1", "−3", "5%", "-"])
def test_what_a_spreadsheet_reads_as_it_is_stays(text: str) -> None:
    assert inert(text) == text


def test_a_configuration_that_is_no_text_is_one_line(peo_bench, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_bytes(b"\xe9")
    code, _, err = peo_bench("run", "--methods", "soup", "--out", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "config.yaml: is damaged" in err


def test_reasons_of_endpoints_are_no_formulas(tmp_path: Path) -> None:
    first = {"judge": "j", "objective": "helpful", "seed": 0, "preference": -0.5, "method_a": "a", "method_b": "b"}
    asked = judging.Judging()
    asked.unjudged = pd.DataFrame([first | {"prompt_id": "p", "reason": '=HYPERLINK("http://x")'}])
    judging.write_judgements(tmp_path, asked)
    row = pd.read_csv(tmp_path / judging.UNJUDGED).iloc[0]
    assert row["reason"] == '\'=HYPERLINK("http://x")'
    assert row["preference"] == -0.5


@pytest.mark.parametrize("said", ["pid x on y", "pid 99999999999999999999 on {host}", "", "pid -1 on {host} more"])
def test_the_owner_of_a_received_folder_may_be_anything(tmp_path: Path, said: str) -> None:
    (tmp_path / OWNER).write_text(said.format(host=os.uname().nodename))
    assert not is_running(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "points.csv", "answers.parquet", "config.yaml"])
def test_a_pipe_in_a_received_folder_is_not_opened(tmp_path: Path, name: str) -> None:
    """Opening it would wait for ever."""
    run = write_run_folder(tmp_path / "run", n_prompts=8, weights=(1.0, 0.5, 0.0))
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(UsageError, match=name):
        read_run_folder(run)
