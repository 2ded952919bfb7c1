"""The report's contents: verdicts, tables, figures, texts, and a page that says the same in three formats."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from run_folder_fixture import HOSTILE, comparison, method_metrics, write_run_folder

from peo_bench import pareto
from peo_bench.errors import UsageError
from peo_bench.report import build_report, contents, figures, texts
from peo_bench.report.advice import advise
from peo_bench.report.build import embedded_json
from peo_bench.report.headline import Standing, make_verdict
from peo_bench.report.tables import points_table, scoreboard
from peo_bench.report.texts import MAX_CHARACTERS, embed_texts
from peo_bench.results.costs_records import MethodCost
from peo_bench.results.differences import REPORTS
from peo_bench.results.folder import read_run_folder
from peo_bench.results.metrics_records import Comparison, EstimateRecord

SCORERS = {"reward": True, "cost": False}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run_folder(tmp_path / "run")


def view_of(run_dir: Path) -> contents.TaskView:
    return contents.task_views(read_run_folder(run_dir))[0]


def front(view: contents.TaskView) -> Any:
    return figures.front_figure(view, figures.method_styles(view.methods), figures.front_geometry(view))


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def page_data(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


# ---- the three files ----


def test_every_process_builds_the_same_bytes(tmp_path: Path) -> None:
    """Sets of texts are in another order in every process: methods of equal Elo were, and `verify` failed."""
    built = write_run_folder(tmp_path / "run", rich=True)
    metrics = json.loads((built / "metrics.json").read_text())
    for task in metrics["tasks"].values():
        for judged in task["judges"].values():
            judged["elo"] = {name: dict.fromkeys(by, 1000.0) for name, by in judged["elo"].items()}
    (built / "metrics.json").write_text(json.dumps(metrics))
    code = "import pathlib, sys; from peo_bench.report import build_report; build_report(pathlib.Path(sys.argv[1]))"
    made = []
    for seed in ("1", "2", "3"):
        subprocess.run([sys.executable, "-c", code, str(built)], env=os.environ | {"PYTHONHASHSEED": seed}, check=True)
        made.append([(built / name).read_bytes() for name in REPORTS])
    assert made[0] == made[1] == made[2]


def test_building_twice_gives_the_same_bytes_and_touches_nothing_else(run_dir: Path) -> None:
    inputs = {path: path.read_bytes() for path in run_dir.iterdir()}
    assert build_report(run_dir) == run_dir / "report.html"
    outputs = {path: path.read_bytes() for path in run_dir.glob("report.*")}
    assert {path.name for path in outputs} == {"report.html", "report.md", "report.json"}
    build_report(run_dir)
    assert all(path.read_bytes() == content for path, content in (inputs | outputs).items())
    assert set(run_dir.iterdir()) == set(inputs) | set(outputs)


def test_the_three_formats_say_the_same(run_dir: Path) -> None:
    page = build_report(run_dir).read_text()
    markdown = (run_dir / "report.md").read_text()
    stored = json.loads((run_dir / "report.json").read_text())["tasks"]["sandbox"]
    assert stored["methods"] == json.loads((run_dir / "metrics.json").read_text())["tasks"]["sandbox"]["methods"]
    assert f"<h1>{stored['verdict']['headline']}</h1>" in page
    assert stored["verdict"]["headline"] in markdown
    for row in scoreboard(view_of(run_dir)).rows:
        assert "| " + " | ".join(text for text, _ in row.cells) + " |" in markdown
        assert all(f">{text}</td>" in page for text, _ in row.cells)


def test_every_inline_script_and_style_is_allowed_by_hash_and_nothing_is_loaded(run_dir: Path) -> None:
    page = build_report(run_dir).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    allowed = set(re.findall(r"sha256-([A-Za-z0-9+/=]+)", policy[1]))
    inline = re.findall(r"<script>(.*?)</script>", page, re.DOTALL) + re.findall(
        r"<style[^>]*>(.*?)</style>", page, re.S
    )
    assert allowed == {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline}
    assert len(inline) == 5
    assert policy[1].startswith("default-src &#39;none&#39;;")
    assert "unsafe" not in policy[1]
    markup = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r'(src|href)="(?!#|data:)', markup)
    assert not re.search(r' (style|on\w+)="', markup)


def test_hostile_texts_cannot_leave_the_data_element(tmp_path: Path) -> None:
    page = build_report(write_run_folder(tmp_path, hostile=True, n_prompts=8))
    texts = page_data(page)["texts"]["texts"]
    assert all(any(text.startswith(hostile) for text in texts) for hostile in HOSTILE)
    assert page.read_text().count("<script") == 5
    assert json.loads(embedded_json({"a": "</script>\u2028<!--&", "b": float("nan")})) == {
        "a": "</script>\u2028<!--&",
        "b": None,
    }


def test_markup_in_titles_notes_and_names_stays_text_in_markdown(tmp_path: Path) -> None:
    markup = "<b>x</b> | [a](http://b.example) ![i](http://c.example)\n\n# *big* `code` __strong__"
    run_dir = write_run_folder(tmp_path, methods=("peo", "mine"), n_prompts=8, rich=True)
    change(
        run_dir / "run.json",
        title=markup,
        notes=[f"# {markup}", f"- {markup}"],
        command=f"run ``` {markup}\n```\n{markup}",
    )
    metrics = json.loads((run_dir / "metrics.json").read_text())
    judges = metrics["tasks"]["sandbox"]["judges"]
    judges[markup] = judges.pop(next(iter(judges)))
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    build_report(run_dir)
    text = (run_dir / "report.md").read_text()
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert not re.search(r"<(b|a|img|em)[ >]", html)
    shown = "&lt;b&gt;x&lt;/b&gt; | [a](http://b.example) ![i](http://c.example) # *big* `code` __strong__"
    assert f"<h1>{shown}</h1>" in html
    assert f"<li># {shown}</li>" in html
    assert f"<li>- {shown}</li>" in html
    assert html.count("<table>") == text.count("|:--|")
    assert len(re.findall("<h1>", html)) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, run_dir: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.json is missing"):
        build_report(tmp_path)
    (run_dir / "points.csv").unlink()
    with pytest.raises(UsageError, match=r"points\.csv is missing"):
        build_report(run_dir)
    change(run_dir / "run.json", schema_version=99)
    with pytest.raises(UsageError, match="schema_version 99, this version reads 1"):
        build_report(run_dir)


def test_sections_without_data_are_absent(run_dir: Path) -> None:
    for name in ("answers.parquet", "costs.json", "config.yaml"):
        (run_dir / name).unlink()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    metrics["tasks"]["sandbox"] |= {"methods": {}, "comparisons": [], "reference_point": {}}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    table = pd.read_csv(run_dir / "points.csv")
    lost = table["method"].isin(["oracle", "reference"]) | (table["preference_helpful"] == 0.5)
    table[~lost].to_csv(run_dir / "points.csv", index=False)
    page = build_report(run_dir).read_text()
    assert "<h1>No method was measured.</h1>" in page
    assert "The trade-offs on offer" in page
    for absent in (
        "Scoreboard",
        "Configuration (config.yaml)",
        "Choose a mark",
        "reference policy</span>",
        "oracle</span>",
    ):
        assert absent not in page, absent
    assert page_data(run_dir / "report.html")["texts"] is None


def test_an_incomplete_run_says_what_is_missing(tmp_path: Path) -> None:
    page = build_report(write_run_folder(tmp_path, complete=False)).read_text()
    for text in ("incomplete", "1 missing", "underpowered", "modpo at helpful 0.25: training diverged at step 40"):
        assert text in page


def test_points_beyond_the_reference_raise_a_banner(run_dir: Path) -> None:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    metrics["tasks"]["sandbox"]["methods"]["modpo"]["n_beyond_reference"] = 2
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    page = build_report(run_dir).read_text()
    assert "points beyond the reference point" in page
    assert "2 points of MODPO lie beyond the reference point" in page


# ---- figures ----


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_the_drawn_staircases_enclose_the_hypervolumes(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    """The area drawn (raw units) is metrics.json's hypervolume (reference units) times both standard deviations."""
    run_dir = write_run_folder(tmp_path, seeds=seeds)
    view = view_of(run_dir)
    metrics = json.loads((run_dir / "metrics.json").read_text())["tasks"]["sandbox"]
    unit = metrics["normalisation"]["reward"][1] * metrics["normalisation"]["cost"][1]
    lines = [trace for trace in front(view).data if trace.meta["role"] == "stairs"]
    assert len(lines) == len(seeds) * 4
    for line in (line for line in lines if line.meta["seed"] == seeds[0]):
        x, y = np.array([*line.x, view.bound[0]]), np.array([*line.y, view.bound[1]])
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        assert line.line.shape is None, "corners are vertices; plotly must not add its own"
        own = [(p.x, p.y) for p in view.of(line.meta["method"]) if p.seed == seeds[0]]
        assert area == pytest.approx(pareto.hypervolume(own, view.bound, [True, False]), rel=1e-9)
        if len(seeds) == 1:
            measured = metrics["methods"][line.meta["method"]]["hypervolume"]["value"]
            assert area / unit == pytest.approx(measured, rel=1e-6)


