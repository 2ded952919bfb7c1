"""Score policies on validation prompts with the proxy scorers: what selection and search may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from peo_bench.core import roles
from peo_bench.core.decoding import decoding_of, sampling_params
from peo_bench.core.method import Objective, World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import PolicySpec, Utility, policy, spec_from_json
from peo_bench.evaluation.generation import charge, generate, make_engine, read_prompts, score
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind, resulting
from peo_bench.jobs.workspace import Workspace
from peo_bench.scorers.columns import count_scorers, scorer_columns

if TYPE_CHECKING:
    from peo_bench.engine.engine import Answer, Request

Floats = npt.NDArray[np.float64]
Z = 1.96
"""Half-width of the KL's interval, in standard errors."""
AT_MOST = 5
"""Preferences at which a search scores a family."""


@dataclass(frozen=True)
class Point:
    """What validation says of a policy: `scores` per prompt by column, KL(pi || ref) and its interval's upper end.

    In nats. The KL of a selection of candidates is its bound.
    """

    scores: Mapping[str, Sequence[float]]
    kl: float
    kl_upper: float

    def mean(self, column: str) -> float:
        """Return the mean over prompts of one column's scores."""
        return float(np.mean(self.scores[column]))


def point_from_json(values: Mapping[str, Any]) -> Point:
    """Return the point that `asdict` has written."""
    return Point(values["scores"], values["kl"], values["kl_upper"])


def validation_bound(world: World, evaluations: int) -> Cost:
    """Return the most that scoring `evaluations` policies on validation prompts can cost."""
    return _bound(evaluations, world.validation_prompts, world.decoding.max_new_tokens, len(world.objectives))


def _bound(evaluations: int, prompts: int, tokens: int, scorers: int) -> Cost:
    answers = evaluations * prompts
    return Cost(
        answers=answers,
        tokens_generated=answers * tokens,
        scorer_calls=answers * scorers,
        kl_tokens=answers * tokens,
        evaluations=evaluations,
    )


def job_bound(evaluations: Callable[[Job], int]) -> Callable[[Job], Cost]:
    """Return the `bound` of a job kind that scores `evaluations(job)` policies on validation prompts."""

    def bound(job: Job) -> Cost:
        tokens = decoding_of(job.params).max_new_tokens
        return _bound(evaluations(job), job.params["n_prompts"], tokens, len(roles.scorers(job.needs)))

    return bound


class Validator:
    """Scores policies on the validation prompts of a job that `World.validation_job` made."""

    def __init__(self, job: Job, inputs: Mapping[str, Handle], work: Workspace) -> None:
        """Load the scorers; `cost` is what the evaluations have cost so far."""
        by_id = {handle.id: handle for handle in inputs.values()}
        precision = job.params["precision"]
        self.work = work
        self.cost = Cost()
        self.engine = make_engine(by_id.__getitem__, inputs["reference"].id, precision, job.params["seed"])
        self.prompts = read_prompts(inputs["prompts"], "validation", job.params["n_prompts"])
        self.decoding = decoding_of(job.params)
        self.scorers = scorer_columns(roles.scorers(inputs), precision)
        self.reference = policy(inputs["reference"].id)

    def scores(self, specs: Sequence[PolicySpec], kept: Memo = FORGETFUL) -> dict[str, Floats]:
        """Return by column the scores of every answer, shape (n_specs, n_prompts), and keep what they took."""
        return self._score(*self._answer(specs, kept), len(specs), kept)

    def _answer(self, specs: Sequence[PolicySpec], kept: Memo) -> tuple[list[Request], list[Answer]]:
        memos, point = [kept] * len(specs), "candidates"
        return generate(self.engine, specs, self.prompts, self.decoding, memos, self.work.progress, point)

    def _score(self, requests: list[Request], answers: list[Answer], n: int, kept: Memo) -> dict[str, Floats]:
        columns = score(self.scorers, requests, answers, kept).columns
        self.cost = self.cost + charge(requests, answers, count_scorers(self.scorers), n)
        return {name: np.asarray(values).reshape(n, -1) for name, values in columns.items()}

    def points(self, specs: Sequence[PolicySpec], kept: Memo) -> list[Point]:
        """Return what validation says of every policy, and keep what it took: answers, scores and KL."""
        requests, answers = self._answer(specs, kept)
        columns = self._score(requests, answers, len(specs), kept)
        kl = self._kl(requests, answers, kept).reshape(len(specs), -1)
        error = kl.std(axis=1, ddof=1) / np.sqrt(kl.shape[1])
        return [
            Point({name: values[i].tolist() for name, values in columns.items()}, float(kl[i].mean()), float(upper))
            for i, upper in enumerate(kl.mean(axis=1) + Z * error)
        ]

    def _kl(self, requests: list[Request], answers: list[Answer], kept: Memo) -> Floats:
        """Return the KL of every answer (the bound for selections), policy by policy as the report computes it."""
        n = len(self.prompts)
        kl: list[float] = []
        for i in range(0, len(requests), n):
            own, theirs = requests[i : i + n], answers[i : i + n]
            compute = self.engine.kl_bound if own[0].spec.candidates else self.engine.kl
            kl += compute(own, theirs, self.reference, kept)
            if own[0].spec != self.reference:
                self.cost = self.cost + Cost(kl_tokens=sum(len(answer.tokens) for answer in theirs))
        return np.asarray(kl)

    def reference_units(self, kept: Memo) -> dict[str, list[float]]:
        """Return by column [mean, standard deviation over prompts] of the reference policy's scores."""
        columns = self.scores([self.reference], kept)
        return {name: [float(values.mean()), float(values.std(ddof=1))] for name, values in columns.items()}


