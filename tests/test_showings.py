"""The hero figure's choices of scores: what is offered, and that fronts, bands and areas follow."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import NEEDS_CHROMIUM, Browser, assert_silent
from run_folder_fixture import write_run_folder

from peo_bench import pareto
from peo_bench.report import build_report, contents, figures
from peo_bench.report.showings import Showing, showings
from peo_bench.report.uncertainty import bands
from peo_bench.results.folder import RunFolder, read_run_folder

SD = "in standard deviations of the reference policy"
MAXIMISE = [True, False]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run_folder(tmp_path / "run", n_prompts=24)


def choices(folder: RunFolder) -> list[Showing]:
    return showings(contents.task_views(folder)[0], folder)


def without_validation(run_dir: Path) -> pd.DataFrame:
    """Take the reference policy's validation answers from the folder; return the others."""
    table = pd.read_parquet(run_dir / "answers.parquet")
    table = table[table["split"] != "validation"]
    table.to_parquet(run_dir / "answers.parquet")
    return table


def add_validation(run_dir: Path) -> pd.DataFrame:
    """Give the folder validation answers of the reference policy whose proxies differ; return them."""
    table = without_validation(run_dir)
    rows = table[table["method"] == "reference"].assign(split="validation")
    rows["reward_proxy"], rows["cost_proxy"] = 3 + 2 * rows["reward"], rows["cost"] - 1
    pd.concat([table, rows], ignore_index=True).to_parquet(run_dir / "answers.parquet")
    return rows


def test_only_what_was_measured_is_offered(run_dir: Path) -> None:
    without_validation(run_dir)
    assert [one.label for one in choices(read_run_folder(run_dir))] == [
        "reported scores",
        f"reported scores, {SD}",
        "proxies",
    ]
    add_validation(run_dir)
    assert choices(read_run_folder(run_dir))[-1].label == f"proxies, {SD}"


def test_a_run_with_one_scorer_and_a_reference_policy_of_one_score_has_no_choice(run_dir: Path) -> None:
    points = pd.read_csv(run_dir / "points.csv").drop(columns=["reward_proxy", "cost_proxy"])
    points.to_csv(run_dir / "points.csv", index=False)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    task = metrics["tasks"]["sandbox"]
    for units in (task["reference_units"], *task["units"].values()):
        units |= {column: [mean, 0.0] for column, (mean, _) in units.items()}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    assert len(choices(read_run_folder(run_dir))) == 1
    assert '<select data-choose="front-' not in build_report(run_dir).read_text()


def test_in_reference_units_the_staircase_encloses_the_reported_hypervolume(run_dir: Path) -> None:
    folder = read_run_folder(run_dir)
    shown = choices(folder)[1]
    metrics = folder.metrics.tasks["sandbox"]
    assert metrics.hypervolume_units == "reference"
    geometry = figures.front_geometry(shown.view)
    assert shown.view.bound is not None
    for method in ("peo", "modpo"):
        path = geometry.stairs[method, 1]
        heights = np.abs(shown.view.bound[1] - path[:-1, 1])
        area = float(np.sum(np.abs(np.diff(path[:, 0])) * heights))
        assert area == pytest.approx(metrics.methods[method].hypervolume.value, rel=1e-5)


def test_bands_in_reference_units_are_the_raw_ones_rescaled(run_dir: Path) -> None:
    folder = read_run_folder(run_dir)
    raw, scaled = choices(folder)[:2]
    found = [bands(folder, one, figures.front_geometry(one.view)) for one in (raw, scaled)]
    assert set(found[0]) == set(found[1]) >= {"peo", "modpo"}
    assert scaled.scale is not None
    mean, sd = np.array(scaled.scale[1]).T
    for method, polygon in found[0].items():
        assert np.allclose((polygon - mean) / sd, found[1][method])


def test_training_scorers_have_fronts_of_their_own(run_dir: Path) -> None:
    points = pd.read_csv(run_dir / "points.csv")
    tested = (points["method"] == "peo") & (points["grid"] == "asked")
    points.loc[tested, "cost_proxy"] = np.linspace(0, 1, tested.sum())
    points.loc[tested, "reward_proxy"] = np.linspace(1, 0, tested.sum())  # the first dominates all others
    points.to_csv(run_dir / "points.csv", index=False)
    shown = choices(read_run_folder(run_dir))[2]
    own = shown.view.of("peo")
    assert [p.nondominated for p in own] == [True] + [False] * (len(own) - 1)
    assert [(p.x, p.y) for p in own] == [
        pytest.approx(row) for row in points.loc[tested, ["reward_proxy", "cost_proxy"]].to_numpy().tolist()
    ]
    assert not shown.view.of("oracle")
    assert shown.view.bound is None
    for method in ("modpo", "soup"):
        mask = pareto.nondominated([(p.x, p.y) for p in shown.view.of(method)], MAXIMISE)
        assert [p.nondominated for p in shown.view.of(method)] == mask.tolist()


def test_training_scorers_units_are_those_of_the_references_validation_answers(run_dir: Path) -> None:
    rows = add_validation(run_dir)
    raw, scaled = choices(read_run_folder(run_dir))[2:]
    for before, after in zip(raw.view.points, scaled.view.points, strict=True):
        assert after.x == pytest.approx((before.x - rows["reward_proxy"].mean()) / rows["reward_proxy"].std())
        assert after.y == pytest.approx((before.y - rows["cost_proxy"].mean()) / rows["cost_proxy"].std())
        assert after == replace(before, x=after.x, y=after.y)


def test_each_seed_is_expressed_in_its_own_units(tmp_path: Path) -> None:
    folder = read_run_folder(write_run_folder(tmp_path, seeds=(1, 2), n_prompts=24))
    units = folder.metrics.tasks["sandbox"].units
    raw, scaled = choices(folder)[:2]
    assert units[1] != units[2]
    for before, after in zip(raw.view.points, scaled.view.points, strict=True):
        mean, sd = units[before.seed]["reward"]
        assert after.x == pytest.approx((before.x - mean) / sd)


class TestInTheBrowser:
    """Choosing on the page."""

    pytestmark = NEEDS_CHROMIUM

    def test_the_choice_moves_marks_lines_bands_and_rings(self, browser: Browser, run_dir: Path) -> None:
        add_validation(run_dir)
        page = build_report(run_dir)
        browser.open(page)
        for i, shown in enumerate(choices(read_run_folder(run_dir))):
            browser.js(
                "const s = document.querySelector('select[data-choose=front-0]'); s.selectedIndex = arguments[0];"
                "s.dispatchEvent(new Event('change'))",
                i,
            )
            time.sleep(0.3)
            data = browser.js(
                "return document.getElementById('front-0').data.map((t) => "
                "({method: t.meta.method, role: t.meta.role, x: [...t.x], y: [...t.y]}))"
            )
            (marks,) = (t for t in data if (t["method"], t["role"]) == ("peo", "points"))
            own = shown.view.of("peo")
            assert np.allclose(marks["x"], [p.x for p in own])
            assert np.allclose(marks["y"], [p.y for p in own])
            (stairs,) = (t for t in data if (t["method"], t["role"]) == ("peo", "stairs"))
            for p in own:
                assert not p.nondominated or min(abs(p.x - x) for x in stairs["x"]) < 1e-9
            assert any(t["role"] == "band" for t in data)
            (rings,) = (t for t in data if t["role"] == "ring")
            assert all(
                min(abs(x - p.x) + abs(y - p.y) for p in shown.view.points) < 1e-9
                for x, y in zip(rings["x"], rings["y"], strict=True)
            )
            assert len(rings["x"]) == 4
        assert_silent(browser, page)