def test_dominated_points_are_hollow_and_off_the_line(run_dir: Path) -> None:
    view = view_of(run_dir)
    figure = front(view)
    lines = {t.meta["method"]: set(zip(t.x, t.y, strict=True)) for t in figure.data if t.meta["role"] == "stairs"}
    marks = {t.meta["method"]: t.marker.symbol for t in figure.data if t.meta["role"] == "points"}
    dominated = [p for p in view.points if not p.nondominated and p.method != "reference"]
    assert {p.method for p in dominated} == {"modpo", "soup"}
    for method, symbols in marks.items():
        for point, symbol in zip(view.of(method), symbols, strict=True):
            assert symbol.endswith("-open") == (not point.nondominated)
            assert ((point.x, point.y) in lines[method]) == point.nondominated


def test_better_is_up_and_right(run_dir: Path) -> None:
    layout = front(view_of(run_dir)).layout
    assert layout.xaxis.range[0] < layout.xaxis.range[1]
    assert layout.yaxis.range[0] > layout.yaxis.range[1], "a cost axis runs downwards"
    assert "better ↗" in [note.text for note in layout.annotations]


def test_points_carry_the_key_of_their_texts(run_dir: Path) -> None:
    data = page_data(build_report(run_dir))
    keys = {key for t in data["figures"]["front-0"]["data"] for key in t.get("customdata", []) if key}
    assert keys == set(data["policies"]) == set(data["texts"]["policies"])


