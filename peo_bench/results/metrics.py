"""Indicators of the fronts with their uncertainty: what `metrics.json` holds, for one run or several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from peo_bench import pareto
from peo_bench.pareto.checks import BoolArray, FloatArray
from peo_bench.results.measure import Measure
from peo_bench.results.operating_points import Scores, Units

KL_BUDGETS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Nats per answer; those that some policies of a run keep and others do not are reported."""
SHIFTS = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Reference points tried: the distance of the task's own from the reference policy, times these."""
JOINT_RESAMPLES = 500
"""Resamples for indicators that measure a method against all others, which cannot be vectorised."""


def run_metrics(
    points: pd.DataFrame,
    scores: Scores,
    measure: Measure,
    units: Units,
    chosen: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the task's part of `metrics.json`.

    Hypervolume is taken in raw scores, or in the reference's `units` where the measure says so; whatever adds
    objectives up or measures distances always in them. Units are those of each seed where each has scorers of its own,
    else their mean. A method whose every seed is complete takes part.
    """
    columns, maximise, weights = measure.columns, measure.maximise, measure.weights
    by_reference = measure.units == "reference"
    seeds = sorted(units)
    complete = [method for method in scores.methods if scores.complete(method, seeds, measure.preferences)]
    mean_units = {c: [float(np.mean([units[seed][c][k] for seed in seeds])) for k in (0, 1)] for c in columns}
    head = {
        "reference_point": dict(measure.reference_point),
        "reference_units": mean_units,
        "hypervolume_units": measure.units,
        "normalisation": mean_units if by_reference else None,
        "units": {str(seed): {c: list(units[seed][c]) for c in columns} for seed in seeds},
    }
    scale = units if by_reference else dict.fromkeys(seeds, mean_units)
    if not complete:
        return head | {"methods": {}, "comparisons": []}
    scaled = {method: scores.array(method, seeds, columns, scale) for method in complete}
    raw = scaled if by_reference else {method: scores.array(method, seeds, columns) for method in complete}
    n_pairs = len(complete) * (len(complete) - 1) // 2
    n_resamples = max(pareto.RESAMPLES, 40 * n_pairs)  # so that the least p-value survives Holm's correction
    drawn = pareto.resample(scaled, n_resamples=n_resamples)
    drawn_raw = drawn if by_reference else pareto.resample(raw, n_resamples=n_resamples)
    estimates = {
        "hypervolume": pareto.bootstrap_hypervolume(drawn_raw, measure.bound, maximise),
        "steered_utility": pareto.bootstrap_steered_utility(drawn, weights, maximise),
        "expected_utility": drawn.estimate(
            lambda sets: np.array([pareto.expected_utility(means, weights, maximise) for means in sets])
        ),
        **_against_the_others(drawn, maximise),
    }
    ranks = pareto.rank_ranges(estimates["steered_utility"])
    oracle = _oracle(points, columns, scale)
    budgets = _kl_budgets(points, complete)

    def indicators(method: str) -> dict[str, Any]:
        rows = points[(points["method"] == method) & (points["split"] == "test") & (points["grid"] == "asked")]
        means, inside = drawn.observed[method], drawn_raw.observed[method]
        kl = _moved(rows).groupby(rows[f"preference_{measure.objectives[0].name}"]).mean().to_numpy()
        return {
            **{name: estimate[method].as_dict() for name, estimate in estimates.items() if method in estimate},
            "rank": dict(zip(("best", "worst"), ranks[method], strict=True)),
            "n_nondominated": int(rows["nondominated"].sum()),
            "n_points": len(rows),
            "n_beyond_reference": pareto.n_beyond_reference(inside, measure.bound, maximise),
            "spacing": pareto.spacing(means, maximise),
            "sparsity": pareto.sparsity(means, maximise),
            "oracle_distance": pareto.igd_plus(means, oracle, maximise) if len(oracle) else None,
            "hypervolume_within_kl": pareto.hypervolume_within(inside, kl, budgets, measure.bound, maximise).tolist(),
            "points_within_kl": [int(np.count_nonzero(kl <= budget)) for budget in budgets],
            "front_within_kl": [_front_within(means, kl <= budget, measure) for budget in budgets],
            **_steerability(rows, measure, means),
            **_kl_mean(rows),
            "length_mean": float(rows["length"].mean()),
            "chosen": dict(chosen.get(method, {})),
        }

    references = _references(measure, mean_units)
    return head | {
        "methods": {method: indicators(method) for method in complete},
        "comparisons": _comparisons(scaled, estimates, measure),
        "resamples": n_resamples,
        "kl_budgets": budgets,
        "reference_sensitivity": {
            "references": references,
            "hypervolume": {
                method: pareto.hypervolume_by_reference(drawn_raw.observed[method], references, maximise).tolist()
                for method in complete
            },
        },
    }


def _comparisons(
    scaled: Mapping[str, FloatArray], estimates: Mapping[str, Mapping[str, pareto.Estimate]], measure: Measure
) -> list[dict[str, Any]]:
    """Return every pair's difference a - b in steered utility: the quantity on which verdicts rest.

    With one seed by the bootstrap over prompts, with several by `pareto.crossed_interval`. `p_holm` is corrected for
    all pairs; `detectable`, with one seed, is the true difference that these prompts reveal with probability 0.8 at the
    level of Holm's first step; `hypervolume_share` is the share of resamples in which a has the larger hypervolume
    (equal ones count half), which is no p-value.
    """
    utilities, volumes = estimates["steered_utility"], estimates["hypervolume"]
    by_prompt = {
        method: pareto.utility_by_prompt(array, measure.weights, measure.maximise) for method, array in scaled.items()
    }
    rows: list[dict[str, Any]] = []
    level = 0.05 / max(1, len(scaled) * (len(scaled) - 1) // 2)
    for a, b in combinations(scaled, 2):
        gap = by_prompt[a] - by_prompt[b]
        if len(gap) == 1:
            estimate = pareto.paired_difference(utilities[a], utilities[b])
            test = {"covers": "prompts", "p": pareto.tail_probability(estimate)}
            low, high = estimate.ci_low, estimate.ci_high
        else:
            crossed = pareto.crossed_interval(gap)
            test = {"covers": "prompts and training seeds", "p": crossed.p}
            low, high = crossed.ci_low, crossed.ci_high
        share = float((np.sign(volumes[a].resamples - volumes[b].resamples).mean() + 1) / 2)
        rows.append({"a": a, "b": b, "difference": float(gap.mean()), "ci_low": low, "ci_high": high, **test})
        least = pareto.detectable_difference(gap[0], level=level) if len(gap) == 1 else None
        rows[-1] |= {"detectable": least, "hypervolume_share": share}
    for row, p in zip(rows, pareto.holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def _against_the_others(drawn: pareto.Resamples, maximise: Sequence[bool]) -> dict[str, dict[str, pareto.Estimate]]:
    """Return IGD+ and additive epsilon against the front of all other methods together; nothing with one method."""
    if len(drawn.drawn) < 2:
        return {}
    fewer = pareto.Resamples(drawn.observed, {m: means[:JOINT_RESAMPLES] for m, means in drawn.drawn.items()})

    def measured(indicator: Any) -> Any:
        def against(fronts: Mapping[str, FloatArray]) -> dict[str, float]:
            found = {}
            for method, means in fronts.items():
                rest = np.concatenate([other for name, other in fronts.items() if name != method])
                found[method] = indicator(means, rest[pareto.nondominated(rest, maximise)], maximise)
            return found

        return against

    return {
        "igd_plus": fewer.estimate_jointly(measured(pareto.igd_plus)),
        "additive_epsilon": fewer.estimate_jointly(measured(pareto.additive_epsilon)),
    }


def _references(measure: Measure, units: Mapping[str, Sequence[float]]) -> list[list[float]]:
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


def _kl_mean(rows: pd.DataFrame) -> dict[str, float]:
    """Return `kl_mean`, not a number where any policy has a bound only; then the mean with bounds is there as well."""
    if rows["kl"].notna().all():
        return {"kl_mean": float(rows["kl"].mean())}
    return {"kl_mean": float("nan"), "kl_bound_mean": float(_moved(rows).mean())}


def _front_within(means: FloatArray, within: BoolArray, measure: Measure) -> list[float]:
    """Return the first objective's weights for the policies `within` a budget that none of them dominates."""
    weights = np.array([weights[0] for weights in measure.weights])[within]
    return [float(weight) for weight in weights[pareto.nondominated(means[within], measure.maximise)]]


def _steerability(rows: pd.DataFrame, measure: Measure, means: FloatArray) -> dict[str, Any]:
    """Return `steerability`, nothing where only one preference was asked for."""
    if len(measure.preferences) < 2:
        return {}
    found = pareto.steerability(measure.weights, _projected(rows, measure), means, measure.maximise)
    return {"steerability": asdict(found)}


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
