"""From finished jobs to the files of a run folder: what `run` writes, and what `verify` computes again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from peo_bench.core.method import PolicyFamily, World
from peo_bench.evaluation.validation import read_candidates, utility_scores
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.jobs.job import Handle
from peo_bench.jobs.runner import Outcome
from peo_bench.jobs.store import Store
from peo_bench.pareto import nondominated
from peo_bench.results.costs_records import Costs
from peo_bench.results.measure import Measure
from peo_bench.results.metrics import Beside, run_metrics
from peo_bench.results.metrics_records import TaskMetrics
from peo_bench.results.operating_points import Offer, Row, Scores, answer_table, point_row, point_table, reference_units
from peo_bench.results.records import Missing, RunRecord, ScorerRecord
from peo_bench.runs.config import RunConfig
from peo_bench.runs.costs import Labels, run_costs
from peo_bench.runs.curves import training_curves
from peo_bench.runs.extras import capability_rows, missing_extras, safety_views, unmeasured_notes
from peo_bench.runs.identity import run_measure
from peo_bench.runs.job_notes import job_notes
from peo_bench.runs.judging import Judging
from peo_bench.runs.label_budget import labels_seen
from peo_bench.runs.scorer_records import scorer_notes, scorer_records
from peo_bench.runs.seed_run import SeedRun
from peo_bench.runs.writing import Provenance, run_record
from peo_bench.sandbox.kinds import oracle_rows
from peo_bench.suites.suite import SandboxData, TaskConfig
from peo_bench.training.extrapolation import Search, read_search
from peo_bench.training.steering_map import Evaluated, evaluated_line


@dataclass(frozen=True)
class Finished:
    """A run whose jobs are done or failed, by training seed.

    `answers(offer)` are the answers of an offer that was evaluated; `store` holds the artefacts of searches and of the
    oracle.
    """

    config: RunConfig
    task: TaskConfig
    seeds: Mapping[int, SeedRun]
    outcome: Outcome
    store: Store
    answers: Callable[[Offer], pd.DataFrame]

    @property
    def first(self) -> SeedRun:
        """The first training seed."""
        return next(iter(self.seeds.values()))

    @property
    def families(self) -> dict[int, dict[str, PolicyFamily]]:
        """The families by seed and method."""
        return {seed: run.families for seed, run in self.seeds.items()}


@dataclass(frozen=True)
class Gathered:
    """The tables of a run, what is missing in them, and how they were measured."""

    points: pd.DataFrame
    answers: pd.DataFrame
    search: pd.DataFrame
    curves: pd.DataFrame
    missing: list[Missing]
    measure: Measure
    units: Mapping[int, Mapping[str, tuple[float, float]]]
    scorers: Mapping[int, Mapping[str, ScorerRecord]]


def gather(done: Finished, judges: Mapping[str, str]) -> Gathered:
    """Return the tables of a run; `judges` are the descriptions of its judges by id."""
    points, answers, missing = _collect(done)
    handles = done.outcome.handles
    reference = {seed: _reference_answers(done, run) for seed, run in done.seeds.items()}
    worlds = [run.world for run in done.seeds.values()]
    tested = answers.loc[answers["split"] == "test", "prompt_id"]
    jobs = {seed: {n: built.jobs for n, built in run.built.families.items()} for seed, run in done.seeds.items()}
    return Gathered(
        points=points,
        answers=answers,
        search=_search_table(handles, done.seeds),
        curves=training_curves(handles, jobs),
        missing=missing,
        measure=run_measure(done.config.suite.task, done.task, worlds, tested, judges),
        units={seed: reference_units(reference[seed], run.world) for seed, run in done.seeds.items()},
        scorers={seed: _scorers(handles, run, reference[seed]) for seed, run in done.seeds.items()},
    )


def numbers(
    done: Finished, found: Gathered, judging: Judging, labels: Labels = labels_seen
) -> tuple[TaskMetrics, Costs]:
    """Return the task's part of `metrics.json`, and `costs.json`; `labels` counts the labelled pairs seen by jobs."""
    built = {seed: (run.world, run.built.families) for seed, run in done.seeds.items()}
    costs = run_costs(done.outcome, built, labels)
    extras = {seed: run.extras for seed, run in done.seeds.items()}
    safety, zero = safety_views(done.task, done.first.world, extras, done.outcome.handles, found.answers)
    beside = Beside(
        chosen=chosen_by_seed(done.families),
        evaluations={name: cost.validation_evaluations for name, cost in costs.methods.items()},
        safety=safety,
        safety_zero=zero,
        capabilities=capability_rows(extras, done.outcome.handles),
        judges=judging.metrics or None,
    )
    scores = Scores.of(found.answers, done.first.world.names)
    return run_metrics(found.points, scores, found.measure, found.units, beside), costs


