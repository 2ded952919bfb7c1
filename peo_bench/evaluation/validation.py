"""Score policies on validation prompts with the proxy scorers: what selection and search may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from peo_bench.core import roles
from peo_bench.core.decoding import decoding_of, sampling_params
from peo_bench.core.method import Objective, World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import PolicySpec, Utility, policy, spec_from_json
from peo_bench.evaluation.generation import charge, generate, make_engine, read_prompts, score
from peo_bench.files.journal import Journal
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.scorers.columns import count_scorers, scorer_columns

Floats = npt.NDArray[np.float64]
Point = dict[str, float]
"""Validation means by score column ("reward", "cost")."""


def validation_bound(world: World, evaluations: int) -> Cost:
    """Return the most that scoring `evaluations` policies (and the reference) on validation prompts can cost."""
    return _bound(evaluations, world.validation_prompts, world.decoding.max_new_tokens, len(world.objectives))


def _bound(evaluations: int, prompts: int, tokens: int, scorers: int) -> Cost:
    answers = (evaluations + 1) * prompts
    return Cost(
        responses=answers,
        tokens_generated=answers * tokens,
        scorer_calls=answers * scorers,
        evaluations=evaluations + 1,
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

    def scores(self, specs: Sequence[PolicySpec], journal: Journal | None = None) -> dict[str, Floats]:
        """Return by column the scores of every answer, shape (n_specs, n_prompts); `journal` keeps the answers."""
        requests, responses = generate(
            self.engine, specs, self.prompts, self.decoding, journal, self.work.progress, "candidates"
        )
        columns = score(self.scorers, requests, responses).columns
        self.cost = self.cost + charge(requests, responses, count_scorers(self.scorers), len(specs))
        return {name: np.asarray(values).reshape(len(specs), -1) for name, values in columns.items()}

    def points(self, specs: Sequence[PolicySpec], journal: Journal | None = None) -> list[Point]:
        """Return the validation means of every policy; `journal` keeps the answers."""
        columns = self.scores(specs, journal)
        return [{name: float(values[i].mean()) for name, values in columns.items()} for i in range(len(specs))]

    def reference_units(self) -> dict[str, list[float]]:
        """Return by column [mean, standard deviation over prompts] of the reference policy's scores."""
        columns = self.scores([self.reference])
        return {name: [float(values.mean()), float(values.std(ddof=1))] for name, values in columns.items()}


def utility_scores(
    points: Sequence[Point], reference: Mapping[str, Sequence[float]], objectives: Sequence[Objective]
) -> Floats:
    """Return (n_points, n_objectives) validation means in units of the reference policy, higher is better.

    Each column is z-scored by the reference's mean and standard deviation; a cost is negated.
    """

    def scaled(point: Point, objective: Objective) -> float:
        mean, deviation = reference[objective.column]
        return objective.sign * (point[objective.column] - mean) / deviation

    return np.asarray([[scaled(point, objective) for objective in objectives] for point in points])


def answer_utility(world: World, preference: Preference, reference: Mapping[str, Sequence[float]]) -> Utility:
    """Return `preference` . `utility_scores` as a function of single answers, by the proxy scorers.

    The reference's means shift the utilities of all answers alike and are left out.
    """

    def name(objective: Objective) -> str:
        job = world.scorers[objective.name]
        return job.id if job.kind == "reward-model" else f"{job.id}/{objective.column}"

    return Utility(
        tuple(
            (name(objective), objective.sign * preference[objective.name] / reference[objective.column][1])
            for objective in world.objectives
        )
    )


@job_kind(
    "candidates",
    version=1,
    bound=job_bound(lambda job: len(job.params["specs"])),
    defaults=sampling_params(),
    keeps="result",
)
def score_candidates(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Score the policies `params["specs"]`, maybe none; the result: their `points` and the `reference`'s units."""
    validator = Validator(job, inputs, work)
    specs = [spec_from_json(value) for value in job.params["specs"]]
    journal = Journal(work.scratch / "answers.jsonl")
    points = validator.points(specs, journal) if specs else []
    result: JsonObject = {"reference": validator.reference_units(), "points": points}
    work.charge(validator.cost)
    return result
