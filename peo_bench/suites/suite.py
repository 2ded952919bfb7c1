"""The suite file's schema, loading and `--set`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, model_validator

from peo_bench.core.decoding import Decoding
from peo_bench.data.prompts import PromptSource
from peo_bench.data.schema import FRACTIONS, PairSource, Share
from peo_bench.errors import UsageError, unknown
from peo_bench.files.json_types import Json
from peo_bench.judges.settings import JudgeSettings
from peo_bench.registry import check_name
from peo_bench.scorers.settings import ScorerConfig, by_column, columns_of, from_text
from peo_bench.settings import Frozen, check, read_yaml
from peo_bench.suites import SUITES, TASKS
from peo_bench.training.settings import DPOSettings, RewardModelSettings, SFTSettings

Scorers = Annotated[
    dict[str, ScorerConfig], BeforeValidator(from_text, json_schema_input_type=dict[str, ScorerConfig | str])
]
"""Scorers by column; a plain name stands for a registered scorer."""


ENDINGS = (".yaml", ".yml")
"""Of the names of suite and task files."""
NAMED = ("sandbox", "smollm2")
"""Base models that have a name."""
POINTS = 5
"""Of the grid of preferences where neither the suite nor `--preferences` says how many."""
SCORED = ("scorers", "proxies")
"""A suite's keys that name scorers."""


class SandboxData(Frozen):
    """The embedded world: sizes of what is drawn from it."""

    kind: Literal["sandbox"]
    """`sandbox`."""
    corpus: int = Field(16000, gt=0)
    """Texts that the reference policy is trained on."""
    policy_prompts: int = Field(2560, gt=0)
    """Prompts whose pairs train policies."""
    scorer_prompts: int = Field(1536, gt=0)
    """Other prompts, whose pairs train the proxies."""
    oracle_prompts: int = Field(48, gt=1)
    """The first so many test prompts are the oracle's, a third per hazard class."""
    oracle_samples: int = Field(320, gt=1)
    """Answers of the reference policy to each of them, which the oracle weighs."""
    oracle_kl: tuple[float, ...] = (0.5, 1.0)
    """KL budgets of the oracle, in nats per answer."""


class PairsData(Frozen):
    """Preference pairs of one's own: sources for each objective, and how prompts are shared out by hash."""

    kind: Literal["pairs"]
    """`pairs`."""
    sources: tuple[PairSource, ...]
    """Where the pairs of each objective come from."""
    max_chars: int = Field(4000, gt=0)
    """Pairs with a prompt or an answer of more characters are left out, and counted."""
    pairs: int | None = Field(None, gt=0)
    """At most so many pairs per objective for policies, and as many for proxies; all by default."""
    splits: dict[Share, Annotated[float, Field(gt=0)]] = Field(
        default_factory=lambda: cast(dict[Share, float], dict(FRACTIONS)), exclude_if=lambda value: value == FRACTIONS
    )
    """Shares of the prompts, by a hash of their text: `policy` and `scorer` (to train on), `validation`, `test`.
    Without `scorer` every column needs a checkpoint among `scorers` or `proxies`.
    """

    @model_validator(mode="after")
    def _needed_shares(self) -> PairsData:
        missing = [name for name in FRACTIONS if name not in self.splits and name != "scorer"]
        if missing:
            raise ValueError(f"splits needs a share for {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _pairs_or_prompts(self) -> PairsData:
        if len({source.layout == "prompts" for source in self.sources}) > 1:
            raise ValueError("layout prompts has no answers: give all of sources that layout, or none of them")
        return self


class EngineSettings(Frozen):
    """Where and in which batches is computed. No part of what a result is: it is not computed again elsewhere."""

    device: Literal["cpu", "cuda"] | None = None
    """By default CUDA where there is a device (CUDA_VISIBLE_DEVICES says which), else the CPU."""
    batch_size: int | None = Field(None, gt=0)
    """Answers that are generated at a time, at most: by default 1,024 for models of less than 50 MB and 64 for others,
    and half as many whenever memory runs out.
    """


class CapabilitySettings(Frozen):
    """Which policies `--capabilities` measures, and on how much."""

    limit: int = Field(200, gt=1)
    """Items of each lm-eval task."""
    preferences: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.0, 0.5, 1.0)
    """Weights of helpfulness at which methods are measured."""


