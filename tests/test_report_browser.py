"""The report in a headless Chromium: nothing leaves the page, nothing in a text is executed, everything works.

Talks WebDriver to chromedriver with the standard library alone.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folder_fixture import HOSTILE, write_run_folder

from peo_bench.report import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and CHROMEDRIVER), reason="needs Chromium: apt-get install -y chromium chromium-driver"
    ),
]
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One headless Chromium with an empty profile, steered through chromedriver."""

    def __init__(self, profile: Path) -> None:
        self.driver = subprocess.Popen([str(CHROMEDRIVER), "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self.driver.stdout is not None
        line = next(line for line in self.driver.stdout if "successfully on port" in line)
        port = line.rsplit("on port", 1)[1].strip(" .\n")
        self.base = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/session/{session['sessionId']}"

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show ``page`` in a window of the given size and theme, with empty logs."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", screen)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", {"features": [theme]})
        self.logs("browser"), self.logs("performance")
        self._call("POST", "/url", {"url": page.as_uri()})

    def js(self, script: str, *args: Any) -> Any:
        """Run ``script`` (a function body) in the page and return its value."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def key(self, text: str) -> None:
        """Press one key on whatever has the focus."""
        press = [{"type": kind, "value": text} for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": press}]})

    def click(self, x: float, y: float) -> None:
        """Click with a real mouse at a position of the window."""
        moves: list[dict[str, Any]] = [
            {"type": "pointerMove", "x": round(x), "y": round(y)},
            {"type": "pause", "duration": 150},
        ]
        moves += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self._call("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        """Send one DevTools command."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def logs(self, kind: str) -> list[dict[str, Any]]:
        """Return and empty a log."""
        entries: list[dict[str, Any]] = self._call("POST", "/se/log", {"type": kind})
        return entries

    def requests(self) -> list[str]:
        """Return the addresses asked for since the last look."""
        messages = [json.loads(entry["message"])["message"] for entry in self.logs("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Save what the page looks like."""
        clip = {}
        if whole:
            size = self.cdp("Page.getLayoutMetrics", {})["cssContentSize"]
            clip = {"clip": {**size, "scale": 1}}
        shot = self.cdp("Page.captureScreenshot", {"captureBeyondViewport": whole, **clip})
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End Chromium and its driver."""
        try:
            self._call("DELETE", "", None)
        finally:
            self.driver.terminate()
            self.driver.wait(10)

    def _call(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with _DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


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


def assert_silent(browser: Browser, page: Path) -> None:
    """Fail on any console message (CSP violations are console errors) and on any request but the page itself."""
    assert browser.logs("browser") == []
    assert set(browser.requests()) <= {page.as_uri()}


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_texts_stay_text_and_the_page_is_silent(browser: Browser, hostile_page: Path, dark: bool) -> None:
    browser.open(hostile_page, dark=dark)
    click_point(browser, "peo", 0)
    answers = panel(browser)["answers"]
    for text in HOSTILE:
        assert any(answer.startswith(text) for answer in answers), text
    assert browser.js("return document.querySelectorAll('#panel img, #panel script').length") == 0
    assert browser.js("return document.scripts.length") == 4
    assert_silent(browser, hostile_page)


def test_clicking_a_mark_opens_the_texts_of_that_policy(browser: Browser, tmp_path: Path) -> None:
    page = build_report(write_run_folder(tmp_path))
    browser.open(page)
    click_point(browser, "modpo", 2)
    opened = panel(browser)
    assert (opened["hidden"], opened["title"], opened["asked"]) == (False, "MODPO", "50 % helpful, 50 % harmless")
    assert len(opened["answers"]) == 24
    assert all(answer.startswith("modpo at 0.50") for answer in opened["answers"])
    assert "24 of 60 test prompts" in opened["note"]
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
    lengths = browser.js(f"return {rows}.map((row) => Number(row.cells[{column}].dataset.sort))")
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
    from peo_bench.report.board import write_page
    from peo_bench.runs.leaderboard import add_run, boards

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
