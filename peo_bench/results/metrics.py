"""Indicators of the fronts with their uncertainty: what `metrics.json` holds, for one run or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd

from peo_bench import pareto
from peo_bench.files.atomic import finite
from peo_bench.files.json_types import Json
from peo_bench.pareto.checks import BoolArray, FloatArray
from peo_bench.results.judge_records import JudgeMetrics
from peo_bench.results.measure import Measure
from peo_bench.results.metrics_records import (
    AsPublished,
    CapabilityRow,
    Comparison,
    EstimateRecord,
    MethodMetrics,
    RankRange,
    ReferenceSensitivity,
    SafetyRow,
    SafetyZero,
    SteerabilityRecord,
    TaskMetrics,
)
from peo_bench.results.operating_points import Scores, Units

KL_BUDGETS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Nats per answer; those that some policies of a run keep and others do not are reported."""
SHIFTS = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Reference points tried: the distance of the task's own from the reference policy, times these."""
PER_PAIR = 40
"""Resamples per pair of methods: so many that the least p-value survives Holm's correction."""
JOINT_RESAMPLES = 500
"""Resamples for indicators that measure a method against all others, which cannot be vectorised."""
Indicator = Callable[[FloatArray, FloatArray, Sequence[bool]], float]
"""Measures one front against another."""


@dataclass(frozen=True)
class Beside:
    """What a task's metrics hold beside the fronts.

    `chosen` and `evaluations` by method: what validation chose by seed, how many policies the search evaluated there.
    """

    chosen: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    evaluations: Mapping[str, int | None] = field(default_factory=dict)
    safety: Sequence[SafetyRow] = ()
    safety_zero: SafetyZero | None = None
    capabilities: Sequence[CapabilityRow] = ()
    judges: Mapping[str, JudgeMetrics] | None = None


@dataclass(frozen=True)
class _Sampled:
    """The scores of all methods in units, and resamples of their means in units and as hypervolume is measured."""

    scores: Mapping[str, FloatArray]
    drawn: pareto.Resamples
    for_volume: pareto.Resamples


def run_metrics(
    points: pd.DataFrame, scores: Scores, measure: Measure, units: Units, beside: Beside | None = None
) -> TaskMetrics:
    """Return the task's part of `metrics.json`.

    Hypervolume is taken in raw scores, or in the reference's `units` where the measure says so; whatever adds
    objectives up or measures distances always in them. Units are those of each seed where each has scorers of its own,
    else their mean. A method whose every seed is complete takes part.
    """
    beside, seeds, columns = beside or Beside(), sorted(units), measure.columns
    by_reference = measure.units == "reference"
    mean_units = {c: _mean_unit([units[seed][c] for seed in seeds]) for c in columns}
    head = {
        "reference_point": measure.reference_point,
        "reference_units": mean_units,
        "hypervolume_units": measure.units,
        "normalisation": mean_units if by_reference else None,
        "units": {seed: {c: tuple(units[seed][c]) for c in columns} for seed in seeds},
        "safety": beside.safety,
        "safety_zero": beside.safety_zero,
        "capabilities": beside.capabilities,
        "judges": beside.judges,
    }
    complete = [method for method in scores.methods if scores.complete(method, seeds, measure.preferences)]
    if not complete:
        return TaskMetrics(**head)
    scale = units if by_reference else dict.fromkeys(seeds, mean_units)
    same = same_policies(points, complete)
    sampled = _sampled(scores, [method for method in complete if method not in same], measure, scale)
    estimates = _estimates(sampled, measure)
    ranks = pareto.rank_ranges(estimates["steered_utility"])
    bounds = _reference_points(measure, mean_units)
    published = _published(scores, sampled, measure, bounds, seeds)
    oracle, budgets = _oracle(points, columns, scale), _kl_budgets(points, complete)
    return TaskMetrics(
        **head,
        methods={
            method: MethodMetrics(
                **{name: EstimateRecord.of(found[one]) for name, found in estimates.items() if one in found},
                as_published=published[one],
                rank=RankRange(best=ranks[one][0], worst=ranks[one][1]),
                **_indicators(one, points, sampled, measure, oracle, budgets),
                chosen=finite(beside.chosen.get(method, {})),
                validation_evaluations=beside.evaluations.get(method),
            )
            for method, one in ((method, same.get(method, method)) for method in complete)
        },
        reference_points=bounds,
        same=same,
        comparisons=_comparisons(sampled.scores, estimates, measure),
        resamples=pareto.RESAMPLES,
        kl_budgets=budgets,
        reference_sensitivity=_sensitivity(sampled, measure, mean_units),
    )


