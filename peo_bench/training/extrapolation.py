"""Phase 3 of PEO: extrapolation of the generalist along the experts' task vectors (arXiv 2503.01233).

theta(lambda) = theta_gen + sum_i lambda_i tau_i, lambda_i >= 0. The search for lambda is ours: a declared budget of
evaluations on validation prompts with the proxy scorers, each journalled; its outcome is the non-dominated set and a
map from preference to coefficients along it. Ranges are normalised by the task vectors' norms, since the best strength
shrinks as they grow (ExPO, arXiv 2404.16792).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from peo_bench.core import roles
from peo_bench.core.decoding import sampling_params
from peo_bench.core.method import Objective
from peo_bench.core.spec import policy
from peo_bench.evaluation.validation import Validator, job_bound, utility_scores
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.kill_points import kill_point
from peo_bench.pareto import nondominated
from peo_bench.training.search import STRATEGIES, drive

Floats = npt.NDArray[np.float64]


KILLED_AFTER = 5
"""Evaluations after which the kill point is."""


@job_kind(
    "extrapolation",
    version=1,
    bound=job_bound(lambda job: job.params["budget"]),
    defaults=sampling_params(),
    keeps="result",
)
def extrapolate(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Search lambda in [0, high_1] x [0, high_2] around the generalist `params["generalist"]`.

    `params["high"]` are the upper ends, `params["maximise"]` maps the score columns, in the order of the objectives, to
    their directions. The result holds `evaluations` (coefficients and validation means) and the `reference`'s units.
    """
    validator = Validator(job, inputs, work)
    journal = work.journal("evaluations")

    def record(values: JsonObject) -> None:
        journal.append(values | {"spent": validator.cost.to_json()})
        validator.cost = Cost()
        if len(journal.records) == 1 + KILLED_AFTER:
            kill_point("search")

    if not journal.records:
        record({"reference": validator.reference_units()})
    reference = journal.records[0]["reference"]
    objectives = [Objective(column, column, up) for column, up in job.params["maximise"].items()]
    deltas = [delta.id for delta in roles.deltas(inputs)]
    low, high = np.asarray(job.params["generalist"]), np.asarray(job.params["high"])
    budget = job.params["budget"]

    def evaluate(i: int, unit: Floats) -> Floats:
        if i + 1 >= len(journal.records):
            coefficients = [float(value) for value in low + unit * high]
            spec = policy(inputs["reference"].id, zip(deltas, coefficients, strict=True))
            record({"coefficients": coefficients, **validator.points([spec])[0]})
        work.progress((i + 1) / budget, f"{i + 1}/{budget} evaluations")
        return np.asarray(utility_scores([journal.records[i + 1]], reference, objectives)[0])

    drive(STRATEGIES[job.params["strategy"]](budget, job.params["seed"]), evaluate)
    for item in journal.records:
        work.charge(Cost(**item["spent"]))
    return {"reference": reference, "evaluations": journal.records[1:]}


@dataclass(frozen=True)
class SteeringMap:
    """A map from the weight of the first objective to coefficients, along the validation front.

    `positions` (k,) are weights that rise from 0 (best for the second objective) to 1 (best for the first);
    `coefficients` (k, m) belong to these weights and are interpolated linearly between them.
    """

    positions: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]

    def __call__(self, weight: float) -> tuple[float, ...]:
        """Return the coefficients (m,) for the first objective's weight in [0, 1]."""
        table = np.asarray(self.coefficients)
        return tuple(float(np.interp(weight, self.positions, column)) for column in table.T)


def steering_map(evaluations: Sequence[Mapping[str, Any]], utilities: Floats) -> SteeringMap:
    """Order the front's supported points by the first objective and give each the weights for which it is best.

    `utilities` (n, 2), higher is better. A non-dominated point is supported if it maximises w u_1 + (1 - w) u_2 for
    some w; it then does so on an interval of weights, whose middle is its position (the outermost points sit at 0 and
    1). Points that owe their place on the front to noise are rarely supported. Along the knots u_1 rises and u_2
    falls, so validation reward and cost are non-decreasing in the helpful weight.
    """
    hull: list[int] = []
    mask = np.flatnonzero(nondominated(utilities, maximise=(True, True)))
    for i in mask[np.lexsort((-utilities[mask, 1], utilities[mask, 0]))]:
        while len(hull) > 1 and _switch(utilities, hull[-2], hull[-1]) >= _switch(utilities, hull[-1], i):
            hull.pop()
        if not hull or utilities[i, 0] > utilities[hull[-1], 0]:
            hull.append(int(i))
    switches = [_switch(utilities, a, b) for a, b in pairwise(hull)]
    middles = [(a + b) / 2 for a, b in pairwise(switches)]
    positions = [0.0, *middles, 1.0] if len(hull) > 1 else [0.0]
    return SteeringMap(tuple(positions), tuple(tuple(evaluations[i]["coefficients"]) for i in hull))


def _switch(utilities: Floats, low: int, high: int) -> float:
    """Return the weight of the first objective above which point `high` is better than point `low`."""
    gain, loss = utilities[high] - utilities[low]
    return float(-loss / (gain - loss))
