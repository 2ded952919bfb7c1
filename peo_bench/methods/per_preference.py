"""What methods that train one policy per preference share: the family offers exactly these points."""

from __future__ import annotations

from abc import abstractmethod

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job


class PointMethod(Method):
    """One training job per preference of the run."""

    @abstractmethod
    def job(self, world: World, preference: Preference) -> Job:
        """Return the job that trains the policy for `preference`; equal jobs are done once."""

    def build(self, world: World) -> Build:
        """Train one policy per preference."""
        jobs = {w: self.job(world, w) for w in world.preferences}
        yield Round(list(dict.fromkeys(jobs.values())))
        return PolicyFamily(
            space=Space("points", world.preferences),
            at=lambda w: policy(world.reference.id, [(jobs[w].id, 1.0)]),
        )


def one_of_two(method: str, objective: str, world: World) -> int:
    """Return the index of `objective` among the world's two; `UsageError` where it is none or there are more."""
    names = world.names
    if len(names) != 2 or objective not in names:
        raise UsageError(f"{method} needs two objectives, one of them {objective!r}; here: {names}")
    return names.index(objective)


def single_policy(world: World, job: Job) -> Build:
    """Train the one policy that `job` gives; the family offers it for every preference, placed in the centre."""
    yield Round([job])
    return PolicyFamily(
        space=Space("points", (Preference.even(world.names),)), at=lambda w: policy(world.reference.id, [(job.id, 1.0)])
    )


def combined_job(world: World, preference: Preference, combiner: str, **options: object) -> Job:
    """Return the offline training at `preference` that combines the objectives' gradients (training/gradients.py)."""
    names = [objective.name for objective in world.objectives]
    params = {"combiner": combiner, "weights": list(preference.weights), "objectives": names, "seed": world.seed}
    return Job("gradients", params | world.plain_training | options, world.compared(names[0]))
