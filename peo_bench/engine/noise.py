"""Common random numbers: Gumbel noise that is a pure function of (seed, prompt, sample, position, token).

Greedy decoding of log pi + Gumbel noise is an exact sample from pi (Gumbel-max). The noise is a counter-based hash: it
depends on nothing else, so not on the policy, the coefficients, the rest of the batch, the length limit or the device.
Policies compared on a prompt thus share their randomness, and differences between them are those of the policies.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache

import torch
from torch import Tensor

_TOKEN_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15, the golden ratio, as int64
_POSITION_STEP = -3372029247567499371  # 0xD1342543DE82EF95, an odd constant with good spectral properties
_ROUNDS = ((30, -4658895280553007687), (27, -7723592293110705685))  # splitmix64: 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def row_key(seed: int, prompt_id: str, sample: int) -> int:
    """Return the signed 64-bit key of one answer: SHA-256 of its identity."""
    text = f"{seed}\x00{prompt_id}\x00{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch shifts int64 arithmetically)."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def mix64(x: Tensor) -> Tensor:
    """Hash int64 values in place with splitmix64's finaliser (a bijection) and return them."""
    for bits, factor in _ROUNDS:
        x.bitwise_xor_(_shift(x, bits)).mul_(factor)
    return x.bitwise_xor_(_shift(x, 31))


@lru_cache(maxsize=8)
def _token_counters(vocabulary: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return counter(torch.arange(vocabulary, dtype=torch.int64, device=device))


def uniform(keys: Tensor, position: int, counters: Tensor) -> Tensor:
    """Return float64 uniforms strictly inside (0, 1), of the shape of `counters`, (rows or 1, tokens), see `counter`.

    The high 53 bits of the hash with the lowest of them set: odd multiples of 2^-53, all exact in float64.
    """
    offset = ((position + 1) * _POSITION_STEP + 2**63) % 2**64 - 2**63
    streams = mix64(keys + offset)
    hashed = mix64(streams[:, None] + counters)
    return _shift(hashed, 11).bitwise_or_(1).to(torch.float64).mul_(2.0**-53)


def counter(tokens: Tensor) -> Tensor:
    """Return what tokens count as in the hash."""
    return (tokens + 1) * _TOKEN_STEP


class Noise:
    """Standard Gumbel noise -log(-log u) of a batch, float32, computed in float64."""

    def __init__(self, keys: Tensor) -> None:
        """Use a key (rows,), int64, per row: the answer's identity."""
        self.keys = keys

    @cached_property
    def _distinct(self) -> tuple[Tensor, Tensor]:
        """The distinct keys, found once for all positions, and which of them each row has."""
        distinct, row = torch.unique(self.keys, return_inverse=True)
        return distinct, row

    def everywhere(self, position: int, vocabulary: int) -> Tensor:
        """Return the noise of all tokens at one position, (rows, vocabulary); rows that share a key share the work."""
        distinct, row = self._distinct
        return _gumbel(uniform(distinct, position, _token_counters(vocabulary, self.keys.device)[None]))[row]

    def at(self, position: int, tokens: Tensor) -> Tensor:
        """Return the noise of `tokens` (rows, n), each row's own, at one position."""
        return _gumbel(uniform(self.keys, position, counter(tokens)))

    def of(self, rows: Tensor | slice) -> Noise:
        """Return the noise of some rows."""
        return Noise(self.keys[rows])


def _gumbel(uniforms: Tensor) -> Tensor:
    return uniforms.log_().neg_().log_().neg_().to(torch.float32)
