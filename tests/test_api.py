"""The Python API: the same runs, folders and policies as on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_run import ROOT, TINY
from tiny_run import peo_bench as command_line

import peo_bench as pb
from peo_bench.errors import UsageError
from peo_bench.report.contents import task_views

SAME = {"limit": 36, "preferences": 3, "set": dict(word.split("=") for word in TINY if "=" in word)}
BUDGETS = {key: value for key, value in SAME["set"].items() if value.isdecimal()}
METHODS = ["peo", "modpo", "mod"]
QUESTION = "how do i bake bread for my aunt today ?"


@pytest.fixture
def here(small_run, monkeypatch):
    """The folder where the command line made a run, whose cache the API finds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_run / "cache"))
    monkeypatch.chdir(small_run)
    return small_run


def test_a_run_is_that_of_the_command_line(here, capsys):
    """Same options, same cache: nothing is done again, and the points are the same, byte for byte."""
    run = pb.run(methods=METHODS, out="called", **SAME)
    assert "reused from the cache" in capsys.readouterr().out
    assert (here / "called" / "points.csv").read_bytes() == (here / "out" / "points.csv").read_bytes()
    assert run.missing == []
    assert run.report.exists()
    written = json.loads((here / "called" / "run.json").read_text())
    assert written["command"].startswith("peo_bench.run(methods=['peo', 'modpo', 'mod'], ")
    assert "soup" in repr(run)


def test_a_loaded_run_has_tables_metrics_and_figures(here):
    run = pb.load("out")
    front = run.front("soup")
    assert list(front["preference_helpful"]) == [0.0, 0.5, 1.0]
    points = pd.read_csv(here / "out" / "points.csv")
    of_soup = points[(points["method"] == "soup") & (points["split"] == "test")]
    assert sorted(front["reward"]) == sorted(of_soup["reward"])
    assert run.metrics.methods["soup"].steered_utility.value == pytest.approx(
        json.loads((here / "out" / "metrics.json").read_text())["tasks"]["peo_sandbox"]["methods"]["soup"][
            "steered_utility"
        ]["value"]
    )
    figure = run.figure("front")
    (view,) = task_views(run.files)
    drawn = {x for trace in figure.data if trace.meta["role"] == "points" for x in trace.x}
    assert {point.x for point in view.of("soup")} <= drawn
    with pytest.raises(UsageError, match="front"):
        run.figure("frontier")
    for name in ("soap", None, ["soup"]):
        with pytest.raises(UsageError, match="soup"):
            run.front(name)
        with pytest.raises(UsageError, match="soup"):
            run.policy(name, 0.5)
    with pytest.raises(UsageError, match="front"):
        run.figure(1)


def test_a_policy_answers_as_steer_does(here):
    """One engine for all calls; other balances give other policies."""
    policy = pb.load("out").policy("soup", helpful=0.7)
    typed = command_line(here, "steer", "out", QUESTION, "--method", "soup", "--helpful", "0.7", "-n", "2", "--json")
    assert policy.generate([QUESTION], samples=2) == [row["answer"] for row in json.loads(typed.stdout)]
    assert policy.generate(question for question in [QUESTION]) == policy.generate([QUESTION], samples=2)[:1]
    assert pb.load("out").policy("soup", helpful=Fraction(7, 10)).spec == policy.spec
    for samples in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match=f"samples={samples}: give a number of answers per prompt, at least 1"):
            policy.generate([QUESTION], samples=samples)
    policy.export("exported")
    assert (here / "exported" / "config.json").exists()
    assert policy.preference.to_json() == {"helpful": 0.7, "harmless": 0.3}
    assert policy.spec != pb.load("out").policy("soup", helpful=0.2).spec
    for helpful, said in ((1.2, "off the simplex"), ("0.7", "give a number between 0 and 1"), (True, "give a number")):
        with pytest.raises(UsageError, match=said):
            pb.load("out").policy("soup", helpful=helpful)
    for prompts, said in (
        ([" "], "a prompt is empty"),
        (QUESTION, "one text is no list"),
        ([3], "a prompt is int, expected text or a list of messages"),
    ):
        with pytest.raises(UsageError, match=said):
            policy.generate(prompts)


