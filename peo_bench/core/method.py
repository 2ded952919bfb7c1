"""A method: a preference space, a generator of rounds of jobs, a pure map from preference to policy spec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from peo_bench.core import roles
from peo_bench.core.decoding import Decoding, sampling_params
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import PolicySpec
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.process import Precision


@dataclass(frozen=True)
class Objective:
    """One objective: its name ("helpful"), the column of its score ("reward") and whether higher is better."""

    name: str
    column: str
    maximise: bool

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 for a cost: what turns a score into a reward."""
        return 1 if self.maximise else -1


@dataclass(frozen=True)
class World:
    """Everything a method may use, as jobs: the same for every method of a run.

    `proxies` are the scorers that search and selection see, by objective, in their direction.
    `evaluation` are checkpoints that give the reported scores, by column; methods leave them alone. `prompts` holds the
    validation and test prompts; a method sees the validation split only. `labels_on_both` says that every pair carries
    the label of every objective. `max_kl` is the KL budget of every search, in nats; None leaves it to the methods.
    `given` are finished policies by name, which compete as they are. In a world of given answers only, `reference` is
    the job of the first of them, `pairs` are absent, and so are `proxies` but those that give the reported scores.
    """

    reference: Job
    objectives: tuple[Objective, ...]
    pairs: Mapping[str, Job]
    proxies: Mapping[str, Job]
    prompts: Job
    preferences: tuple[Preference, ...]
    training: Mapping[str, Any]
    decoding: Decoding
    seed: int
    validation_prompts: int
    precision: Precision = "float32"
    max_kl: float | None = None
    labels_on_both: bool = False
    experts: Mapping[str, Job] = field(default_factory=dict)
    evaluation: Mapping[str, Job] = field(default_factory=dict)
    given: Mapping[str, Job] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The objectives' names."""
        return [objective.name for objective in self.objectives]

    @property
    def sampling(self) -> JsonObject:
        """How jobs sample, as their parameters."""
        return {**sampling_params(self.decoding, self.precision), "seed": self.seed}

    @property
    def plain_training(self) -> JsonObject:
        """The training settings without phase 1's learner, for methods that have a loss of their own."""
        return {key: value for key, value in self.training.items() if not key.startswith("learner")}

    def aspect(self, objective: str) -> Job:
        """Return phase 1 for one objective: the expert given by the user, else DPO on its pairs."""
        return self.experts[objective] if objective in self.experts else self.dpo(objective)

    def dpo(self, objective: str, **changes: Json) -> Job:
        """Return DPO on one objective's pairs, with `changes` to its parameters."""
        params = {"objective": objective, "seed": self.seed, **self.training, **changes}
        needs = self.compared(objective)
        if params.get("learner") == "kto":  # it reads answers by themselves, and some with other prompts
            del needs[roles.LOG_PROBS]
        return Job("aspect", params, needs)

    def compared(self, objective: str) -> dict[str, Job]:
        """Return what a training on one objective's pairs needs that compares with the reference policy."""
        shared = self.log_probs(objective)
        return {**shared.needs, roles.LOG_PROBS: shared}

    def log_probs(self, objective: str, policy: Job | None = None) -> Job:
        """Return what computes the log-probabilities of an objective's pairs, for all trainings that need them.

        Under the reference policy, or under `policy`.
        """
        params = {"objective": objective, **{name: self.training[name] for name in READ if name in self.training}}
        needs = {"reference": self.reference, "pairs": self.pairs[objective]}
        return Job("log-probs", params, needs | ({} if policy is None else {"policy": policy}))

    @property
    def aspects(self) -> list[Job]:
        """Phase 1 of every objective, in their order."""
        return [self.aspect(objective.name) for objective in self.objectives]

    def validation_job(self, kind: str, params: Mapping[str, Json], deltas: Iterable[Job], **needs: Job) -> Job:
        """Return a job that scores policies, made of the reference and `deltas`, on validation prompts.

        It sees the proxies only, and what else it `needs`.
        """
        scorers = {roles.scorer(objective.column): self.proxies[objective.name] for objective in self.objectives}
        needs |= {"reference": self.reference, "prompts": self.prompts, **scorers}
        shared = {**self.sampling, "n_prompts": self.validation_prompts}
        return Job(kind, {**shared, **params}, needs | {roles.delta(i): job for i, job in enumerate(deltas)})


READ = ("form", "precision", "batch_size", "micro_batch_size", "max_length", "attention", "quantization")
"""Training settings on which it depends how pairs are read, to the last bit."""


@dataclass(frozen=True)
class PolicyFamily:
    """A trained method: `at` maps a preference of `space` to the spec of the policy that the method offers for it.

    `coefficients(preference)` gives, where it exists, the coefficient per objective on the experts' task vectors.
    `mixes` says that policies mix log-probabilities. `chosen` is what validation chose, for people to read.
    """

    space: Space
    at: Callable[[Preference], PolicySpec]
    coefficients: Callable[[Preference], tuple[float, ...]] | None = None
    mixes: bool = False
    chosen: Mapping[str, Json] = field(default_factory=dict)

    def resolve(self, preference: Preference, prompt: str | None = None) -> PolicySpec:
        """Return the policy for `preference` (projected first); pure. `prompt` is for families that look at it."""
        return self.at(self.space.project(preference))


@dataclass(frozen=True)
class Round:
    """Jobs that can be named now. `later` bounds the cost of all rounds after this one, so `plan` sees past it."""

    jobs: list[Job]
    later: Cost = field(default_factory=Cost)


Build = Generator[Round, Mapping[str, Handle], PolicyFamily]
"""Yields rounds, is sent the handles of all jobs so far by id, returns the family."""


class MethodSettings(BaseModel):
    """A method's settings: `--set method.key=value`; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Method(ABC):
    """One alignment method. Subclass it in one file; the class docstring's first line appears in `list methods`.

    `trains`, `costs` (for two objectives; 1 U is the training of one expert), `exact` (what follows the paper to the
    letter) and `ours` (what the paper leaves open, or we do otherwise) are the columns of docs/methods.md.

    `needs_pairs`: it, or the experts that it starts from, are trained on pairs; else prompts will do.

    `wraps`: it is written `name.method` and works on that method's family; with `wraps_reference` also `name` alone,
    which wraps the reference policy. `expo_adds`: ExPO on it is a control that would tell something; not where it
    chooses a strength itself, or cannot be wrapped.
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    trains: ClassVar[str] = ""
    costs: ClassVar[str] = ""
    exact: ClassVar[str] = ""
    ours: ClassVar[str] = ""
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    needs_pairs: ClassVar[bool] = True
    needs_labels_on_both: ClassVar[bool] = False
    wraps: ClassVar[bool] = False
    wraps_reference: ClassVar[bool] = False
    expo_adds: ClassVar[bool] = True

    def __init__(self, settings: MethodSettings | None = None, inner: Method | None = None) -> None:
        """Use `settings`, by default the published or documented values; `inner` is what a wrapper wraps."""
        self.settings: Any = settings or self.Settings()
        self._inner = inner

    @property
    def inner(self) -> Method:
        """The wrapped method, for wrappers."""
        assert self._inner is not None, f"{self.name} wraps no method"
        return self._inner

    @property
    def candidates(self) -> int:
        """The most answers that one of the method's policies generates to give one; more than 1: it selects."""
        return 1

    @abstractmethod
    def build(self, world: World) -> Build:
        """Yield rounds of jobs and return the family; replays identically from cached artefacts."""