def prompt_utilities(
    points: Sequence[Point], reference: Mapping[str, Sequence[float]], objectives: Sequence[Objective]
) -> Floats:
    """Return (n_points, n_prompts, n_objectives) validation scores in units of the reference policy, higher is better.

    Each column is z-scored by the reference's mean and standard deviation; a cost is negated.
    """

    def scaled(point: Point, objective: Objective) -> Floats:
        mean, deviation = reference[objective.column]
        return np.asarray(objective.sign * (np.asarray(point.scores[objective.column]) - mean) / deviation)

    return np.asarray([np.stack([scaled(point, objective) for objective in objectives], axis=1) for point in points])


def utility_scores(
    points: Sequence[Point], reference: Mapping[str, Sequence[float]], objectives: Sequence[Objective]
) -> Floats:
    """Return the (n_points, n_objectives) means over prompts of `prompt_utilities`."""
    return np.asarray(prompt_utilities(points, reference, objectives).mean(axis=1))


def answer_utility(world: World, preference: Preference, reference: Mapping[str, Sequence[float]]) -> Utility:
    """Return `preference` . `utility_scores` as a function of single answers, by the proxy scorers.

    The reference's means shift the utilities of all answers alike and are left out.
    """

    def name(objective: Objective) -> str:
        job = world.proxies[objective.name]
        return job.id if job.kind == "reward-model" else f"{job.id}/{objective.column}"

    return Utility(
        tuple(
            (name(objective), objective.sign * preference[objective.name] / reference[objective.column][1])
            for objective in world.objectives
        )
    )


def searched_preferences(world: World) -> tuple[Preference, ...]:
    """Return the preferences at which a search scores a family: the run's, of more than `AT_MOST` as many of them.

    Evenly spaced, so that what a search spends does not grow with what a run reports.
    """
    places = np.linspace(0, len(world.preferences) - 1, min(AT_MOST, len(world.preferences)))
    return tuple(world.preferences[i] for i in places.round().astype(int))


@dataclass(frozen=True)
class Candidates:
    """What a job "candidates" found: the reference's units (none without `params["units"]`) and a point per policy."""

    reference: Mapping[str, Sequence[float]]
    points: tuple[Point, ...]

    def utilities(self, objectives: Sequence[Objective]) -> Floats:
        """Return `utility_scores` of the points."""
        return utility_scores(self.points, self.reference, objectives)

    def steered(self, world: World) -> Floats:
        """Return the steered utility (k, n) of k families, each a point for all n `searched_preferences`."""
        asked = searched_preferences(world)
        utilities = self.utilities(world.objectives).reshape(-1, len(asked), len(world.objectives))
        return np.asarray(np.einsum("kno,no->kn", utilities, [w.weights for w in asked]))


def read_candidates(handle: Handle) -> Candidates:
    """Return the result of a job "candidates"."""
    return Candidates(handle.result["reference"], tuple(point_from_json(p) for p in handle.result["points"]))


class PointRecord(BaseModel, strict=True):
    """A point in the result of a job."""

    scores: dict[str, list[float]]
    kl: float
    kl_upper: float


class _Result(BaseModel, strict=True):
    reference: dict[str, list[float]]
    points: list[PointRecord]


@resulting(_Result)
@job_kind(
    "candidates",
    version=4,
    bound=job_bound(lambda job: len(job.params["specs"]) + job.params["units"]),
    defaults=sampling_params() | {"units": True},
    keeps="result",
)
def score_candidates(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Score the policies `params["specs"]`, maybe none, and with `params["units"]` the reference policy for its units.

    The result reads as `Candidates`.
    """
    validator = Validator(job, inputs, work)
    specs = [spec_from_json(value) for value in job.params["specs"]]
    kept = work.memo("kept")
    points = validator.points(specs, kept) if specs else []
    units = validator.reference_units(kept) if job.params["units"] else {}
    work.charge(validator.cost)
    return {"reference": units, "points": [asdict(point) for point in points]}
