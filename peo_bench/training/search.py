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
        front = surrogate_front(fit_quadratic(points, values), 2, seed + len(points), "nsga2")
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


def fit_quadratic(points: Floats, values: Floats) -> Callable[[Floats], Floats]:
    """Return least-squares quadratics of `values` (n, n_objectives) at `points` (n, m), as (k, m) -> (k, n_objectives).

    Raises ValueError with fewer than (m + 1)(m + 2) / 2 points, which do not determine a quadratic.
    """
    from sklearn.preprocessing import PolynomialFeatures

    if len(points) < (points.shape[1] + 1) * (points.shape[1] + 2) // 2:
        raise ValueError(f"{len(points)} points do not determine a quadratic of {points.shape[1]} variables")
    features = PolynomialFeatures(degree=2)
    coefficients = np.linalg.lstsq(features.fit_transform(points), values, rcond=None)[0]
    return lambda new: np.asarray(features.transform(new) @ coefficients)


def surrogate_front(fitted: Callable[[Floats], Floats], m: int, seed: int, optimiser: str) -> Floats:
    """Return points (n, m) of the unit box that are non-dominated under `fitted`, every objective maximised.

    `optimiser`: "nsga2" with a small population, enough to propose a batch; "nsga3" or "moead" with MAP's published
    settings (population 100, 150 generations, SBX and polynomial mutation with eta 20).
    """
    from pymoo.algorithms.moo.moead import MOEAD
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    n_objectives = fitted(np.zeros((1, m))).shape[1]

    class Fitted(Problem):  # type: ignore[misc]
        def _evaluate(self, x: Floats, out: dict[str, Floats], *args: object, **kwargs: object) -> None:
            out["F"] = -fitted(x)

    problem = Fitted(n_var=m, n_obj=n_objectives, xl=0.0, xu=1.0)
    if optimiser == "nsga2":
        algorithm, generations = NSGA2(pop_size=40), 40
    else:
        directions = get_reference_directions("energy", n_objectives, 100, seed=1)
        operators = {"crossover": SBX(eta=20, prob=0.7), "mutation": PM(eta=20, prob=0.3)}
        make = NSGA3 if optimiser == "nsga3" else MOEAD
        algorithm, generations = make(ref_dirs=directions, **operators), 150
    result = minimize(problem, algorithm, ("n_gen", generations), seed=seed)
    return np.atleast_2d(np.asarray(result.X))


def _spread(candidates: Floats, taken: Floats, n: int) -> Floats:
    """Pick `n` candidates greedily, each the farthest from what is taken (maximin); repeats where there are too few."""
    chosen: list[Floats] = []
    for _ in range(n):
        known = np.vstack([taken, *chosen])
        distance = np.linalg.norm(candidates[:, None] - known[None], axis=2).min(axis=1)
        chosen.append(candidates[int(np.argmax(distance))][None])
    return np.vstack(chosen)
