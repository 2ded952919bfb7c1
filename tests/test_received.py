"""Every command that reads what others may have made answers in one line when a reader breaks on it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from run_folder_fixture import write_run_folder
from typer.main import get_command

from peo_bench import cli
from peo_bench.errors import UsageError

READERS = {
    "report": (("report", "run"), "peo_bench.report.build_report"),
    "report --watch": (("report", "run", "--watch"), "peo_bench.cli.watch.watch_run"),
    "figures": (("figures", "run"), "peo_bench.report.paper.write_run_figures"),
    "compare": (("compare", "run", "run"), "peo_bench.boards.compare.compare_runs"),
    "verify": (("verify", "run"), "peo_bench.runs.verification.verify_run"),
    "leaderboard add": (("leaderboard", "add", "run"), "peo_bench.boards.leaderboard.add_run"),
    "leaderboard show": (("leaderboard", "show", "--dir", "run"), "peo_bench.boards.leaderboard.boards"),
    "leaderboard verify": (("leaderboard", "verify", "--dir", "run"), "peo_bench.boards.leaderboard.verify"),
    "leaderboard html": (("leaderboard", "html", "--dir", "run"), "peo_bench.boards.leaderboard.boards"),
    "steer": (("steer", "run", "how ?"), "peo_bench.steering.families.SteeredPolicy"),
    "steer --web": (("steer", "run", "--web"), "peo_bench.steering.web.family_answers"),
    "export": (("export", "run", "--to", "to"), "peo_bench.steering.families.SteeredPolicy"),
    "outputs": (("outputs", "run", "--to", "to.json"), "peo_bench.results.answers.answers_of"),
    "winrate": (("winrate", "run/answers.parquet"), "peo_bench.winrates.annotations.read_annotations"),
    "annotate": (
        ("annotate", "run/x.json", "run/y.json", "--annotator", "x", "--to", "to.json"),
        "peo_bench.winrates.annotations.read_model_outputs",
    ),
    "pareto": (("pareto", "run/points.csv"), "peo_bench.cli.pareto.read_points"),
    "judge calibrate": (("judge", "calibrate", "--data", "run/x.jsonl"), "peo_bench.judges.labelled.read_labelled"),
    "scorer check": (("scorer", "check", "run", "--layout", "beaver"), "peo_bench.scorers.kinds.scorer_identity"),
    "cache prune": (
        ("cache", "prune", "--older-than", "0", "--keep-run", "run"),
        "peo_bench.jobs.usage.jobs_of",
    ),
    "convert": (("convert", "run", "--to", "to"), "peo_bench.models.convert.convert"),
}
"""By command: how it is typed, and something that reads for it."""
OWN = {"run", "plan", "list", "doctor", "schema", "fetch"}
"""Commands that read no result of others: suites, tasks and data are checked by the readers of tests/test_fuzz.py."""


def commands() -> Iterator[str]:
    """Yield the commands that are registered, those of groups with the group's name."""
    for name, command in get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        yield from (f"{name} {part}" for part in command.commands) if hasattr(command, "commands") else (name,)


def test_no_command_is_forgotten(peo_bench) -> None:
    peo_bench("--version")  # registers all
    assert set(commands()) == OWN | {name.partition(" --")[0] for name in READERS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("whole") / "run", n_prompts=8, weights=(1.0, 0.5, 0.0))


