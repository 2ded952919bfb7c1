"""The hash noise is uniform, Gumbel, independent, and a function of its counters alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from peo_bench.engine.noise import Noise, counter, mix64, row_key, uniform

KEYS = torch.tensor([row_key(0, f"prompt {i}", 0) for i in range(2000)])
MASK = 2**64 - 1


def tokens(vocabulary: int) -> torch.Tensor:
    return counter(torch.arange(vocabulary))[None]


def splitmix(x: int) -> int:
    """Return the reference finaliser of splitmix64 (Steele et al. 2014) on unsigned 64-bit integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_the_hash_is_splitmix64(values: list[int]) -> None:
    hashed = [value & MASK for value in mix64(torch.tensor(values)).tolist()]
    assert hashed == [splitmix(value & MASK) for value in values]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**6), st.integers(0, 60))
def test_uniforms_follow_the_documented_construction(key: int, position: int, token: int) -> None:
    stream = splitmix((key + (position + 1) * 0xD1342543DE82EF95) & MASK)
    bits = splitmix((stream + (token + 1) * 0x9E3779B97F4A7C15) & MASK) >> 11
    assert float(uniform(torch.tensor([key]), position, tokens(61))[0, token]) == (bits | 1) * 2.0**-53


def test_no_uniform_reaches_the_ends_of_the_interval() -> None:
    u = uniform(KEYS, 3, tokens(1000))
    assert 0 < float(u.min()) < 1e-5
    assert 1 - 1e-5 < float(u.max()) < 1
    assert torch.isfinite(Noise(KEYS).everywhere(3, 1000)).all()
    ends = torch.tensor([1, 2**53 - 1], dtype=torch.int64).double() * 2.0**-53
    assert torch.isfinite(-torch.log(-torch.log(ends))).all()


@pytest.mark.parametrize("position", [0, 1, 500])
def test_the_noise_is_gumbel_along_rows_and_along_tokens(position: int) -> None:
    noise = Noise(KEYS).everywhere(position, 50).double().numpy()
    assert stats.kstest(noise.ravel(), "gumbel_r").pvalue > 1e-3
    assert stats.kstest(noise[:, 0], "gumbel_r").pvalue > 1e-3
    assert stats.kstest(Noise(KEYS[:1]).everywhere(position, 50_000).double().numpy()[0], "gumbel_r").pvalue > 1e-3


def test_the_noise_is_the_same_whatever_else_is_in_the_batch() -> None:
    whole = Noise(KEYS).everywhere(7, 40)
    repeated = torch.cat([KEYS[5:9], KEYS[5:9], KEYS[:1]])
    torch.testing.assert_close(
        Noise(repeated).everywhere(7, 40), torch.cat([whole[5:9], whole[5:9], whole[:1]]), rtol=0, atol=0
    )
    torch.testing.assert_close(Noise(KEYS).everywhere(7, 90)[:, :40], whole, rtol=0, atol=0)


def test_the_noise_of_some_tokens_is_that_of_all() -> None:
    position = 4
    whole, asked = Noise(KEYS).everywhere(position, 300), torch.randint(300, (len(KEYS), 7))
    torch.testing.assert_close(Noise(KEYS).at(position, asked), whole.gather(1, asked), rtol=0, atol=0)
    few = torch.tensor([3, 3, 11])
    torch.testing.assert_close(
        Noise(KEYS).of(few).at(position, asked[few]), whole[few].gather(1, asked[few]), rtol=0, atol=0
    )


def independent(x: np.ndarray, y: np.ndarray, bins: int = 8) -> float:
    """Return the p-value of a chi-square test of independence of two uniform samples."""
    table = np.histogram2d(x, y, bins=bins, range=[[0, 1], [0, 1]])[0]
    return float(stats.chisquare(table.ravel(), np.full(bins * bins, len(x) / bins**2)).pvalue)


def test_positions_tokens_samples_and_seeds_are_independent() -> None:
    u = uniform(KEYS, 0, tokens(30))
    other = {
        "next position": uniform(KEYS, 1, tokens(30)),
        "next token": u.roll(1, dims=1),
        "next prompt": u.roll(1, dims=0),
        "next sample": uniform(torch.tensor([row_key(0, f"prompt {i}", 1) for i in range(2000)]), 0, tokens(30)),
        "next seed": uniform(torch.tensor([row_key(1, f"prompt {i}", 0) for i in range(2000)]), 0, tokens(30)),
        "adjacent key": uniform(KEYS + 1, 0, tokens(30)),
    }
    for name, v in other.items():
        assert independent(u.numpy().ravel(), v.numpy().ravel()) > 1e-3, name
        assert abs(float(np.corrcoef(u.numpy().ravel(), v.numpy().ravel())[0, 1])) < 4 / np.sqrt(u.numel()), name


def test_gumbel_max_draws_from_the_distribution() -> None:
    p = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    drawn = torch.stack([(p.log() + Noise(KEYS).everywhere(t, 5)).argmax(dim=1) for t in range(20)])
    counts = torch.bincount(drawn.ravel(), minlength=5).numpy()
    assert stats.chisquare(counts, p.double().numpy() / p.double().numpy().sum() * counts.sum()).pvalue > 1e-3
    pairs = drawn[:-1].ravel() * 5 + drawn[1:].ravel()
    table = torch.bincount(pairs, minlength=25).reshape(5, 5).numpy()
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_row_keys_are_pinned_and_distinct() -> None:
    assert row_key(0, "p", 0) == -5744164603629589434
    keys = {row_key(seed, prompt, k) for seed in range(3) for prompt in ("a", "b", "a\x001") for k in range(20)}
    assert len(keys) == 180
