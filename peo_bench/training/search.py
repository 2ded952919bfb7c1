"""Black-box search in a box with few, noisy evaluations of two objectives under a constraint (phase 3).

A strategy is a generator: it is given what is known already, yields batches of points of the unit square (n, 2), is
sent their values (n, 3) and stops when the budget is spent. Values are the two objectives, higher is better, and the
excess over the KL budget in nats: a point with a positive one must not be chosen. Strategies see nothing else, so they
replay identically from a journal.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Search = Generator[Floats, Floats, None]
PENALTY = 1e3
"""Utility that a nat beyond the budget costs where an optimiser knows no constraints: no gain makes up for it."""


@dataclass(frozen=True)
class Known:
    """Points (n, 2) of the unit square and their values (n, 3); `free` (k, 2) can be had without an evaluation."""

    points: Floats
    values: Floats
    free: Floats = field(default_factory=lambda: np.empty((0, 2)))

    def and_also(self, points: Floats, values: Floats) -> Known:
        """Return these and further evaluations."""
        return replace(self, points=np.vstack([self.points, points]), values=np.vstack([self.values, values]))

    @property
    def taken(self) -> Floats:
        """Where nothing is left to gain: the points evaluated and those that are free."""
        return np.vstack([self.points, self.free])


Strategy = Callable[[int, int, Known], Search]
START = np.array([(x, 0.4) for x in (0.0, 0.25, 0.5, 0.75, 1.0)])
"""What `gp` evaluates before it models anything: beyond the edge that is known, mostly still within the budget."""


def grid(budget: int, seed: int, known: Known) -> Search:
    """Evaluate the largest square grid that the budget allows (25: 5 x 5), without the points that are known."""
    n = max(2, int(np.sqrt(budget)))
    while len(_new(_square(n + 1), known.points)) <= budget:
        n += 1
    yield _new(_square(n), known.points)[:budget]


def surrogate(budget: int, seed: int, known: Known, batch: int = 4) -> Search:
    """Fit a quadratic to each value, take the next batch from its feasible front (MAP, Li et al., arXiv 2406.12845).

    Starts with a 3 x 3 grid (a quadratic in two variables has six coefficients); each further batch is spread over the
    surrogate's non-dominated set, found by NSGA-II, away from the points already evaluated.
    """
    points = _new(_square(3), known.points)[:budget]
    known, budget = known.and_also(points, (yield points)), budget - len(points)
    while budget:
        front = surrogate_front(fit_quadratic(known.points, known.values), 2, seed + budget, "nsga2")
        points = _spread(front, known.taken, min(batch, budget), seed)
        known, budget = known.and_also(points, (yield points)), budget - len(points)


def nsga2(budget: int, seed: int, known: Known, population: int = 5) -> Search:
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
            Evaluator().eval(StaticProblem(problem, F=-_penalised(values)), asked)
            algorithm.tell(infills=asked)


def gp(budget: int, seed: int, known: Known, batch: int = 3) -> Search:
    """Maximise the expected hypervolume improvement times the probability of staying within the KL budget.

    A Gaussian process per value (Matern 5/2, a length per axis, noise fitted); the front is that of the processes'
    means at the points evaluated and the free ones, so that noise does not make it. A batch is chosen one by one, each
    believed at its mean (kriging believer). Emmerich et al. 2011 for the improvement, Gelbart et al. 2014, arXiv
    1403.5607, for the constraint.
    """
    points = _new(START, known.points)[:budget]
    known, budget = known.and_also(points, (yield points)), budget - len(points)
    candidates = _square(41)
    while budget:
        chosen = _batch_of_improvements(known, candidates, min(batch, budget), seed)
        known, budget = known.and_also(chosen, (yield chosen)), budget - len(chosen)


def cma_es(budget: int, seed: int, known: Known, population: int = 6) -> Search:
    """Adapt a normal distribution to where the search gains (CMA-ES, Hansen & Ostermeier 2001, by the package `cma`).

    Evolutionary merging (Akiba et al. 2024, arXiv 2403.13187) maximises one score; here a point's fitness is the most
    that it gains, at any preference, over all that is known before its generation.
    """
    import cma

    rng = np.random.default_rng(seed)
    options = {"bounds": [0, 1], "popsize": population, "verbose": -9}
    # cma's own seed would be numpy's global one, which others draw from between two generations.
    options |= {"seed": np.nan, "randn": lambda *shape: rng.standard_normal(shape)}
    evolution = cma.CMAEvolutionStrategy([0.5, 0.5], 0.25, options)
    while budget:
        asked = evolution.ask()
        points = np.asarray(asked)[:budget]
        values = yield points
        if len(points) == population:
            evolution.tell(asked, (-_gains(known, values)).tolist())
        known, budget = known.and_also(points, values), budget - len(points)


def _gains(known: Known, values: Floats) -> Floats:
    """Return the largest gain (n,) in w u_1 + (1 - w) u_2, over w, of points with `values` over what is known."""
    share = np.linspace(0, 1, 11)
    weights = np.array([share, 1 - share])
    found = _penalised(known.values) @ weights
    return np.asarray((_penalised(values) @ weights - (found.max(axis=0) if len(found) else 0)).max(axis=1))


STRATEGIES: dict[str, Strategy] = {"gp": gp, "surrogate": surrogate, "grid": grid, "nsga2": nsga2, "cma-es": cma_es}


def drive(search: Search, evaluate: Callable[[int, Floats], Floats]) -> None:
    """Run `search` to its end; `evaluate(done, batch)` returns the values (n, 3) of a batch after `done` points."""
    done, batch = 0, next(search)
    with suppress(StopIteration):
        while True:
            values = evaluate(done, batch)
            done += len(batch)
            batch = search.send(values)


def _batch_of_improvements(known: Known, candidates: Floats, n: int, seed: int) -> Floats:
    """Return the `n` candidates (n, 2) that `gp` evaluates next."""
    from scipy.stats import norm

    models = [_fit_process(known.points, column, seed) for column in known.values.T]
    points, values = known.points, known.values
    for _ in range(n):
        new = _new(candidates, np.vstack([points, known.free]))
        ours, _ = _predict(models, np.vstack([points, known.free]))
        means, errors = _predict(models, new)
        front = ours[ours[:, 2] <= 0, :2]
        gain = expected_improvement(means[:, :2], errors[:, :2], front, _nadir(front if len(front) else ours[:, :2]))
        best = int(np.argmax(gain * norm.cdf(-means[:, 2] / errors[:, 2])))
        points, values = np.vstack([points, new[best]]), np.vstack([values, means[best]])
        models = [_refit(model, points, column) for model, column in zip(models, values.T, strict=True)]
    return points[len(known.points) :]


def _predict(models, points: Floats) -> tuple[Floats, Floats]:  # type: ignore[no-untyped-def]
    """Return the means and errors (n, n_values) of the noiseless values at `points`."""
    means, errors = zip(*(model.predict(points, return_std=True) for model in models), strict=True)
    noise = [model.kernel_.k2.noise_level * model._y_train_std**2 for model in models]
    variances = np.column_stack(errors) ** 2 - noise
    return np.column_stack(means), np.sqrt(np.maximum(variances, 1e-12))


def _fit_process(points: Floats, values: Floats, seed: int):  # type: ignore[no-untyped-def]
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern, WhiteKernel

    kernel = 1.0 * Matern([0.5, 0.5], (0.1, 5.0), nu=2.5) + WhiteKernel(1e-3, (1e-6, 0.3))
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=seed)
    return _quiet_fit(process, points, values)


def _refit(process, points: Floats, values: Floats):  # type: ignore[no-untyped-def]
    """Return the process with the same kernel at more points."""
    from sklearn.base import clone

    return _quiet_fit(clone(process).set_params(kernel=process.kernel_, optimizer=None), points, values)


def _quiet_fit(process, points: Floats, values: Floats):  # type: ignore[no-untyped-def]
    """Fit; a hyperparameter at the end of its range is no news."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return process.fit(points, values)


