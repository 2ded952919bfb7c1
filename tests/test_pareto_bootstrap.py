"""Uncertainty: the bootstrap, paired differences, tests over prompts and seeds, ranks and power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from peo_bench import pareto

MIXED = [True, False]
WEIGHTS = np.column_stack([np.linspace(0, 1, 5), 1 - np.linspace(0, 1, 5)])


def utilities(scores: dict[str, np.ndarray], **options: Any) -> dict[str, pareto.Estimate]:
    return pareto.bootstrap_steered_utility(pareto.resample(scores, **options), WEIGHTS, MIXED)


def volumes(scores: dict[str, np.ndarray], **options: Any) -> dict[str, pareto.Estimate]:
    return pareto.bootstrap_hypervolume(pareto.resample(scores, **options), [-3, 3], MIXED)


def scores(seed: int, n_prompts: int = 40, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (5, n_prompts, 2))


def test_identical_methods_differ_by_exactly_zero() -> None:
    same = {"a": scores(1), "b": scores(1)}
    for estimates in (utilities(same), volumes(same, n_resamples=200)):
        gap = pareto.paired_difference(estimates["a"], estimates["b"])
        assert (gap.value, gap.ci_low, gap.ci_high, gap.bias) == (0.0, 0.0, 0.0, 0.0)
        assert pareto.tail_probability(gap.resamples) == 1.0


def test_a_constant_advantage_has_an_interval_of_no_width() -> None:
    """Prompts are resampled together: adding 0.5 reward to every answer adds 0.5 * mean(w) in every resample."""
    base = scores(2)
    estimates = utilities({"a": base + np.array([0.5, 0.0]), "b": base})
    gap = pareto.paired_difference(estimates["a"], estimates["b"])
    assert gap.value == pytest.approx(0.25)
    assert gap.ci_high - gap.ci_low < 1e-12 < estimates["a"].ci_high - estimates["a"].ci_low
    assert pareto.tail_probability(gap.resamples) == pytest.approx(2 / 2001)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_bootstrap_equals_resampling_one_by_one(n_seeds: int) -> None:
    """The same draws, made as lists of prompts and seeds: n - 1 of each, with repetition."""
    arrays = {name: np.stack([scores(10 * i + j) for j in range(n_seeds)]) for i, name in enumerate("ab")}
    found = volumes(arrays, n_resamples=20, seed=5)
    random = np.random.default_rng(5)
    prompts = random.integers(0, 40, (20, 39))
    seeds = random.integers(0, n_seeds, (20, max(1, n_seeds - 1)))
    for name, array in arrays.items():
        drawn = [array[s][:, :, p].mean(axis=(0, 2)) for s, p in zip(seeds, prompts, strict=True)]
        expected = [pareto.hypervolume(means, [-3, 3], MIXED) for means in drawn]
        np.testing.assert_allclose(found[name].resamples, expected, rtol=1e-12)
        assert found[name].bias == pytest.approx(np.mean(expected) - found[name].value)
        assert found[name].value == pytest.approx(pareto.hypervolume(array.mean(axis=(0, 2)), [-3, 3], MIXED))


def test_the_bootstrap_is_seeded() -> None:
    first, again, other = (utilities({"a": scores(1)}, seed=seed)["a"] for seed in (1, 1, 2))
    assert first.as_dict() == again.as_dict() != other.as_dict()


def test_noise_inflates_the_hypervolume_of_a_collapsed_front() -> None:
    collapsed = np.random.default_rng(0).normal(0, 1, (20, 50, 2))
    assert volumes({"a": collapsed})["a"].bias > 0


def test_joint_estimates_see_all_methods_of_a_resample() -> None:
    """A statistic of the others' means: the gap in mean reward to the only other method."""
    drawn = pareto.resample({"a": scores(1), "b": scores(2)}, n_resamples=30)
    mean = {name: drawn.drawn[name][..., 0].mean(axis=1) for name in "ab"}
    found = drawn.estimate_jointly(lambda m: {"a": m["a"][:, 0].mean() - m["b"][:, 0].mean(), "b": 0.0})
    np.testing.assert_allclose(found["a"].resamples, mean["a"] - mean["b"])
    assert found["b"].as_dict() == {"value": 0.0, "ci_low": 0.0, "ci_high": 0.0, "bias": 0.0}


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_the_interval_of_steered_utility_covers_the_truth(seed: int) -> None:
    """Of 60 data sets with true utility 0, at least 45 of the 95 % intervals contain it (by chance fewer: < 1e-6)."""
    hits = 0
    for repeat in range(60):
        found = utilities({"a": scores(seed * 100 + repeat)}, n_resamples=200, seed=repeat)["a"]
        hits += found.ci_low <= 0 <= found.ci_high
    assert hits >= 45


