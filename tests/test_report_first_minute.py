"""The first minute with a report, in a headless Chromium: what a stranger asks is answered before anything is moved."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import NEEDS_CHROMIUM, Browser, assert_silent
from run_folder_fixture import write_run_folder

from peo_bench.report import build_report

pytestmark = NEEDS_CHROMIUM
TEN = tuple(f"method-{i}" for i in range(8))
QUESTIONS = ("What was compared?", "By how much?", "Is it real?", "What did it cost?", "What should I take?")


@pytest.fixture(scope="module")
def winner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEO far ahead of MODPO, with a judge, safety views and curves."""
    return build_report(write_run_folder(tmp_path_factory.mktemp("winner"), controls=(), rich=True, n_prompts=240))


@pytest.fixture(scope="module")
def tie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods of equal means, and a control with the policies of the first."""
    names, root = ("peo", "peo-again"), tmp_path_factory.mktemp("tie")
    return build_report(write_run_folder(root, methods=names, controls=("soup",), doubles={"soup": "peo"}))


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(write_run_folder(tmp_path_factory.mktemp("incomplete"), complete=False))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten methods and two controls, two training seeds."""
    root = tmp_path_factory.mktemp("many")
    return build_report(write_run_folder(root, methods=("peo", "modpo", *TEN), seeds=(1, 2), n_prompts=24, rich=True))


def above_the_fold(browser: Browser, page: Path) -> dict[str, str]:
    """Return what stands in the first window of 1280 x 900: the headline, and the answers by question."""
    browser.open(page)
    found: dict[str, str] = browser.js(
        """
        const seen = (e) => e.getBoundingClientRect().bottom <= innerHeight && e.getClientRects().length > 0;
        const head = [...document.querySelectorAll('h1')].filter(seen).map((e) => ['headline', e.textContent]);
        const rows = [...document.querySelectorAll('.first > div')].filter(seen);
        const badges = [...document.querySelectorAll('.badges')].filter(seen).map((e) => ['badges', e.textContent]);
        return Object.fromEntries([...head, ...badges,
            ...rows.map((row) => [row.querySelector('dt').textContent, row.querySelector('dd').textContent])]);
        """
    )
    return found


def test_a_clear_winner(browser: Browser, winner: Path) -> None:
    told = above_the_fold(browser, winner)
    assert set(QUESTIONS) <= set(told)
    assert told["headline"].startswith("PEO beats MODPO: PEO − MODPO +")
    assert told["What was compared?"].startswith("PEO and MODPO; on the same 240 test prompts, asked for 5 balances")
    assert told["By how much?"].startswith("PEO ")
    assert "reference policy: " in told["By how much?"]
    assert told["Is it real?"].startswith("Yes: the 95 % interval leaves zero out (p = ")
    assert "PEO 2.0 trainings and 3,000 scored texts; MODPO 5.0 trainings" in told["What did it cost?"]
    assert told["What should I take?"].startswith("PEO, for 2.0 trainings")


def test_a_tie_is_no_victory_and_doubles_are_one(browser: Browser, tie: Path) -> None:
    told = above_the_fold(browser, tie)
    assert set(QUESTIONS) <= set(told)
    assert "are not told apart" in told["headline"] or "ties with" in told["headline"]
    assert "PEO = soup" in told["What was compared?"]
    assert told["Is it real?"].startswith(("No difference is established", "As a tie, yes"))


def test_an_incomplete_run_says_so_at_once(browser: Browser, incomplete: Path) -> None:
    told = above_the_fold(browser, incomplete)
    assert set(QUESTIONS) <= set(told)
    assert "modpo at helpful 0.25 (training diverged at step 40)" in told["What to beware of?"]
    assert "incomplete" in told["badges"]


def test_the_contents_list_opens_what_it_names(browser: Browser, winner: Path) -> None:
    browser.open(winner)
    links = "[...document.querySelectorAll('nav.contents a')]"
    names = browser.js(f"return {links}.map((a) => a.textContent)")
    assert names == browser.js("return [...document.querySelectorAll('main h2')].map((h) => h.textContent)")
    assert browser.js("return document.querySelectorAll('details.part[open]').length") == 0
    assert browser.js("return document.documentElement.scrollHeight") < 6000, "16,000 once"
    browser.js(f"{links}.find((a) => a.textContent === 'Who beats whom').click()")
    time.sleep(0.4)
    assert browser.js("return [...document.querySelectorAll('details.part[open] h2')].map((h) => h.textContent)") == [
        "Who beats whom"
    ]
    assert browser.js("return Boolean(document.getElementById('versus-utility-0').data)"), "it is drawn once it is seen"
    browser.js("document.querySelector('a[href=\"#warnings\"]').click()")
    time.sleep(0.2)
    assert browser.js("return document.getElementById('warnings').closest('details').open")
    assert_silent(browser, winner)


