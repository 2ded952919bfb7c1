"""`peo-bench pareto` on anybody's points."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

KNOWN = Path(__file__).parents[2] / "shared/data/fronts/known_hypervolumes.json"
POINTS = """who,reward,cost
a,1,0
a,2,1
a,3,3
a,1,2
b,2,0
b,9,5
"""


@pytest.fixture
def points(tmp_path: Path) -> str:
    (tmp_path / "points.csv").write_text(POINTS)
    return "points.csv"


AXES = ("--maximize", "reward", "--minimize", "cost")


def test_groups_by_hand(peo_bench, points):
    """Reward up, cost down, bound (0, 4): a's columns of width 1 are 4, 3 and 1 high; b's box is 2 x 4."""
    code, out, _ = peo_bench("pareto", points, *AXES, "--group", "who", "--reference", "0,4", "--json")
    assert code == 0
    found = json.loads(out)
    a, b = found["groups"]["a"], found["groups"]["b"]
    assert (a["hypervolume"], b["hypervolume"]) == (8.0, 8.0)
    assert (a["n_points"], a["n_nondominated"], a["nondominated_rows"]) == (4, 3, [1, 2, 3])
    assert a["exclusive_contributions"] == [1.0, 2.0, 1.0, 0.0]
    assert (a["n_beyond_reference"], b["n_beyond_reference"]) == (0, 1)
    assert found["coverage"] == {"a": {"b": 0.0}, "b": {"a": 0.75}}
    assert b["additive_epsilon"] == 1.0, "to dominate (3, 3), b's (2, 0) has to gain 1"
    assert found["reference"] == {"reward": 0.0, "cost": 4.0}


def test_the_bound_can_be_named_and_left_out(peo_bench, points):
    _, out, _ = peo_bench("pareto", points, *AXES, "--reference", "cost = 4, reward=0", "--json")
    assert json.loads(out)["groups"]["all"]["hypervolume"] == 9 * 0 + 2 * 4 + 1 * 1
    code, out, _ = peo_bench("pareto", points, *AXES)
    assert code == 0
    assert "No hypervolume without a bound" in out
    _, out, _ = peo_bench("pareto", points, *AXES, "--reference", "0,4")
    assert "1 of 6 points are not better" in out


def test_groups_that_differ_by_white_space_are_one_and_said_to_be(peo_bench, tmp_path):
    (tmp_path / "points.csv").write_text("who,reward,cost\nx,1,5\nx ,2,4\nX,3,3\na  b,1,1\n")
    code, out, err = peo_bench("pareto", "points.csv", *AXES, "--group", "who", "--json")
    assert code == 0
    assert {name: found["n_points"] for name, found in json.loads(out)["groups"].items()} == {"x": 2, "X": 1, "a b": 1}
    assert err.splitlines() == [
        "warning: points.csv: who 'x ' counts as 'x': white space tells no groups apart",
        "warning: points.csv: who 'a  b' counts as 'a b': white space tells no groups apart",
    ]


@pytest.mark.skipif(not KNOWN.exists(), reason=f"published hypervolumes are absent: {KNOWN}")
def test_published_hypervolumes(peo_bench, tmp_path):
    cases = [case for case in json.loads(KNOWN.read_text()) if case["points"]]
    assert cases
    for case in cases:
        names = [f"f{k}" for k in range(case["n_obj"])]
        np.savetxt(tmp_path / "p.csv", case["points"], delimiter=",", header=",".join(names), comments="", fmt="%.17g")
        side = "--maximize" if case["maximise"] is True else "--minimize"
        assert isinstance(case["maximise"], bool)
        bound = ",".join(map(repr, case["ref"]))
        options = [word for name in names for word in (side, name)]
        code, out, err = peo_bench("pareto", "p.csv", *options, f"--reference={bound}", "--json")
        assert code == 0, err
        assert json.loads(out)["groups"]["all"]["hypervolume"] == pytest.approx(case["hypervolume"], rel=1e-12)


def test_a_plot_in_html(peo_bench, points, tmp_path):
    code, out, _ = peo_bench("pareto", points, *AXES, "--group", "who", "--reference", "0,4", "--plot", "p.html")
    assert code == 0
    assert "plot: p.html" in out
    assert "reward (higher is better)" in (tmp_path / "p.html").read_text()


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium: apt-get install -y chromium")
@pytest.mark.parametrize(("suffix", "magic"), [("svg", b"<svg"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_a_plot_as_a_picture(peo_bench, points, tmp_path, suffix, magic):
    assert peo_bench("pareto", points, *AXES, "--plot", f"p.{suffix}")[0] == 0
    assert (tmp_path / f"p.{suffix}").read_bytes().startswith(magic)


@pytest.mark.parametrize(
    ("text", "args", "says"),
    [
        (POINTS, ["--maximize", "reward"], "at least two objectives"),
        (POINTS, ["--maximize", "reward", "--minimize", "reward"], "a column twice"),
        (POINTS, ["--maximize", "rewrd", "--minimize", "cost"], "did you mean reward"),
        (POINTS, [*AXES, "--group", "whom"], "did you mean who"),
        (POINTS, [*AXES, "--reference", "1"], "reward=0,cost=0"),
        (POINTS, [*AXES, "--reference", "1,nan"], "one number for each"),
        (POINTS, [*AXES, "--reference", "reward=1,costs=2"], "one number for each"),
        (POINTS, [*AXES, "--plot", "p.gif"], "figures end in"),
        (POINTS + "a,1\n", [*AXES], "points.csv:8: has 2 cells, the header 3"),
        (POINTS + "a,nan,1\n", [*AXES], "points.csv:8: column 'reward': 'nan' is not a finite number"),
        (POINTS + "a,1,inf\n", [*AXES], "points.csv:8: column 'cost': 'inf'"),
        (POINTS + "a,,1\n", [*AXES], "points.csv:8: column 'reward': ''"),
        ("who,reward,cost\n", [*AXES], "no points"),
        ("", [*AXES], "is empty"),
        (POINTS + "a,1,2,note\n", [*AXES], "points.csv:8: has 4 cells, the header 3"),
        (POINTS + "\na,1_000,2\n", [*AXES], "points.csv:9: column 'reward': '1_000'"),
        ("reward,cost\n1,2,3\n4,5,6\n", [*AXES], "points.csv:2: has 3 cells, the header 2"),
        ("reward,reward,cost\n1,2,3\n", [*AXES], "names 'reward' 2 times"),
        ("reward,cost,x\n1,2,3\n", [*AXES, "--maximize", "x", "--plot", "p.svg"], "draws two columns"),
    ],
)
def test_mistakes_are_one_line(peo_bench, tmp_path, text, args, says):
    (tmp_path / "points.csv").write_text(text)
    code, out, err = peo_bench("pareto", "points.csv", *args)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_an_absent_file(peo_bench):
    assert "no such file" in peo_bench("pareto", "absent.csv", *AXES)[2]
