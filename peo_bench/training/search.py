"""Black-box search in a box with few, noisy evaluations of two objectives (phase 3).

A strategy is a generator: it yields batches of points of the unit square, is sent their objective values (n, 2),
higher is better, and stops when the budget is spent. Strategies see nothing else, so they replay identically from a
journal.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Search = Generator[Floats, Floats, None]


def grid(budget: int, seed: int) -> Search:
    """Evaluate the largest square grid that the budget allows (25: 5 x 5)."""
    side = np.linspace(0, 1, max(2, int(np.sqrt(budget))))
    yield np.array([(x, y) for x in side for y in side])[:budget]


def surrogate(budget: int, seed: int, batch: int = 4) -> Search:
    """Fit a quadratic to each objective, take the next batch from its front (MAP, Li et al. 2024, arXiv 2406.12845).

    Starts with a 3 x 3 grid (a quadratic in two variables has six coefficients); each further batch is spread over the
    surrogate's non-dominated set, found by NSGA-II, away from the points already evaluated.
    """
    side = np.linspace(0, 1, 3)
    points = np.array([(x, y) for x in side for y in side])[:budget]
    values = yield points
    while len(points) < budget:
        front = _surrogate_front(points, values, seed + len(points))
        new = _spread(front, points, min(batch, budget - len(points)))
        values = np.vstack([values, (yield new)])
        points = np.vstack([points, new])


def nsga2(budget: int, seed: int, population: int = 5) -> Search:
    """Run NSGA-II (Deb et al. 2002, pymoo's) directly on the evaluations, `population` at a time."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.core.termination import NoTermination
    from pymoo.problems.static import StaticProblem

    problem = Problem(n_var=2, n_obj=2, xl=0.0, xu=1.0)
    algorithm = NSGA2(pop_size=population)
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    spent = 0
    while spent < budget:
        asked = algorithm.ask()
        points = np.asarray(asked.get("X"))[: budget - spent]
        values = yield points
        spent += len(points)
        if len(points) == len(asked):
            Evaluator().eval(StaticProblem(problem, F=-values), asked)
            algorithm.tell(infills=asked)


def drive(search: Search, evaluate: Callable[[int, Floats], Floats]) -> None:
    """Run `search` to its end; `evaluate(i, point)` returns the objective values (2,) of the i-th point asked for."""
    done, batch = 0, next(search)
    with suppress(StopIteration):
        while True:
            values = [evaluate(done + i, point) for i, point in enumerate(batch)]
            done += len(batch)
            batch = search.send(np.asarray(values))


STRATEGIES: dict[str, Callable[[int, int], Search]] = {"grid": grid, "surrogate": surrogate, "nsga2": nsga2}


def _features(points: Floats) -> Floats:
    x, y = points.T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _surrogate_front(points: Floats, values: Floats, seed: int) -> Floats:
    """Return points of the unit square that are non-dominated under the fitted quadratics."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    coefficients = np.linalg.lstsq(_features(points), values, rcond=None)[0]

    class Fitted(Problem):  # type: ignore[misc]
        def _evaluate(self, x: Floats, out: dict[str, Floats], *args: object, **kwargs: object) -> None:
            out["F"] = -_features(x) @ coefficients

    result = minimize(Fitted(n_var=2, n_obj=2, xl=0.0, xu=1.0), NSGA2(pop_size=40), ("n_gen", 40), seed=seed)
    return np.atleast_2d(np.asarray(result.X))


def _spread(candidates: Floats, taken: Floats, n: int) -> Floats:
    """Pick `n` candidates greedily, each the farthest from what is taken (maximin); repeats where there are too few."""
    chosen: list[Floats] = []
    for _ in range(n):
        known = np.vstack([taken, *chosen])
        distance = np.linalg.norm(candidates[:, None] - known[None], axis=2).min(axis=1)
        chosen.append(candidates[int(np.argmax(distance))][None])
    return np.vstack(chosen)
