"""`run.json` as types: how a run came about, what is missing, how it measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from peo_bench.results.judge_records import JudgingRecord
from peo_bench.results.measure import Measure
from peo_bench.results.record import SCHEMA_VERSION, MethodName, Number, Record


class ObjectiveRecord(Record):
    """An objective of the task."""

    name: str
    """What was asked for, `helpful` for instance."""
    column: str
    """Column of its score."""
    maximise: bool
    """Whether higher is better."""


class Counts(Record):
    """How many results there are: operating points, verdicts of judges, and whatever else is measured by policy.

    `expected` is the sum of `ok` and `missing`.
    """

    expected: int
    """Results wanted."""
    ok: int
    """Results there are."""
    missing: int
    """Results that are missing."""
    by_reason: Mapping[str, int] = {}
    """How many are missing for each reason; their sum is `missing`."""

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both runs together."""
        reasons = Counter(self.by_reason) + Counter(other.by_reason)
        total = {name: getattr(self, name) + getattr(other, name) for name in ("expected", "ok", "missing")}
        return Counts(**total, by_reason=reasons)


class Missing(Record):
    """An entry of `missing`."""

    what: str
    """The result."""
    reason: str
    """Why it is missing."""
    n: int = 1
    """How many results that is."""
    stage: str | None = None
    """`judge` for verdicts, which are no operating points."""


class Scale(Record):
    """How a scorer's scores of the reference policy's validation answers are distributed."""

    mean: Number
    """Their mean."""
    sd: Number
    """Their standard deviation."""


class ScorerRecord(Record):
    """What scored a column; the checks are of checkpoints of others, see [scorers.md](scorers.md)."""

    better: Literal["higher", "lower"] | None
    """The better direction; null for a column of no objective."""
    layout: str
    """`registered`, `trained` in the run, or the layout of a checkpoint."""
    source: str
    """The registered name, the job that trained it, or where the checkpoint came from."""
    held_out_accuracy: Number = None
    """Share of held-out pairs that a scorer trained in the run gets right."""
    template: str | None = None
    """Template of prompt and answer."""
    dtype: str | None = None
    """Number format of the weights."""
    max_length: int | None = None
    """Tokens of its context."""
    labels: int | None = None
    """Outputs of its head."""
    licence: str | None = None
    """Licence of the checkpoint."""
    batch_gap: Number = None
    """Largest difference between a text scored alone and in a batch."""
    label: int | None = None
    """The output that is this column."""
    anchors: Mapping[str, JsonValue] | None = None
    """Pairs whose order is known, and how many it gets right."""
    scale: Scale
    """`mean` and `sd` of the reference policy's validation answers."""
    cut: int
    """Texts longer than its context."""
    scored: int
    """Texts it scored."""


class Hardware(Record):
    """What the run was computed on."""

    platform: str
    """Operating system."""
    python: str
    """Version of Python."""
    cpus: int | None
    """Cores."""
    gpus: tuple[str, ...]
    """Names of the GPUs."""
    threads: int | None = None
    """Threads that each job of this invocation computed with; sums of another number differ in their last bits."""


class ComparedRun(Record):
    """A run of a comparison."""

    label: str
    """The name it goes by."""
    folder: str
    """Where it was read."""
    command: str
    """The command that made it."""
    config_sha256: str
    """Digest of its config.yaml."""


class RunRecord(Record):
    """All of `run.json`."""

    schema_version: int = SCHEMA_VERSION
    """1."""
    peo_bench: str
    """Version of peo-bench."""
    command: str
    """What was typed."""
    suite: str
    """The suite; `comparison` for runs side by side."""
    title: str
    """The suite's title."""
    model: str
    """Base model."""
    task: str
    """The task, under `tasks` in `metrics.json`."""
    task_version: int
    """Its version."""
    licence: str
    """Licence of the task's data."""
    methods: tuple[MethodName, ...]
    """Methods asked for."""
    controls: tuple[MethodName, ...]
    """Methods that come with them for free."""
    external: tuple[MethodName, ...] = ()
    """Finished policies given with `--policy` or `--answers`."""
    stand_in: MethodName | None = None
    """The one of them whose answers stand in for the reference policy, where a run has none."""
    seed: int | None = None
    """The first training seed; absent in comparisons."""
    seeds: tuple[int, ...]
    """Training seeds."""
    objectives: tuple[ObjectiveRecord, ...]
    """The task's objectives: `name`, `column`, `maximise`."""
    status: Literal["complete", "incomplete"]
    """Whether anything is missing."""
    counts: Counts
    """Results `expected`, `ok` and `missing`, and what is missing `by_reason`."""
    missing: tuple[Missing, ...]
    """`what` is missing, its `reason`, `n` results and, for verdicts, the `stage` judge."""
    failed_jobs: Mapping[str, str] = {}
    """Reason by job."""
    reused_artefacts: int = 0
    """Finished jobs found in the cache."""
    underpowered: str | Literal[False]
    """What few test prompts mean for differences; false where there are enough."""
    limited: int | None
    """Value of `--limit`; null without."""
    substituted: str | None = None
    """`tiny` where made-up stand-ins took the place of the suite's checkpoints and data: the numbers mean nothing."""
    notes: tuple[str, ...]
    """What a reader must know."""
    scorers: Mapping[int, Mapping[str, ScorerRecord]] = {}
    """By seed and column what scored, its checks and its scale."""
    packages: Mapping[str, str | None]
    """Versions; null for what is not installed."""
    hardware: Hardware | None
    """What it was computed on; null for a leaderboard."""
    stages: Mapping[str, float]
    """Wall seconds by stage of this invocation."""
    finished: str
    """When (ISO 8601, UTC)."""
    judging: JudgingRecord | None = None
    """With judges: `spent_usd` of this invocation and the counts of each judge."""
    job_seconds: Mapping[str, float]
    """Seconds of work by kind of job, when it was done."""
    measure: Measure | None = None
    """How it measured: two runs can be compared where this is equal."""
    compared: tuple[ComparedRun, ...] | None = None
    """The runs of a comparison."""

    @property
    def asked(self) -> tuple[str, ...]:
        """What was asked for: methods and given policies, without the controls that come with them."""
        return (*self.methods, *self.external)