def test_a_plan_is_a_table(here):
    plan = pb.plan(methods=METHODS, **SAME).set_index("stage")
    assert plan.loc["aspect", "jobs"] == plan.loc["aspect", "cached"] == 2
    assert pb.plan(methods=METHODS, seeds=[1, 2], **SAME).set_index("stage").loc["aspect", "cached"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "peo"}, "methods"),
        ({"methods": ["poe"]}, "peo"),
        ({"preferences": [0, 2]}, "off the simplex"),
        ({"set": {"peo.budgets": 3}}, "budget"),
        ({"seeds": ["one"]}, "whole numbers"),
        ({"data_dir": "nowhere"}, "no such folder"),
        ({"seed": -1}, "whole number from 0"),
        ({"seed": "one"}, "seed='one': input should be a valid integer"),
        ({"limit": 2.5}, "limit=2.5: input should be a valid integer"),
        ({"judge": [3]}, "judge=.* valid string"),
        ({"judge": 3}, "judge=3: input should be a valid string"),
        ({"set": {"peo.budget": None}}, "peo.budget"),
        ({"set": {"peo.budget": object()}}, "set peo.budget: is a object"),
        ({"preferences": [2]}, "2 is off the simplex"),
        ({"preferences": ["half"]}, "helpful weights"),
        ({"set": {"peo.budget": "16 of them"}}, "peo.budget"),
    ],
)
def test_what_cannot_be_run_is_one_line(options, said):
    with pytest.raises(UsageError, match=said) as error:
        pb.plan(**options)
    assert "\n" not in str(error.value)


SCRIPT = """
from peo_bench.process import repeats_itself

def call():
    return repeats_itself()

{guard}
    print(call())
"""


@pytest.mark.parametrize(("guard", "said"), [('if __name__ == "__main__":', "False"), ("if True:", "True")])
def test_a_call_that_workers_would_repeat_is_known(tmp_path, guard, said):
    """It ended as "its process was killed, twice, probably for lack of memory"."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard=guard))
    for command in ([str(script)], ["-c", script.read_text()]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == (said if command[0] != "-c" else "False")


def test_a_script_without_a_guard_starts_no_workers(monkeypatch):
    monkeypatch.setattr("peo_bench.api.repeats_itself", lambda: True)
    with pytest.raises(UsageError, match='put the call under `if __name__ == "__main__":`'):
        pb.run(workers=2)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_processes_are_counted_from_one(workers):
    with pytest.raises(UsageError, match=f"workers={workers}: give a number of processes, at least 1"):
        pb.run(workers=workers)


@pytest.mark.parametrize("max_usd", ["5", -1, True, float("nan")])
def test_what_judges_may_spend_is_an_amount(max_usd):
    with pytest.raises(UsageError, match=f"max_usd={max_usd!r}: give an amount of US dollars, at least 0"):
        pb.run(max_usd=max_usd)


def test_options_may_be_paths_and_numbers_of_numpy(here):
    typed = pb.plan(methods=METHODS, **SAME)
    limit, points, settings = np.int64(36), np.linspace(0, 1, 3), {key: np.array(int(v)) for key, v in BUDGETS.items()}
    given = {"limit": limit, "preferences": points, "set": SAME["set"] | settings}
    assert pb.plan(methods=METHODS, suite=Path("sandbox"), seeds=np.arange(1), **given).equals(typed)
    assert pb.plan(methods=METHODS, preferences=[1]).equals(pb.plan(methods=METHODS, preferences="1"))


def test_what_the_package_offers_is_listed():
    assert {"run", "plan", "load", "Run", "__version__"} <= set(dir(pb))


def test_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"run\.json"):
        pb.load(tmp_path)
    with pytest.raises(UsageError, match="3 is no path"):
        pb.load(3)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, peo_bench; print(sorted({'torch', 'pandas', 'typer', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_notebook_of_the_docs_still_runs(here, monkeypatch, capsys):
    """Its cells, on a run that is there; the page in docs/ was executed on a run of its own."""
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "executed from the top"
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
    monkeypatch.setattr("peo_bench.api.run", lambda **options: pb.load("out"))
    monkeypatch.setattr("peo_bench.api.load", lambda folder, load=pb.load: load("out"))
    scope: dict[str, object] = {}
    for cell in code:
        exec("".join(cell["source"]), scope)
    said = capsys.readouterr().out
    assert "peo - modpo: " in said
    assert "1.0 | " in said
