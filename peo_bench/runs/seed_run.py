"""One training seed of a run: its world, the families of its methods, and what is evaluated of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from peo_bench.core.method import PolicyFamily, World
from peo_bench.core.rounds import Built, Doer, build_families
from peo_bench.core.spec import PolicySpec, policy
from peo_bench.errors import JobFailed
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Job
from peo_bench.results.operating_points import Offer
from peo_bench.runs.config import RunConfig
from peo_bench.runs.extras import Extras, extra_jobs
from peo_bench.runs.world import Companions, answers_job, make_methods, reference_splits, scaled
from peo_bench.suites.suite import TaskConfig


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

    @property
    def jobs(self) -> list[Job]:
        """The jobs that evaluate what was built."""
        return [*(offer.job for offer in self.offers), *self.extras.jobs]

    @property
    def kept(self) -> list[str]:
        """The ids of the artefacts that the run folder keeps.

        What families are built from, weights, scorers that policies ask, and what the oracle's points are made of.
        """
        kept = [self.world.reference.id]
        for built in self.built.families.values():
            kept += built.kept
        if any(offer.spec.candidates for offer in self.offers):
            kept += [job.id for job in self.world.proxies.values()]
        return list(dict.fromkeys([*kept, *([self.beside.oracle.id] if self.beside.oracle else [])]))


def build_seed(
    runner: Doer,
    config: RunConfig,
    task: TaskConfig,
    world: World,
    beside: Companions,
    capabilities: Sequence[JsonObject],
) -> SeedRun:
    """Build every method of one seed; the reference's validation scores and the oracle's samples come along.

    `capabilities` are the identities of the run's lm-eval tasks.
    """
    built = build_families(runner, make_methods(config, world), world, beside.jobs)
    reason = runner.outcome.failed.get(beside.units.id)
    if reason:
        raise JobFailed(f"the reference policy could not be scored, so nothing can be compared: {reason}")
    deltas = {job_id: job for method in built.families.values() for job_id, job in method.jobs.items()}

    def measured(spec: PolicySpec, split: str) -> Job:
        n = world.validation_prompts if split == "validation" else scaled(config.suite.test_prompts, config.limit)
        return answers_job(world, task, spec, deltas, split, n)

    families = {name: built.family for name, built in built.families.items()}
    offers = tuple(_offers(world, families, reference_splits(config), measured))
    extras = extra_jobs(config, task, world, offers, families, deltas, capabilities)
    return SeedRun(world, built, beside, offers, extras)


def _offers(
    world: World,
    families: Mapping[str, PolicyFamily],
    splits: Sequence[str],
    measured: Callable[[PolicySpec, str], Job],
) -> Iterator[Offer]:
    """List what is to be evaluated: the reference on `splits`, all that competes at every preference.

    `measured(spec, split)` is the job that evaluates a policy.
    """
    reference = policy(world.reference.id)
    for split in splits:
        yield Offer("reference", world.seed, reference, measured(reference, split), split=split)
    for name, family in families.items():
        for asked in world.preferences:
            projected = family.space.project(asked)
            coefficients = family.coefficients(projected) if family.coefficients else None
            spec = family.resolve(asked)
            yield Offer(name, world.seed, spec, measured(spec, "test"), asked, projected, coefficients)
