"""Fronts that can be trusted: arrays in, arrays out. Nothing here knows of files, methods or plots.

- `indicators`: non-dominance, hypervolume and its kin, distances between fronts, utilities;
- `attainment`: attainment surfaces and differences over several fronts;
- `bootstrap`: intervals, paired differences, rank ranges, Holm, power;
- `steering`: asked weights against obtained scores.
"""

from peo_bench.pareto.attainment import attainment_difference, attainment_shares, attainment_surface
from peo_bench.pareto.bootstrap import (
    RESAMPLES,
    CrossedInterval,
    Estimate,
    Resamples,
    bootstrap_expected_utility,
    bootstrap_hypervolume,
    bootstrap_steered_utility,
    crossed_interval,
    detectable_difference,
    holm,
    paired_difference,
    rank_ranges,
    resample,
    resample_means,
    tail_probability,
    utility_by_prompt,
)
from peo_bench.pareto.checks import validate_points
from peo_bench.pareto.indicators import (
    additive_epsilon,
    coverage,
    exclusive_contributions,
    expected_utility,
    hypervolume,
    hypervolume_by_reference,
    hypervolume_within,
    igd_plus,
    mean_inner_product,
    n_beyond_reference,
    nondominated,
    r2,
    spacing,
    sparsity,
    staircase,
    steered_utility,
)
from peo_bench.pareto.steerability import Steerability, steerability

__all__ = [
    "RESAMPLES",
    "CrossedInterval",
    "Estimate",
    "Resamples",
    "Steerability",
    "additive_epsilon",
    "attainment_difference",
    "attainment_shares",
    "attainment_surface",
    "bootstrap_expected_utility",
    "bootstrap_hypervolume",
    "bootstrap_steered_utility",
    "coverage",
    "crossed_interval",
    "detectable_difference",
    "exclusive_contributions",
    "expected_utility",
    "holm",
    "hypervolume",
    "hypervolume_by_reference",
    "hypervolume_within",
    "igd_plus",
    "mean_inner_product",
    "n_beyond_reference",
    "nondominated",
    "paired_difference",
    "r2",
    "rank_ranges",
    "resample",
    "resample_means",
    "spacing",
    "sparsity",
    "staircase",
    "steerability",
    "steered_utility",
    "tail_probability",
    "utility_by_prompt",
    "validate_points",
]
