"""Execute a run: world, methods, operating points, oracle, fronts, folder, report - in this order, each step once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from peo_bench.errors import Locked, UsageError
from peo_bench.evaluation.answering import read_answers
from peo_bench.files.atomic import is_temporary, write_text
from peo_bench.files.inside import refuse_links
from peo_bench.jobs.records import JOBS, write_records
from peo_bench.jobs.runner import Observer, Runner
from peo_bench.jobs.versions import strict_name
from peo_bench.jobs.workspace import Progress
from peo_bench.judges.budget import Budget
from peo_bench.judges.judge import Desk, Judge, make_judges
from peo_bench.kill_points import kill_point
from peo_bench.lm_eval.capabilities import capability_identity
from peo_bench.lm_eval.trust import trust_notes
from peo_bench.process import strictly
from peo_bench.results.differences import REPORTS, SUMMED, SUMS
from peo_bench.results.metrics_records import TaskMetrics
from peo_bench.results.operating_points import Offer
from peo_bench.results.progress import OWNER, PROGRESS, owner, progress_file
from peo_bench.results.record import read_text
from peo_bench.results.records import Missing
from peo_bench.runs.ahead import look_ahead
from peo_bench.runs.assembly import Finished, Told, about, gather, numbers
from peo_bench.runs.config import RunConfig
from peo_bench.runs.judging import REPLIES, Judging, judge_run
from peo_bench.runs.seed_run import SeedRun, build_seed
from peo_bench.runs.world import build_world, companions, make_methods
from peo_bench.runs.writing import Tables, write_folder
from peo_bench.steering.families import save_families
from peo_bench.suites.suite import TaskConfig, suite_task

logger = logging.getLogger(__name__)

LOCK = ".lock"


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, whether anything is missing, and the table to print."""

    folder: Path
    complete: bool
    missing: list[Missing]
    metrics: TaskMetrics
    points: pd.DataFrame
    judging: Judging


def execute(
    config: RunConfig,
    out: Path,
    cache: Path,
    *,
    workers: int,
    command: str,
    observe: Observer = lambda *event: None,
    max_usd: float | None = None,
) -> Result:
    """Run `config` into the folder `out`; finished work in `cache` is reused. Raises `Locked` if `out` is in use.

    Judges may spend at most `max_usd` in this call.
    """
    task = suite_task(config.suite)
    judges = make_judges(config.judges, config.suite.judge, max_usd)
    work = cache / strict_name() if config.strict_repro else cache
    with (
        strictly(config.strict_repro),
        _locked(out),
        progress_file(out, observe) as seen,
        Runner(work, workers, seen) as runner,
    ):
        _same_configuration(out, config)
        clock, budget = Clock(seen), Budget(max_usd)
        with clock("build"):
            seeds = _build(runner, config, task)
        with clock("evaluate"):
            runner.run([job for run in seeds.values() for job in run.jobs])
        handles = runner.outcome.handles

        def answers(offer: Offer) -> pd.DataFrame:
            return read_answers(handles[offer.job.id])

        done = Finished(config, task, seeds, runner.outcome, runner.store, answers)
        with clock("fronts"):
            found = gather(done, {judge.id: judge.description for judge in judges})
        with clock("judge"), _watched(seen, judges, budget) as progress:
            desk = Desk(cache / REPLIES, budget, progress)
            judging = judge_run(config, judges, done.first.world.objectives, found.answers, desk)
        with clock("fronts"):
            metrics, costs = numbers(done, found, judging)
        kill_point("metrics")
        _save(out, runner, config, seeds)
        record = about(
            done, found, costs, judging, Told(command, clock.seconds, runner.threads, trust_notes(config.capabilities))
        )
        tables = Tables(found.points, found.answers, found.search, found.curves)
        write_folder(out, config, record, metrics, costs, tables, judging)
        return Result(out, not record.missing, list(record.missing), metrics, found.points, judging)


def _build(runner: Runner, config: RunConfig, task: TaskConfig) -> dict[int, SeedRun]:
    """Train every method, seed by seed, once the cache was looked at for all of them."""
    capabilities = [capability_identity(name) for name in config.capabilities]
    worlds = {seed: build_world(config, task, seed) for seed in config.seeds}
    runner.run([job for world in worlds.values() for job in world.given.values()])  # misfits, before hours of training
    beside = {seed: companions(config, task, world) for seed, world in worlds.items()}
    for seed, world in worlds.items():
        look_ahead(config, task, world, make_methods(config, world), beside[seed], runner.store)
    return {seed: build_seed(runner, config, task, world, beside[seed], capabilities) for seed, world in worlds.items()}


@contextmanager
def _watched(observe: Observer, judges: Sequence[Judge], budget: Budget) -> Iterator[Progress]:
    """Show the judging stage among the jobs, where there is one, with what it has spent."""
    name = "judging"

    def progress(fraction: float, note: str) -> None:
        observe("progress", name, fraction, note + (f", {budget.spent:.4f} USD" if budget.spent else ""))

    if judges:
        observe("queued", name, 0.0, name)
        observe("start", name, 0.0, name)
    yield progress
    if judges:
        observe("done", name, 1.0, "")


def _same_configuration(out: Path, config: RunConfig) -> None:
    """Refuse a folder that holds another run: nothing finished is overwritten."""
    path = out / "config.yaml"
    if path.exists() and read_text(path) != config.to_yaml():
        raise UsageError(f"{out} holds a run of another configuration: choose another folder with --out")


def _only_files(out: Path) -> None:
    """Raise `UsageError` where something else is in the place of a file that the run will read or write."""
    for name in (OWNER, PROGRESS, SUMS, *SUMMED, *REPORTS):
        path = out / name
        if os.path.lexists(path) and not path.is_file():
            raise UsageError(f"{path}: is no file: delete it, or choose another folder with --out")


class Clock:
    """Measures the wall seconds of stages."""

    def __init__(self, observe: Observer) -> None:
        """Start with no stage; tell `observe` when one begins."""
        self.seconds: dict[str, float] = {}
        self.observe = observe

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        started = time.monotonic()
        self.observe("stage", stage, 0.0, "")
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - started, 2)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder; temporary files of a killed run are deleted, and folders that stay empty do not stay."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        refuse_links(out)
        lock = FileLock(out / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        who = owner(out) or "another process"
        raise Locked(f"{out} is in use by {who}: wait for it, or choose another folder with --out") from None
    except OSError as error:
        raise UsageError(f"{out}: cannot write there ({error.strerror}): choose another folder with --out") from None
    try:
        _only_files(out)
        write_text(out / OWNER, f"pid {os.getpid()} on {os.uname().nodename}")
        for path in out.iterdir():
            if is_temporary(path) and path.is_file():
                path.unlink()
        yield
    finally:
        if (out / OWNER).is_file():
            (out / OWNER).unlink()
        if made and [path.name for path in out.iterdir()] == [LOCK]:
            (out / LOCK).unlink()
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
        lock.release()


def _save(out: Path, runner: Runner, config: RunConfig, seeds: Mapping[int, SeedRun]) -> None:
    """Keep in the folder the records of all jobs, and the artefacts that `steer`, `export` and `verify` need."""
    write_records(out / JOBS, runner.outcome)
    kept = dict.fromkeys(name for run in seeds.values() for name in run.kept if name in runner.outcome.handles)
    names = list(dict.fromkeys(name for run in seeds.values() for name in run.built.families))
    worlds = {seed: run.world for seed, run in seeds.items()}
    save_families(
        out, runner.store, names, config.settings, worlds, [name for name in kept if name in runner.outcome.handles]
    )
