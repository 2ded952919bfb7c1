"""Common random numbers: Gumbel noise that is a pure function of (seed, prompt, sample, position, token).

Greedy decoding of log pi + Gumbel noise is an exact sample from pi (Gumbel-max). The noise is a counter-based hash: it
depends on nothing else, so not on the policy, the coefficients, the rest of the batch, the length limit or the device.
Policies compared on a prompt thus share their randomness, and differences between them are those of the policies.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

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
        return torch.arange(1, vocabulary + 1, dtype=torch.int64, device=device) * _TOKEN_STEP


def uniform(keys: Tensor, position: int, vocabulary: int) -> Tensor:
    """Return (rows, vocabulary) float64 uniforms strictly inside (0, 1).

    The high 53 bits of the hash with the lowest of them set: odd multiples of 2^-53, all exact in float64.
    """
    offset = ((position + 1) * _POSITION_STEP + 2**63) % 2**64 - 2**63
    streams = mix64(keys + offset)
    hashed = mix64(streams[:, None] + _token_counters(vocabulary, keys.device))
    return _shift(hashed, 11).bitwise_or_(1).to(torch.float64).mul_(2.0**-53)


def gumbel(keys: Tensor, position: int, vocabulary: int) -> Tensor:
    """Return standard Gumbel noise -log(-log u), (rows, vocabulary) float32, for (rows,) int64 keys.

    Computed in float64 per distinct key, then gathered: rows that share an answer's identity share the work.
    """
    distinct, row = torch.unique(keys, return_inverse=True)
    noise = uniform(distinct, position, vocabulary).log_().neg_().log_().neg_().to(torch.float32)
    return noise[row]
