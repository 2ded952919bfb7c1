"""Tokens that only rounding would decide: found here, decided by `decode` on logits that know no batch.

The logits of a row differ by some 1e-5 with the rows beside it. Where two tokens are closer than `TIE`, the batch could
thus choose the token, and all that follows; everywhere else it cannot.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peo_bench.core.decoding import Decoding
from peo_bench.engine.noise import Noise

TIE = 1e-4
"""In nats, and in probability at the edge of a nucleus: above twice what fp32 logits vary with the batch."""
CANDIDATES = 1024
"""Most probable tokens that a nucleus is looked for in; rows with a larger one sort the whole vocabulary."""
Draw = tuple[Noise, int]
"""The noise of a batch, and the position it is wanted for."""


def perturbed(scores: Tensor, draw: Draw | None, decoding: Decoding) -> tuple[Tensor, Tensor]:
    """Return what to take the argmax of, (rows, vocabulary), and which rows (rows,) it is nearly tied in.

    `scores` are log-probabilities up to a constant per row; `draw` is None for greedy decoding. Tokens outside the
    nucleus, the smallest set of most probable tokens with mass >= top_p (Holtzman et al. 2020), are -inf.
    """
    if draw is None:
        return scores, _close(scores, scores)
    noise, position = draw
    scores = scores / decoding.temperature
    if decoding.top_p == 1:
        scores = scores + noise.everywhere(position, scores.shape[1])
        return scores, _close(scores, scores)
    result = torch.full_like(scores, -torch.inf)
    tied = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    rows = torch.arange(len(scores), device=scores.device)
    for n in (min(CANDIDATES, scores.shape[1]), scores.shape[1]):
        part = scores[rows]
        ordered, tokens = part.topk(n) if n < scores.shape[1] else part.sort(dim=-1, descending=True)
        certainty = _certainty(ordered, part.logsumexp(dim=-1, keepdim=True), decoding.top_p)
        ordered = ordered + noise.of(rows).at(position, tokens)
        surely, perhaps = (ordered.masked_fill(certainty < least, -torch.inf) for least in (SURE, PERHAPS))
        result[rows] = result[rows].scatter(-1, tokens, ordered.masked_fill(certainty < INSIDE, -torch.inf))
        tied[rows] = _close(surely, perhaps)
        rows = rows[certainty[:, -1] > 0]  # there may be more of the nucleus than was looked at
        if n == scores.shape[1] or not len(rows):
            break
    return result, tied


SURE, INSIDE, PERHAPS = 3, 2, 1


def _certainty(ordered: Tensor, total: Tensor, top_p: float) -> Tensor:
    """Return how certainly each token is in the nucleus: `SURE`, only `INSIDE`, outside but `PERHAPS` inside, or 0.

    `ordered` (rows, n) are the n largest scores, falling; `total` (rows, 1) is the log of the mass of all.
    """
    probabilities = (ordered - total).exp()
    before = probabilities.cumsum(dim=-1) - probabilities
    inside = before < top_p
    last = ordered.masked_fill(~inside, torch.inf).amin(dim=-1, keepdim=True)
    next_one = ordered.masked_fill(inside, -torch.inf).amax(dim=-1, keepdim=True)
    surely = (before < top_p - TIE) & (ordered > next_one + TIE)
    perhaps = (before < top_p + TIE) | (ordered >= last - TIE)
    return surely.to(torch.int8) + inside.to(torch.int8) + (inside | perhaps).to(torch.int8)


def _close(surely: Tensor, perhaps: Tensor) -> Tensor:
    """Tell for which rows a second token that is perhaps allowed comes near the best one that surely is."""
    best = surely.amax(dim=-1, keepdim=True)
    return (perhaps >= best - TIE).sum(dim=-1) > 1