@dataclass(frozen=True)
class Told:
    """What only the run itself knows: what was typed, wall seconds by stage, threads, remarks on trusted files."""

    command: str
    stages: Mapping[str, float]
    threads: int | None = None
    trusted: Sequence[str] = ()


def about(done: Finished, found: Gathered, costs: Costs, judging: Judging, told: Told) -> RunRecord:
    """Return `run.json`."""
    world, handles = done.first.world, done.outcome.handles
    scorers = scorer_notes(list(found.scorers.values()), searched=bool(done.config.methods))
    notes = [*scorers, *_notes(done.first), *_kl_notes(done.config, found.points), *job_notes(handles.values())]
    provenance = Provenance(
        command=told.command,
        stages=told.stages,
        threads=told.threads,
        failed=dict(done.outcome.failed),
        reused=len(done.outcome.reused),
        extras=sum(job.id in handles for run in done.seeds.values() for job in run.extras.jobs),
        notes=(*notes, *told.trusted, *unmeasured_notes(done.config, world, done.first.families)),
        scorers=found.scorers,
        job_seconds={kind: row.seconds for kind, row in costs.kinds.items()},
        measure=found.measure,
        judging=judging.record,
    )
    return run_record(done.config, done.task, found.points, [*found.missing, *judging.missing], provenance)


def chosen_by_seed(families: Mapping[int, Mapping[str, PolicyFamily]]) -> dict[str, dict[str, Json]]:
    """Return by method and seed what validation chose for the `families`, without those that choose nothing."""
    chosen: dict[str, dict[str, Json]] = {}
    for seed, by_method in families.items():
        for name, family in by_method.items():
            if family.chosen:
                chosen.setdefault(name, {})[str(seed)] = dict(family.chosen)
    return chosen


def _collect(done: Finished) -> tuple[pd.DataFrame, pd.DataFrame, list[Missing]]:
    """Gather the rows and answers of every operating point, and what is missing with its reason."""
    rows: list[Row] = []
    missing: list[Missing] = []
    answers: list[tuple[Offer, pd.DataFrame]] = []
    config, handles, failed = done.config, done.outcome.handles, done.outcome.failed
    for seed, run in done.seeds.items():
        for name in config.competing:
            if name in run.built.lost:
                what = f"{name}, seed {seed}, all preferences"
                missing.append(Missing(what=what, reason=run.built.lost[name], n=len(config.preferences)))
        for offer in run.offers:
            if offer.job.id not in handles:
                what = f"{offer.method}, seed {seed}, preference {offer.asked}"
                missing.append(Missing(what=what, reason=failed[offer.job.id]))
                continue
            table = done.answers(offer)
            identity: Row = {"task": config.suite.task, **offer.identity(run.world.objectives)}
            rows.append(point_row(identity, table, run.world.objectives))
            answers.append((offer, table))
        answers += [(offer, done.answers(offer)) for offer in run.extras.benign if offer.job.id in handles]
        missing += missing_extras(run.extras, seed, failed)
        rows += _oracle(done, run)
    return point_table(rows, done.first.world.objectives), answer_table(answers), missing


def _reference_answers(done: Finished, run: SeedRun) -> pd.DataFrame:
    """Return the reference policy's answers in whose scores the units are."""
    return done.answers(next(offer for offer in run.offers if offer.job.id == run.beside.units.id))


def _oracle(done: Finished, run: SeedRun) -> list[Row]:
    """Return the oracle's rows, where the suite's scores are known exactly; none if its samples are missing."""
    data, job = done.config.suite.data, run.beside.oracle
    if not isinstance(data, SandboxData) or job is None or job.id not in done.outcome.handles:
        return []
    return oracle_rows(done.store, run.world, job, data.oracle_kl, run.world.preferences, done.config.suite.task)


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


def _kl_notes(config: RunConfig, points: pd.DataFrame) -> list[str]:
    """Say of which given policies the KL to the reference policy is not known, and why."""
    rows = points[points["split"] == "test"]
    unknown = set(rows.loc[rows["kl"].isna(), "method"])
    reasons = {
        "answers were given, no policy": [name for name in config.answers if name in unknown],
        "the prompts are other tokens to it than to the reference policy, by its tokenizer or its chat template": [
            name for name in config.policies if name in unknown
        ],
    }
    return [f"KL of {', '.join(names)} is not known: {why}." for why, names in reasons.items() if names]


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
