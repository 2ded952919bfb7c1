"""Phase 2 of PEO: the generalists, interpolations of the experts (arXiv 2503.01233), on validation prompts.

theta_gen(w) = theta_ref + w tau_1 + (1 - w) tau_2. The paper's own weights are not available to us. Searches share this
line as one job: its ends are the experts, whose KL is the default of the KL budget.
"""

from __future__ import annotations

from peo_bench.core.method import World
from peo_bench.core.spec import policy
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job


def simplex_grid(n: int) -> list[tuple[float, float]]:
    """Return `n` evenly spaced points of the 2-simplex, from (0, 1) to (1, 0).

    >>> simplex_grid(3)
    [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    """
    return [(i / (n - 1), 1 - i / (n - 1)) for i in range(n)]


def soup_line(world: World, phis: list[tuple[float, float]], method: str) -> Job:
    """Return the job "candidates" that scores the soups `phis` of a world's two experts for `method`."""
    if len(world.objectives) != 2:
        raise UsageError(f"{method} searches the plane of two objectives, this suite has {len(world.objectives)}")
    base, ids = world.reference.id, [job.id for job in world.aspects]
    specs = [policy(base, zip(ids, phi, strict=True)).to_json() for phi in phis]
    return world.validation_job("candidates", {"specs": specs}, world.aspects)
