"""The command line: every user mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import json

import pytest

SUITE = """
schema_version: 1
name: mine
title: mine
task: peo_sandbox
model: sandbox
data: {kind: sandbox}
"""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["run", "--methods", "peoo"], "did you mean peo"),
        (["run", "--suite", "sandbix"], "did you mean sandbox"),
        (["run", "--suite", "absent.yaml"], "absent.yaml: cannot be read"),
        (["run", "--methods", "expo"], "expo.modpo"),
        (["run", "--methods", "peo.soup"], "wraps no other method"),
        (["run", "--methods", ","], "--methods is empty"),
        (["run", "--preferences", "0,1.5"], "off the simplex"),
        (["run", "--preferences", "many"], "number of points"),
        (["run", "--set", "peo.budgit=3"], "did you mean budget"),
        (["run", "--set", "peo.budget=3"], "greater than or equal to 12"),
        (["run", "--set", "training.betta=1"], "did you mean beta"),
        (["run", "--set", "nothing"], "METHOD.KEY=VALUE"),
        (["run", "--set", "mod.x=1"], "not in the run"),
        (["run", "--seeds", "a,b"], "whole numbers"),
        (["run", "--seeds", "1," + "9" * 5000], "whole numbers"),
        (["run", "--seed", str(2**32)], "whole number"),
        (["run", "--preferences", "1000000000"], "at most 1001 points"),
        (["run", "--limit", "1"], "at least 2"),
        (["run", "--policy", "soup=/nowhere"], "belongs to a method"),
        (["run", "--answers", "soup=/nowhere"], "belongs to a method"),
        (["run", "--answers", "mine=/nowhere"], "/nowhere: no such file"),
        (["run", "--answers", "mine"], "--answers NAME=PATH"),
        (["run", "--answers", "a=x", "--answers", "a=y"], "given twice"),
        (["run", "--policy", "a=x", "--answers", "a=y"], "belongs to another policy"),
        (["plan", "--methods", "none"], "nothing is left to compare"),
        (["plan", "--methods", "none", "--answers", "a=x"], "--answers NAME=FILE twice"),
        (["plan", "--methods", "none", "--answers", "a=x", "--answers", "b=x", "--seeds", "0,1"], "leave it out"),
        (["plan", "--methods", "none", "--policy", "a=x", "--expert", "helpful=y"], "leave it out"),
        (["plan", "--set", "peo.max_kl=.inf"], "finite"),
        (["plan", "--set", "training.beta=.inf"], "finite"),
        (["plan", "--seeds", "²"], "whole numbers"),
        (["plan", "--set", "peo-expo.alphas=[]"], "at least 1 item"),
        (["plan", "--model", "gpt2"], "trains its own model"),
        (["run", "--set", "modpo.margin=none"], "'implicit' or 'explicit'"),
        (["run", "--data-dir", "/nowhere"], "no such folder"),
        (["run", "--expert", "helpful"], "NAME=PATH"),
        (["run", "--expert", "helpful=/nowhere"], "/nowhere"),
        (["run", "--out", "/proc/none/x"], "choose another folder with --out"),
        (["list", "metods"], "methods, learners, suites, tasks"),
        (["steer", "nowhere", "hello"], "not a finished run folder"),
        (["steer", "nowhere", "caf\udce9"], "a prompt is not UTF-8 text"),
        (["steer", "nowhere", "hello", "--helpful", "2"], "off the simplex"),
        (["export", "nowhere", "--to", "x"], "not a finished run folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(peo_bench, args, says):
    code, _, err = peo_bench(*args)
    assert code == 2
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SUITE + "bad: [", "malformed YAML"),
        (SUITE.replace("task: peo_sandbox", "task: peo_sandbux"), "did you mean peo_sandbox"),
        (SUITE + "trainig: {}", "did you mean training"),
        (SUITE.replace("name: mine", "name: ../../evil name"), "not a valid name"),
        (SUITE.replace("title: mine\n", ""), "'title'"),
        (SUITE.replace("sandbox}", "sandbox, corpus: -1}"), "corpus"),
        ("- 1\n", "expected `key: value` lines"),
    ],
)
def test_mistakes_in_a_suite_file_name_file_and_key(peo_bench, tmp_path, text, says):
    (tmp_path / "mine.yaml").write_text(text)
    code, _, err = peo_bench("run", "--suite", "mine.yaml")
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_a_suite_file_in_another_encoding(peo_bench, tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"name: \xff\xfe")
    code, _, err = peo_bench("plan", "--suite", "mine.yaml")
    assert code == 2
    assert "not UTF-8" in err


def test_an_unwritable_cache(peo_bench, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    code, _, err = peo_bench("run")
    assert code == 2
    assert "set XDG_CACHE_HOME" in err


def test_an_unwritable_output_folder_loses_nothing(peo_bench, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = peo_bench("run", "--out", "file")
    assert code == 2
    assert "--out" in err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("what", ["methods", "suites", "tasks", "scorers", "judges"])
def test_listings_have_json(peo_bench, what):
    code, out, _ = peo_bench("list", what, "--json")
    assert code == 0
    rows = json.loads(out)
    assert all("name" in row for row in rows)
    if what == "methods":
        assert {"peo", "modpo", "soup", "mod", "peo-expo"} <= {row["name"] for row in rows}
    assert peo_bench("list", what)[0] == 0


def test_plan_executes_nothing_and_bounds_later_rounds(peo_bench, tmp_path):
    code, out, _ = peo_bench("plan", "--json")
    assert code == 0
    stages = {stage["stage"]: stage for stage in json.loads(out)}
    assert stages["aspect"]["jobs"] == 2
    assert stages["modpo"]["jobs"] == 3
    assert stages["extrapolation"]["cost"]["evaluations"] == 26
    assert stages["later rounds of peo-expo"]["cost"]["evaluations"] >= 30
    assert stages["sandbox-oracle"]["cost"]["answers"] == 48 * 320
    assert stages["answers (test)"]["cost"]["scorer_calls"] == 26 * 255 * 4
    assert stages["sandbox-reference"]["cached"] == 0
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("meta.json"))
    assert peo_bench("plan")[0] == 0


def test_every_option_of_run_is_one_of_plan():
    """So that `run` can be typed over with `plan`."""
    from typer.main import get_command

    from peo_bench import cli
    from peo_bench.cli import run  # noqa: F401 - it registers

    commands = get_command(cli.app).commands
    options = {name: {o for p in commands[name].params for o in p.opts} for name in ("run", "plan")}
    assert options["run"] <= options["plan"]


def test_doctor_runs(peo_bench):
    code, out, _ = peo_bench("doctor", "--json")
    findings = {item["what"]: item for item in json.loads(out)}
    assert findings["torch"]["ok"]
    assert code in (0, 2)


def test_all_methods_are_those_that_the_data_can_serve(peo_bench):
    from peo_bench.methods import METHODS
    from peo_bench.runs.config import all_methods
    from peo_bench.suites.suite import load_suite

    everything = {name for name in METHODS.names() if not METHODS.get(name).wraps} | {"best-of-n", "rps.soup"}
    assert set(all_methods(load_suite("sandbox"))) == everything
    assert everything - set(all_methods(load_suite("smollm2"))) == {"dpo-lw", "cagrad", "raco", "mgda", "amopo"}
    code, out, _ = peo_bench("plan", "--methods", "all", "--json")
    assert code == 0
    assert json.loads(out)


def test_shells_complete_commands_and_options() -> None:
    from typer.testing import CliRunner

    from peo_bench import cli
    from peo_bench.cli import report, run  # noqa: F401 - they register

    def completed(words: str, at: int) -> list[str]:
        asked = {"_PEO_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": f"peo-bench {words}", "COMP_CWORD": str(at)}
        return CliRunner().invoke(cli.app, [], env=asked, prog_name="peo-bench").output.split()

    assert completed("rep", 1) == ["report"]
    assert completed("report --re", 2) == ["--redact"]