def expected_improvement(means: Floats, errors: Floats, front: Floats, reference: Floats) -> Floats:
    """Return the expected gain (n,) in the hypervolume of `front` (k, 2), both objectives maximised, above `reference`.

    The values at a point are independent normals, `means` and `errors` (n, 2). Over the strip of the first objective
    between two neighbours of the front the gain is a product of two expected excesses (Emmerich et al. 2011).
    """
    from peo_bench.pareto import nondominated

    front = front[np.all(front > reference, axis=1)]
    front = front[nondominated(front, maximise=(True, True))] if len(front) else front
    front = front[np.argsort(front[:, 0])]
    edges = [reference[0], *front[:, 0]]
    heights = [*front[:, 1], reference[1]]
    first = [_excess(means[:, 0], errors[:, 0], edge) for edge in edges] + [np.zeros(len(means))]
    second = [_excess(means[:, 1], errors[:, 1], height) for height in heights]
    strips = [(first[i] - first[i + 1]) * second[i] for i in range(len(edges))]
    return np.asarray(np.sum(strips, axis=0))


def _excess(mean: Floats, error: Floats, threshold: float) -> Floats:
    """Return E max(0, Y - threshold) of normal Y."""
    from scipy.stats import norm

    error = np.maximum(error, 1e-12)
    z = (mean - threshold) / error
    return np.asarray(error * norm.pdf(z) + (mean - threshold) * norm.cdf(z))