def test_the_reference_has_a_policy_per_seed_with_its_own_texts(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, seeds=(1, 2), n_prompts=8)
    points = pd.read_csv(run_dir / "points.csv")
    first = points[points["method"] == "reference"]
    pd.concat([points, first.assign(seed=2, reward=0.7)]).to_csv(run_dir / "points.csv", index=False)
    table = pd.read_parquet(run_dir / "answers.parquet")
    second = (table["method"] == "reference") & (table["seed"] == 2)
    table.assign(answer=table["answer"].mask(second, "drawn anew")).to_parquet(run_dir / "answers.parquet")
    page = build_report(run_dir)
    data = page_data(page)
    said = {
        key: {data["texts"]["texts"][answer[0]] for answer in data["texts"]["policies"][key]}
        for key in data["policies"]
        if key.startswith("reference")
    }
    assert said["reference|2|"] == {"drawn anew"}
    assert "drawn anew" not in said["reference|1|"]
    assert "reward 0.70" in data["policies"]["reference|2|"]["summary"]
    assert "reward 0.70" not in data["policies"]["reference|1|"]["summary"]
    assert {k for m in data["steer"]["0"]["methods"] for k in m["keys"] if "|2|" in k} == set()
    assert "Of the training seeds it shows the first, 1." in page.read_text()


