"""Drive `Method.build`: methods name rounds of jobs and are sent the handles of what was done.

Every driver is here: `build_families` does the jobs, `see_ahead` does none, `replay` finds them done, and `alongside`
adds a job to another method's first round.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.errors import PeoBenchError, UsageError
from peo_bench.jobs.job import Cost, Handle, Job, closure
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.runner import Outcome
from peo_bench.jobs.store import Store

logger = logging.getLogger(__name__)


class Doer(Protocol):
    """Does jobs, or knows what became of them."""

    @property
    def outcome(self) -> Outcome:
        """What became of the jobs so far."""
        ...

    def run(self, jobs: list[Job]) -> Mapping[str, Handle]:
        """Do `jobs` and all they need; return every handle so far by id."""
        ...


class Building:
    """A method's build in progress: `round` is what it asks for now, `family` what it returned once that is None.

    `named` are the jobs of its rounds so far, `jobs` these and all they need, by id.
    """

    def __init__(self, method: Method, world: World) -> None:
        """Ask for the first round."""
        self._build = method.build(world)
        self.jobs: dict[str, Job] = {}
        self.named: dict[str, Job] = {}
        self.round: Round | None = None
        self._family: PolicyFamily | None = None
        self._advance(None)

    @property
    def family(self) -> PolicyFamily:
        """What the method returned."""
        assert self._family is not None, "the build has not ended"
        return self._family

    def check(self, world: World) -> None:
        """Raise what a run would stumble over later: for every preference there is a policy, made of known jobs."""
        if not isinstance(self._family, PolicyFamily):
            raise TypeError(f"build returned {self._family!r:.80}, no PolicyFamily")
        others = (world.reference, *world.proxies.values(), *world.evaluation.values())
        known = {*self.jobs, *(job.id for job in others)}
        for asked in world.preferences:
            if self.family.coefficients:
                self.family.coefficients(self.family.space.project(asked))
            unnamed = set(self.family.resolve(asked).ids) - known
            if unnamed:
                raise ValueError(f"the policy for {asked.to_json()} is made of {min(unnamed)}, which no round named")

    def send(self, handles: Mapping[str, Handle]) -> None:
        """Give the method the handles of all jobs so far; it names the next round or returns its family."""
        self._advance(handles)

    def _advance(self, handles: Mapping[str, Handle] | None) -> None:
        try:
            self.round = next(self._build) if handles is None else self._build.send(handles)
            self.named |= {job.id: job for job in self.round.jobs}
            self.jobs |= {job.id: job for job in closure(self.round.jobs)}
        except StopIteration as returned:
            self.round, self._family = None, returned.value


@dataclass(frozen=True)
class BuiltFamily:
    """A method that was built: its family and every job behind it, by id; `named` are those of its rounds."""

    family: PolicyFamily
    jobs: Mapping[str, Job]
    named: Mapping[str, Job]

    @property
    def kept(self) -> list[str]:
        """The ids of what is needed to have the family again: what its rounds named, and weights."""
        named = [job_id for job_id, job in self.named.items() if _kept(job)]
        weights = [job_id for job_id, job in self.jobs.items() if JOB_KINDS.get(job.kind).keeps == "weights"]
        return list(dict.fromkeys([*named, *weights]))


@dataclass(frozen=True)
class Built:
    """What became of a run's methods: those built, by name, and of each lost one the reason."""

    families: Mapping[str, BuiltFamily]
    lost: Mapping[str, str]


def build_families(runner: Doer, methods: Mapping[str, Method], world: World, also: list[Job]) -> Built:
    """Build all methods side by side, doing the jobs `also` along with the first round.

    A method whose jobs fail is lost, and one that breaks; the others go on.
    """
    builds: dict[str, Building] = {}
    lost: dict[str, str] = {}
    for name, method in methods.items():
        with _losing(name, lost):
            builds[name] = Building(method, world)
    while rounds := {name: b.round for name, b in builds.items() if b.round and name not in lost}:
        handles = runner.run([*also, *(job for step in rounds.values() for job in step.jobs)])
        also = []
        for name, step in rounds.items():
            reasons = [runner.outcome.failed[job.id] for job in step.jobs if job.id in runner.outcome.failed]
            if reasons:
                logger.error("%s: %s", name, reasons[0])
                lost[name] = reasons[0]
                continue
            with _losing(name, lost):
                builds[name].send(handles)
    done = {}
    for name, build in builds.items():
        if name not in lost:
            with _losing(name, lost):
                build.check(world)
                done[name] = BuiltFamily(build.family, build.jobs, build.named)
    return Built(done, lost)


@contextmanager
def _losing(name: str, lost: dict[str, str], level: int = logging.ERROR) -> Iterator[None]:
    """Note in `lost`, and log, what breaks a method's build; a user's mistake goes through."""
    try:
        yield
    except PeoBenchError:
        raise
    except Exception as error:
        logger.log(level, "%s: %s: %s", name, type(error).__name__, error, exc_info=True)
        lost[name] = f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Ahead:
    """What is known of a build before it is done.

    `jobs` are those that can be named from what is in the store, by id, `later` bounds the rest, `lost` says why the
    method will be lost, if that shows already; `family` is there where all is.
    """

    jobs: Mapping[str, Job]
    later: Cost = field(default_factory=Cost)
    lost: str | None = None
    family: PolicyFamily | None = field(default=None, compare=False)


def see_ahead(name: str, method: Method, world: World, store: Store) -> Ahead:
    """Return what can be said of a method's build from what is in the store; no job is done."""
    lost: dict[str, str] = {}
    jobs: Mapping[str, Job] = {}
    with _losing(name, lost, logging.DEBUG):
        build = Building(method, world)
        jobs = build.jobs
        while build.round:
            handles = _found(build.jobs, store)
            if len(handles) < len(build.jobs):
                return Ahead(jobs, build.round.later)
            build.send(handles)
        build.check(world)
        return Ahead(jobs, family=build.family)
    return Ahead(jobs, lost=lost[name])


def replay(method: Method, world: World, store: Store) -> PolicyFamily:
    """Run `build` on finished artefacts only; raise `UsageError` if one that it needs is absent."""
    build = Building(method, world)
    while build.round:
        handles = _found(build.jobs, store)
        absent = [job.id for job in build.round.jobs if job.id not in handles and _kept(job)]
        if absent:
            raise UsageError(f"{store.root}: {absent[0]} is missing: repeat the run that made this folder")
        build.send(handles)
    return build.family


def alongside(build: Build, job: Job) -> Generator[Round, Mapping[str, Handle], tuple[PolicyFamily, Handle]]:
    """Run `build` with `job` in its first round; return its family and the job's handle."""
    step = next(build)
    handles = yield Round([*step.jobs, job], step.later)
    found = handles[job.id]
    try:
        while True:
            handles = yield build.send(handles)
    except StopIteration as returned:
        return returned.value, found


def _kept(job: Job) -> bool:
    """Say whether a finished run keeps what a round named."""
    return JOB_KINDS.get(job.kind).keeps != "nothing"


def _found(jobs: Mapping[str, Job], store: Store) -> dict[str, Handle]:
    handles = {job_id: store.get(job_id) for job_id in jobs}
    return {job_id: handle for job_id, handle in handles.items() if handle is not None}
