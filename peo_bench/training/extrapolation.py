"""Phase 3 of PEO: extrapolation of the generalist along the experts' task vectors (arXiv 2503.01233).

theta(lambda) = theta_gen + sum_i lambda_i tau_i, lambda_i >= 0. The search for lambda is ours: a declared budget of
evaluations on validation prompts with the proxy scorers, batch by batch, each journalled, within a KL budget that the
search knows. How far it may go is a matter of KL, not of a multiple of the task vectors: the best strength shrinks as
they grow (ExPO, arXiv 2404.16792).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from peo_bench.core import roles
from peo_bench.core.decoding import sampling_params
from peo_bench.core.method import Objective
from peo_bench.core.spec import policy
from peo_bench.evaluation.kl_budget import FURTHEST, MARGIN, kl_budget, times_until
from peo_bench.evaluation.validation import (
    Candidates,
    PointRecord,
    Validator,
    job_bound,
    read_candidates,
    utility_scores,
)
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind, resulting
from peo_bench.jobs.workspace import Workspace
from peo_bench.kill_points import kill_point
from peo_bench.training.search import STRATEGIES, Known, drive
from peo_bench.training.steering_map import Evaluated, evaluated_from_json

Floats = npt.NDArray[np.float64]
KILLED_AFTER = 2
"""Batches of evaluations after which the kill point is."""


@dataclass(frozen=True)
class Search:
    """What a job "extrapolation" found: the KL budget it kept, in nats, the reference's units, and its evaluations."""

    max_kl: float
    reference: Mapping[str, Sequence[float]]
    evaluations: tuple[Evaluated, ...]


def read_search(handle: Handle) -> Search:
    """Return the result of a job "extrapolation"."""
    result = handle.result
    return Search(result["max_kl"], result["reference"], tuple(evaluated_from_json(e) for e in result["evaluations"]))


class _Evaluation(PointRecord, strict=True):
    coefficients: list[float]


class _Result(BaseModel, strict=True):
    max_kl: float
    reference: dict[str, list[float]]
    evaluations: list[_Evaluation]


@resulting(_Result)
@job_kind(
    "extrapolation",
    version=4,
    bound=job_bound(lambda job: job.params["budget"]),
    defaults=sampling_params(),
    keeps="result",
)
def extrapolate(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Search the plane of the task vectors from phase 2's line of soups, `inputs["line"]`; the result is a `Search`.

    `params["phis"]` (k, 2) are the line's coefficients. `params["region"]` is "soup", all soups and what lies beyond
    them, or "generalist", the box beyond the best of them. `params["maximise"]` maps the score columns, in the order of
    the objectives, to their directions; `params["max_kl"]` is the KL budget in nats, None the default.
    """
    objectives = [Objective(column, column, up) for column, up in job.params["maximise"].items()]
    line = read_candidates(inputs["line"])
    phis = np.asarray(job.params["phis"])
    max_kl = kl_budget(job.params["max_kl"], [line.points[0], line.points[-1]])
    make_region = {"soup": beyond_the_soup, "generalist": beyond_the_generalist}[job.params["region"]]
    region = make_region(phis, line, line.utilities(objectives), max_kl)
    deltas = [delta.id for delta in roles.deltas(inputs)]
    validator = Validator(job, inputs, work)
    journal, memo = work.journal("evaluations"), work.memo("kept")
    budget, reference = job.params["budget"], line.reference
    found: list[Evaluated] = []

    def evaluate(done: int, batch: Floats) -> Floats:
        if done >= sum(len(record["evaluations"]) for record in journal.records):
            places = [tuple(float(c) for c in place) for place in region.coefficients(batch)]
            specs = [policy(inputs["reference"].id, zip(deltas, place, strict=True)) for place in places]
            new = [Evaluated(c, point) for c, point in zip(places, validator.points(specs, memo), strict=True)]
            journal.append({"evaluations": [e.to_json() for e in new], "spent": validator.cost.to_json()})
            validator.cost = Cost()
            if len(journal.records) == KILLED_AFTER:
                kill_point("search")
        kept = [evaluated_from_json(e) for record in journal.records for e in record["evaluations"]]
        found[:] = kept[: done + len(batch)]
        work.progress(len(found) / budget, f"{len(found)}/{budget} evaluations")
        points = [e.point for e in found[done:]]
        excess = [point.kl_upper - max_kl for point in points]
        return np.column_stack([utility_scores(points, reference, objectives), excess])

    drive(STRATEGIES[job.params["strategy"]](budget, job.params["seed"], region.known), evaluate)
    for record in journal.records:
        work.charge(Cost(**record["spent"]))
    return {"max_kl": max_kl, "reference": reference, "evaluations": [e.to_json() for e in found]}


@dataclass(frozen=True)
class Region:
    """A part of the plane as the image of the unit square: `coefficients` maps (n, 2) to (n, 2).

    `known` are the evaluations of phase 2 that lie in it.
    """

    coefficients: Callable[[Floats], Floats]
    known: Known


def beyond_the_soup(phis: Floats, line: Candidates, utilities: Floats, max_kl: float) -> Region:
    """Return all soups (w, 1 - w) and their multiples up to the KL budget: the experts are corners of it.

    The first axis of the square is w, the second runs from the soup to where KL's square law meets the budget; where
    the soup exceeds it, to half of that, since it is the upper end of an interval that has to keep it.
    """
    limits = np.array([times_until(max_kl, point.kl) for point in line.points])
    limits[limits < 1] /= 2

    def coefficients(unit: Floats) -> Floats:
        w, beyond = unit.T
        times = 1 + beyond * (np.interp(w, phis[:, 0], limits) - 1)
        return np.column_stack([times * w, times * (1 - w)])

    excess = np.array([point.kl - max_kl for point in line.points])
    edge = np.linspace(0, 1, 41)
    known = Known(
        np.column_stack([phis[:, 0], np.zeros(len(phis))]),
        np.column_stack([utilities, excess]),
        free=np.column_stack([edge, np.zeros(len(edge))]),
    )
    return Region(coefficients, known)


def beyond_the_generalist(phis: Floats, line: Candidates, utilities: Floats, max_kl: float) -> Region:
    """Return the box theta_gen + lambda_1 tau_1 + lambda_2 tau_2, lambda >= 0, beyond the best soup for equal weights.

    The square root of KL is a length to second order, so that along tau_i the budget is met at the latest at
    lambda_i = (sqrt(max_kl) - sqrt(KL(theta_gen))) / sqrt(KL(expert i)). A generalist that exceeds the budget leaves no
    room beyond it: then the box is what lies between it and the reference policy.
    """
    best = int(np.argmax(utilities.mean(axis=1)))
    room = math.sqrt(max_kl) - math.sqrt(max(line.points[best].kl, 0.0))
    experts = [line.points[int(np.argmax(phis[:, i]))] for i in range(2)]
    outwards = [min(FURTHEST, MARGIN * room / math.sqrt(max(e.kl, 1e-12))) for e in experts]
    high = outwards if room > 0 else -phis[best]
    known = Known(np.zeros((1, 2)), np.append(utilities[best], line.points[best].kl - max_kl)[None])
    return Region(lambda unit: phis[best] + unit * high, known)
