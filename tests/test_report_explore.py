"""Exploring the report in a headless Chromium: slider, cards, gallery, maps, downloads, accessibility, print."""

from __future__ import annotations

import base64
import re
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import NEEDS_CHROMIUM, Browser, assert_silent
from run_folder_fixture import write_run_folder

from peo_bench.report import build_report, paper
from peo_bench.report.texts import MAX_CHARACTERS

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("run"), rich=True)


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Path:
    return build_report(run_dir)


def draw_all(browser: Browser) -> None:
    """Unfold the sections and scroll through the page, so that every figure is drawn."""
    browser.js("document.querySelectorAll('section details:not(.item)').forEach((part) => { part.open = true; })")
    for y in range(0, browser.js("return document.documentElement.scrollHeight"), 600):
        browser.js(f"window.scrollTo({{top: {y}, behavior: 'instant'}})")
        time.sleep(0.05)
    browser.js("window.scrollTo({top: 0, behavior: 'instant'})")
    assert browser.js("return [...document.querySelectorAll('.plot')].filter((p) => !p.data).map((p) => p.id)") == []


def move_slider(browser: Browser, step: int) -> None:
    browser.js(
        "const slider = document.querySelector('.dial input'); slider.value = arguments[0];"
        "slider.dispatchEvent(new Event('input'))",
        step,
    )
    time.sleep(0.2)


def rings(browser: Browser) -> list[list[float]]:
    found: list[list[float]] = browser.js(
        "const ring = document.getElementById('front-0').data.find((t) => t.meta.role === 'ring');"
        "return ring.x.map((x, i) => [x, ring.y[i]])"
    )
    return found


def cards(browser: Browser) -> dict[str, str]:
    found: dict[str, str] = browser.js(
        "return Object.fromEntries([...document.querySelectorAll('.dial .card')]"
        ".map((c) => [c.dataset.key, c.querySelector('.answer').textContent]))"
    )
    return found


def test_the_slider_moves_the_points_and_swaps_the_answers(browser: Browser, page: Path, run_dir: Path) -> None:
    browser.open(page)
    points = pd.read_csv(run_dir / "points.csv")
    table = pd.read_parquet(run_dir / "answers.parquet")
    prompt = browser.js("return document.querySelector('.dial > .prompt').textContent")
    for step, weight in ((0, 1.0), (4, 0.0), (3, 0.25)):
        move_slider(browser, step)
        own = points[(points["preference_helpful"] == weight) & ~points["method"].isin(["oracle", "reference"])]
        assert np.allclose(sorted(rings(browser)), sorted(own[["reward", "cost"]].to_numpy().tolist()))
        shown = cards(browser)
        assert set(shown) == {
            "reference|1|", *(f"{m}|1|{weight:.6f}" for m in ("peo", "modpo", "soup", "peo-expo"))
        }  # fmt: skip
        for key, answer in shown.items():
            method = key.split("|")[0]
            rows = table[(table["method"] == method) & (table["prompt"] == prompt)]
            expected = rows if method == "reference" else rows[rows["preference"] == weight]
            assert answer == expected["answer"].iloc[0]
        assert f"{weight * 100:.3g} % helpful" in browser.js("return document.querySelector('.dial .now').textContent")
    assert_silent(browser, page)


