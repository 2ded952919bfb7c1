"""Jobs: content-addressed pieces of work, and the kinds that carry them out.

The identity of a job is everything that changes its output: its kind, that kind's version (an integer raised by hand
when the algorithm changes), its parameters and the identities of the jobs it needs. Parameters at their defaults are
left out of it, so that an option added later, with the default that changes nothing, leaves all earlier jobs as they
are. Equal jobs of different methods are one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from peo_bench.files.digest import digest
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.jobs.kinds import JOB_KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peo_bench.jobs.store import Store
    from peo_bench.jobs.workspace import Progress, Workspace


@dataclass(frozen=True)
class Cost:
    """What a piece of work costs. Counts, so that two machines agree; seconds are measured by the store.

    `pairs_trained` counts preference pairs passed through a backward pass (epochs included), `examples_trained` the
    same for single answers (supervised, or the policy's own), `answers` generated, `tokens_generated` their
    tokens, `scorer_calls` texts given to a reward or cost model, `kl_tokens` answer tokens whose next-token
    distributions were compared with the reference policy's.
    """

    pairs_trained: int = 0
    examples_trained: int = 0
    answers: int = 0
    tokens_generated: int = 0
    scorer_calls: int = 0
    kl_tokens: int = 0
    evaluations: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the sum, count by count."""
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Cost)})

    def to_json(self) -> dict[str, int]:
        """Return the non-zero counts."""
        return {name: count for name, count in asdict(self).items() if count}


@dataclass(frozen=True, eq=False)
class Job:
    """A piece of work: `params` are JSON values, `needs` maps a role ("reference", "pairs", ...) to another job.

    What `params` leaves out has the kind's default; inside mappings too.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in defaults."""
        object.__setattr__(self, "params", _completed(self.params, JOB_KINDS.get(self.kind).defaults))

    @cached_property
    def id(self) -> str:
        """`<kind>-<16 hex digits>`."""
        needs = {role: job.id for role, job in self.needs.items()}
        return job_id(self.kind, JOB_KINDS.get(self.kind).version, self.params, needs)

    def __eq__(self, other: object) -> bool:
        """Jobs with the same id are the same job."""
        return isinstance(other, Job) and self.id == other.id

    def __hash__(self) -> int:
        """Hash the id."""
        return hash(self.id)

    @property
    def label(self) -> str:
        """A short name for people: the kind with what tells its jobs of one run apart."""
        parts = [self.params.get(name) for name in JOB_KINDS.get(self.kind).label]
        return " ".join([self.kind, *(str(part) for part in parts if part is not None)])

    @property
    def bound(self) -> Cost:
        """Upper bound of this job's own cost, known before it runs."""
        return JOB_KINDS.get(self.kind).bound(self)


def job_id(kind: str, version: int, params: Mapping[str, Json], needs: Mapping[str, str]) -> str:
    """Return the id of a job whose needs have these ids, by role."""
    return f"{kind}-{digest([kind, version, _departures(params, JOB_KINDS.get(kind).defaults), dict(needs)])}"


def _completed(given: Mapping[str, Json], defaults: Mapping[str, Json]) -> JsonObject:
    """Return `given` with the defaults of what it leaves out, key by key inside mappings too."""
    found: JsonObject = {**defaults, **given}
    for key, default in defaults.items():
        own = found[key]
        if isinstance(default, Mapping) and isinstance(own, Mapping):
            found[key] = _completed(own, default)
    return found


def _departures(params: Mapping[str, Json], defaults: Mapping[str, Json]) -> JsonObject:
    """Return what in `params` is not as in `defaults`, key by key inside mappings too."""
    found: JsonObject = {}
    for key, value in params.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            inner = _departures(value, default)
            found |= {key: inner} if inner else {}
        elif key not in defaults or _text(value) != _text(default):
            found[key] = value
    return found


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


@dataclass(frozen=True)
class Handle:
    """A finished artefact: where it lies, its small JSON `result`, what it cost and how long it took (seconds).

    `versions` are those of the packages it was made with.
    """

    id: str
    path: Path
    result: dict[str, Any]
    cost: Cost
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)


