"""Win rates: alpaca_eval's own function, hand-made numbers, symmetry, coverage of the interval."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peo_bench.winrates import winrate
from peo_bench.winrates.winrate import graded, paired_difference, rate_interval, swapped, win_rate

PREFERENCE = st.one_of(st.floats(1, 2), st.sampled_from([0.0, 1.0, 1.5, 2.0, float("nan")]))
SHARED_FIELDS = ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total")


def test_numbers_by_hand():
    rate = win_rate([2, 2, 1, 0, 1.5, 1.25, np.nan, 7])
    assert (rate.n_wins, rate.n_wins_base, rate.n_draws, rate.n_total) == (2, 2, 2, 6)
    assert (rate.n_missing, rate.n_invalid) == (1, 1)
    assert rate.win_rate == pytest.approx(100 * (1 + 1 + 0 + 0.5 + 0.5 + 0.25) / 6)
    assert rate.discrete_win_rate == pytest.approx(50)
    spread = np.array([1, 1, 0, 0.5, 0.5, 0.25]) - 3.25 / 6
    assert rate.standard_error == pytest.approx(100 * np.sqrt((spread**2).sum() / 5 / 6))


def test_few_verdicts_give_nan_and_no_warning(recwarn):
    none, one = win_rate([np.nan]), win_rate([2])
    assert np.isnan([none.win_rate, none.discrete_win_rate, none.standard_error, one.standard_error]).all()
    assert (none.n_total, none.n_missing, one.win_rate, one.n_total) == (0, 1, 100.0, 1)
    assert not recwarn.list


@given(st.lists(PREFERENCE, min_size=1, max_size=40))
def test_the_two_sides_add_up_to_100(preferences):
    rate, other = win_rate(preferences), win_rate(swapped(preferences))
    assert (other.n_wins, other.n_wins_base, other.n_draws) == (rate.n_wins_base, rate.n_wins, rate.n_draws)
    for key in ("win_rate", "discrete_win_rate"):
        total = getattr(rate, key) + getattr(other, key)
        assert total == pytest.approx(100) if rate.n_total else np.isnan(total)
    assert other.standard_error == pytest.approx(rate.standard_error, nan_ok=True, abs=1e-9)


@given(st.lists(st.tuples(PREFERENCE, PREFERENCE), min_size=1, max_size=30))
def test_a_difference_changes_sign_with_its_methods(pairs):
    a, b = np.array(pairs).T
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.n == other.n == np.isfinite(winrate.graded(a) - winrate.graded(b)).sum()
    assert [one.value, one.ci_low, one.ci_high] == pytest.approx(
        [-other.value, -other.ci_high, -other.ci_low], nan_ok=True
    )


@given(st.lists(PREFERENCE, min_size=1, max_size=40))
def test_bounds_of_a_rate_and_of_a_difference_stay_where_such_values_can_be(preferences):
    rate, other = rate_interval(graded(preferences)), rate_interval(graded(swapped(preferences)))
    if rate.n > 1:
        assert 0 <= rate.ci_low <= rate.value + 1e-9
        assert rate.value - 1e-9 <= rate.ci_high <= 100
        assert [other.ci_low, other.ci_high] == pytest.approx([100 - rate.ci_high, 100 - rate.ci_low], abs=1e-6)
    gap = paired_difference(preferences, np.full(len(preferences), 1.0))
    if gap.n > 1:
        assert -100 <= gap.ci_low <= gap.ci_high <= 100


def test_the_bounds_of_few_verdicts_by_hand():
    """Four wins and a loss: p 0.8, Var(mean) 0.2 / 5, so the effective size is 0.16 / 0.04 = 4, and t(0.975, 4) 2.776.

    Student's t gave 24.5 to 135.5.
    """
    found, t2 = rate_interval([1, 1, 1, 1, 0]), 2.7764451**2
    middle, half = (0.8 + t2 / 8) / (1 + t2 / 4), 2.7764451 / (1 + t2 / 4) * np.sqrt(0.16 / 4 + t2 / 64)
    assert [found.value, found.ci_low, found.ci_high] == pytest.approx(
        [80, 100 * (middle - half), 100 * (middle + half)]
    )


def test_a_difference_is_paired_and_its_interval_covers():
    """95 % of 4000 intervals must hold the truth (standard error 0.35 %); an unpaired one would be far wider."""
    rng = np.random.default_rng(3)
    covered, widths = 0, []
    for _ in range(4000):
        easy = rng.uniform(0, 0.8, 60)
        found = paired_difference(1 + easy + rng.uniform(0, 0.2, 60), 1 + easy + rng.uniform(0, 0.1, 60))
        covered += found.ci_low <= 5 <= found.ci_high
        widths.append(found.ci_high - found.ci_low)
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)
    assert np.mean(widths) < 4


def test_other_lengths_and_shapes_are_refused():
    with pytest.raises(ValueError, match="2 preferences of A and 1 of B"):
        paired_difference([1, 2], [1])
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        win_rate([[1, 2]])


def test_fields_carry_upstreams_names():
    assert {field.name for field in dataclasses.fields(winrate.WinRate)} >= set(SHARED_FIELDS)