def test_the_keyboard_moves_the_slider(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.js("document.querySelector('.dial input').focus()")
    before = rings(browser)
    browser.key("\ue014")
    time.sleep(0.2)
    assert rings(browser) != before
    assert browser.js("return document.querySelector('.dial input').getAttribute('aria-valuetext')").startswith("25 %")


def test_hidden_methods_lose_their_ring(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.js("document.querySelector('.legend button[data-method=soup]').click()")
    assert len(rings(browser)) == 3
    browser.js("document.querySelector('.legend button[data-role=band]').click()")
    shown = "return document.getElementById('front-0').data.filter((t) => t.visible !== false).map((t) => t.meta.role)"
    assert "band" not in browser.js(shown)


def test_a_random_prompt_is_another_one_the_same_for_all(browser: Browser, page: Path, run_dir: Path) -> None:
    browser.open(page)
    table = pd.read_parquet(run_dir / "answers.parquet")
    prompts = set()
    for _ in range(5):
        prompts.add(browser.js("return document.querySelector('.dial > .prompt').textContent"))
        browser.js("document.querySelector('.random').click()")
    assert len(prompts) > 1
    prompt = browser.js("return document.querySelector('.dial > .prompt').textContent")
    answers = set(table[table["prompt"] == prompt]["answer"])
    assert set(cards(browser).values()) <= answers


def test_the_gallery_searches_filters_and_opens(browser: Browser, page: Path) -> None:
    browser.open(page)
    count = "return document.querySelectorAll('#gallery .item').length"
    assert browser.js(count) == 60
    browser.js(
        "const box = document.querySelector('#gallery input'); box.value = 'knife';"
        "box.dispatchEvent(new Event('input'))"
    )
    assert browser.js(count) == 15
    browser.js(
        "const box = document.querySelector('#gallery input'); box.value = ''; box.dispatchEvent(new Event('input'))"
    )
    press = "document.querySelector('#gallery [data-filter={}]').click()"
    browser.js(press.format("unsafe"))
    assert browser.js(count) == 30
    assert browser.js("return document.querySelectorAll('#gallery .item .prompt.blurred').length") == 30
    browser.js(press.format("spread"))
    chips = browser.js("return [...document.querySelectorAll('#gallery .chip')].map((c) => c.textContent)")
    gaps = [float(text.split()[1]) for text in chips if text.startswith("disagreement")]
    assert gaps == sorted(gaps, reverse=True)
    browser.js(press.format("flip"))
    assert 0 < browser.js(count) < 60
    browser.js("document.querySelector('#gallery .item').open = true")
    time.sleep(0.2)
    assert "when shown in this order" in browser.js("return document.querySelector('#gallery .flip').textContent")
    assert browser.js("return document.querySelectorAll('#gallery .opened .card').length") == 5
    assert not browser.js("return document.querySelector('#gallery .item .prompt').classList.contains('blurred')")
    assert_silent(browser, page)


def test_harmful_prompts_are_blurred_in_the_cards_until_shown(browser: Browser, page: Path) -> None:
    browser.open(page)
    for _ in range(40):
        browser.js("document.querySelector('.random').click()")
        if browser.js("return document.querySelectorAll('.dial > .reveal').length"):
            break
    blurred = "return document.querySelectorAll('.dial .blurred').length"
    assert browser.js(blurred) == 6, "the prompt and five answers"
    browser.js("document.querySelector('.dial > .reveal').click()")
    assert browser.js(blurred) == 0
    move_slider(browser, 0)
    assert browser.js(blurred) == 0, "the same prompt stays open while the slider moves"


def test_the_attainment_map_subtracts_any_two_methods(browser: Browser, page: Path) -> None:
    browser.open(page)
    draw_all(browser)
    result: dict[str, Any] = browser.js(
        """
        const [first, second] = document.querySelectorAll('[data-attainment] select');
        first.value = 'soup'; second.value = 'peo'; second.dispatchEvent(new Event('change'));
        const shares = Report.page.attainment[0];
        return {z: document.getElementById('attainment-0').data[0].z, soup: shares.soup, peo: shares.peo};
        """
    )
    assert result["z"] == [
        [a - b for a, b in zip(*rows, strict=True)] for rows in zip(result["soup"], result["peo"], strict=True)
    ]
    assert_silent(browser, page)


def test_without_scripts_nothing_is_shown_that_needs_them(browser: Browser, page: Path, tmp_path: Path) -> None:
    copy = tmp_path / "page.html"
    copy.write_text(re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL))
    browser.open(copy)
    shown: list[str] = browser.js(
        "return [...document.querySelectorAll('h2, h3, .dial, .tools, .choice, .static')]"
        ".filter((part) => part.offsetParent || part.tagName === 'svg').map((part) => part.textContent.trim())"
    )
    assert "" not in shown
    assert not {"Gallery", "How much does “harmless” count?"} & set(shown)
    assert "Scoreboard" in shown


def test_cards_write_numbers_as_the_tables_do(browser: Browser, page: Path) -> None:
    browser.open(page)
    lines: list[str] = browser.js(
        "return [...document.querySelectorAll('.dial .card .scores')].map((p) => p.textContent)"
    )
    numbers = [word for line in lines for word in re.findall(r"[^ ]*\d[^ ]*", line)]
    assert any(word.startswith("−") for word in numbers)
    assert not any("-" in word for word in numbers)
    scored = [line for line in lines if re.match(r"reward \S+ · cost \S+$", line)]
    assert scored
    assert all(re.match(r"reward −?\d+\.\d\d · cost −?\d+\.\d\d$", line) for line in scored)


def test_one_figure_without_a_place_does_not_keep_the_others_from_being_drawn(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "page.html"
    copy.write_text(
        page.read_text().replace('"figures":{', '"figures":{"nowhere":{"data":[],"layout":{"height":9}},', 1)
    )
    browser.open(copy)
    draw_all(browser)
    assert browser.js("return document.querySelectorAll('.js-plotly-plot').length") > 5
    assert_silent(browser, copy)


def test_cells_of_heat_maps_stay_wide_enough_on_a_narrow_screen(browser: Browser, page: Path) -> None:
    browser.open(page, width=390)
    draw_all(browser)
    sizes: dict[str, int] = browser.js(
        "const plot = document.getElementById('versus-utility-0'), box = plot.parentElement;"
        "return {plot: plot.querySelector('.main-svg').clientWidth, box: box.clientWidth, scroll: box.scrollWidth}"
    )
    assert sizes["plot"] >= 150 + 4 * 54 > sizes["box"]
    assert sizes["scroll"] > sizes["box"]
    assert browser.js("return document.documentElement.scrollWidth") <= 390


def test_figures_with_a_choice_change(browser: Browser, page: Path) -> None:
    browser.open(page)
    draw_all(browser)
    z = "return document.getElementById('safety-categories-0').data[0].z"
    before = browser.js(z)
    browser.js(
        "const s = document.querySelector('select[data-choose=safety-categories-0]'); s.selectedIndex = 4;"
        "s.dispatchEvent(new Event('change'))"
    )
    assert browser.js(z) != before
    assert_silent(browser, page)


def test_downloads_are_svg_and_csv_and_latex(browser: Browser, page: Path, run_dir: Path, tmp_path: Path) -> None:
    browser.open(page)
    draw_all(browser)
    browser.js("Tables.save = (name, text) => { window.saved = text; }")
    for id in ("front-0", "versus-utility-0", "attainment-0", "stages-run"):
        browser.js(f"document.querySelector('[data-svg={id}]').click()")
        picture = ElementTree.fromstring(browser.js("return window.saved"))
        assert picture.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(picture.iter())) > 20
    paper.write_run_figures(run_dir, tmp_path, ["csv", "tex"])
    table = "document.getElementById('scores-0')"
    ours, theirs = browser.js(f"return Tables.csv({table})"), (tmp_path / "scoreboard.csv").read_text()
    assert ours.splitlines()[1:] == theirs.splitlines()[1:]
    latex = (tmp_path / "scoreboard.tex").read_text()
    rows = [line for line in browser.js(f"return Tables.tex({table})").splitlines() if "&" in line]
    assert len(rows) == 1 + 4 + 3, "heading, methods and controls, yardsticks"
    assert all(row in latex for row in rows)
    assert_silent(browser, page)


@pytest.mark.parametrize("width", [390, 1600])
def test_no_overflow_with_everything_open(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    draw_all(browser)
    assert browser.js("return document.documentElement.scrollWidth") <= width
    browser.js("for (const part of document.querySelectorAll('details')) part.open = true")
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert_silent(browser, page)


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1600, False)])
def test_an_accessibility_checker_finds_nothing(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    """Everything open, every rule of WCAG 2 A and AA (contrast among them) and of best practice."""
    axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python: pip install -e '.[test]'")
    few = write_run_folder(tmp_path, rich=True, controls=(), n_prompts=8, weights=(1.0, 0.5, 0.0))
    browser.open(build_report(few), width=width, dark=dark)
    draw_all(browser)
    browser.js("for (const part of document.querySelectorAll('details')) part.open = true")
    browser.js((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    browser.js(
        # What plotly draws is one picture with a text alternative; its thousands of marks only cost time.
        "axe.run({exclude: [['.plot svg']]}, {runOnly: ['wcag2a', 'wcag2aa', 'best-practice']})"
        ".then((result) => { window.found = result; })"
    )
    while not browser.js("return Boolean(window.found)"):
        time.sleep(0.2)
    violations = browser.js(
        "return window.found.violations.map((v) =>"
        "[v.id, v.nodes.length, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary])"
    )
    assert violations == []
    assert "color-contrast" in browser.js("return window.found.passes.map((p) => p.id)")


def test_print_holds_the_tables_and_no_controls(browser: Browser, page: Path) -> None:
    browser.open(page)
    printed = browser.cdp("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    browser.cdp("Emulation.setEmulatedMedia", {"media": "print"})
    shown = "return getComputedStyle(document.querySelector('{}')).display"
    assert browser.js(shown.format(".tools")) == "none"
    assert browser.js(shown.format(".hero .static")) == "block"
    browser.cdp("Emulation.setEmulatedMedia", {"media": ""})
    assert_silent(browser, page)


def test_a_text_of_a_megabyte_is_cut_and_stays_text(browser: Browser, tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, n_prompts=8)
    table = pd.read_parquet(run_dir / "answers.parquet")
    table["answer"] = "<img src=x onerror=alert(1)>" * 36_000
    table["prompt"] = table["prompt"] + "\u202e</script>" + "long " * 200_000
    table.to_parquet(run_dir / "answers.parquet")
    page = build_report(run_dir)
    assert page.stat().st_size < 7_000_000
    browser.open(page)
    draw_all(browser)
    answers = cards(browser)
    assert all(len(answer) < MAX_CHARACTERS + 20 and answer.startswith("<img src=x") for answer in answers.values())
    assert browser.js("return document.querySelectorAll('main img').length") == 0
    assert browser.js("return document.documentElement.scrollWidth") <= 1280
    assert_silent(browser, page)


def test_a_redacted_report_keeps_the_slider(browser: Browser, tmp_path: Path) -> None:
    page = build_report(write_run_folder(tmp_path, n_prompts=8), redact=True)
    browser.open(page)
    before = rings(browser)
    move_slider(browser, 0)
    assert rings(browser) != before
    assert browser.js("return document.querySelectorAll('.dial .card').length") == 5
    assert browser.js("return document.querySelectorAll('.answer').length") == 0
    assert_silent(browser, page)