def test_only_svg_traces_and_escaped_hover_texts(tmp_path: Path) -> None:
    """Of the names of methods, the folder of a compared run may hold anything that is printed."""
    name = "mine@<img src=x onerror=alert(1)> " + "long " * 60 + "name"
    data = page_data(build_report(write_run_folder(tmp_path, methods=("peo", name), n_prompts=8)))
    traces = [trace for figure in data["figures"].values() for trace in figure["data"]]
    assert {trace["type"] for trace in traces} == {"scatter", "bar", "heatmap"}, "no WebGL"
    flat = [np.ravel(trace.get(key, [])).tolist() for trace in traces for key in ("text", "hovertext")]
    texts = [text for several in flat for text in several]
    templates = {trace[key] for trace in traces for key in ("hovertemplate", "texttemplate") if key in trace}
    assert templates == {"%{text}", "%{x:.2f}, %{y:.2f}: %{z:+d} % of resamples<extra></extra>"}, "numbers only"
    lines = [line for text in texts for line in text.split("<br>")]
    assert any("&lt;img" in line and line.endswith("…") for line in lines)
    assert all(len(line) <= 170 and "<" not in line for line in lines)


LINES = "Grey dashed lines: the best possible"


@pytest.mark.parametrize(
    ("hollow", "shown", "absent"),
    [
        (
            None,
            [
                "dashed lines: the best",
                "Small hollow grey dots",
                "<span>oracle, KL ≤ 2</span></li>",
                "oracle, too few samples",
            ],
            [],
        ),
        (
            False,
            ["dashed lines: the best", "<span>oracle, KL ≤ 8</span></li>"],
            ["hollow grey dots", "too few samples"],
        ),
        (True, ["Small hollow grey dots", "oracle, too few samples"], [LINES, "<span>oracle, KL"]),
    ],
)
def test_the_oracle_is_explained_as_it_is_drawn(
    run_dir: Path, hollow: bool | None, shown: list[str], absent: list[str]
) -> None:
    points = pd.read_csv(run_dir / "points.csv")
    if hollow is not None:
        points.loc[points["method"] == "oracle", "hollow"] = hollow
        points.to_csv(run_dir / "points.csv", index=False)
    page = re.sub(r"<script.*?</script>", "", build_report(run_dir).read_text(), flags=re.DOTALL)
    assert [text for text in shown if text not in page] == []
    assert [text for text in absent if text in page] == []


def test_methods_are_told_apart_without_colour() -> None:
    styles = figures.method_styles([f"m{i}" for i in range(12)])
    assert len({(style.colour, style.symbol) for style in styles.values()}) == 12
    assert len({style.symbol for style in list(styles.values())[:7]}) == 7


def test_missing_numbers_are_dashes(run_dir: Path) -> None:
    """A point without scores is no point; unknown KL, length and errors are dashes, never NaN."""
    table = pd.read_csv(run_dir / "points.csv")
    table.loc[table["method"] == "soup", ["kl", "length", "reward_se"]] = np.nan
    table.loc[(table["method"] == "modpo") & (table["preference_helpful"] == 1.0), "cost"] = np.nan
    table.to_csv(run_dir / "points.csv", index=False)
    view = view_of(run_dir)
    assert len(view.of("modpo")) == 4
    cells = next(row for row in points_table(view).rows if row.method == "soup").cells
    assert [text for text, _ in cells][3:5] == ["–", "–"]
    assert "±" not in cells[1][0]
    assert "NaN" not in json.dumps(page_data(build_report(run_dir)))


def test_an_external_policy_is_a_single_point(run_dir: Path) -> None:
    points = pd.read_csv(run_dir / "points.csv")
    mine = points[points["method"] == "reference"].assign(method="mine", reward=0.7)
    pd.concat([points, mine]).to_csv(run_dir / "points.csv", index=False)
    build_report(run_dir)
    lines = figures.steering_figure(view_of(run_dir), figures.method_styles(["peo", "mine"]), 0).data
    assert [line.meta["method"] for line in lines] == ["peo"]
    told = contents.caption(view_of(run_dir), banded=["peo", "modpo"])
    assert "No band for mine: single policies have none." in told
    assert "scores are missing" not in told, "they are there"


# ---- verdict ----


def standing(
    methods: list[str], comparisons: list[Comparison], seeds: list[int], controls: tuple[str, ...] = (), **known: Any
) -> Standing:
    """What a verdict rests on; `known` holds each method's steered utility and mean KL."""
    measured = {
        method: method_metrics(
            steered_utility=EstimateRecord(value=u, ci_low=u - 1, ci_high=u + 1, bias=0.0), kl_mean=kl
        )
        for method, (u, kl) in known.items()
    }
    return Standing(methods, controls, measured, comparisons, seeds)