def _nadir(points: Floats) -> Floats:
    """Return the worst value per objective, a tenth of the range further down."""
    low, high = points.min(axis=0), points.max(axis=0)
    return np.asarray(low - 0.1 * np.maximum(high - low, 1e-6))


def fit_quadratic(points: Floats, values: Floats) -> Callable[[Floats], Floats]:
    """Return least-squares quadratics of `values` (n, n_values) at `points` (n, m), as (k, m) -> (k, n_values).

    Raises ValueError with fewer than (m + 1)(m + 2) / 2 points, which do not determine a quadratic.
    """
    from sklearn.preprocessing import PolynomialFeatures

    if len(points) < (points.shape[1] + 1) * (points.shape[1] + 2) // 2:
        raise ValueError(f"{len(points)} points do not determine a quadratic of {points.shape[1]} variables")
    features = PolynomialFeatures(degree=2)
    coefficients = np.linalg.lstsq(features.fit_transform(points), values, rcond=None)[0]

    def fitted(new: Floats) -> Floats:
        return np.asarray(features.transform(new) @ coefficients)

    return fitted


def fit_error(points: Floats, values: Floats) -> float:
    """Return the largest error of `fit_quadratic` where it was fitted, over all values."""
    return float(np.abs(fit_quadratic(points, values)(points) - values).max())


def surrogate_front(fitted: Callable[[Floats], Floats], m: int, seed: int, optimiser: str) -> Floats:
    """Return points (n, m) of the unit box that are non-dominated under `fitted` and, where any is, within the budget.

    The last of the fitted values (k, n_objectives + 1) is the excess over the KL budget. `optimiser`: "nsga2" with a
    small population, enough to propose a batch; "nsga3" or "moead" with MAP's published settings (population 100, 150
    generations, SBX and polynomial mutation with eta 20).
    """
    from pymoo.algorithms.moo.moead import MOEAD
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.optimize import minimize
    from pymoo.util.ref_dirs import get_reference_directions

    n_objectives = fitted(np.zeros((1, m))).shape[1] - 1

    class Fitted(Problem):  # type: ignore[misc]
        def _evaluate(self, x: Floats, out: dict[str, Floats], *args: object, **kwargs: object) -> None:
            out["F"] = -_penalised(fitted(x))

    problem = Fitted(n_var=m, n_obj=n_objectives, xl=0.0, xu=1.0)
    if optimiser == "nsga2":
        algorithm, generations = NSGA2(pop_size=40), 40
    else:
        directions = get_reference_directions("energy", n_objectives, 100, seed=1)
        operators = {"crossover": SBX(eta=20, prob=0.7), "mutation": PM(eta=20, prob=0.3)}
        make = NSGA3 if optimiser == "nsga3" else MOEAD
        algorithm, generations = make(ref_dirs=directions, **operators), 150
    front = np.atleast_2d(np.asarray(minimize(problem, algorithm, ("n_gen", generations), seed=seed).X))
    within = fitted(front)[:, -1] <= 0
    return np.asarray(front[within] if within.any() else front)


def _penalised(values: Floats) -> Floats:
    """Return the objectives (n, k), each lowered by what lies beyond the budget."""
    return np.asarray(values[:, :-1] - PENALTY * np.maximum(values[:, -1:], 0))


def _square(n: int) -> Floats:
    side = np.linspace(0, 1, n)
    return np.array([(x, y) for x in side for y in side])


def _new(points: Floats, taken: Floats) -> Floats:
    """Return those of `points` that are not among `taken`."""
    distance = np.linalg.norm(points[:, None] - taken[None], axis=2)
    return np.asarray(points[distance.min(axis=1, initial=np.inf) > 1e-6])


def _spread(candidates: Floats, taken: Floats, n: int, seed: int) -> Floats:
    """Pick `n` candidates greedily, each the farthest from what is taken (maximin); random points make up a lack."""
    rng = np.random.default_rng([seed, len(taken)])
    chosen = np.empty((0, 2))
    for _ in range(n):
        known = np.vstack([taken, chosen])
        free = _new(candidates, known)
        free = free if len(free) else rng.random((64, 2))
        distance = np.linalg.norm(free[:, None] - known[None], axis=2).min(axis=1, initial=np.inf)
        chosen = np.vstack([chosen, free[int(np.argmax(distance))]])
    return chosen
