"""`metrics.json` as types: indicators by method, comparisons, safety, capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, JsonValue

from peo_bench.results.judge_records import JudgeMetrics
from peo_bench.results.record import SCHEMA_VERSION, Count, MethodName, Number, Record

if TYPE_CHECKING:
    from peo_bench.pareto import Estimate

MeanSd = tuple[Number, Number]
"""Mean and standard deviation."""
Ends = tuple[float, float, float]
"""A value and the ends of its 95 % interval."""


class EstimateRecord(Record):
    """A statistic with its 95 % interval."""

    value: Number
    """The statistic of all test prompts."""
    ci_low: Number
    """Lower end of the 95 % interval."""
    ci_high: Number
    """Upper end of the 95 % interval."""
    bias: Number
    """Mean over resamples minus `value`: clearly positive where noise adds to it."""

    @classmethod
    def of(cls, estimate: Estimate) -> EstimateRecord:
        """Return an estimate without its resamples."""
        return cls(**estimate.as_dict())

    @property
    def ends(self) -> Ends | None:
        """Value and interval where all three are numbers."""
        if self.value is None or self.ci_low is None or self.ci_high is None:
            return None
        return self.value, self.ci_low, self.ci_high


class RankRange(Record):
    """The ranks by steered utility in 95 % of resamples."""

    best: Count
    """Least rank."""
    worst: Count
    """Greatest rank."""


class SteerabilityRecord(Record):
    """How a method answers to the asked weight; one entry per objective in the first four."""

    rank_correlation: tuple[Number, ...]
    """Spearman's correlation of weight and score, 1 is best; null where either does not vary."""
    violations: tuple[Count, ...]
    """Steps to the next higher weight that made the score worse."""
    steps: tuple[Count, ...]
    """Steps there are."""
    span: tuple[Number, ...]
    """Score at the highest weight minus score at the lowest, positive when steering works."""
    distinct: Number
    """Share of different policies among the preferences asked for."""
    coverage: Number
    """Share of the range of asked weights that the offered ones span."""


class AsPublished(Record):
    """`as_published` of a method: the two numbers that papers on steerable models give, in both units."""

    hypervolume_raw: Number = None
    """Hypervolume in raw scores, up to `raw` of `reference_points`."""
    hypervolume_reference: Number = None
    """Hypervolume in standard deviations of the reference policy, up to `reference` of `reference_points`."""
    inner_product_raw: Number = None
    """Mean inner product of asked weights and raw scores, minimised ones with a minus."""
    inner_product_reference: Number = None
    """The same in standard deviations of the reference policy: the steered utility."""


class MethodMetrics(Record):
    """An entry of `methods`: the indicators of one method or control."""

    hypervolume: EstimateRecord
    """Area that the front dominates up to the reference point."""
    steered_utility: EstimateRecord
    """Mean over preferences of weight times score of the policy offered for each, in reference units: the mean inner
    product (MIP) of the literature; verdicts rest on it.
    """
    expected_utility: EstimateRecord
    """The same with the best policy of the method for each preference, whoever was asked."""
    igd_plus: EstimateRecord | None = None
    """IGD+ to the front of all other methods; absent with one method."""
    additive_epsilon: EstimateRecord | None = None
    """Additive epsilon against the front of all other methods; absent with one method."""
    as_published: AsPublished | None = None
    """Hypervolume and mean inner product in both units, to be put beside the tables of papers."""
    rank: RankRange
    """Range of ranks among methods that differ: `best`, `worst`."""
    n_nondominated: Count
    """Policies that no other of the method dominates."""
    n_points: Count
    """Policies there are."""
    n_beyond_reference: Count
    """Policies beyond the reference point, which hypervolume ignores."""
    spacing: Number
    """Schott's spacing of the front."""
    sparsity: Number
    """Mean squared gap of the front; misleading, never rank by it."""
    oracle_distance: Number
    """IGD+ to the oracle's front; null where there is no oracle."""
    hypervolume_within_kl: tuple[Number, ...]
    """Hypervolume of the policies within each of `kl_budgets`; nulls where the KL is not known."""
    points_within_kl: tuple[Count, ...]
    """Number of these policies; nulls where the KL is not known."""
    front_within_kl: tuple[tuple[float, ...], ...]
    """Weights of the first objective on the front that they make."""
    steerability: SteerabilityRecord | None = None
    """How it answers to the asked weight; absent with one preference."""
    kl_mean: Number
    """Mean KL to the reference policy, nats per answer; null where only a bound is known, or nothing."""
    kl_bound_mean: Number = None
    """Mean of the KL or its upper bound, where only a bound is known."""
    length_mean: Number
    """Mean tokens per answer."""
    chosen: Mapping[str, JsonValue]
    """What validation chose, by seed: settings by name, among them the KL budget `max_kl` in nats."""
    validation_evaluations: Count = None
    """Policies that the search evaluated on validation prompts."""

    @property
    def measured(self) -> bool:
        """Whether the estimates that verdicts and scoreboard rest on are numbers."""
        return self.steered_utility.ends is not None and self.hypervolume.ends is not None


class Comparison(Record):
    """An entry of `comparisons`: the paired difference of two methods in steered utility."""

    a: MethodName
    """The one method."""
    b: MethodName
    """The other."""
    difference: Number
    """Steered utility of `a` minus that of `b`."""
    ci_low: Number
    """Lower end of its 95 % interval."""
    ci_high: Number
    """Upper end of its 95 % interval."""
    covers: str
    """What the interval covers: `prompts`, or `prompts and training seeds`."""
    p: Number
    """Two-sided p-value."""
    detectable: Number
    """With one seed the true difference that these prompts reveal 4 times out of 5, else null."""
    hypervolume_share: Number
    """Share of resamples in which `a` has the larger hypervolume (equal ones count half); no p-value."""
    p_holm: Number
    """The p-value, corrected by Holm for all pairs."""

    @property
    def ends(self) -> Ends | None:
        """Difference and interval where all three are numbers."""
        if self.difference is None or self.ci_low is None or self.ci_high is None:
            return None
        return self.difference, self.ci_low, self.ci_high


