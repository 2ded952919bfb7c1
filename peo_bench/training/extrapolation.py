"""Phase 3 of PEO: extrapolation of the generalist along the experts' task vectors (arXiv 2503.01233).

theta(lambda) = theta_gen + sum_i lambda_i tau_i, lambda_i >= 0. The search for lambda is ours: a declared budget of
evaluations on validation prompts with the proxy scorers, each journalled; its outcome is the non-dominated set and a
map from preference to coefficients along it. Ranges are normalised by the task vectors' norms, since the best strength
shrinks as they grow (ExPO, arXiv 2404.16792).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from peo_bench.core.job import Handle, Job, job_kind
from peo_bench.core.method import Objective
from peo_bench.core.spec import policy
from peo_bench.evaluation.validation import Validator, job_bound, utility_scores
from peo_bench.pareto import nondominated
from peo_bench.store.workspace import Workspace
from peo_bench.training.search import STRATEGIES, drive

Floats = npt.NDArray[np.float64]


@job_kind("extrapolation", version=1, bound=job_bound(lambda job: job.params["budget"]))
def extrapolate(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> dict[str, Any]:
    """Search lambda in [0, high_1] x [0, high_2] around the generalist `params["generalist"]`.

    `params["high"]` are the upper ends, `params["maximise"]` maps the score columns, in the order of the objectives, to
    their directions. The result holds `evaluations` (coefficients and validation means) and the `reference`'s units.
    """
    validator = Validator(job, inputs, work)
    journal = work.journal("evaluations")
    if not journal.records:
        journal.append({"reference": validator.reference_units()})
    reference = journal.records[0]["reference"]
    objectives = [Objective(column, column, up) for column, up in job.params["maximise"].items()]
    deltas = [inputs[f"delta:{i}"].id for i in range(len(objectives))]
    low, high = np.asarray(job.params["generalist"]), np.asarray(job.params["high"])
    budget = job.params["budget"]

    def evaluate(i: int, unit: Floats) -> Floats:
        if i + 1 >= len(journal.records):
            coefficients = [float(value) for value in low + unit * high]
            spec = policy(inputs["reference"].id, zip(deltas, coefficients, strict=True))
            journal.append({"coefficients": coefficients, **validator.points([spec])[0]})
        work.progress((i + 1) / budget, f"{i + 1}/{budget} evaluations")
        return np.asarray(utility_scores([journal.records[i + 1]], reference, objectives)[0])

    drive(STRATEGIES[job.params["strategy"]](budget, job.params["seed"]), evaluate)
    return {"reference": reference, "evaluations": journal.records[1:]}


@dataclass(frozen=True)
class SteeringMap:
    """A map from the weight of the first objective to coefficients, along the validation front.

    `positions` (k,) rise from 0 (the first objective's worst, the second's best) to 1; `coefficients` (k, m) lie at
    these positions and are interpolated linearly between them.
    """

    positions: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]

    def __call__(self, weight: float) -> tuple[float, ...]:
        """Return the coefficients (m,) for the first objective's weight in [0, 1]."""
        table = np.asarray(self.coefficients)
        return tuple(float(np.interp(weight, self.positions, column)) for column in table.T)


def steering_map(evaluations: Sequence[Mapping[str, Any]], utilities: Floats) -> SteeringMap:
    """Order the non-dominated evaluations by the first objective; a preference is a position along that front.

    `utilities` (n, 2), higher is better. Along the knots the first utility rises and the second falls, so validation
    reward and cost are non-decreasing in the helpful weight. A position is the distance walked along the front.
    """
    mask = np.asarray(nondominated(utilities, maximise=(True, True)))
    front = utilities[mask]
    coefficients = [
        tuple(evaluation["coefficients"]) for evaluation, keep in zip(evaluations, mask, strict=True) if keep
    ]
    order = [int(i) for i in np.lexsort((-front[:, 1], front[:, 0]))]
    walked = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(front[order], axis=0), axis=1))])
    positions = walked / walked[-1] if walked[-1] > 0 else walked
    return SteeringMap(tuple(float(p) for p in positions), tuple(coefficients[i] for i in order))