def same_policies(points: pd.DataFrame, methods: Sequence[str]) -> dict[str, str]:
    """Return the earliest of `methods` with the same policies, for every one that is not the earliest itself.

    The same: for every seed and asked preference the same spec, so that nothing can tell the two apart.

    >>> two = pd.DataFrame({"method": ["peo", "soup"], "split": "test", "grid": "asked", "seed": 0, "spec_key": "x"})
    >>> same_policies(two.assign(preference_helpful=0.5), ["peo", "soup"])
    {'soup': 'peo'}
    """
    asked = points[(points["split"] == "test") & (points["grid"] == "asked")]
    place = ["seed", *(str(name) for name in asked if str(name).startswith("preference_"))]
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for method in methods:
        rows = asked[asked["method"] == method].sort_values(place)
        policies = tuple(rows[[*place, "spec_key"]].fillna(-1.0).itertuples(index=False, name=None))
        twin = first.setdefault(policies, method)
        if twin != method:
            found[method] = twin
    return found


def _mean_unit(units: Sequence[Sequence[float]]) -> tuple[float, float]:
    mean, sd = np.mean(np.asarray(units, dtype=float)[:, :2], axis=0)
    return float(mean), float(sd)


def _sampled(scores: Scores, complete: Sequence[str], measure: Measure, scale: Units) -> _Sampled:
    """Resample the mean scores of the `complete` methods, all with the same draws."""
    seeds = sorted(scale)
    scaled = {method: scores.array(method, seeds, measure.columns, scale) for method in complete}
    drawn = pareto.resample(scaled)
    if measure.units == "reference":
        return _Sampled(scaled, drawn, drawn)
    raw = {method: scores.array(method, seeds, measure.columns) for method in complete}
    return _Sampled(scaled, drawn, pareto.resample(raw))