Keeps = Literal["weights", "result", "nothing"]
Run: TypeAlias = "Callable[[Job, Mapping[str, Handle], Workspace], Mapping[str, Json]]"
"""Does a job: `run(job, inputs, work)` returns the result."""

Outline: TypeAlias = "Callable[[Job], PreTrainedModel | None]"
"""Tells the model that a job will give, without its weights (on the meta device); None where it is not known yet."""

TokenizerOutline: TypeAlias = "Callable[[Job], PreTrainedTokenizerBase | None]"
"""Tells the tokenizer that a job will give; None where it is not known yet."""


@dataclass(frozen=True)
class JobKind:
    """How jobs of one kind are done.

    `run(job, inputs, work)` writes files into `work.dir` and returns the JSON result; `inputs` maps the roles of
    `job.needs` to handles. `bound(job)` is an upper bound of the cost. `defaults` are the values of parameters that a
    job leaves out. Whoever adds a parameter gives it here the value that leaves earlier results as they were.

    `keeps` says what a finished run keeps of such a job, to steer and export: "weights", as a policy may be made of
    them; "result", where a method asked for it in a round, as its family is built from it; or "nothing". Jobs of a
    `common` kind are what every method starts from; they are charged to none. `label` names the parameters that tell
    the jobs of one run apart.

    `result` is the type of the result, as pydantic reads types (a strict model, say): an artefact with another one is
    damaged.

    `outline(job)` is the language model in such a job's artefact, without its weights, and `tokenizer(job)` the
    tokenizer beside it: what is given as a change of it is checked before anything is done.

    Kinds whose jobs gain from being done in one batch have `together(store, jobs, progress)`, which stores the
    artefacts of jobs with equal `batch(job)`.
    """

    name: str
    version: int
    run: Run
    bound: Callable[[Job], Cost]
    defaults: Mapping[str, Json] = field(default_factory=dict)
    keeps: Keeps = "weights"
    common: bool = False
    label: tuple[str, ...] = ()
    together: Callable[[Store, list[Job], Progress], None] | None = None
    batch: Callable[[Job], str] = lambda job: job.kind
    result: Any = dict[str, Any]
    outline: Outline = lambda job: None
    tokenizer: TokenizerOutline = lambda job: None


def never_alone(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Stand in as `run` of a kind whose jobs are always done `together`."""
    raise AssertionError(f"jobs of kind {job.kind!r} are done together")


def job_kind(
    name: str,
    *,
    version: int,
    bound: Callable[[Job], Cost] = lambda job: Cost(),
    defaults: Mapping[str, Json] | None = None,
    keeps: Keeps = "weights",
    common: bool = False,
    label: tuple[str, ...] = (),
) -> Callable[[Run], JobKind]:
    """Turn a function `run(job, inputs, work) -> result` into the `JobKind` called `name`.

    The kind becomes known by an entry in `peo_bench.jobs.kinds` or by the entry-point group "peo_bench.job_kinds".
    """
    return lambda run: JobKind(name, version, run, bound, defaults or {}, keeps, common, label)


def resulting(result: type) -> Callable[[JobKind], JobKind]:
    """Say of which type a kind's results are; stands above `job_kind`."""
    return lambda kind: replace(kind, result=result)


def outlined(outline: Outline, tokenizer: TokenizerOutline) -> Callable[[JobKind], JobKind]:
    """Say which language model and tokenizer a kind's artefacts hold; stands above `job_kind`."""
    return lambda kind: replace(kind, outline=outline, tokenizer=tokenizer)


def outline_of(job: Job) -> PreTrainedModel | None:
    """Return the language model that a job will give, without its weights; None where it is not known yet."""
    return JOB_KINDS.get(job.kind).outline(job)


def tokenizer_of(job: Job) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer that a job will give; None where it is not known yet."""
    return JOB_KINDS.get(job.kind).tokenizer(job)


def closure(jobs: list[Job]) -> list[Job]:
    """Return `jobs` and everything they need, each once, needs before the jobs that need them."""
    ordered: dict[str, Job] = {}

    def visit(job: Job) -> None:
        if job.id not in ordered:
            for need in job.needs.values():
                visit(need)
            ordered[job.id] = job

    for job in jobs:
        visit(job)
    return list(ordered.values())
