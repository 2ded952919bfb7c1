"""Tokens that only rounding would decide: found here, decided by `decode` on logits that know no batch.

The logits of a row differ by some 1e-5 with the rows beside it. Where two tokens are closer than `TIE`, the batch could
thus choose the token, and all that follows; everywhere else it cannot.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peo_bench.core.decoding import Decoding

TIE = 1e-4
"""In nats, and in probability at the edge of a nucleus: above twice what fp32 logits vary with the batch."""


def perturbed(scores: Tensor, noise: Tensor | None, decoding: Decoding) -> tuple[Tensor, Tensor]:
    """Return what to take the argmax of, (rows, vocabulary), and which rows (rows,) it is nearly tied in.

    `scores` are log-probabilities up to a constant per row; `noise` is None for greedy decoding. Tokens outside the
    nucleus, the smallest set of most probable tokens with mass >= top_p (Holtzman et al. 2020), are -inf.
    """
    if noise is None:
        return scores, _close(scores, scores)
    scores = scores / decoding.temperature
    if decoding.top_p == 1:
        scores = scores + noise
        return scores, _close(scores, scores)
    certainty = _certainty(scores, decoding.top_p)
    scores = scores + noise
    surely, perhaps = (scores.masked_fill(certainty < least, -torch.inf) for least in (SURE, PERHAPS))
    return scores.masked_fill(certainty < INSIDE, -torch.inf), _close(surely, perhaps)


SURE, INSIDE, PERHAPS = 3, 2, 1


def _certainty(scores: Tensor, top_p: float) -> Tensor:
    """Return how certainly each token is in the nucleus: `SURE`, only `INSIDE`, outside but `PERHAPS` inside, or 0."""
    ordered, order = scores.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    inside = before < top_p
    last = ordered.masked_fill(~inside, torch.inf).amin(dim=-1, keepdim=True)
    next_one = ordered.masked_fill(inside, -torch.inf).amax(dim=-1, keepdim=True)
    surely = (before < top_p - TIE) & (ordered > next_one + TIE)
    perhaps = (before < top_p + TIE) | (ordered >= last - TIE)
    levels = surely.to(torch.int8) + inside.to(torch.int8) + (inside | perhaps).to(torch.int8)
    return torch.zeros_like(levels).scatter(-1, order, levels)


def _close(surely: Tensor, perhaps: Tensor) -> Tensor:
    """Tell for which rows a second token that is perhaps allowed comes near the best one that surely is."""
    best = surely.amax(dim=-1, keepdim=True)
    return (perhaps >= best - TIE).sum(dim=-1) > 1
