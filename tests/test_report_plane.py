"""The searched plane in the report, and how far its scorers can be trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_folder_fixture import write_run_folder

from peo_bench.report import contents, figures
from peo_bench.report.figures.plane import kl_map
from peo_bench.report.proxies import proxy_table
from peo_bench.results.folder import RunFolder, read_run_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return read_run_folder(write_run_folder(tmp_path_factory.mktemp("run"), seeds=(1, 2), rich=True))


@pytest.fixture(scope="module")
def view(folder: RunFolder) -> contents.TaskView:
    return contents.task_views(folder)[0]


def planes(view: contents.TaskView, folder: RunFolder) -> list[figures.Panel]:
    styles = figures.method_styles(contents.shown_methods(view))
    return [panel for panel in figures.panels(view, styles, folder) if panel.section == "plane"]


def test_the_plane_shows_every_evaluation_what_is_offered_and_the_budget(view, folder):
    (panel,) = planes(view, folder)
    assert [name for name, _ in panel.variants] == ["PEO, seed 1", "PEO, seed 2"]
    traces = {trace.meta["name"]: trace for trace in panel.figure.data}
    own = folder.search[folder.search["seed"] == 1]
    shown = [
        xy for name in traces if name.startswith("phase") for xy in zip(traces[name].x, traces[name].y, strict=True)
    ]
    evaluated = sorted(zip(own["coef_helpful"], own["coef_harmless"], strict=True))
    assert np.allclose(sorted(shown), evaluated)
    # beyond the budget of 1.5: (1.2)^2 + 0.1 = 1.54 and (1.4)^2, at four places each
    assert len(traces["phase 3, beyond the KL budget"].x) == 8
    offered = traces["offered"]
    assert list(offered.x) == sorted(p.weight for p in view.of("peo") if p.seed == 1)
    levels = [trace.contours.start for trace in panel.figure.data if trace.type == "contour"]
    assert levels == [0.25, 0.5, 1.0, 1.5]


def test_a_run_without_a_search_has_no_plane(view, folder):
    assert not planes(view, replace(folder, search=None))
    assert not planes(view, replace(folder, search=pd.DataFrame(columns=["method", "seed", "index"])))


def test_kl_between_places_whose_root_is_linear_is_exact_and_beyond_them_unknown():
    places = np.array([(0, 0), (1, 0), (0, 1), (0.4, 0.3), (0.2, 0.7)], dtype=float)
    x, y, kl = kl_map(places, (2 * places[:, 0] + places[:, 1]) ** 2)
    inside = np.add.outer(y, x) <= 1 - 1e-9
    assert np.allclose(kl[inside], ((2 * x[None] + y[:, None]) ** 2)[inside], atol=1e-8)
    assert np.isnan(kl[np.add.outer(y, x) > 1 + 1e-9]).all()


def test_correlations_of_proxies_by_hand(view):
    """Three policies, two prompts: the reward proxy is right but between prompts, the cost proxy is wrong."""
    answers = pd.DataFrame({
        "seed": 0, "split": "test", "method": "peo", "prompt_id": ["a", "b"] * 3, "spec_key": list("xxyyzz"),
        "reward": [0.0, 10.0, 1.0, 11.0, 2.0, 12.0], "reward_proxy": [0.0, -10.0, 1.0, -9.0, 2.0, -8.0],
        "cost": [0.0, 0.0, 1.0, 1.0, 4.0, 4.0], "cost_proxy": [0.0, 0.0, -1.0, -1.0, -4.0, -4.0],
    })  # fmt: skip
    rows = {row.label: [value for _, value in row.cells] for row in proxy_table(view, answers).rows}
    assert rows["reward: proxy and reported score"] == pytest.approx([1, 1])
    assert rows["cost: proxy and reported score"] == pytest.approx([-1, -1])
    both = np.corrcoef([0, 1, 2], [0, 1, 4])[0, 1]
    assert rows["reward and cost, reported scores"] == pytest.approx([both, both])
    assert rows["reward and cost, proxies"] == pytest.approx([-both, -both])
    spread = answers.std(numeric_only=True)
    gold = [r / spread["reward"] - c / spread["cost"] for r, c in ((0, 0), (1, 1), (2, 4))]
    proxy = [r / spread["reward_proxy"] + c / spread["cost_proxy"] for r, c in ((0, 0), (1, 1), (2, 4))]
    trade_off = np.corrcoef(gold, proxy)[0, 1]
    name = "both objectives, equal weights: proxies and reported scores"
    assert rows[name] == pytest.approx([trade_off, trade_off])


def test_scorers_that_are_the_reported_ones_need_no_table(view, folder):
    assert proxy_table(view, folder.answers.drop(columns="cost_proxy")).rows == ()
    assert proxy_table(view, None).rows == ()


def test_the_page_shows_both(tmp_path: Path):
    from peo_bench.report import build_report

    page = build_report(write_run_folder(tmp_path, rich=True)).read_text()
    assert "The plane that was searched" in page
    assert "How far can the proxies be trusted?" in page