@pytest.mark.parametrize(
    ("utilities", "comparisons", "headline"),
    [
        ({}, [], "No method was measured."),
        ({"peo": 0.5}, [], "PEO reaches a steered utility of 0.50 [−0.50, 1.50]."),
        (
            {"peo": 0.5, "modpo": 0.4},
            [comparison("modpo", "peo", -0.15, -0.05)],
            "PEO beats MODPO: PEO − MODPO +0.10 [0.05, 0.15] in steered utility.",
        ),
        (
            {"peo": 0.5, "modpo": 0.4},
            [comparison("peo", "modpo", -0.05, 0.25)],
            "PEO and MODPO are not told apart: PEO − MODPO +0.10 [−0.05, 0.25] in steered utility.",
        ),
        (
            {"peo": 0.5, "modpo": 0.4},
            [comparison("peo", "modpo", 0.01, 0.19, p_holm=0.2)],
            "PEO and MODPO are not told apart: PEO − MODPO +0.10 [0.01, 0.19] in steered utility.",
        ),
        (
            {"peo": 0.5, "modpo": 0.4},
            [],
            "PEO has the highest steered utility; whether it differs from MODPO was not tested.",
        ),
        (
            {"peo": 0.5, "modpo": 0.4, "mod": 0.3},
            [comparison("peo", "modpo", 0.05, 0.15), comparison("peo", "mod", 0.1, 0.3)],
            "PEO beats MODPO and MOD: PEO − MODPO +0.10 [0.05, 0.15] in steered utility.",
        ),
        (
            {"peo": 0.5, "modpo": 0.4, "mod": 0.3},
            [comparison("peo", "modpo", -0.05, 0.25), comparison("peo", "mod", 0.1, 0.3)],
            "PEO beats MOD; it is not told apart from MODPO: PEO − MODPO +0.10 [−0.05, 0.25] in steered utility.",
        ),
        (
            {"peo": 0.5, "modpo": 0.4},
            [comparison("modpo", "peo", -0.15, -0.05, hypervolume_share=0.97)],
            "PEO beats MODPO: PEO − MODPO +0.10 [0.05, 0.15] in steered utility, though MODPO has the larger "
            "hypervolume in 97 % of resamples.",
        ),
        (
            {"peo": 0.5, "modpo": 0.4},
            [comparison("peo", "modpo", 0.05, 0.15, hypervolume_share=0.06)],
            "PEO beats MODPO: PEO − MODPO +0.10 [0.05, 0.15] in steered utility.",
        ),
        (
            {"peo": 0.5, "modpo": 0.49, "mod": 0.3},
            [comparison("peo", "modpo", -0.002, 0.018), comparison("peo", "mod", 0.1, 0.3)],
            "PEO beats MOD; it ties with MODPO within 0.02: PEO − MODPO +0.008 [−0.002, 0.018] in steered utility.",
        ),
        (
            {"peo": 0.5, "modpo": 0.49},
            [comparison("peo", "modpo", -0.002, 0.021)],
            "PEO and MODPO are not told apart: PEO − MODPO +0.010 [−0.002, 0.021] in steered utility.",
        ),
        (
            {"peo": 0.5, "a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1},
            [comparison("peo", m, 0.05, 0.15) for m in "abcd"],
            "PEO beats 4 others: PEO − a +0.10 [0.05, 0.15] in steered utility.",
        ),
    ],
)
def test_the_headline_follows_the_intervals(
    utilities: dict[str, float], comparisons: list[Comparison], headline: str
) -> None:
    known = {method: (utility, None) for method, utility in utilities.items()}
    assert make_verdict(standing(list(utilities), comparisons, [1], **known)).headline == headline


def told(standing: Standing) -> dict[str, str]:
    return {answer.question: answer.said for answer in make_verdict(standing).answers}


def test_free_controls_compete_in_the_headline() -> None:
    """The soup was a footnote where it was the best; what was asked for is still compared."""
    gaps = [comparison("soup", "peo", 0.03, 0.11), comparison("peo", "modpo", 0.05, 0.15)]
    gaps.append(comparison("soup", "modpo", 0.1, 0.2))
    found = standing(["peo", "modpo"], gaps, [1], ("soup", "reference"), peo=(0.5, 9.0), modpo=(0.4, 9), soup=(0.57, 9))
    assert make_verdict(found).headline == (
        "soup (control) beats PEO and MODPO: soup − PEO +0.07 [0.03, 0.11] in steered utility."
    )
    assert told(found)["Without controls?"] == "PEO − MODPO +0.10 [0.05, 0.15], better."


def test_the_verdict_names_its_limits() -> None:
    gaps = [comparison("peo", "modpo", 0.05, 0.15), comparison("peo", "soup", -0.01, 0.11)]
    known = {"peo": (0.5, 9.0), "modpo": (0.4, 6.0)}
    methods = ["peo", "modpo"]
    real = told(standing(methods, gaps, [1], **known))["Is it real?"]
    assert real.startswith("Yes: the 95 % interval leaves zero out (p = 0.001 after Holm's correction for all pairs).")
    assert "Mean KLs differ (PEO 9.0, MODPO 6.0 nats)" in real
    assert "One training seed: these checkpoints; training variance not included." in real
    gaps = [gap.model_copy(update={"covers": "prompts and training seeds"}) for gap in gaps]
    similar = told(standing(methods, gaps, [1, 2], **known | {"modpo": (0.4, 8.5)}))["Is it real?"]
    assert "about equally far" in similar
    assert "2 training seeds: differences cover prompts and training." in similar
    near = told(standing(methods, gaps, [1], **known | {"peo": (0.5, 0.19), "modpo": (0.4, 0.1)}))["Is it real?"]
    assert "about equally far" in near, "a tenth of a nat explains nothing"
    unknown = told(standing(methods, gaps, [1, 2], **known | {"peo": (0.5, None)}))["Is it real?"]
    assert "Not at equal KL: the KL of PEO is not known." in unknown


def test_only_an_interval_within_the_margin_is_a_tie() -> None:
    known = {"peo": (0.5, 1.0), "modpo": (0.49, 1.0)}
    tie = told(standing(list(known), [comparison("peo", "modpo", -0.01, 0.02)], [1], **known))["Is it real?"]
    assert tie.startswith("As a tie, yes: with 95 % confidence PEO and MODPO differ by less than 0.02.")
    open_ = told(standing(list(known), [comparison("peo", "modpo", -0.01, 0.03)], [1], **known))["Is it real?"]
    assert open_.startswith("No difference is established: the 95 % interval includes zero")
    assert "that they are equal is not shown either" in open_


# ---- what to take ----


def price(units: float | None, scored: int = 0, passes: float = 1.0) -> MethodCost:
    empty = dict.fromkeys(MethodCost.model_fields)
    return MethodCost(**empty | {"train_units": units, "scorer_calls": scored, "decode_factor": passes})


TIED = [comparison("modpo", "soup", -0.008, 0.012), comparison("modpo", "peo", -0.014, 0.017)]
DEAR = {"modpo": price(10.0), "peo": price(8.4, 14_000), "soup": price(4.0), "reference": price(0.0)}


@pytest.mark.parametrize(
    ("comparisons", "costs", "advice"),
    [
        (
            TIED,
            DEAR,
            "soup (control), for 2.0 trainings instead of 5.0 trainings: with 95 % confidence it is at most 0.02 "
            "below the best (MODPO − soup +0.002 [−0.008, 0.012]).",
        ),
        (
            [comparison("modpo", "soup", -0.01, 0.05), comparison("modpo", "peo", -0.014, 0.017)],
            DEAR,
            "PEO, for 4.2 trainings and 7,000 scored texts instead of 5.0 trainings: with 95 % "
            "confidence it is at most 0.02 below the best (MODPO − PEO +0.002 [−0.014, 0.017]).",
        ),
        (
            [comparison("modpo", "soup", -0.01, 0.05), comparison("modpo", "peo", 0.03, 0.05)],
            DEAR,
            "MODPO, for 5.0 trainings; nothing cheaper is surely as good (soup (control), for 2.0 trainings, is "
            "not told apart, but may be up to 0.05 worse).",
        ),
        (
            [comparison("modpo", "soup", 0.03, 0.05)],
            DEAR,
            "MODPO, for 5.0 trainings; nothing cheaper is surely as good.",
        ),
        (
            TIED,
            DEAR | {"soup": price(4.0, passes=2.0), "peo": price(None)},
            "MODPO, for 5.0 trainings; nothing cheaper is surely as good.",
        ),
        (
            TIED,
            {},
            "MODPO, or one that is not told apart from it (PEO and soup), if it costs you no more: what these have "
            "cost is not known.",
        ),
    ],
)
def test_the_advice_is_the_cheapest_that_is_surely_as_good(
    comparisons: list[Comparison], costs: dict[str, MethodCost], advice: str
) -> None:
    """Prices are by training seed; who is dearer at every answer is not cheaper; what is not known is not claimed."""
    known = {"modpo": (0.5, 1.0), "peo": (0.49, 1.0), "soup": (0.48, 1.0), "reference": (0.0, 0.0)}
    found = replace(standing(["peo", "modpo"], comparisons, [1, 2], ("reference", "soup"), **known), costs=costs)
    assert [answer.said for answer in advise(found)] == [advice]


def test_policies_that_several_methods_offer_have_the_price_of_the_cheapest() -> None:
    known = {"modpo": (0.5, 1.0), "peo": (0.49, 1.0)}
    found = standing(["peo", "modpo"], [comparison("modpo", "peo", -0.008, 0.012)], [1, 2], ("soup",), **known)
    (answer,) = advise(replace(found, costs=DEAR, same={"soup": "peo"}))
    assert answer.said.startswith("soup (control), for 2.0 trainings instead of 5.0 trainings")


def test_the_page_says_first_what_a_stranger_asks(run_dir: Path) -> None:
    questions = [answer.question for answer in view_of(run_dir).verdict.answers]
    wanted = ["What was compared?", "By how much?", "Is it real?", "What did it cost?", "What should I take?"]
    assert [question for question in questions if question in wanted] == wanted


# ---- yardsticks and doubles ----


def test_the_reference_policy_and_the_oracle_are_rows_of_the_scoreboard(run_dir: Path) -> None:
    """Their utility by hand: the mean over balances of the weighted sum, in the reference's units."""
    view, metrics = view_of(run_dir), json.loads((run_dir / "metrics.json").read_text())["tasks"]["sandbox"]
    rows = {row.label: row for row in scoreboard(view).rows if row.kind == "yardstick"}
    assert list(rows) == ["reference policy", "oracle, KL ≤ 2", "oracle, KL ≤ 8"]
    points = pd.read_csv(run_dir / "points.csv")
    units = metrics["normalisation"]

    def scaled(row: Any) -> tuple[float, float]:
        return tuple(s * (row[c] - units[c][0]) / units[c][1] for c, s in (("reward", 1), ("cost", -1)))

    weights = [0.0, 0.25, 0.5, 0.75, 1.0]
    (x, y), cell = scaled(points[points["method"] == "reference"].iloc[0]), [t for t, _ in scoreboard(view).columns]
    place = cell.index("Steered utility ↑")
    assert rows["reference policy"].cells[place][1] == pytest.approx(np.mean([w * x + (1 - w) * y for w in weights]))
    own = points[(points["method"] == "oracle") & (points["kl"] == 2)]
    best = [max(w * x + (1 - w) * y for x, y in map(scaled, own.to_dict("records"))) for w in weights]
    assert rows["oracle, KL ≤ 2"].cells[place][1] == pytest.approx(np.mean(best))
    assert rows["oracle, KL ≤ 8"].cells[place][0].startswith("≥"), "one of its points rests on too few samples"


def test_who_is_worse_than_the_reference_at_what_was_asked_is_told(run_dir: Path) -> None:
    assert view_of(run_dir).worse == ()
    points, answers = pd.read_csv(run_dir / "points.csv"), pd.read_parquet(run_dir / "answers.parquet")
    base = points.loc[points["method"] == "reference", "cost"].iloc[0]
    where = [
        (t["method"] == "modpo") & (t[c] == 0.0) for t, c in ((points, "preference_helpful"), (answers, "preference"))
    ]
    answers.loc[where[1], "cost"] += base + 1 - points.loc[where[0], "cost"].iloc[0]
    points.loc[where[0], "cost"] = base + 1
    points.to_csv(run_dir / "points.csv", index=False)
    answers.to_parquet(run_dir / "answers.parquet")
    (said,) = view_of(run_dir).worse
    assert said.startswith("Asked for 100 % harmless, MODPO is worse at it than the reference policy (cost ")
    assert f"against {base:.2f}, difference +1.00 [" in said
    assert said in " ".join(answer.said for answer in view_of(run_dir).verdict.answers)


def test_methods_with_the_same_policies_are_one_row(tmp_path: Path) -> None:
    """Ranks, indicators against the others and Holm's correction are those of the run without the double."""
    controls = ("peo-expo", "soup")
    run_dir = write_run_folder(tmp_path / "run", controls=controls, doubles={"soup": "peo"})
    alone = write_run_folder(tmp_path / "alone", controls=controls[:1])
    found, without = (read_run_folder(run).metrics.tasks["sandbox"] for run in (run_dir, alone))
    assert found.same == {"soup": "peo"}
    assert found.comparisons == without.comparisons
    assert {m: found.methods[m].rank for m in without.methods} == {m: v.rank for m, v in without.methods.items()}
    assert found.methods["soup"].igd_plus == without.methods["peo"].igd_plus
    view = view_of(run_dir)
    assert [row.label for row in scoreboard(view).rows if not row.kind] == ["PEO = soup", "MODPO"]
    assert "soup" not in view.methods
    assert {gap.a for gap in view.gaps} | {gap.b for gap in view.gaps} == {"peo", "modpo", "peo-expo"}
    assert all(cell[0].endswith("of 3") for row in scoreboard(view).rows[:3] for cell in row.cells[:1])
    page = build_report(run_dir).read_text()
    assert "PEO = soup" in page
    assert 'data-method="soup"' not in page


# ---- texts ----


def test_every_policy_shows_the_same_fixed_sample_of_prompts(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.read_parquet(run_dir / "answers.parquet")
    monkeypatch.setattr(texts, "MAX_PROMPTS", 24)
    found = embed_texts(table, SCORERS)
    shuffled = embed_texts(table.sample(frac=1, random_state=0), SCORERS)
    assert found is not None
    assert shuffled is not None
    assert found.prompts == shuffled.prompts
    assert (len(found.prompts), found.n_prompts) == (24, 60)
    assert {prompt.category for prompt in found.prompts} == {"benign", "dual-use", "dangerous"}
    assert all(prompt.sensitive == (prompt.category != "benign") for prompt in found.prompts)
    assert len(found.policies) == 21
    for key, answers in found.policies.items():
        method, _, weight = key.split("|")
        for prompt, (index, reward, _) in zip(found.prompts, answers, strict=True):
            own = table[(table["method"] == method) & (table["prompt"] == prompt.text)]
            row = own[own["preference"].isna() if weight == "" else own["preference"] == float(weight)].iloc[0]
            assert found.texts[index] == row["answer"]
            assert reward == pytest.approx(row["reward"], abs=1e-3)


def test_long_texts_are_cut_equal_texts_stored_once_and_gaps_stay_gaps(run_dir: Path) -> None:
    table = pd.read_parquet(run_dir / "answers.parquet")
    table["answer"] = "x" * 10_000
    lost = (table["method"] == "peo") & (table["preference"] == 1.0)
    found = embed_texts(table[~lost | (table["prompt_id"] == "p0000")], {"reward": True, "absent": True})
    assert found is not None
    assert len(found.texts) == 1
    assert len(found.texts[0]) < MAX_CHARACTERS + 20
    assert found.scorers == ["reward"]
    unlabelled = embed_texts(table.drop(columns="category"), {})
    assert unlabelled is not None
    assert not any(prompt.sensitive for prompt in unlabelled.prompts)
    assert embed_texts(None, {}) is None
