"""The KL budget of a search: how far from the reference policy, in nats, what it offers may be.

Proxies part from gold as policies leave the data that they were trained on (Gao et al. 2023, arXiv 2210.10760), so
every search keeps the upper end of its validation interval of KL(pi || ref) within a budget, and knows it while it
searches. What it starts with was not searched for: there the mean counts. KL grows about with the square of a task
vector's coefficient, which tells how far to look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from peo_bench.core.method import World
from peo_bench.errors import UsageError
from peo_bench.evaluation.validation import Candidates, Point

EVALUATIONS = 35
"""Policies that a search scores on validation prompts, beside the reference policy: the same for every method."""
LEAST_BUDGET = 1.5
"""Nats: experts that have hardly moved leave this much room to extrapolate."""
MARGIN = 1.25
"""How much further than the square law says a search looks, outwards and, below the start, inwards."""
FURTHEST = 5.0
"""In units of the experts: for those that have hardly moved the square law sees no end."""


def require_evaluations(method: str, budget: int, least: int, what: str) -> None:
    """Raise `UsageError` if `budget`, the setting of that name of `method`, is not the `least` that `what` need."""
    if budget < least:
        key = f"{method}.budget"
        raise UsageError(f"{key}={budget}: {what} need {least} evaluations: type --set {key}={least}")


def kl_budget(asked: float | None, starts: Iterable[Point]) -> float:
    """Return what was asked for, else 1.5 nats or, if that is more, the largest KL that the search starts with."""
    return asked if asked is not None else max(LEAST_BUDGET, *(point.kl for point in starts))


def shares(evaluations: int, ways: Sequence[float]) -> list[int]:
    """Return how many of `evaluations` each direction gets: those with the longest way one more, those without none.

    >>> shares(8, [1.0, 3.0, 2.0]), shares(5, [0.0, 2.0])
    ([2, 3, 3], [0, 5])
    """
    order = [int(i) for i in np.argsort(-np.asarray(ways), kind="stable") if ways[i] > 0]
    each, more = divmod(evaluations, max(1, len(order)))
    return [each + (i in order[:more]) if i in order else 0 for i in range(len(ways))]


def keeps(budget: float, points: Sequence[Point], starts: int) -> npt.NDArray[np.bool_]:
    """Tell which points keep the budget; the search started with the first `starts` of them."""
    return np.array([(point.kl if i < starts else point.kl_upper) <= budget for i, point in enumerate(points)])


def times_until(budget: float, kl: float) -> float:
    """Return by how much a search multiplies a policy's task vector at most; below 1 for one beyond the budget."""
    if kl <= 0:
        return FURTHEST
    times = math.sqrt(budget / kl)
    return min(FURTHEST, times * MARGIN) if times >= 1 else times / MARGIN


def best_for_all(found: Candidates, world: World, max_kl: float, starts: int) -> int | None:
    """Return which family of policies has the highest steered utility, averaged over preferences.

    `found` has one point per searched preference of every family, one family after the other; its first `starts` points
    are what the search started with. All of a family's policies keep the budget: None if no family does.
    """
    steered = found.steered(world).sum(axis=1)
    within = keeps(max_kl, found.points, starts).reshape(len(steered), -1).all(axis=1)
    return int(np.argmax(np.where(within, steered, -np.inf))) if within.any() else None