@pytest.mark.parametrize("error", [RuntimeError("odd\n" + "x" * 5000), OSError("no JSON, says a library")])
@pytest.mark.parametrize("name", READERS)
def test_a_reader_that_breaks_is_one_line(
    peo_bench, monkeypatch: pytest.MonkeyPatch, whole: Path, tmp_path: Path, name: str, error: Exception
) -> None:
    command, reader = READERS[name]
    (tmp_path / "run").symlink_to(whole)

    def breaks(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(reader, breaks)
    code, out, err = peo_bench(*command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: run")
    assert f"({type(error).__name__}: " in err
    assert len(err) < 500
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("to")]


STEERING = "p\x1b]0;title\x07\u202e"
"""It would name the terminal's window, ring and turn the direction of writing."""


def renamed(run: Path, name: str) -> None:
    """Call the method `peo` otherwise, wherever the folder says so."""
    for path in (run / "run.json", run / "metrics.json", run / "costs.json"):
        path.write_text(path.read_text().replace('"peo"', json.dumps(name)))
    table = pd.read_csv(run / "points.csv")
    table.replace({"method": {"peo": name}}).to_csv(run / "points.csv", index=False)
    texts = pd.read_parquet(run / "answers.parquet")
    texts.replace({"method": {"peo": name}}).to_parquet(run / "answers.parquet", index=False)


@pytest.mark.parametrize("name", ["../../../x", "mine\n", STEERING, "A", ""])
@pytest.mark.parametrize("command", ["report", "figures", "compare", "verify", "leaderboard add", "outputs", "steer"])
def test_names_of_methods_are_checked_where_they_are_read(
    peo_bench, whole: Path, tmp_path: Path, command, name
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    renamed(tmp_path / "run", name)
    code, out, err = peo_bench(*READERS[command][0])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert ("is not a valid name" in err) or ("does not hold names" in err) or command == "steer"
    assert not [path.name for path in tmp_path.iterdir() if path.name not in ("run", "cache")]


def test_names_of_methods_are_checked_where_a_board_is_read(peo_bench, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "good")
    assert peo_bench("leaderboard", "add", "good", "--dir", "run")[0] == 0
    (board,) = (tmp_path / "run").glob("*/board.json")
    board.write_text(board.read_text().replace('"method": "peo"', f'"method": {json.dumps(STEERING)}'))
    for command in ("leaderboard show", "leaderboard html"):
        code, out, err = peo_bench(*READERS[command][0])
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "is not a valid name" in err


@pytest.mark.parametrize("tty", [True, False])
def test_nothing_that_others_wrote_steers_the_terminal(
    peo_bench, monkeypatch, whole: Path, tmp_path: Path, tty
) -> None:
    """In tables, sentences and problems; where the terminal has colours, those of our own are all there are."""
    shutil.copytree(whole, tmp_path / "run")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    change = {
        "title": STEERING,
        "notes": [STEERING, "a\nb"],
        "missing": [{"what": STEERING, "reason": STEERING, "n": 1}],
    }
    (tmp_path / "run" / "run.json").write_text(json.dumps(run | change))
    (tmp_path / "run" / "SHA256SUMS").write_text(f"00  {STEERING}\n")
    if tty:
        monkeypatch.setattr(cli, "console", lambda: cli._PlainConsole(force_terminal=True, width=200))
    for command in ("compare", "verify", "report"):
        _, out, err = peo_bench(*READERS[command][0])
        assert re.sub(r"\x1b\[[0-9;]*m", "", out + err).isprintable() or cli.printable(out + err) == out + err or tty
        assert not {"\x07", "\u202e"} & {*out, *err}
        assert "\x1b]" not in out + err
    text = (tmp_path / "run" / "report.md").read_text()
    assert cli.printable(text) == text


def test_lines_are_printed_in_one_way() -> None:
    """What prints a text past `echo` prints what others wrote as it is; JSON escapes it."""
    for path in Path(cli.__file__).parent.glob("*.py"):
        printed = re.findall(r"(?:typer\.echo|(?<!\.)\bprint)\((.*)", path.read_text())
        own = [line for line in printed if not line.startswith("json.dumps(")]
        assert not own or path.name == "__init__.py", path.name


def test_a_question_that_breaks_a_received_family_is_refused_in_one_line(tmp_path: Path) -> None:
    """`steer --web` answers later, when the page asks."""

    def answers(prompt: str, helpful: float) -> list[object]:
        raise KeyError("weights")

    guarded = cli.received(tmp_path)(answers)
    for _ in range(2):
        with pytest.raises(UsageError, match="KeyError: 'weights'"):
            guarded("how ?", 0.5)


def test_a_full_disk_is_no_damage(peo_bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As safetensors says it: without a code, and as no error of the system."""

    def full(*given: object) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("peo_bench.models.convert.convert", full)
    code, _, err = peo_bench("convert", "old", "--to", "new")
    assert (code, err.count("\n")) == (1, 1)
    assert "no room to write" in err