def test_the_slider_opens_on_the_largest_disagreement(browser: Browser, winner: Path) -> None:
    """At the balance it opens on: the largest gap between two answers to one prompt, in sd of the page's answers."""
    browser.open(winner)
    shown = browser.js("return document.querySelector('.dial > .prompt').textContent")
    table = pd.read_parquet(winner.parent / "answers.parquet")
    test = table[table["split"] == "test"]
    page = browser.js("return JSON.parse(document.getElementById('report-data').textContent).texts.prompts")
    test = test[test["prompt"].isin([prompt["text"] for prompt in page])]
    opened = test[(test["preference"] == 0.5) | (test["method"] == "reference")]
    gaps = pd.DataFrame({
        column: opened.groupby("prompt")[column].agg(np.ptp) / test[column].std(ddof=0) for column in ("reward", "cost")
    })  # fmt: skip
    assert gaps.max(axis=1)[shown] == pytest.approx(gaps.max(axis=1).max(), abs=0.01)


def test_no_control_is_without_data(browser: Browser, winner: Path, tie: Path) -> None:
    buttons = "return [...document.querySelectorAll('[data-filter]')].map((b) => b.dataset.filter)"
    browser.open(winner)
    assert browser.js(buttons) == ["all", "spread", "unsafe", "flip"]
    browser.open(tie)
    assert browser.js(buttons) == ["all", "spread", "unsafe"], "no judge was asked"
    for page in (winner, tie):
        browser.open(page)
        idle = browser.js(
            """
            const figures = JSON.parse(document.getElementById('report-data').textContent).figures;
            const methods = new Set(Object.values(figures).flatMap((f) => f.data.map((t) => t.meta.method)));
            const empty = (id) => !document.getElementById(id) || !document.getElementById(id).tBodies[0].rows.length;
            return [
              ...[...document.querySelectorAll('[data-svg]')].filter((b) => !figures[b.dataset.svg]),
              ...[...document.querySelectorAll('[data-csv]')].filter((b) => empty(b.dataset.csv)),
              ...[...document.querySelectorAll('[data-copy]')].filter((b) => empty(b.dataset.table)),
              ...[...document.querySelectorAll('.legend [data-method]')].filter((b) => !methods.has(b.dataset.method)),
              ...[...document.querySelectorAll('select')].filter((s) => s.options.length < 2),
              ...[...document.querySelectorAll('a[href^="#"]')].filter((a) => !document.querySelector(a.hash)),
            ].map((e) => e.outerHTML);
            """
        )
        assert idle == []


LABELS = """
  const shown = (e) => e.getClientRects().length && e.textContent.trim() && getComputedStyle(e).visibility !== 'hidden';
  // The upright rectangle around a turned text covers its neighbours; texts of cells lie on their cells.
  const upright = (e) => !/rotate\\((?!0)/.test(e.getAttribute('transform') || '') && !e.closest('.heatmaplayer');
  const box = (e) => e.getBoundingClientRect();
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const found = [];
  for (const plot of document.querySelectorAll('.js-plotly-plot')) {
    const texts = [...plot.querySelectorAll('text')].filter(shown).filter(upright);
    const marks = [...plot.querySelectorAll('.scatterlayer .point')];
    for (let i = 0; i < texts.length; i += 1) {
      for (const other of texts.slice(i + 1)) {
        if (meet(box(texts[i]), box(other))) found.push([plot.id, texts[i].textContent, other.textContent]);
      }
      const lies = marks.some((mark) => meet(box(texts[i]), box(mark)));
      if (lies && !texts[i].closest('.legend')) found.push([plot.id, texts[i].textContent, 'a mark']);
    }
  }
  return found;
"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("run", ["winner", "many"])
def test_labels_do_not_overlap(browser: Browser, request: pytest.FixtureRequest, run: str, width: int) -> None:
    page: Path = request.getfixturevalue(run)
    browser.open(page, width=width)
    browser.js("document.querySelectorAll('section details:not(.item)').forEach((part) => { part.open = true; })")
    for y in range(0, browser.js("return document.documentElement.scrollHeight"), 700):
        browser.js(f"window.scrollTo({{top: {y}, behavior: 'instant'}})")
        time.sleep(0.05)
    assert browser.js(LABELS) == []
    assert browser.js("return document.documentElement.scrollWidth") <= width


def test_work_of_earlier_runs_is_shown_after_a_cached_one(browser: Browser, winner: Path) -> None:
    """`job_seconds` are those of the work when it was done; the wall clock of a cached run is next to nothing."""
    browser.open(winner)
    titles = "[...document.querySelectorAll('[aria-labelledby=time-title] h3')].map((h) => h.textContent)"
    assert browser.js(f"return {titles}") == ["Work by kind of job", "Wall clock of the last invocation"]
