"""A finished run folder, put together again from what does not follow from other things in it.

What stands is the score of every answer (`answers.parquet`), the verdicts of judges (`judgements.parquet`), the records
of jobs (`jobs.jsonl`), the artefacts and `families.json`. The families of all methods are built from these as `run`
builds them. No path of the configuration is opened: a folder may come from somebody else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast

import pandas as pd

from peo_bench.core.method import World
from peo_bench.core.rounds import build_families
from peo_bench.errors import JobFailed, UsageError
from peo_bench.jobs.artefact import Damaged
from peo_bench.jobs.job import Handle, Job, closure
from peo_bench.jobs.records import JOBS, Records, read_records
from peo_bench.jobs.runner import Outcome
from peo_bench.jobs.store import Store
from peo_bench.lm_eval.capabilities import capability_name
from peo_bench.results.folder import RunFolder
from peo_bench.results.operating_points import Offer
from peo_bench.results.record import damaged
from peo_bench.runs.answer_problems import WHO, answer_problems
from peo_bench.runs.assembly import Finished
from peo_bench.runs.config import RunConfig
from peo_bench.runs.seed_run import SeedRun, build_seed
from peo_bench.runs.world import companions
from peo_bench.settings import check, load_yaml
from peo_bench.steering.families import FAMILIES, ODD, read_families, world_of
from peo_bench.suites.suite import suite_task

Whose: TypeAlias = "tuple[str, int, str, str, str]"
"""Whose answers: method, seed, split, asked weight, policy."""


class _Recorded:
    """Stands for the runner: its jobs were done or have failed, as their records say."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def run(self, jobs: list[Job]) -> Mapping[str, Handle]:
        for job in closure(jobs):
            if job.id not in self.outcome.handles:
                self.outcome.failed.setdefault(job.id, f"{JOBS} has no record of it")
        return self.outcome.handles


class Refolded:
    """A run folder put together again.

    `done` is the run as when its jobs were done, `worlds` by training seed what it was built from, `said` what did not
    fit on the way.
    """

    def __init__(self, folder: Path, run: RunFolder, answers: pd.DataFrame) -> None:
        """Build all families; `UsageError` for a folder that is damaged."""
        self._folder, self._run = folder, run
        self.said: list[str] = []
        self.config = check(load_yaml(folder / "config.yaml"), RunConfig, f"{folder / 'config.yaml'}")
        self.task = suite_task(self.config.suite)
        self.records = self._read_records()
        self.store = Store(folder / "artefacts")
        self._answers = {_whose(*key): table.drop(columns=WHO) for key, table in _by_whose(answers)}
        self._runner = _Recorded(self.records.outcome)
        self.worlds = self._read_worlds()
        seeds = {seed: self._built(world) for seed, world in self.worlds.items()}
        for seed in seeds.values():
            self._runner.run(seed.jobs)
            self._oracle_is_there(seed)
        self._match_capabilities()
        offers = [offer for seed in seeds.values() for offer in (*seed.offers, *seed.extras.benign)]
        self._match_answers(offers)
        self.said += answer_problems(folder / "answers.parquet", answers, offers)
        self.done = Finished(self.config, self.task, seeds, self._runner.outcome, self.store, self._of)

    def _read_records(self) -> Records:
        try:
            return read_records(self._folder / JOBS, self._folder / "artefacts")
        except Damaged as reason:
            raise damaged(self._folder / JOBS, str(reason)) from None

    def _read_worlds(self) -> dict[int, World]:
        path = self._folder / FAMILIES
        saved = read_families(self._folder)
        if [*map(str, self.config.seeds)] != [*saved.worlds]:
            raise damaged(path, f"its seeds are not those of config.yaml, {self.config.seeds}")
        try:
            return {int(seed): world_of(world) for seed, world in saved.worlds.items()}
        except (*ODD, UsageError) as error:
            raise damaged(path, f"{type(error).__name__}: {error}") from None

    def _built(self, world: World) -> SeedRun:
        """Build the families of one seed."""
        beside = companions(self.config, self.task, world)
        tasks = {str(meta["params"]["task"]): meta["params"]["task"] for meta in self.records.of_kind("capability")}
        try:
            with _in_silence():
                return build_seed(self._runner, self.config, self.task, world, beside, [*tasks.values()])
        except JobFailed as error:
            raise damaged(self._folder / FAMILIES, str(error)) from None

    def _oracle_is_there(self, seed: SeedRun) -> None:
        job = seed.beside.oracle
        if job and job.id in self._runner.outcome.handles and self.store.get(job.id) is None:
            self.said.append(f"artefacts: {job.id} is missing")
            del self._runner.outcome.handles[job.id]

    def _match_capabilities(self) -> None:
        """Say which tasks of the configuration no job has measured, and which were measured that it does not name."""
        named = {capability_name(name) for name in self.config.capabilities}
        measured = {str(meta["params"]["task"]["task"]) for meta in self.records.of_kind("capability")}
        self.said += [
            f"{JOBS}: capability {name} of config.yaml: no job measured it" for name in sorted(named - measured)
        ]
        self.said += [f"{JOBS}: capability {name} is none of config.yaml" for name in sorted(measured - named)]

    def _match_answers(self, offers: Sequence[Offer]) -> None:
        """Say which offers lack answers, and go on without them; say which answers nothing was offered for."""
        handles, failed = self._runner.outcome.handles, self._runner.outcome.failed
        for offer in offers:
            found = self._answers.get(_offered(offer))
            n = 0 if found is None else len(found)
            expected = handles[offer.job.id].result["n"] if offer.job.id in handles else 0
            if n != expected:
                self.said.append(f"answers.parquet: {_told(_offered(offer))}: {n} answers, {expected} expected")
            if not n and expected:
                failed[offer.job.id] = "it has no answers"
        for job_id in failed.keys() & handles.keys():
            del handles[job_id]
        for whose in self._answers.keys() - {_offered(offer) for offer in offers}:
            self.said.append(f"answers.parquet: {_told(whose)}: is nothing that this run evaluated")

    def _of(self, offer: Offer) -> pd.DataFrame:
        """Return the answers of an offer; how many were cut is in its record."""
        result = self._runner.outcome.handles[offer.job.id].result
        return self._answers[_offered(offer)].assign(truncated=result["truncated"] / result["n"])


@contextmanager
def _in_silence() -> Iterator[None]:
    """Let no method that cannot be built complain: what it lacks is among the differences."""
    told = logging.getLogger(build_families.__module__)
    level = told.level
    told.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        told.setLevel(level)


def _by_whose(answers: pd.DataFrame) -> Iterator[tuple[tuple[str, int, str, float, str], pd.DataFrame]]:
    for key, table in answers.groupby(WHO, sort=False, dropna=False):
        yield cast("tuple[str, int, str, float, str]", key), table


def _whose(method: str, seed: int, split: str, preference: float | None, spec_key: str) -> Whose:
    return method, int(seed), split, "none" if pd.isna(preference) else f"{preference:.9f}", spec_key


def _offered(offer: Offer) -> Whose:
    asked = None if offer.asked is None else offer.asked.weights[0]
    return _whose(offer.method, offer.seed, offer.split, asked, offer.spec.key)


def _told(whose: Whose) -> str:
    method, seed, split, preference, key = whose
    return f"{method}, seed {seed}, {split}, preference {preference}, policy {key}"