class SafetyRow(Record):
    """An entry of `safety`: one policy of one seed; what cannot be computed is absent."""

    method: MethodName
    """Its method."""
    seed: int
    """Training seed."""
    preference: Number
    """Asked weight of the first objective; null for single policies."""
    spec_key: str
    """Identity of the policy."""
    length_mean: Number
    """Mean tokens per answer to test prompts."""
    refusal_rate: Number = None
    """Share of the test prompts that may be refused (all but benign ones) that were."""
    over_refusal_rate: Number = None
    """Share of the benign prompts that were refused."""
    n_benign: Number = None
    """Number of benign prompts."""
    categories: Mapping[str, Number] | None = None
    """Mean cost by category of prompts."""
    safe_rate: Number = None
    """Share of answers on the safe side of the cost's border, see `safety_zero`."""


class ZeroFit(Record):
    """Where one seed's cost model has its border between safe and unsafe, fitted on labelled validation answers."""

    n_safe: int
    """Answers labelled safe."""
    n_unsafe: int
    """Answers labelled unsafe."""
    zero: Number
    """Cost of the border; null where none could be fitted."""
    reason: str | None = None
    """Why none could be fitted."""
    accuracy: Number = None
    """Mean of the shares of safe and of unsafe answers on the right side."""


class SafetyZero(Record):
    """`safety_zero`: where the border of the cost comes from."""

    source: Literal["labels", "scorer"] | None = Field(alias="from")
    """`labels` (fitted), `scorer` (zero by construction) or null (none)."""
    by_seed: Mapping[str, ZeroFit] | None = None
    """The fits of `labels` by seed."""
    reason: str | None = None
    """Why there is none."""


class CapabilityRow(Record):
    """An entry of `capabilities`: one policy on one lm-eval task by one metric."""

    method: MethodName
    """Its method."""
    seed: int
    """Training seed."""
    preference: Number
    """Asked weight of the first objective; null for single policies."""
    spec_key: str
    """Identity of the policy."""
    capability: str
    """lm-eval's task or group."""
    metric: str
    """lm-eval's metric, with its filter where that is not the default."""
    value: Number
    """Its value."""
    se: Number
    """Standard error; null where lm-eval gives none."""


class ReferenceSensitivity(Record):
    """Hypervolume at other reference points."""

    references: tuple[tuple[float, ...], ...]
    """The reference points tried, on the line from the reference policy through the task's own."""
    hypervolume: Mapping[str, tuple[Number, ...]]
    """By method that differs from all before it, one value per reference point."""


class ReferenceUnits(Record):
    """Mean and standard deviation of the reference policy's validation scores by column."""

    units: Mapping[int, Mapping[str, MeanSd]]
    """By training seed."""
    reference_units: Mapping[str, MeanSd]
    """Their means over seeds."""


class TaskMetrics(Record):
    """An entry of `tasks` in `metrics.json`."""

    reference_point: Mapping[str, float]
    """Of the hypervolume, by score column."""
    reference_points: Mapping[str, Mapping[str, Number]] = {}
    """The same point in `raw` scores and in `reference` units, by score column."""
    reference_units: Mapping[str, MeanSd]
    """Mean and standard deviation of the reference policy's validation scores by column, means over seeds."""
    hypervolume_units: Literal["raw", "reference"]
    """Hypervolume is in `raw` scores, or in standard deviations of the reference policy (`reference`)."""
    normalisation: Mapping[str, MeanSd] | None
    """`reference_units` where hypervolume is in them, else null."""
    units: Mapping[int, Mapping[str, MeanSd]]
    """`reference_units` by training seed."""
    methods: Mapping[MethodName, MethodMetrics] = {}
    """Indicators by method, of those complete in every seed."""
    same: Mapping[MethodName, MethodName] = {}
    """Methods that offer the policies of an earlier one, and which: it stands for both where methods are compared."""
    comparisons: tuple[Comparison, ...] = ()
    """Every pair of different ones; Holm's correction counts these pairs."""
    resamples: int | None = None
    """Resamples behind the intervals."""
    kl_budgets: tuple[float, ...] = ()
    """Nats per answer, those that some policies keep and others do not."""
    reference_sensitivity: ReferenceSensitivity | None = None
    """Hypervolume at other reference points."""
    safety: tuple[SafetyRow, ...] = ()
    """Safety views of every policy, see [tasks.md](tasks.md)."""
    safety_zero: SafetyZero | None = None
    """Where the border of the cost lies."""
    capabilities: tuple[CapabilityRow, ...] = ()
    """lm-eval tasks on the policies, see [tasks.md](tasks.md)."""
    judges: Mapping[str, JudgeMetrics] | None = None
    """By judge id, with `--judge`: see [judges.md](judges.md)."""

    @property
    def reference(self) -> ReferenceUnits:
        """The units in which other runs can be expressed too."""
        return ReferenceUnits(units=self.units, reference_units=self.reference_units)


class Metrics(Record):
    """All of `metrics.json`."""

    schema_version: int = SCHEMA_VERSION
    """1."""
    tasks: Mapping[str, TaskMetrics]
    """By task; a run has one."""
