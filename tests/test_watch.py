"""The view of a working run: what it writes while it works, what `report --watch` makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from run_folder_fixture import write_run_folder
from test_tracker import logged
from tiny_run import HEEDING, ROOT, TINY, peo_bench

from peo_bench.results import progress
from peo_bench.results.progress import OWNER, PROGRESS, JobCounts, State, is_running, progress_file


class Followed(NamedTuple):
    """A finished run, an early `progress.json` of it, and what `report --watch` printed."""

    folder: Path
    state: dict[str, Any]
    lines: list[str]


def child(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start the command line in a child process."""
    program = f"{HEEDING}\nimport sys; sys.argv[0] = 'peo-bench'\nfrom peo_bench.cli import main; main()"
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        cwd=folder,
        env=environment | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until `path` exists; fail if the process ends before."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """A tracked run in two workers, watched by one process that is interrupted and by one that stays to the end."""
    folder = tmp_path_factory.mktemp("live")
    run = child(folder, "run", "--methods", "peo", "--out", "out", *TINY, "--workers", "2", "--tracker", "tensorboard")
    wait_for(folder / "out" / PROGRESS, run)
    state: dict[str, Any] = {"jobs": {"queued": 0}}
    while not state["jobs"]["queued"]:  # the first file may be written before the first job is named
        assert run.poll() is None, run.communicate()
        state = json.loads((folder / "out" / PROGRESS).read_text(encoding="utf-8"))
    left = child(folder, "report", "out", "--watch")
    assert left.stdout is not None
    assert left.stdout.readline().startswith("build: ")
    left.send_signal(signal.SIGINT)
    assert left.wait() == 130
    assert run.poll() is None, "leaving the view leaves the run"
    stayed = peo_bench(folder, "report", "out", "--watch")
    assert run.wait() == 0, run.communicate()
    return Followed(folder, state, stayed.stdout.splitlines())


def test_watching_a_run_shows_its_stages_and_ends_with_its_report(followed: Followed) -> None:
    out = followed.folder / "out"
    assert followed.state["stage"] == "build"
    assert followed.state["jobs"]["queued"] > followed.state["jobs"]["done"]
    assert followed.lines[-1] == "out/report.html"
    assert any(line.startswith("build: ") for line in followed.lines)
    assert any(line.startswith("evaluate: ") for line in followed.lines)
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["status"] == "complete"
    assert (out / "report.html").exists()
    assert not (out / PROGRESS).exists()
    assert not is_running(out)


def test_every_training_of_a_run_is_one_run_of_the_tracker(followed: Followed) -> None:
    curves = pd.read_csv(followed.folder / "out" / "curves.csv")
    losses = {job: own["value"] for (name, job), own in curves.groupby(["name", "job"]) if name == "loss"}
    runs = {path.name.rpartition("-")[0]: path for path in (followed.folder / "out" / "tracker").iterdir()}
    assert {"aspect helpful", "aspect harmless"} <= set(losses)
    for job, values in losses.items():
        found = logged(runs[job.replace(" ", "-")], "train/loss")
        assert np.allclose(list(found.values()), values, rtol=1e-5)


def test_what_is_reused_is_not_tracked(followed: Followed) -> None:
    tracker = followed.folder / "out" / "tracker"
    before = {path: path.stat().st_mtime_ns for path in tracker.rglob("*")}
    again = peo_bench(followed.folder, "run", "--methods", "peo", "--out", "out", *TINY, "--tracker", "tensorboard")
    assert "reused from the cache" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in tracker.rglob("*")} == before


def test_a_run_that_is_killed_is_said(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from peo_bench.runs.execute import _locked;"
        "from peo_bench.results.progress import progress_file; out = Path('out')\n"
        "with _locked(out), progress_file(out, lambda *event: None) as observe:\n"
        "    observe('stage', 'build', 0, ''); time.sleep(1000)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    while not (tmp_path / "out" / PROGRESS).exists():
        assert run.poll() is None
        time.sleep(0.1)
    watching = child(tmp_path, "report", "out", "--watch")
    assert watching.stdout is not None
    assert watching.stdout.readline() == "build: 0 of 0 jobs known so far done\n"
    run.kill()
    run.wait()
    _, errors = watching.communicate()
    assert watching.returncode == 3
    assert "ended without a result: type its command again" in errors


def test_without_a_working_run_the_report_is_built_at_once(peo_bench: Any, tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "out", n_prompts=6)
    (folder / OWNER).write_text(f"pid {2**22 + 1} on {os.uname().nodename}", encoding="utf-8")  # killed long ago
    code, out, _ = peo_bench("report", str(folder), "--watch")
    assert (code, out.strip()) == (0, str(folder / "report.html"))
    code, _, errors = peo_bench("report", str(tmp_path / "nothing"), "--watch")
    assert code == 2
    assert "is not a finished run folder" in errors


def test_the_file_is_replaced_once_a_period_and_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PERIOD", 0.2)
    writes: list[Any] = []
    original = progress.write_json
    monkeypatch.setattr(progress, "write_json", lambda path, value: (writes.append(value), original(path, value)))
    seen: list[str] = []
    with progress_file(tmp_path, lambda event, *rest: seen.append(event)) as observe:
        started = time.monotonic()
        observe("queued", "a", 0.0, "a")
        observe("start", "a", 0.0, "a")
        for step in range(1000):
            observe("progress", "a", step / 1000, f"step {step}")
        while not writes or writes[-1]["running"][0]["note"] != "step 999":
            time.sleep(0.05)
        took = time.monotonic() - started
    assert len(writes) <= took / 0.2 + 1
    assert writes[-1]["running"][0]["note"] == "step 999"
    assert len(seen) == 1002
    assert list(tmp_path.iterdir()) == []


def test_counts_follow_the_events() -> None:
    state = State()
    for event, job in (("reused", "r"), ("queued", "a"), ("queued", "b"), ("start", "a"), ("stage", "evaluate")):
        state(event, job, 0.0, job)
    state("failed", "a", 1.0, "why")
    state("start", "b", 0.0, "b")
    taken = state.take()
    assert taken.stage == "evaluate"
    assert taken.jobs == JobCounts(queued=2, done=0, failed=1, reused=1)
    assert [job.what for job in taken.running] == ["b"]
