"""Execute a run: world, methods, operating points, oracle, fronts, folder, report - in this order, each step once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from peo_bench.core.method import PolicyFamily, World
from peo_bench.core.rounds import Built, build_families
from peo_bench.core.spec import PolicySpec, policy
from peo_bench.errors import JobFailed, Locked, UsageError
from peo_bench.evaluation.answering import read_answers
from peo_bench.evaluation.validation import read_candidates, utility_scores
from peo_bench.files.atomic import is_temporary
from peo_bench.files.inside import refuse_links
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.runner import Observer, Runner
from peo_bench.jobs.workspace import Progress
from peo_bench.judges.budget import Budget
from peo_bench.judges.judge import Desk, Judge, make_judges
from peo_bench.kill_points import kill_point
from peo_bench.pareto import nondominated
from peo_bench.results.costs_records import Costs
from peo_bench.results.metrics import Beside, run_metrics
from peo_bench.results.metrics_records import TaskMetrics
from peo_bench.results.operating_points import Offer, Row, Scores, answer_table, point_row, point_table, reference_units
from peo_bench.results.progress import OWNER, progress_file
from peo_bench.results.records import Missing, ScorerRecord
from peo_bench.runs.config import RunConfig
from peo_bench.runs.costs import run_costs
from peo_bench.runs.curves import training_curves
from peo_bench.runs.extras import (
    Extras,
    benign_answers,
    capability_rows,
    extra_jobs,
    extra_notes,
    missing_extras,
    safety_views,
)
from peo_bench.runs.identity import run_measure
from peo_bench.runs.job_notes import job_notes
from peo_bench.runs.judging import REPLIES, Judging, judge_run
from peo_bench.runs.scorer_records import scorer_notes, scorer_records
from peo_bench.runs.world import Companions, answers_job, build_world, companions, make_methods, scaled
from peo_bench.runs.writing import Provenance, Tables, run_record, write_folder
from peo_bench.sandbox.kinds import oracle_rows
from peo_bench.steering.families import save_families
from peo_bench.suites.suite import SandboxData, TaskConfig, suite_task
from peo_bench.training.extrapolation import Search, read_search
from peo_bench.training.steering_map import Evaluated, evaluated_line

logger = logging.getLogger(__name__)

LOCK = ".lock"


@dataclass(frozen=True)
class SeedRun:
    """One training seed: its world, its families, and what is evaluated of them."""

    world: World
    built: Built
    beside: Companions
    offers: tuple[Offer, ...]
    extras: Extras

    @property
    def families(self) -> dict[str, PolicyFamily]:
        """The families by method."""
        return {name: built.family for name, built in self.built.families.items()}


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
    with _locked(out), progress_file(out, observe) as seen, Runner(cache, workers, seen) as runner:
        _same_configuration(out, config)
        clock, budget = Clock(seen), Budget(max_usd)
        with clock("build"):
            seeds = {seed: _build(runner, config, task, seed) for seed in config.seeds}
        with clock("evaluate"):
            runner.run([job for run in seeds.values() for job in (*(o.job for o in run.offers), *run.extras.jobs)])
        first = next(iter(seeds.values()))
        with clock("fronts"):
            points, texts, missing = _collect(runner, seeds, config, task)
            handles = runner.outcome.handles
            reference = {seed: read_answers(handles[run.beside.units.id]) for seed, run in seeds.items()}
            units = {seed: reference_units(reference[seed], run.world) for seed, run in seeds.items()}
            scorers = {seed: _scorers(handles, run, reference[seed]) for seed, run in seeds.items()}
            worlds = [run.world for run in seeds.values()]
            tested = texts.loc[texts["split"] == "test", "prompt_id"]
            told = {judge.id: judge.description for judge in judges}
            measure = run_measure(config.suite.task, task, worlds, tested, told)
            search = _search_table(handles, seeds)
        with clock("judge"), _watched(seen, judges, budget) as progress:
            desk = Desk(cache / REPLIES, budget, progress)
            judging = judge_run(config, judges, worlds[0].objectives, texts, desk)
            missing += judging.missing
        costs = run_costs(runner, {seed: (run.world, run.built.families) for seed, run in seeds.items()})
        with clock("fronts"):
            beside = _beside(task, seeds, handles, texts, costs, judging)
            metrics = run_metrics(points, Scores.of(texts, first.world.names), measure, units, beside)
        kill_point("metrics")
        _save(out, runner, config, seeds)
        failed, reused = dict(runner.outcome.failed), len(runner.outcome.reused)
        curves = _curves(handles, seeds)
        notes = (*scorer_notes(list(scorers.values())), *_notes(first), *job_notes(handles.values()))
        notes += tuple(extra_notes(config, first.world, first.families))
        work = {kind: row.seconds for kind, row in costs.kinds.items()}
        provenance = Provenance(command, clock.seconds, failed, reused, notes, scorers, work, measure, judging.record)
        record = run_record(config, task, points, missing, provenance)
        write_folder(out, config, record, metrics, costs, Tables(points, texts, search, curves), judging)
        return Result(out, not missing, missing, metrics, points, judging)


def _beside(
    task: TaskConfig,
    seeds: Mapping[int, SeedRun],
    handles: Mapping[str, Handle],
    texts: pd.DataFrame,
    costs: Costs,
    judging: Judging,
) -> Beside:
    """Return what is told of the methods beside their fronts."""
    extras = {seed: run.extras for seed, run in seeds.items()}
    safety, zero = safety_views(task, next(iter(seeds.values())).world, extras, handles, texts)
    return Beside(
        chosen=chosen_by_seed({seed: run.families for seed, run in seeds.items()}),
        evaluations={name: cost.validation_evaluations for name, cost in costs.methods.items()},
        safety=safety,
        safety_zero=zero,
        capabilities=capability_rows(extras, handles),
        judges=judging.metrics or None,
    )


def chosen_by_seed(families: Mapping[int, Mapping[str, PolicyFamily]]) -> dict[str, dict[str, Json]]:
    """Return by method and seed what validation chose for the `families`, without those that choose nothing."""
    chosen: dict[str, dict[str, Json]] = {}
    for seed, by_method in families.items():
        for name, family in by_method.items():
            if family.chosen:
                chosen.setdefault(name, {})[str(seed)] = dict(family.chosen)
    return chosen


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
    if path.exists() and path.read_text(encoding="utf-8") != config.to_yaml():
        raise UsageError(f"{out} holds a run of another configuration: choose another folder with --out")


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
        owner = (out / OWNER).read_text(encoding="utf-8") if (out / OWNER).exists() else "another process"
        raise Locked(f"{out} is in use by {owner}: wait for it, or choose another folder with --out") from None
    except OSError as error:
        raise UsageError(f"{out}: cannot write there ({error.strerror}): choose another folder with --out") from None
    try:
        (out / OWNER).write_text(f"pid {os.getpid()} on {os.uname().nodename}", encoding="utf-8")
        for path in out.iterdir():
            if is_temporary(path) and path.is_file():
                path.unlink()
        yield
    finally:
        (out / OWNER).unlink(missing_ok=True)
        if made and [path.name for path in out.iterdir()] == [LOCK]:
            (out / LOCK).unlink()
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
        lock.release()


def _build(runner: Runner, config: RunConfig, task: TaskConfig, seed: int) -> SeedRun:
    """Train every method of one seed; the reference's validation scores and the oracle's samples come along."""
    world = build_world(config, task, seed)
    beside = companions(config, task, world)
    built = build_families(runner, make_methods(config, world), world, beside.jobs)
    reason = runner.outcome.failed.get(beside.units.id)
    if reason:
        raise JobFailed(f"the reference policy could not be scored, so nothing can be compared: {reason}")
    deltas = {job_id: job for method in built.families.values() for job_id, job in method.jobs.items()}
    deltas |= {job.id: job for job in beside.externals.values()}

    def measured(spec: PolicySpec, split: str) -> Job:
        n = world.validation_prompts if split == "validation" else scaled(config.suite.test_prompts, config.limit)
        return answers_job(world, task, spec, deltas, split, n)

    families = {name: built.family for name, built in built.families.items()}
    offers = tuple(_offers(world, families, beside, measured))
    return SeedRun(world, built, beside, offers, extra_jobs(config, task, world, offers, families, deltas))


def _offers(
    world: World,
    families: Mapping[str, PolicyFamily],
    beside: Companions,
    measured: Callable[[PolicySpec, str], Job],
) -> Iterator[Offer]:
    """List what is to be evaluated: the reference on both splits, every method at every preference, then externals.

    `measured(spec, split)` is the job that evaluates a policy.
    """
    reference = policy(world.reference.id)
    for split in ("validation", "test"):
        yield Offer("reference", world.seed, reference, measured(reference, split), split=split)
    for name, family in families.items():
        for asked in world.preferences:
            projected = family.space.project(asked)
            coefficients = family.coefficients(projected) if family.coefficients else None
            spec = family.resolve(asked)
            yield Offer(name, world.seed, spec, measured(spec, "test"), asked, projected, coefficients)
    for name, job in beside.externals.items():
        spec = policy(world.reference.id, [(job.id, 1.0)])
        yield Offer(name, world.seed, spec, measured(spec, "test"))


def _collect(
    runner: Runner, seeds: Mapping[int, SeedRun], config: RunConfig, task: TaskConfig
) -> tuple[pd.DataFrame, pd.DataFrame, list[Missing]]:
    """Gather the rows and texts of every operating point, and what is missing with its reason."""
    rows: list[Row] = []
    missing: list[Missing] = []
    texts: list[tuple[Offer, pd.DataFrame]] = []
    handles, failed = runner.outcome.handles, runner.outcome.failed
    for seed, run in seeds.items():
        for name in (*config.methods, *config.controls):
            if name in run.built.lost:
                what = f"{name}, seed {seed}, all preferences"
                missing.append(Missing(what=what, reason=run.built.lost[name], n=len(config.preferences)))
        for offer in run.offers:
            handle = handles.get(offer.job.id)
            if handle is None:
                what = f"{offer.method}, seed {seed}, preference {offer.asked}"
                missing.append(Missing(what=what, reason=failed[offer.job.id]))
                continue
            table = read_answers(handle)
            identity: Row = {"task": config.suite.task, **offer.identity(run.world.objectives)}
            rows.append(point_row(identity, table, run.world.objectives))
            texts.append((offer, table))
        texts += benign_answers(run.extras, handles)
        missing += missing_extras(run.extras, seed, failed)
        rows += _oracle(runner, run, config)
    objectives = next(iter(seeds.values())).world.objectives
    return point_table(rows, objectives), answer_table(texts), missing


def _curves(handles: Mapping[str, Handle], seeds: Mapping[int, SeedRun]) -> pd.DataFrame:
    """Return `curves.csv`."""
    jobs = {seed: {name: built.jobs for name, built in run.built.families.items()} for seed, run in seeds.items()}
    return training_curves(handles, jobs)


def _oracle(runner: Runner, run: SeedRun, config: RunConfig) -> list[Row]:
    """Return the oracle's rows, where the suite's scores are known exactly; none if its samples are missing."""
    data, job = config.suite.data, run.beside.oracle
    if not isinstance(data, SandboxData) or job is None or job.id not in runner.outcome.handles:
        return []
    return oracle_rows(runner.store, run.world, job, data.oracle_kl, run.world.preferences, config.suite.task)


def _scorers(handles: Mapping[str, Handle], run: SeedRun, reference: pd.DataFrame) -> dict[str, ScorerRecord]:
    """Return what is recorded of the scorers of one seed."""
    done = [offer.job for offer in run.offers if offer.job.id in handles]
    return scorer_records(run.world, run.beside.units, done, handles, reference)


def _notes(run: SeedRun) -> list[str]:
    """Say which methods offer the very same policies, with what validation chose for them."""
    notes = []
    by_keys: dict[tuple[str, ...], str] = {}
    for name, built in run.built.families.items():
        keys = tuple(built.family.resolve(w).key for w in run.world.preferences)
        first = by_keys.setdefault(keys, name)
        if first != name:
            chosen = ", ".join(f"{key} = {value}" for key, value in built.family.chosen.items())
            notes.append(f"{name} offers the same policies as {first}" + (f" ({chosen})." if chosen else "."))
    return notes


def _search_table(handles: Mapping[str, Handle], seeds: Mapping[int, SeedRun]) -> pd.DataFrame:
    """Return `search.csv`: every evaluation of every search on validation prompts, in order."""
    rows = []
    for seed, run in seeds.items():
        for name, built in run.built.families.items():
            if "." in name:
                continue
            for job in built.jobs.values():
                if job.kind == "extrapolation":
                    line = read_candidates(handles[job.needs["line"].id])
                    soups = evaluated_line(job.params["phis"], line.points)
                    rows += _evaluations(soups, read_search(handles[job.id]), run.world, method=name, seed=seed)
    return pd.DataFrame(rows, columns=None if rows else ["method", "seed", "index"])


def _evaluations(soups: list[Evaluated], search: Search, world: World, **of: str | int) -> list[JsonObject]:
    points = [*soups, *search.evaluations]
    mask = nondominated(
        utility_scores([item.point for item in points], search.reference, world.objectives), maximise=True
    )
    rows: list[JsonObject] = []
    for i, item in enumerate(points):
        row: JsonObject = {**of, "index": i, "phase": 2 if i < len(soups) else 3}
        row |= {f"coef_{o.name}": c for o, c in zip(world.objectives, item.coefficients, strict=True)}
        row |= {f"{o.column}_proxy": item.point.mean(o.column) for o in world.objectives}
        row |= {"kl": item.point.kl, "kl_upper": item.point.kl_upper, "max_kl": search.max_kl}
        rows.append(row | {"nondominated": bool(mask[i])})
    return rows


def _save(out: Path, runner: Runner, config: RunConfig, seeds: Mapping[int, SeedRun]) -> None:
    """Keep in the folder what `steer` and `export` need: what families are built from, weights, scorers they ask."""
    used: dict[str, None] = {}
    for run in seeds.values():
        used[run.world.reference.id] = None
        for built in run.built.families.values():
            used |= dict.fromkeys(built.kept)
        if any(offer.spec.candidates for offer in run.offers):
            used |= {job.id: None for job in run.world.proxies.values()}
    names = list(dict.fromkeys(name for run in seeds.values() for name in run.built.families))
    worlds = {seed: run.world for seed, run in seeds.items()}
    save_families(out, runner.store, names, config.settings, worlds, list(used))