HANDLED = ("helpful", "harmless")
"""Names of the objectives that a task has; three, or others, would be accepted by nothing that comes after training."""


RESERVED = frozenset(
    (
        *("task", "split", "method", "seed", "grid", "preference", "spec_key", "prompt_id", "prompt", "category"),
        *("answer", "length", "truncated", "kl", "kl_se", "kl_bound", "n", "ess", "hollow", "nondominated"),
    )
)
BEFORE, AFTER = ("preference_", "projected_", "coef_"), ("_se", "_proxy")
"""Names of what tables hold beside scores, and how other such names begin and end."""


class ObjectiveConfig(Frozen):
    """One objective of a task: the score column and its direction."""

    name: str
    """`helpful` or `harmless`."""
    column: str
    """The column of its score."""
    maximise: bool
    """Whether higher scores are better."""


class TaskConfig(Frozen):
    """What is measured: peo-bench's part of a task file, under the key `metadata` of an lm-eval YAML."""

    version: int
    """Its version; boards are by task and version."""
    licence: str
    """The licence of the task's data."""
    objectives: tuple[ObjectiveConfig, ...] = Field(min_length=2)
    """The two objectives."""
    reference_point: dict[str, float]
    """By column, the point that bounds the hypervolume."""
    units: Literal["raw", "reference"]
    """Of the reference point: raw scores, or standard deviations of the reference policy's validation scores around
    their mean.
    """
    scorers: Scorers = {}
    """The scorer of each column; columns without one are scored by the run's own reward and cost models."""
    prompts: PromptSource | None = None
    """The task's own prompts; by default they come from the suite's data."""
    benign: PromptSource | None = None
    """Prompts that nobody should refuse, for the over-refusal rate."""
    benign_categories: tuple[str, ...] = ()
    """Categories of the task's own prompts that nobody should refuse."""
    template: Literal["chat"] = "chat"
    """`chat`: the tokenizer's chat template with one user message."""
    decoding: Decoding | None = None
    """How answers are sampled where a suite does not say."""
    refusals: Literal["text", "sandbox"] = "text"
    """How refusals are recognised: by phrases of their text, or by the grammar of the sandbox."""

    @model_validator(mode="after")
    def _one_scorer_each(self) -> TaskConfig:
        by_column(self.scorers)
        return self

    @model_validator(mode="after")
    def _handled(self) -> TaskConfig:
        """Refuse what tables, steering and the report cannot name yet: the only place that knows the two objectives."""
        names = [objective.name for objective in self.objectives]
        if sorted(names) != sorted(HANDLED):
            raise ValueError(f"the objectives are {' and '.join(HANDLED)}, in either order, found {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _columns_of_their_own(self) -> TaskConfig:
        columns = [objective.column for objective in self.objectives]
        for column in columns:
            if columns.count(column) > 1:
                raise ValueError(f"two objectives have the column {column!r}: give each its own")
            if column in RESERVED or column.startswith(BEFORE) or column.endswith(AFTER):
                raise ValueError(f"column {column!r} is one that every table has: call the score something else")
        return self

    @model_validator(mode="after")
    def _bounded_by_column(self) -> TaskConfig:
        columns = {objective.column for objective in self.objectives}
        if self.reference_point.keys() != columns:
            given = ", ".join(sorted(self.reference_point)) or "none"
            raise ValueError(f"reference_point needs the columns {', '.join(sorted(columns))}, it has {given}")
        return self


class SuiteConfig(Frozen):
    """A suite file: a base model, data, settings, and the task that says what is measured."""

    schema_version: Literal[1]
    """1."""
    name: str
    """Its name, part of the derived name of a run folder."""
    title: str
    """What `list suites` and the report say of it."""
    task: str
    """The task that says what is measured: a name, see `list tasks`, or the path of a task file."""
    task_definition: TaskConfig | None = Field(None, exclude_if=lambda value: value is None)
    """What the file said, where `task` was a path: written by peo-bench, so that a run's configuration is whole."""
    model: str
    """The base model: `sandbox`, `smollm2`, a folder or a hub id."""
    chat_template: str | None = Field(None, exclude_if=lambda value: value is None)
    """A chat template (Jinja, as tokenizers have them) for a base that has none, or in place of its own."""
    preferences: int = Field(POINTS, gt=1, exclude_if=lambda value: value == POINTS)
    """Points of the grid of preferences where `--preferences` is not given."""
    data: Annotated[SandboxData | PairsData, Field(discriminator="kind")]
    """Preference pairs, of the kind `sandbox` or `pairs`."""
    sft: SFTSettings = SFTSettings()
    """How the sandbox's reference policy is trained."""
    training: DPOSettings = DPOSettings()
    """How experts are trained, and what methods share with them."""
    reward_model: RewardModelSettings = RewardModelSettings()
    """How proxies and scorers are trained that no checkpoint gives."""
    decoding: Decoding = Decoding()
    """How answers are sampled; by default as the task says."""
    judge: JudgeSettings = JudgeSettings()
    """How judges are asked."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of all weights while policies generate and are scored; `auto`: bfloat16 on a CUDA device that computes in it,
    else float32.
    """
    engine: EngineSettings = Field(EngineSettings(), exclude_if=lambda value: value == EngineSettings())
    """Where and in which batches is computed, which changes no result but in its last digits."""
    scorers: Scorers = {}
    """Scorers in place of the task's, by column."""
    own_scorers: bool = False
    """Whether the run's own reward and cost models take the place of all of the task's scorers."""
    proxies: Scorers = {}
    """What search, selection and online training see, by column; columns without one are served by the checkpoint
    among the scorers that reports the column, and where there is none by a model that the run trains.
    """
    own_proxies: bool = Field(False, exclude_if=lambda value: not value)
    """Whether the run trains these models also where a checkpoint reports the column; the sandbox does.
    """
    validation_prompts: int = Field(128, gt=1)
    """Prompts on which methods search and select."""
    test_prompts: int = Field(256, gt=1)
    """Prompts that results rest on."""
    over_refusal_prompts: int = Field(0, ge=0)
    """Prompts of the task's benign set that every policy answers too."""
    capabilities: CapabilitySettings = CapabilitySettings()
    """What `--capabilities` measures."""
    notes: tuple[str, ...] = ()
    """Sentences that the report shows."""

    @model_validator(mode="after")
    def _one_scorer_each(self) -> SuiteConfig:
        by_column(self.scorers)
        by_column(self.proxies)
        return self

    @model_validator(mode="after")
    def _template_of_a_checkpoint(self) -> SuiteConfig:
        if self.chat_template is not None and self.model in NAMED:
            raise ValueError(f"chat_template: model {self.model} has its own: leave it out")
        return self

    @property
    def has_pairs(self) -> bool:
        """Whether the data has answers to compare, and not prompts alone."""
        return isinstance(self.data, SandboxData) or any(source.layout != "prompts" for source in self.data.sources)

    @property
    def labels_on_both(self) -> bool:
        """Whether every pair carries the labels of all objectives."""
        return isinstance(self.data, SandboxData) or all(source.labels_on_both for source in self.data.sources)


def load_suite(name_or_path: str) -> SuiteConfig:
    """Return the suite called `name_or_path`, or the one in the file of that path.

    Relative paths in a file (a task, checkpoints, data where there is no `--data-dir`) are relative to its folder.
    """
    beside = suite_folder(name_or_path)
    suite = read_yaml(Path(name_or_path) if beside else SUITES.get(name_or_path), SuiteConfig)
    check_name("suite", suite.name)
    if beside:
        own = {} if suite.model in NAMED else {"model": _beside(beside, suite.model)}
        suite = suite.model_copy(update=own | {key: _scorers(beside, getattr(suite, key)) for key in SCORED})
    suite = _with_task(suite, beside or Path())
    decoding = task_of(suite).decoding
    return (
        suite.model_copy(update={"decoding": decoding})
        if decoding and "decoding" not in suite.model_fields_set
        else suite
    )


def suite_folder(name_or_path: str) -> Path | None:
    """Return the folder of the suite's file, None for a registered suite."""
    path = Path(name_or_path)
    return path.absolute().parent if path.suffix in ENDINGS else None


def _with_task(suite: SuiteConfig, folder: Path) -> SuiteConfig:
    """Return the suite with what its task file says, if it names one, relative to `folder`."""
    path = folder / suite.task
    if path.suffix not in ENDINGS:
        return suite
    name = check_name("task", path.stem)
    if name in TASKS.names():
        raise UsageError(f"{path}: a task called {name} is registered: give the file another name")
    task = read_yaml(path, TaskConfig, "metadata")
    there = {key: _prompts(path.parent, folder, getattr(task, key)) for key in ("prompts", "benign")}
    task = task.model_copy(update=there | {"scorers": _scorers(path.parent, task.scorers)})
    return suite.model_copy(update={"task": name, "task_definition": task})


def _beside(folder: Path, place: str) -> str:
    """Return the absolute path of what lies at `place` in a folder, else `place`, which is an id or a path then."""
    return str(folder / place) if (folder / place).exists() else place


def _scorers(folder: Path, scorers: Mapping[str, ScorerConfig]) -> dict[str, ScorerConfig]:
    """Return scorers whose checkpoints lie in a folder by their absolute paths."""
    return {
        key: s if s.layout == "registered" else s.model_copy(update={"model": _beside(folder, s.model)})
        for key, s in scorers.items()
    }


def _prompts(task: Path, suite: Path, source: PromptSource | None) -> PromptSource | None:
    """Return a source whose path is relative to the suite's folder instead of the task's."""
    if source is None or source.path is None or task == suite:
        return source
    return source.model_copy(update={"path": os.path.relpath(task / source.path, suite)})


def load_task(name: str) -> TaskConfig:
    """Return peo-bench's part of the registered task called `name`."""
    return read_yaml(TASKS.get(name), TaskConfig, "metadata")


def task_of(suite: SuiteConfig) -> TaskConfig:
    """Return the task that the suite names, as it was given."""
    return suite.task_definition or load_task(suite.task)


def suite_task(suite: SuiteConfig) -> TaskConfig:
    """Return the suite's task with the suite's scorers in place of the task's."""
    task = task_of(suite)
    _check_named(suite, task)
    replaced = by_column(suite.scorers)
    theirs = {} if suite.own_scorers else task.scorers
    kept = {key: s for key, s in theirs.items() if not replaced.keys() & set(columns_of(key, s))}
    return task.model_copy(update={"scorers": kept | suite.scorers})


def _check_named(suite: SuiteConfig, task: TaskConfig) -> None:
    """Raise `UsageError` if the suite gives data or a scorer for an objective or a column that its task lacks."""
    names, columns = [o.name for o in task.objectives], [o.column for o in task.objectives]
    sources = suite.data.sources if isinstance(suite.data, PairsData) else ()
    for what, named, known in (
        ("objective in data.sources", [source.objective for source in sources], names),
        ("column in proxies", by_column(suite.proxies), columns),
        (
            "column in scorers",
            [key for key, s in suite.scorers.items() if not {*columns_of(key, s)} & {*columns}],
            columns,
        ),
    ):
        for name in named:
            if name not in known:
                raise UsageError(f"suite {suite.name}: {unknown(f'{what} for task {suite.task}', name, known)}")


def with_settings(suite: SuiteConfig, settings: Mapping[str, Json]) -> SuiteConfig:
    """Return the suite with dotted keys replaced, for instance {"training.beta": 0.3}."""
    value = suite.model_dump(mode="json")
    for key, replacement in settings.items():
        *parents, last = key.split(".")
        target = value
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise UsageError(f"--set {key}: {parent!r} is not a section; sections: {', '.join(_sections())}")
        target[last] = replacement
    if "task" in settings:
        value.pop("task_definition", None)
    return _with_task(check(value, SuiteConfig, "--set"), Path())


def _sections() -> list[str]:
    return [name for name, field in SuiteConfig.model_fields.items() if "Settings" in str(field.annotation)]