def _reference_points(measure: Measure, units: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return the reference point in raw scores and in reference units, by column."""
    bounds = dict(zip(measure.columns, measure.bound, strict=True))
    if measure.units == "reference":
        return {"raw": {c: units[c][0] + bounds[c] * units[c][1] for c in bounds}, "reference": bounds}
    return {"raw": bounds, "reference": {c: (bounds[c] - units[c][0]) / units[c][1] for c in bounds}}


def _published(
    scores: Scores, sampled: _Sampled, measure: Measure, bounds: Mapping[str, Mapping[str, float]], seeds: Sequence[int]
) -> dict[str, AsPublished]:
    """Return hypervolume and mean inner product by method, up to `bounds`, in raw scores and in reference units."""
    found = {}
    for method, observed in sampled.drawn.observed.items():
        raw = scores.array(method, seeds, measure.columns).mean(axis=(0, 2))
        values: dict[str, float | None] = {}
        for name, means in {"raw": raw, "reference": observed}.items():
            bound = [bounds[name][column] for column in measure.columns]
            if np.isfinite(means).all() and np.isfinite(bound).all():
                values[f"hypervolume_{name}"] = pareto.hypervolume(means, bound, measure.maximise)
                values[f"inner_product_{name}"] = pareto.mean_inner_product(means, measure.weights, measure.maximise)
        found[method] = AsPublished(**values)
    return found


def _estimates(sampled: _Sampled, measure: Measure) -> dict[str, dict[str, pareto.Estimate]]:
    """Return the statistics that have intervals, by name and method."""
    weights, maximise = measure.weights, measure.maximise
    return {
        "hypervolume": pareto.bootstrap_hypervolume(sampled.for_volume, measure.bound, maximise),
        "steered_utility": pareto.bootstrap_steered_utility(sampled.drawn, weights, maximise),
        "expected_utility": pareto.bootstrap_expected_utility(sampled.drawn, weights, maximise),
        **_against_the_others(sampled.drawn, maximise),
    }


def _indicators(
    method: str,
    points: pd.DataFrame,
    sampled: _Sampled,
    measure: Measure,
    oracle: FloatArray,
    budgets: Sequence[float],
) -> dict[str, object]:
    """Return the indicators of one method that have no interval, as fields of `MethodMetrics`."""
    rows = points[(points["method"] == method) & (points["split"] == "test") & (points["grid"] == "asked")]
    means, inside, maximise = sampled.drawn.observed[method], sampled.for_volume.observed[method], measure.maximise
    kl = _moved(rows).groupby(rows[f"preference_{measure.objectives[0].name}"]).mean().to_numpy()
    known = bool(np.isfinite(kl).all())
    volumes = pareto.hypervolume_within(inside, kl, budgets, measure.bound, maximise).tolist() if known else None
    return {
        "n_nondominated": int(rows["nondominated"].sum()),
        "n_points": len(rows),
        "n_beyond_reference": pareto.n_beyond_reference(inside, measure.bound, maximise),
        "spacing": pareto.spacing(means, maximise),
        "sparsity": pareto.sparsity(means, maximise),
        "oracle_distance": pareto.igd_plus(means, oracle, maximise) if len(oracle) else None,
        "hypervolume_within_kl": volumes or [None] * len(budgets),
        "points_within_kl": [int(np.count_nonzero(kl <= budget)) if known else None for budget in budgets],
        "front_within_kl": [_front_within(means, kl <= budget, measure) for budget in budgets],
        "steerability": _steerability(rows, measure, means),
        **_kl_mean(rows),
        "length_mean": float(rows["length"].mean()),
    }


def _sensitivity(sampled: _Sampled, measure: Measure, units: Mapping[str, tuple[float, float]]) -> ReferenceSensitivity:
    """Return the hypervolume of every method that is no other's double at other reference points."""
    references = _references(measure, units)
    return ReferenceSensitivity(
        references=references,
        hypervolume={
            method: pareto.hypervolume_by_reference(means, references, measure.maximise).tolist()
            for method, means in sampled.for_volume.observed.items()
        },
    )


def _comparisons(
    scaled: Mapping[str, FloatArray], estimates: Mapping[str, Mapping[str, pareto.Estimate]], measure: Measure
) -> list[Comparison]:
    """Return every pair's difference a - b in steered utility: the quantity on which verdicts rest.

    With one seed by the bootstrap over prompts, with several by `pareto.crossed_interval`. `p_holm` is corrected for
    all pairs, `p` with one seed resampled as finely as that needs; `detectable`, with one seed, is the true difference
    that these prompts reveal with probability 0.8 at the level of Holm's first step; `hypervolume_share` is the share
    of resamples in which a has the larger hypervolume (equal ones count half), which is no p-value.
    """
    utilities, volumes = estimates["steered_utility"], estimates["hypervolume"]
    by_prompt = {
        method: pareto.utility_by_prompt(array, measure.weights, measure.maximise) for method, array in scaled.items()
    }
    n_pairs = max(1, len(scaled) * (len(scaled) - 1) // 2)
    draws = _draws(by_prompt, utilities, PER_PAIR * n_pairs)
    found: list[dict[str, object]] = []
    p_values: list[float] = []
    for a, b in combinations(scaled, 2):
        gap = by_prompt[a] - by_prompt[b]
        alone = len(gap) == 1
        estimate: pareto.Estimate | pareto.CrossedInterval
        if alone:
            estimate = pareto.paired_difference(utilities[a], utilities[b])
            p_values.append(pareto.tail_probability(draws[a] - draws[b]))
        else:
            estimate = pareto.crossed_interval(gap)
            p_values.append(estimate.p)
        volume = float((np.sign(volumes[a].resamples - volumes[b].resamples).mean() + 1) / 2)
        found.append(
            {
                **{"a": a, "b": b, "difference": float(gap.mean())},
                **{"ci_low": estimate.ci_low, "ci_high": estimate.ci_high, "p": p_values[-1]},
                "covers": "prompts" if alone else "prompts and training seeds",
                "detectable": pareto.detectable_difference(gap[0], level=0.05 / n_pairs) if alone else None,
                "hypervolume_share": volume,
            }
        )
    return [Comparison(**row, p_holm=p) for row, p in zip(found, pareto.holm(p_values), strict=True)]


def _draws(
    by_prompt: Mapping[str, FloatArray], utilities: Mapping[str, pareto.Estimate], n: int
) -> dict[str, FloatArray]:
    """Return at least `n` resampled steered utilities by method of one seed: the estimates' own where they suffice."""
    if n <= pareto.RESAMPLES or any(len(values) > 1 for values in by_prompt.values()):
        return {method: estimate.resamples for method, estimate in utilities.items()}
    means = pareto.resample_means(np.column_stack([values[0] for values in by_prompt.values()]), n_resamples=n)
    return dict(zip(by_prompt, np.ascontiguousarray(means.T), strict=True))


def _against_the_others(drawn: pareto.Resamples, maximise: Sequence[bool]) -> dict[str, dict[str, pareto.Estimate]]:
    """Return IGD+ and additive epsilon against the front of all other methods together; nothing with one method."""
    if len(drawn.drawn) < 2:
        return {}
    fewer = pareto.Resamples(drawn.observed, {m: means[:JOINT_RESAMPLES] for m, means in drawn.drawn.items()})

    indicators: dict[str, Indicator] = {"igd_plus": pareto.igd_plus, "additive_epsilon": pareto.additive_epsilon}

    def against(fronts: Mapping[str, FloatArray]) -> dict[tuple[str, str], float]:
        return {
            (name, method): indicator(fronts[method], others, maximise)
            for method, others in _fronts_of_others(fronts, maximise)
            for name, indicator in indicators.items()
        }

    found = fewer.estimate_jointly(against)
    return {name: {method: found[name, method] for method in drawn.drawn} for name in indicators}


def _fronts_of_others(fronts: Mapping[str, FloatArray], maximise: Sequence[bool]) -> Iterator[tuple[str, FloatArray]]:
    """Yield every method with the front of all others: that of all, unless the method has a point on it."""
    points = np.concatenate(list(fronts.values()))
    owner = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts.values()])
    on = pareto.nondominated(points, maximise)
    for i, method in enumerate(fronts):
        if i in owner[on]:
            rest = points[owner != i]
            yield method, rest[pareto.nondominated(rest, maximise)]
        else:
            yield method, points[on]