def test_methods_with_other_prompts_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same seeds, prompts"):
        volumes({"a": scores(1), "b": scores(1, n_prompts=39)})
    few, many = (utilities({"a": scores(1)}, n_resamples=n)["a"] for n in (10, 20))
    with pytest.raises(ValueError, match="cannot pair"):
        pareto.paired_difference(few, many)
    with pytest.raises(ValueError, match="at least one method"):
        volumes({})
    with pytest.raises(ValueError, match="one policy for each"):
        utilities({"a": scores(1)[:3]})


def test_utility_by_prompt_averages_to_the_steered_utility() -> None:
    array = np.stack([scores(1), scores(2)])
    by_prompt = pareto.utility_by_prompt(array, WEIGHTS, MIXED)
    assert by_prompt.shape == (2, 40)
    whole = pareto.steered_utility(array.mean(axis=(0, 2)), WEIGHTS, MIXED)
    assert by_prompt.mean() == pytest.approx(whole)


# ---- prompts and seeds ----


def test_with_only_a_prompt_effect_the_crossed_interval_is_the_t_interval_over_prompts() -> None:
    """Seeds without any variance: n_prompts numbers, n_prompts - 1 degrees of freedom."""
    prompts = np.random.default_rng(0).normal(size=50)
    table = np.stack([prompts, prompts])
    found = pareto.crossed_interval(table)
    test = stats.ttest_1samp(prompts, 0.0)
    assert (found.ci_low, found.ci_high) == pytest.approx(test.confidence_interval(0.95))
    assert found.p == pytest.approx(test.pvalue)


def test_the_crossed_interval_by_hand() -> None:
    """Seeds' means 2 and 4, prompts' 1, 4, 4; the rest is 0, -1, 1 and 0, 1, -1, so MS_rest = 4 / (1 x 2) = 2.

    Seeds add 2 / 2 = 1 with 1 degree of freedom, prompts (2 x 3 - 2) / 6 = 2 / 3 with 2. Where prompts vary less than
    the rest they add nothing.
    """
    found = pareto.crossed_interval([[0, 2, 4], [2, 6, 4]])
    half = np.sqrt(12.7062047**2 * 1 + 4.3026527**2 * 2 / 3)
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((3.0, 3 - half, 3 + half), rel=1e-6)
    even = pareto.crossed_interval([[0, 4], [4, 0]])
    assert (even.value, even.ci_low, even.ci_high, even.p) == (2.0, 2.0, 2.0, 0.0)


def test_with_only_a_seed_effect_the_crossed_interval_is_the_t_interval_over_seeds() -> None:
    """Prompts without any variance: n_seeds numbers, n_seeds - 1 degrees of freedom."""
    seeds = np.array([0.3, 0.5, 1.0])
    found = pareto.crossed_interval(np.repeat(seeds[:, None], 40, axis=1))
    test = stats.ttest_1samp(seeds, 0.0)
    assert (found.ci_low, found.ci_high) == pytest.approx(test.confidence_interval(0.95))
    assert found.p == pytest.approx(test.pvalue)


def test_no_variance_at_all() -> None:
    assert pareto.crossed_interval(np.zeros((2, 5))).p == 1.0
    sure = pareto.crossed_interval(np.ones((2, 5)))
    assert (sure.value, sure.ci_low, sure.ci_high, sure.p) == (1.0, 1.0, 1.0, 0.0)


def test_the_crossed_interval_holds_its_level_where_a_bootstrap_over_seeds_does_not() -> None:
    """2 seeds whose effect exceeds the prompts': of 600 nulls 5 % may be rejected (2 SE: 6.8 %)."""
    random = np.random.default_rng(0)
    rejected = by_bootstrap = 0
    for i in range(600):
        table = random.normal(size=(2, 1)) * 0.4 + random.normal(size=(1, 60)) + 0.5 * random.normal(size=(2, 60))
        found = pareto.crossed_interval(table)
        rejected += not found.ci_low <= 0 <= found.ci_high
        assert (found.p < 0.05) == (not found.ci_low <= 0 <= found.ci_high)
        drawn = pareto.resample({"a": table[:, None, :, None]}, n_resamples=200, seed=i)
        naive = drawn.estimate(lambda means: means[:, 0, 0])["a"]
        by_bootstrap += not naive.ci_low <= 0 <= naive.ci_high
    assert rejected / 600 < 0.068
    assert by_bootstrap / 600 > 0.1


