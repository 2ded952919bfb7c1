"""What the runner does when a process dies, the disk is full, or the run is asked to end."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from test_core import value  # registers the job kind

from peo_bench.errors import DiskFull
from peo_bench.files.atomic import write_text
from peo_bench.files.room import is_disk_full
from peo_bench.jobs import runner as runners
from peo_bench.jobs.job import Cost, Job, JobKind, job_kind, never_alone
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.runner import Runner
from peo_bench.jobs.store import Store
from peo_bench.process import Terminated, heeding_sigterm


@job_kind("test-dying", version=1)
def die(job, inputs, work):
    """Kill this process as the kernel does when memory is short: always, or until `times` marks are there."""
    marks = work.dir.parents[1] / "marks"
    marks.mkdir(exist_ok=True)
    if len(list(marks.iterdir())) < job.params["times"]:
        (marks / f"{len(list(marks.iterdir()))}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def die_together(store, jobs, progress):
    for job in jobs:
        if job.params["dies"]:
            os.kill(os.getpid(), signal.SIGKILL)
        store.adopt(job, lambda work: {}, 0.0)


@job_kind("test-full", version=1)
def fill(job, inputs, work):
    (work.dir / "half").write_text("half")
    try:
        raise OSError(errno.ENOSPC, "No space left on device")
    except OSError as error:
        raise RuntimeError("some library's words") from error


TOGETHER = JobKind("test-dying-together", 1, never_alone, lambda job: Cost(), together=die_together)
for kind in (die, fill, TOGETHER):
    JOB_KINDS.add(kind.name, kind)


@pytest.fixture
def forked(monkeypatch):
    """Workers that are forked, so that they know the kinds above; they prepare nothing."""

    import transformers.utils.logging  # noqa: F401 - once, instead of in every worker

    def start(events, environ):
        runners._worker_events = events

    monkeypatch.setattr(Runner, "start_method", "fork")
    monkeypatch.setattr(runners, "_start_worker", start)


def test_a_killed_process_fails_its_job_and_no_other(forked, tmp_path):
    """Those that ran beside it, and those that come after it, are done."""
    dying, after = Job("test-dying", {"times": 99}), value(5, a=value(4))
    with Runner(tmp_path, workers=2) as runner:
        runner.run([dying, value(1), value(2), value(3), after, Job("test-value", {"value": 9}, {"a": dying})])
    assert set(runner.outcome.failed) == {dying.id, value(9, a=dying).id}
    assert "was killed, twice, probably for lack of memory" in runner.outcome.failed[dying.id]
    assert {value(n).id for n in (1, 2, 3, 4)} | {after.id} == set(runner.outcome.handles)
    assert len(list((tmp_path / "marks").iterdir())) == 2, "tried once more, alone"


def test_a_process_killed_once_costs_nothing(forked, tmp_path):
    once = Job("test-dying", {"times": 1})
    with Runner(tmp_path, workers=2) as runner:
        runner.run([once, value(1)])
    assert runner.outcome.failed == {}
    assert set(runner.outcome.handles) == {once.id, value(1).id}


def test_of_jobs_done_together_only_the_one_that_kills_fails(forked, tmp_path):
    jobs = [Job("test-dying-together", {"n": n, "dies": n == 2}) for n in range(5)]
    with Runner(tmp_path, workers=2) as runner:
        runner.run(jobs)
    assert set(runner.outcome.failed) == {jobs[2].id}
    assert set(runner.outcome.handles) == {job.id for job in jobs} - {jobs[2].id}
    assert not runner.outcome.reused, "what the first attempt did is this run's own work"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_run_with_one_line(forked, tmp_path, workers):
    """Nothing that follows could be kept, so it is no failure of one job."""
    with pytest.raises(DiskFull) as stopped, Runner(tmp_path, workers) as runner:
        runner.run([Job("test-full")])
    said = str(stopped.value)
    assert said.startswith(f"{tmp_path}: no room to write test-full, 4 bytes or more (")
    assert "make room and type the same command again" in said
    assert "\n" not in said
    assert Store(tmp_path).get(Job("test-full").id) is None


def test_a_full_disk_is_known_from_what_libraries_say(tmp_path):
    assert is_disk_full(OSError("I/O error: No space left on device (os error 28)"), tmp_path)
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"), tmp_path)
    assert not is_disk_full(RuntimeError("PytorchStreamWriter failed writing file data/1"), tmp_path), "there is room"


def test_a_limit_of_file_sizes_is_a_full_disk(tmp_path):
    """As `ulimit -f` and some file systems have it; the kernel itself refuses here."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            write_text(tmp_path / "points.csv", "x" * 4096)
        except DiskFull as error:
            os._exit(7 if "points.csv: no room to write this file, 4,096 bytes or more" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_what_is_inside_and_a_second_one_does_not_disturb(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def work():
        with heeding_sigterm():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                (tmp_path / "cleaned").touch()

    with pytest.raises(Terminated):
        work()
    assert (tmp_path / "cleaned").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_terminated_run_exits_143_with_the_line_that_resumes_it(peo_bench, tmp_path, monkeypatch):
    from peo_bench.runs import execute

    def terminated(out: Path) -> None:
        assert (out / ".owner").exists()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(execute, "_same_configuration", lambda out, config: terminated(out))
    code, _, err = peo_bench("run", "--methods", "soup", "--out", "out")
    assert code == 143
    assert err == "terminated; finished work is kept: type `peo-bench run --methods soup --out out` again to continue\n"
    assert not list((tmp_path / "out").glob(".owner"))


def test_a_full_disk_outside_jobs_is_one_line_too(peo_bench, tmp_path, monkeypatch):
    from peo_bench.runs import execute

    def full(out, config):
        raise OSError(errno.ENOSPC, "No space left on device", str(out / "points.csv"))

    monkeypatch.setattr(execute, "_same_configuration", full)
    code, _, err = peo_bench("run", "--methods", "soup", "--out", "out")
    assert (code, err.count("\n")) == (1, 1)
    assert "points.csv: no room to write" in err
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_full_disk_while_artefacts_are_copied_names_the_folder_and_what_they_take(tmp_path, monkeypatch):
    """A copy of a folder tells of its files in an error that has no file name of its own."""
    store = Store(tmp_path / "cache")
    handle = store.run(value(1))

    def full(source, copy, **given):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFull) as stopped:
        store.copy_to(tmp_path / "out" / "artefacts", [handle.id])
    size = sum(path.stat().st_size for path in handle.path.rglob("*") if path.is_file())
    said = f"{tmp_path / 'out' / 'artefacts'}: no room to write the artefacts of the run, {size:,} bytes or more ("
    assert str(stopped.value).startswith(said)


FULL = (errno.ENOSPC, "No space left on device")
LINES = {
    "nameless": (OSError(*FULL), "{here}: no room to write a file of this command ("),
    "copied": (OSError(*FULL, "from", None, "to"), "to: no room to write this file ("),
    "a folder copied": (shutil.Error([("from", "to/x", str(FULL))]), "to/x: no room to write this file ("),
}


@pytest.mark.parametrize(("error", "said"), LINES.values(), ids=LINES)
def test_a_full_disk_that_nobody_foresaw_names_what_could_not_be_written(peo_bench, tmp_path, monkeypatch, error, said):
    def full(*given):
        raise error

    monkeypatch.setattr("peo_bench.models.convert.convert", full)
    code, _, err = peo_bench("convert", "old", "--to", "new")
    assert (code, err.count("\n")) == (1, 1)
    assert said.format(here=tmp_path) in err


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("name", [".owner", "config.yaml", "points.csv", "progress.json", "report.html", "SHA256SUMS"])
def test_what_is_no_file_is_refused_before_the_work(peo_bench, tmp_path, name, make):
    """A pipe would be waited for; a folder would be noticed when everything has been computed."""
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / name)
    code, _, err = peo_bench("run", "--methods", "soup", "--out", "out")
    assert (code, err) == (2, f"error: out/{name}: is no file: delete it, or choose another folder with --out\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {name, ".lock"}


def test_the_owner_of_a_folder_in_use_may_be_a_pipe(peo_bench, tmp_path):
    from peo_bench.runs.execute import _locked

    with _locked(tmp_path / "out"):
        (tmp_path / "out" / ".owner").unlink()
        os.mkfifo(tmp_path / "out" / ".owner")
        code, _, err = peo_bench("run", "--methods", "soup", "--out", "out")
    assert (code, err.count("\n")) == (4, 1)
    assert "out is in use by another process" in err


def test_a_run_folder_in_use_is_refused_with_its_owner(peo_bench, tmp_path):
    from peo_bench.runs.execute import _locked

    with _locked(tmp_path / "out"):
        code, _, err = peo_bench("run", "--methods", "soup", "--out", "out")
    assert (code, err.count("\n")) == (4, 1)
    assert f"out is in use by pid {os.getpid()} on {os.uname().nodename}" in err
