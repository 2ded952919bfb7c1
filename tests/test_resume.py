"""Resumed equals uninterrupted, after a SIGKILL in the middle of training, search and generation."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import HEEDING, TINY, peo_bench
from tiny_run import start as start_process

from peo_bench.kill_points import VARIABLE

RUN = ("run", "--methods", "peo", "--out", "out", *TINY)
FROM = {
    "aspect-helpful": ("aspect", "candidates", "extrapolation", "answers"),
    "search": ("extrapolation", "answers"),
    "generation": ("answers",),
    "rename": ("extrapolation", "answers"),
}
"""By kill point, what is not yet there when the process that will be killed starts; the rest is taken over, to save
time. All points are in test_kill_points.py, which takes long."""


def killed_at(point: str) -> str:
    """Return the Python text that makes a child process kill itself at a point."""
    return f"import os; os.environ[{VARIABLE!r}] = {point!r}"


def start(uninterrupted: Path, folder: Path, point: str) -> None:
    """Give `folder` a cache in which everything up to the kill point's stage is finished."""
    skipped = shutil.ignore_patterns(*(f"{kind}-*" for kind in FROM[point]))
    shutil.copytree(uninterrupted.parent / "cache", folder / "cache", ignore=skipped)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("whole")
    peo_bench(where, *RUN)
    return where / "out"


@pytest.mark.parametrize("point", FROM)
def test_resumed_equals_uninterrupted(uninterrupted, tmp_path, point):
    start(uninterrupted, tmp_path, point)
    killed = peo_bench(tmp_path, *RUN, before=killed_at(point), check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = set((tmp_path / "cache").rglob("meta.json"))
    stamps = {path: path.stat().st_mtime_ns for path in finished if "partial" not in path.parts}
    peo_bench(tmp_path, *RUN)
    for name in ("points.csv", "metrics.json", "search.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    costs = [json.loads((folder / "costs.json").read_text()) for folder in (tmp_path / "out", uninterrupted)]
    counts = [{m: v["validation_evaluations"] for m, v in cost["methods"].items()} for cost in costs]
    assert counts[0] == counts[1], "what was spent before the kill is counted too"
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), "finished work is not done again"


def any_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("sent", "said", "code"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_a_run_that_is_asked_to_end_says_how_to_go_on(tmp_path, sent, said, code):
    """While two workers are busy; none is left, and the folder is nobody's."""
    args = [*RUN, "--workers", "2"]
    with start_process(tmp_path, *args, before=HEEDING) as process:
        deadline = time.monotonic() + 400
        while not list((tmp_path / "cache").glob("peo-bench/partial/*-*/*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(sent) if sent == signal.SIGTERM else os.killpg(process.pid, sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    line = f"{said}; finished work is kept: type `peo-bench {shlex.join(args)}` again to continue"
    assert err.splitlines()[-1] == line, err
    assert "Traceback" not in err
    deadline = time.monotonic() + 60
    while any_left(process.pid):  # what ended beside its parent stays until somebody has taken note of it
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (tmp_path / "out" / ".owner").exists()


def test_a_killed_search_keeps_its_evaluations(uninterrupted, tmp_path):
    """Of the batches of evaluations two were journalled; the second attempt makes the others only."""
    start(uninterrupted, tmp_path, "search")
    peo_bench(tmp_path, *RUN, before=killed_at("search"), check=False)
    journal = next((tmp_path / "cache").rglob("evaluations.jsonl"))
    before = journal.read_bytes().splitlines()
    assert len(before) == 2
    peo_bench(tmp_path, *RUN)
    after = next((tmp_path / "cache").rglob("evaluations.jsonl")).read_bytes().splitlines()
    assert after[:2] == before
    assert sum(len(json.loads(line.split(b" ", 1)[1])["evaluations"]) for line in after) == 10