# ---- tests ----


def test_holm_by_hand() -> None:
    """Holm's own arithmetic on five p-values: 5, 4, 3, 2, 1 times the sorted ones, made monotone."""
    assert pareto.holm([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx([0.025, 0.044, 0.06, 0.08, 0.13])
    assert pareto.holm([0.13, 0.04, 0.005, 0.02, 0.011]) == pytest.approx([0.13, 0.08, 0.025, 0.06, 0.044])
    assert pareto.holm([]) == []
    assert pareto.holm([0.9, 0.8]) == [1.0, 1.0]
    assert pareto.holm([0.0, 1.0]) == [0.0, 1.0]


def test_rank_ranges_by_hand() -> None:
    """Of 100 resamples b is best in 3, else second or third; c is second in one: 2.5 % tails cut that one off."""
    a, b, c = np.full(100, 2.0), np.array([3.0] * 3 + [1.0] * 97), np.array([0.0] * 99 + [1.5])
    found = pareto.rank_ranges(
        {name: pareto.Estimate.of(0.0, draws) for name, draws in zip("abc", (a, b, c), strict=True)}
    )
    assert found == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    ties = pareto.rank_ranges({name: pareto.Estimate.of(0.0, a) for name in "abc"})
    assert ties == {"a": (1, 1), "b": (1, 1), "c": (1, 1)}
    rare = {"a": pareto.Estimate.of(0.0, a), "b": pareto.Estimate.of(0.0, np.array([3.0] * 2 + [1.0] * 98))}
    assert pareto.rank_ranges(rare)["b"] == (2, 2), "best in 2 of 100 is within the tail"


def test_the_detectable_difference_is_detected_four_times_out_of_five() -> None:
    random = np.random.default_rng(1)
    truth = pareto.detectable_difference(random.normal(size=20_000)) * np.sqrt(20_000 / 200)
    found = [stats.ttest_1samp(random.normal(truth, 1, 200), 0.0).pvalue < 0.05 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.045)
    assert np.isnan(pareto.detectable_difference([1.0]))


def test_the_detectable_difference_by_hand() -> None:
    """Standard deviation 10 sqrt(4 / 3) of four prompts; z is 2.5758 at level 0.01 and 1.2816 for power 0.9."""
    found = pareto.detectable_difference([10.0, -10.0, 10.0, -10.0], power=0.9, level=0.01)
    assert found == pytest.approx((2.575829 + 1.281552) * 10 * np.sqrt(4 / 3) / 2, rel=1e-6)


@pytest.mark.parametrize("wrong", [{"power": 0.0}, {"power": 1.0}, {"level": 0.0}, {"level": 1.0}])
def test_a_power_or_level_of_0_or_1_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"power and level in \(0, 1\)"):
        pareto.detectable_difference([1.0, 2.0], **wrong)
    with pytest.raises(ValueError, match="one-dimensional"):
        pareto.detectable_difference([[1.0, 2.0]])


def test_the_interval_of_an_estimate_leaves_a_fortieth_on_either_side() -> None:
    found = pareto.Estimate.of(500.0, np.arange(1001.0))
    assert (found.ci_low, found.ci_high, found.bias) == pytest.approx((25.0, 975.0, 0.0))


def test_means_alone_are_those_of_the_whole_resamples():
    """One matrix product instead of the means of all policies; columns that are equal stay equal to the last bit."""
    random = np.random.default_rng(4)
    scores = {name: random.normal(size=(3, 57, 2)) for name in "abc"} | {"d": np.zeros((3, 57, 2))}
    scores["e"] = scores["a"]
    weights = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    whole = pareto.bootstrap_steered_utility(pareto.resample(scores, n_resamples=1500), weights, [True, False])
    alone = pareto.resample_means(
        np.column_stack([pareto.utility_by_prompt(value, weights, [True, False])[0] for value in scores.values()]),
        n_resamples=1500,
    )
    np.testing.assert_allclose(alone, np.column_stack([found.resamples for found in whole.values()]), atol=1e-12)
    np.testing.assert_array_equal(alone[:, 0], alone[:, 4])