def _references(measure: Measure, units: Mapping[str, tuple[float, float]]) -> list[list[float]]:
    """Return reference points on the line from the reference policy through the task's own."""
    centre = np.zeros(len(measure.bound)) if measure.units == "reference" else [units[c][0] for c in measure.columns]
    return [(centre + shift * (np.array(measure.bound) - centre)).tolist() for shift in SHIFTS]


def _kl_budgets(points: pd.DataFrame, methods: Sequence[str]) -> list[float]:
    rows = points[points["method"].isin(methods) & (points["split"] == "test") & (points["grid"] == "asked")]
    return [budget for budget in KL_BUDGETS if _moved(rows).min() <= budget < _moved(rows).max()]


def _moved(points: pd.DataFrame) -> pd.Series[float]:
    """Return each policy's KL to the reference in nats: measured, or for selections the upper bound `kl_bound`.

    A policy whose bound keeps a budget keeps it.
    """
    return points["kl"].fillna(points["kl_bound"]) if "kl_bound" in points else points["kl"]


def _kl_mean(rows: pd.DataFrame) -> dict[str, float | None]:
    """Return `kl_mean`, None where any policy has a bound only; then the mean with bounds is there as well."""
    if rows["kl"].notna().all():
        return {"kl_mean": float(rows["kl"].mean())}
    return {"kl_mean": None, "kl_bound_mean": float(_moved(rows).mean())}


def _front_within(means: FloatArray, within: BoolArray, measure: Measure) -> list[float]:
    """Return the first objective's weights for the policies `within` a budget that none of them dominates."""
    weights = np.array([weights[0] for weights in measure.weights])[within]
    return [float(weight) for weight in weights[pareto.nondominated(means[within], measure.maximise)]]


def _steerability(rows: pd.DataFrame, measure: Measure, means: FloatArray) -> SteerabilityRecord | None:
    """Return how a method answers to the asked weight, None where only one preference was asked for."""
    if len(measure.preferences) < 2:
        return None
    found = pareto.steerability(measure.weights, _projected(rows, measure), means, measure.maximise)
    return SteerabilityRecord(**asdict(found))


def _projected(rows: pd.DataFrame, measure: Measure) -> FloatArray:
    """Return what a method offers for each asked preference (n_preferences, n_objectives), the first seed's."""
    first = rows[rows["seed"] == rows["seed"].min()]
    return np.asarray(first[[f"projected_{objective.name}" for objective in measure.objectives]], dtype=float)


def _oracle(points: pd.DataFrame, columns: list[str], units: Units) -> FloatArray:
    """Return the oracle's sound points (k, m), each in its seed's reference units."""
    rows = points[(points["method"] == "oracle") & ~points["hollow"].fillna(False).astype(bool)]
    if not len(rows):
        return np.empty((0, len(columns)))
    shift, scale = (np.array([[units[int(s)][c][k] for c in columns] for s in rows["seed"]]) for k in (0, 1))
    return np.asarray((rows[columns].to_numpy(dtype=float) - shift) / scale)
