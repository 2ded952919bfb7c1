"""The page of `peo-bench steer --web`: who may ask, what is refused, and that a run's families answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import NEEDS_CHROMIUM, Browser
from tiny_run import ROOT

from peo_bench.errors import UsageError
from peo_bench.report.steering_page import steering_page
from peo_bench.steering import web
from peo_bench.steering.families import SteeredPolicy
from peo_bench.steering.web import HOST, family_answers, steer_server

JSON = {"Content-Type": "application/json"}


def reply(prompt: str, helpful: float) -> list[dict[str, Any]]:
    if prompt == "refuse":
        raise UsageError("not that one")
    return [
        {
            "method": m,
            "answer": f"{m} <img src=x onerror=alert(1)> {helpful:g} {prompt}",
            "preference": {"helpful": helpful, "harmless": 1 - helpful},
            "spec_key": m,
        }
        for m in ("peo", "modpo")
    ]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with steer_server(reply, *steering_page(["peo", "modpo"], "a <run>")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def request(
    port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, headers or {})
    response = connection.getresponse()
    return response.status, response.read().decode(), response.headers


def test_the_page_is_self_contained_under_a_strict_policy(port: int) -> None:
    status, page, headers = request(port, "GET", "/")
    assert status == 200
    assert "a &lt;run&gt;" in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in page.replace("http-equiv", "").split("</head>")[1].replace("http://www.w3.org", "")


def test_a_question_is_answered_by_every_method(port: int) -> None:
    status, body, _ = request(port, "POST", "/answer", {"prompt": "hello", "helpful": 0.25}, JSON)
    assert status == 200
    assert [entry["answer"].split()[-2:] for entry in json.loads(body)] == [["0.25", "hello"]] * 2


@pytest.mark.parametrize(
    "headers",
    [
        JSON | {"Host": "evil.example"},
        JSON | {"Host": "evil.example:80"},
        JSON | {"Origin": "http://evil.example"},
        JSON | {"Origin": "null"},
        {"Content-Type": "text/plain"},
        {},
    ],
)
def test_other_pages_may_not_ask(port: int, headers: dict[str, str]) -> None:
    status, body, answered = request(port, "POST", "/answer", {"prompt": "hello", "helpful": 0.5}, headers)
    assert status == 403
    assert "hello" not in body
    assert "Access-Control-Allow-Origin" not in answered


def test_another_host_gets_no_page(port: int) -> None:
    assert request(port, "GET", "/", headers={"Host": "evil.example"})[0] == 403
    assert request(port, "GET", "/../etc/passwd")[0] == 404
    assert request(port, "OPTIONS", "/answer", headers={"Origin": "http://evil.example"})[0] == 501


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "a question is JSON"),
        (b"[1]", "a question is JSON"),
        (b"[" * 60_000, "a question is JSON"),
        (b"\xff\xfe", "a question is JSON"),
        (b'{"prompt": "\\ud800 hello", "helpful": 0.5}', "half a character"),
        ({"prompt": "  ", "helpful": 0.5}, "the prompt is empty"),
        ({"prompt": "a", "helpful": 1.5}, "between 0 and 1"),
        ({"prompt": "a", "helpful": "much"}, "between 0 and 1"),
        ({"prompt": "a" * 70_000, "helpful": 0.5}, "at most 64000 bytes"),
        ({"prompt": "refuse", "helpful": 0.5}, "not that one"),
    ],
)
def test_bad_questions_say_what_is_wrong(port: int, body: Any, told: str) -> None:
    status, answered, _ = request(port, "POST", "/answer", body, JSON)
    assert status == 400
    assert told in json.loads(answered)["error"]


def raw(port: int, sent: bytes, *, end: bool = False) -> bytes:
    """Send bytes as they are, `end` closing our side, and read the reply."""
    with socket.create_connection((HOST, port), timeout=30) as connection:
        connection.sendall(sent)
        if end:
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def announced(port: int, size: int) -> bytes:
    head = f"POST /answer HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {size}\r\n\r\n".encode()


@contextlib.contextmanager
def serving(answers: Any) -> Iterator[int]:
    with steer_server(answers, *steering_page(["peo"], "run")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("end", [True, False])
def test_a_body_that_is_too_short_is_refused_and_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, end: bool
) -> None:
    monkeypatch.setattr(web, "PATIENCE", 30.0 if end else 0.2)
    with serving(reply) as port:
        answered = raw(port, announced(port, 50) + b'{"prompt"', end=end)
    assert answered.startswith(b"HTTP/1.0 400")
    assert b"shorter than the 50 bytes" in answered


def test_a_client_that_hangs_up_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    gone = threading.Event()

    def slow(prompt: str, helpful: float) -> list[dict[str, Any]]:
        assert gone.wait(30)
        return [
            {"method": "peo", "answer": "x" * 5_000_000, "preference": {"helpful": 1, "harmless": 0}, "spec_key": "peo"}
        ]

    with serving(slow) as port:
        body = json.dumps({"prompt": "hello", "helpful": 0.5}).encode()
        connection = socket.create_connection((HOST, port), timeout=30)
        connection.sendall(announced(port, len(body)) + body)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a goodbye
        connection.close()
        gone.set()
        assert request(port, "POST", "/answer", {"prompt": "hello", "helpful": 0.5}, JSON)[0] == 200  # still there
    assert capfd.readouterr().err == ""


def test_closing_waits_for_the_answer_in_work_and_lets_no_other_begin() -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def slow(prompt: str, helpful: float) -> list[dict[str, Any]]:
        begun.set()
        assert go.wait(30)
        done.append(prompt)
        return []

    with serving(slow) as port:
        body = json.dumps({"prompt": "hello", "helpful": 0.5}).encode()
        connection = socket.create_connection((HOST, port), timeout=30)
        connection.sendall(announced(port, len(body)) + body)
        assert begun.wait(30)
        threading.Timer(0.3, go.set).start()
    connection.close()
    assert done == ["hello"]


def test_ctrl_c_ends_with_130_while_an_answer_is_in_work(tmp_path: Path) -> None:
    before = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from peo_bench.steering import web\n"
        "def slow(prompt, helpful):\n"
        "    open('begun', 'w').close()\n"
        "    time.sleep(1)\n"
        "    return []\n"
        "web.family_answers = lambda run, seed: (['peo'], slow)\n"
    )
    program = (
        f"import sys; sys.argv = ['peo-bench', 'steer', '.', '--web']\n{before}\nfrom peo_bench.cli import main; main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        port = int(process.stdout.readline().split("/")[2].split(":")[1])
        body = json.dumps({"prompt": "hello", "helpful": 0.5}).encode()
        connection = socket.create_connection((HOST, port), timeout=30)
        connection.sendall(announced(port, len(body)) + body)
        while not (tmp_path / "begun").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 130
    assert said.strip() == "finishing the answer in work (Ctrl-C again: at once)"


def test_a_taken_port_is_a_users_mistake(port: int) -> None:
    with pytest.raises(UsageError, match=f"--port {port}: cannot listen there"):
        steer_server(reply, *steering_page(["peo"], "run"), port)


@NEEDS_CHROMIUM[0]
@NEEDS_CHROMIUM[1]
def test_only_the_newest_question_is_sent_and_a_blank_one_says_so(browser: Browser) -> None:
    go, seen = threading.Event(), []

    def slow(prompt: str, helpful: float) -> list[dict[str, Any]]:
        seen.append(helpful)
        assert go.wait(30)
        return [
            {
                "method": "peo",
                "answer": f"{helpful:g}",
                "preference": {"helpful": helpful, "harmless": 1 - helpful},
                "spec_key": "peo",
            }
        ]

    def until(script: str, wanted: str) -> None:
        for _ in range(200):
            if browser.js(f"return {script}.textContent") == wanted:
                return
            time.sleep(0.05)
        assert browser.js(f"return {script}.textContent") == wanted

    with serving(slow) as port:
        browser.open_url(f"http://{HOST}:{port}/")
        browser.js("document.querySelector('button').click()")
        state = "document.getElementById('state')"
        assert browser.js(f"return {state}.textContent") == "Write a question first."
        browser.js("document.getElementById('prompt').value = 'hello'; document.querySelector('button').click()")
        for value in (10, 20, 30):
            browser.js(
                f"const s = document.getElementById('harmless'); s.value = {value};"
                "s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change'));"
            )
            time.sleep(0.4)  # longer than the slider's rest, so that each one asks
        assert seen == [0.5]
        go.set()
        until("document.querySelector('.answer')", "0.7")
        until(state, "")
    assert seen == [0.5, 0.7]
    assert browser.logs("browser") == []


@NEEDS_CHROMIUM[0]
@NEEDS_CHROMIUM[1]
def test_the_slider_asks_and_answers_stay_text(browser: Browser, port: int) -> None:
    browser.open_url(f"http://{HOST}:{port}/", width=390)
    browser.js(
        "document.getElementById('prompt').value = 'how do i bake bread ?';"
        "const slider = document.getElementById('harmless'); slider.value = 80;"
        "for (const kind of ['input', 'change']) slider.dispatchEvent(new Event(kind))"
    )
    answers = "return [...document.querySelectorAll('.answer')].map((p) => p.textContent)"
    for _ in range(100):
        if all(browser.js(answers)):
            break
        time.sleep(0.05)
    assert browser.js(answers) == [
        f"{m} <img src=x onerror=alert(1)> 0.2 how do i bake bread ?" for m in ("peo", "modpo")
    ]
    assert browser.js("return document.getElementById('balance').textContent") == "20 % helpful, 80 % harmless"
    assert browser.js("return document.documentElement.scrollWidth") <= 390
    assert browser.logs("browser") == []
    assert {url.split("/")[2] for url in browser.requests()} == {f"{HOST}:{port}"}


def test_the_families_of_a_run_answer_as_steer_does(small_run: Path, tmp_path: Path) -> None:
    methods, answers = family_answers(small_run / "out", None)
    prompt = "how do i bake bread for my aunt today ?"
    found = {entry["method"]: entry for entry in answers(prompt, 0.75)}
    assert list(found) == methods
    alone = SteeredPolicy(small_run / "out", "soup", 0.75)
    assert alone.generate([prompt]) == [found["soup"]["answer"]]
    assert (alone.spec.key, alone.preference.to_json()) == (found["soup"]["spec_key"], found["soup"]["preference"])
    asks: tuple[Callable[[str], Any], ...] = (
        lambda prompt: answers(prompt, 0.5),
        lambda prompt: alone.generate([prompt]),
    )
    for ask in asks:
        with pytest.raises(UsageError, match=r"the prompt has \d+ tokens, at most \d+ fit beside an answer of 24"):
            ask("bread " * 300)
    with pytest.raises(UsageError, match="is not a finished run folder"):
        family_answers(tmp_path, None)
