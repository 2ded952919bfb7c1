"""Two processes on one store: a job is done once, whoever asks; what a dead process had claimed is taken over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest

from peo_bench.errors import JobFailed
from peo_bench.jobs import store as stores
from peo_bench.jobs.job import Cost, Job, JobKind, job_kind, never_alone
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.runner import Runner
from peo_bench.jobs.store import WAITING, Store

TESTS = Path(__file__).parent


def done(root: Path, name: str, job: Job) -> None:
    """Say who does a job; the process "first" then waits until it may go on."""
    with (root / "log").open("a") as log:
        log.write(f"{name} {job.params['n']}\n")
    while name == "first" and not (root / "go").exists():
        sleep(0.01)


@job_kind("test-claimed", version=1)
def do_one(job, inputs, work):
    root, name = work.dir.parents[1], sys.argv[1]
    done(root, name, job)
    return {"by": name}


def do_together(store, jobs, progress):
    for job in jobs:
        done(store.root, sys.argv[1], job)
        store.adopt(job, lambda work: {"by": sys.argv[1]}, 0.0)


TOGETHER = JobKind("test-claimed-together", 1, never_alone, lambda job: Cost(), together=do_together)
for kind in (do_one, TOGETHER):
    JOB_KINDS.add(kind.name, kind)


def jobs(kind: str, numbers: str) -> list[Job]:
    return [Job(kind, {"n": int(n)}) for n in numbers]


def main(name: str, root: str, kind: str, numbers: str) -> None:
    """Do jobs in a process of its own."""
    store, said = Store(Path(root)), Path(root) / f"{name}-said"

    def progress(fraction: float, note: str) -> None:
        said.write_text(note)

    if kind == TOGETHER.name:
        store.run_together(jobs(kind, numbers), progress)
    else:
        for job in jobs(kind, numbers):
            store.run(job, progress)


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that does jobs in `tmp_path`; what is left of it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(name: str, kind: str, numbers: str) -> subprocess.Popen[bytes]:
        path = [str(TESTS), str(TESTS.parent)]
        program = f"import sys; sys.path[:0] = {path!r}; import test_claims; test_claims.main(*sys.argv[1:])"
        started.append(subprocess.Popen([sys.executable, "-c", program, name, str(tmp_path), kind, numbers]))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(is_true: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    """Wait; a process that ends too early fails the test instead of making it wait for ever."""
    while not is_true():
        assert all(process.poll() is None for process in processes)
        sleep(0.01)


def log(root: Path) -> list[str]:
    return (root / "log").read_text().splitlines() if (root / "log").exists() else []


@pytest.mark.parametrize("dies", [False, True], ids=["goes on", "dies"])
@pytest.mark.parametrize("kind", ["test-claimed", TOGETHER.name])
def test_every_job_is_done_once_by_whoever_claimed_it(start: Start, tmp_path: Path, kind: str, dies: bool) -> None:
    """The first process holds 1 to 3 (one by one: 1), the second asks for some of them and for 4."""
    together = kind == TOGETHER.name
    first = start("first", kind, "123")
    until(lambda: log(tmp_path) == ["first 1"], first)
    second = start("second", kind, "234" if together else "1")
    said = tmp_path / "second-said"
    until(lambda: said.exists() and said.read_text() == WAITING, first, second)
    assert log(tmp_path) == (["first 1", "second 4"] if together else ["first 1"])
    if dies:
        first.kill()
    else:
        (tmp_path / "go").touch()
        assert first.wait() == 0
    assert second.wait() == 0
    by_whom = {n: Store(tmp_path)[Job(kind, {"n": n}).id].result["by"] for n in ((2, 3, 4) if together else (1,))}
    others = "second" if dies else "first"
    assert by_whom == ({2: others, 3: others, 4: "second"} if together else {1: others})
    finished = log(tmp_path)[1:] if dies else log(tmp_path)
    assert len(finished) == len({line.split()[1] for line in finished}), "none was done twice"


def test_who_claims_many_jobs_has_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """250 jobs in three goes."""
    sizes: list[int] = []
    monkeypatch.setattr(sys, "argv", ["pytest", "one"])
    monkeypatch.setattr(stores, "CLAIMS", 100)

    def counted(store: Store, mine: list[Job], progress: object) -> None:
        sizes.append(len(mine))
        for job in mine:
            store.adopt(job, lambda work: {}, 0.0)

    kind = JobKind("test-many", 1, never_alone, lambda job: Cost(), together=counted)
    monkeypatch.setitem(JOB_KINDS._entries, kind.name, kind)
    Store(tmp_path).run_together([Job("test-many", {"n": n}) for n in range(250)])
    assert sizes == [100, 100, 50]


def test_a_kind_that_stores_nothing_is_no_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = JobKind("test-lazy", 1, never_alone, lambda job: Cost(), together=lambda store, jobs, progress: None)
    monkeypatch.setitem(JOB_KINDS._entries, kind.name, kind)
    with pytest.raises(JobFailed, match="was not stored by its kind"):
        Store(tmp_path).run_together([Job("test-lazy")])


@pytest.mark.parametrize("kind", ["test-claimed", "test-claimed-together"])
def test_what_another_run_did_meanwhile_is_reused_work(tmp_path, monkeypatch, kind):
    """Three jobs are asked for; while they wait for their turn somebody else does the second."""
    monkeypatch.setattr(sys, "argv", ["", "second"])
    asked, other = jobs(kind, "123"), Store(tmp_path)
    with Runner(tmp_path) as runner:
        submit = runner._submit

        def overtaken(task):
            if asked[1] in task and other.get(asked[1].id) is None:
                do_elsewhere(other, asked[1])
            return submit(task)

        monkeypatch.setattr(runner, "_submit", overtaken)
        runner.run(asked)
    assert set(runner.outcome.handles) == {job.id for job in asked}
    assert runner.outcome.reused == {asked[1].id}


def do_elsewhere(store: Store, job: Job) -> None:
    if job.kind == TOGETHER.name:
        store.adopt(job, lambda work: {"by": "another"}, 0.0)
    else:
        store.run(job)
