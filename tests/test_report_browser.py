"""The report in a headless Chromium: nothing leaves the page, nothing in a text is executed, everything works."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from browser import NEEDS_CHROMIUM, Browser, assert_silent
from run_folder_fixture import HOSTILE, write_run_folder

from peo_bench.report import build_report

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(write_run_folder(tmp_path_factory.mktemp("run"), hostile=True))


def click_point(browser: Browser, method: str, index: int) -> None:
    """Scroll to the hero and click the ``index``-th mark of ``method``."""
    x, y = browser.js(
        """
        const plot = document.getElementById('front-0');
        plot.scrollIntoView({block: 'center', behavior: 'instant'});
        const n = plot.data.findIndex((t) => t.meta.method === arguments[0] && t.meta.role === 'points');
        const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
        return [box.x + xaxis._offset + xaxis.d2p(plot.data[n].x[arguments[1]]),
                box.y + yaxis._offset + yaxis.d2p(plot.data[n].y[arguments[1]])];
        """,
        method,
        index,
    )
    time.sleep(0.2)
    browser.click(x, y)
    time.sleep(0.2)


def panel(browser: Browser) -> dict[str, Any]:
    found: dict[str, Any] = browser.js(
        """
        const text = (id) => document.getElementById(id).textContent, panel = document.getElementById('panel');
        return {hidden: panel.hidden, title: text('panel-title'), asked: text('panel-asked'), note: text('panel-note'),
                answers: [...panel.querySelectorAll('.answer')].map((p) => p.textContent)};
        """
    )
    return found


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_texts_stay_text_and_the_page_is_silent(browser: Browser, hostile_page: Path, dark: bool) -> None:
    browser.open(hostile_page, dark=dark)
    click_point(browser, "peo", 0)
    answers = panel(browser)["answers"]
    for text in HOSTILE:
        assert any(answer.startswith(text) for answer in answers), text
    assert browser.js("return document.querySelectorAll('#panel img, #panel script').length") == 0
    assert browser.js("return document.scripts.length") == 5
    assert_silent(browser, hostile_page)


def test_clicking_a_mark_opens_the_texts_of_that_policy(browser: Browser, tmp_path: Path) -> None:
    page = build_report(write_run_folder(tmp_path))
    browser.open(page)
    click_point(browser, "modpo", 2)
    opened = panel(browser)
    assert (opened["hidden"], opened["title"], opened["asked"]) == (False, "MODPO", "50 % helpful, 50 % harmless")
    assert len(opened["answers"]) == 24
    browser.js("document.querySelector('#panel .more').click()")
    assert len(panel(browser)["answers"]) == 48
    assert all(answer.startswith("modpo at 0.50") for answer in opened["answers"])
    assert "60 of 60 test prompts" in opened["note"]
    click_point(browser, "peo", 4)
    assert all(answer.startswith("peo at 0.00") for answer in panel(browser)["answers"])
    assert_silent(browser, page)


def test_the_keyboard_opens_closes_and_returns_the_focus(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    browser.js(
        "document.querySelector('details').open = true;document.querySelector('tr[data-key][data-method=soup]').focus()"
    )
    browser.key("\ue007")
    assert (panel(browser)["hidden"], panel(browser)["title"]) == (False, "soup")
    assert browser.js("return document.activeElement.id") == "panel-title"
    browser.key("\ue00c")
    assert panel(browser)["hidden"]
    assert browser.js("return document.activeElement.dataset.method") == "soup"


def test_texts_that_may_be_harmful_are_blurred_until_shown(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    click_point(browser, "peo", 0)
    count = "return document.querySelectorAll('#panel .answer.blurred').length"
    before = browser.js(count)
    assert 0 < before < 24, "benign prompts are readable at once, others are not"
    browser.js("document.querySelector('#panel .reveal').click()")
    assert browser.js(count) == before - 1


def test_hiding_a_method_and_sorting_the_scoreboard(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    browser.js("document.querySelector('.legend button[data-method=modpo]').click()")
    shown = "return document.getElementById('front-0').data.filter((t) => t.visible).map((t) => t.meta.method)"
    assert set(browser.js(shown)) == {"peo", "soup", "peo-expo", "reference", "oracle"}
    titles = browser.js(
        "return [...document.querySelectorAll('#scores-0 thead th')].map((th) => th.textContent.trim())"
    )
    column = titles.index("Mean KL")
    browser.js(f"document.querySelectorAll('#scores-0 th button')[{column}].click()")
    rows = "[...document.querySelectorAll('#scores-0 tbody tr')]"
    known = f"{rows}.map((row) => row.cells[{column}].dataset.sort).filter((value) => value !== '')"
    lengths = browser.js(f"return {known}.map(Number)")
    assert lengths == sorted(set(lengths), reverse=True)
    assert browser.js("return document.querySelectorAll('#scores-0 th[aria-sort]').length") == 1


@pytest.mark.parametrize("width", [390, 768, 1280, 1600])
@pytest.mark.parametrize("methods", [2, 12])
def test_no_width_overflows(browser: Browser, tmp_path: Path, width: int, methods: int) -> None:
    names = ("peo", "modpo", *(f"method-{i}" for i in range(10)))[:methods]
    page = build_report(write_run_folder(tmp_path, methods=names, controls=(), n_prompts=12))
    browser.open(page, width=width)
    assert browser.js("return document.documentElement.scrollWidth") <= width
    click_point(browser, "peo", 1)
    assert not panel(browser)["hidden"]
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert_silent(browser, page)


def test_the_page_prints_the_static_picture(browser: Browser, hostile_page: Path) -> None:
    browser.open(hostile_page)
    assert browser.js("return getComputedStyle(document.querySelector('.hero .static')).display") == "none"
    browser.cdp("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.js("return getComputedStyle(document.querySelector('.hero .static')).display") == "block"
    browser.cdp("Emulation.setEmulatedMedia", {"media": ""})
    printed = browser.cdp("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_the_leaderboards_page_is_silent_sortable_and_shows_its_fronts(browser: Browser, tmp_path: Path) -> None:
    from peo_bench.boards.leaderboard import add_run, boards
    from peo_bench.report.board import write_page

    add_run(
        tmp_path / "boards", write_run_folder(tmp_path / "run", methods=("peo", "modpo", "soup"), controls=()), None
    )
    page = tmp_path / "page.html"
    write_page(boards(tmp_path / "boards"), page)
    for width in (390, 1600):
        browser.open(page, width=width)
        assert browser.js("return document.documentElement.scrollWidth") <= width
        assert browser.js("return document.querySelector('svg.static').getBoundingClientRect().height") > 100
    names = "return [...document.querySelectorAll('table.scores tbody th')].map((cell) => cell.dataset.sort)"
    before = browser.js(names)
    browser.js("document.querySelectorAll('table.scores thead button')[0].click()")
    assert browser.js(names) == sorted(before)
    assert_silent(browser, page)
