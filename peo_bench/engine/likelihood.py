"""Teacher forcing: log-probabilities of given answers, and the exact KL divergence along them. Temperature 1, nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from peo_bench.engine.passes import Pass, left_padded, positions

LOGITS_BYTES = 128 * 2**20
"""Size of one (rows, tokens, vocabulary) fp32 array; a KL needs two in the models' precision, log-probabilities two."""
CHUNK_BYTES = 8 * 2**20
"""Size of one fp32 array of the tokens that a KL is summed over at a time; about four exist then."""

FORWARD_TOKENS = {"cpu": 2048, "cuda": 65536}
"""Tokens per forward, prompts included: more of them spill out of a CPU's caches, fewer leave a GPU idle."""


def rows_that_fit(prompt: int, answer: int, vocabulary: int, device: torch.device) -> int:
    """Return how many rows of `prompt` + `answer` tokens respect both limits, at least one."""
    tokens = FORWARD_TOKENS.get(device.type, FORWARD_TOKENS["cuda"])
    return max(1, min(tokens // (prompt + answer), LOGITS_BYTES // (4 * answer * vocabulary)))


@dataclass(frozen=True)
class Packed:
    """Prompts padded on the left, answers on the right, so that all answers start in the same column.

    `ids`, `mask` (rows, width + tokens); `answers`, `real` (rows, tokens): answer tokens, and which are not padding.
    The first `shared` columns are the same in all rows.
    """

    ids: Tensor
    mask: Tensor
    answers: Tensor
    real: Tensor
    shared: int = 0


def pack(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    pad: int,
    device: torch.device,
    shared: int = 0,
) -> Packed:
    """Lay out a batch whose prompts share their first `shared` tokens."""
    ids, mask = left_padded(prompts, pad, device, shared)
    reversed_answers = [answer[::-1] for answer in answers]
    tokens, real = (side.flip(1) for side in left_padded(reversed_answers, pad, device))
    return Packed(torch.cat([ids, tokens], dim=1), torch.cat([mask, real], dim=1), tokens, real.bool(), shared)


def log_policy(passes: Sequence[Pass], batch: Packed) -> Tensor:
    """Return log pi(. | prompt, answer so far) at every answer position, (rows, tokens, vocabulary) fp32."""
    with torch.inference_mode():
        return _scores(passes, batch).float().log_softmax(dim=-1)


def _scores(passes: Sequence[Pass], batch: Packed) -> Tensor:
    """Return log pi up to a constant per position, (rows, tokens, vocabulary); of one plain source in its precision.

    Sums of logits stand for sums of log-probabilities; a log-softmax removes the constants.
    """
    first, *others = passes
    total = _answer_logits(first, batch)
    if not first.is_plain(len(batch.ids)):
        start = total.new_zeros(len(batch.ids), *total.shape[1:], dtype=torch.float32)
        total = _scattered(first, total, start)
    for source in others:
        total = _scattered(source, _answer_logits(source, batch), total.float())
    return total


def _scattered(source: Pass, logits: Tensor, total: Tensor) -> Tensor:
    """Add a_j times the source's logits (n, tokens, vocabulary) to their rows of `total`, fp32."""
    return total.index_add_(0, source.rows, logits.float() * source.coefficients[:, None, None])


def _answer_logits(source: Pass, batch: Packed) -> Tensor:
    """Return the source's logits that predict the answer tokens, (n, tokens, vocabulary), in its precision."""
    mask = batch.mask[source.rows]
    cache = source.beginning(batch.ids, batch.shared)
    logits, _ = source.logits(
        input_ids=batch.ids[source.rows, batch.shared :],
        attention_mask=mask,
        position_ids=positions(mask)[:, batch.shared :],
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=batch.answers.shape[1] + 1,
    )
    return logits[:, :-1]


def token_log_probs(log_pi: Tensor, batch: Packed) -> Tensor:
    """Return log pi of the answer tokens, (rows, tokens); meaningless where `batch.real` is False."""
    return log_pi.gather(-1, batch.answers.unsqueeze(-1)).squeeze(-1)


def answer_kl(policy: Sequence[Pass], reference: Sequence[Pass], batch: Packed) -> Tensor:
    """Return per answer sum_t sum_v pi (log pi - log ref), (rows,) float64, never negative.

    Its expectation over answers sampled from pi is the sequence KL(pi || ref): the inner sum is exact, the outer one is
    along the given answer (Rao-Blackwellised, so it varies less than sum_t log pi(y_t) / ref(y_t)). Of whole answers
    only the logits of both exist; the sums go over a few tokens at a time.
    """
    with torch.inference_mode():
        ours, theirs = _scores(policy, batch), _scores(reference, batch)
        per_token = torch.zeros(batch.real.shape, dtype=torch.float64, device=ours.device)
        step = max(1, CHUNK_BYTES // (4 * ours[:, 0].numel()))
        for start in range(0, ours.shape[1], step):
            part = slice(start, start + step)
            log_pi, log_ref = (side[:, part].float().log_softmax(dim=-1) for side in (ours, theirs))
            per_token[:, part] = log_pi.exp().mul_(log_pi - log_ref).sum(dim=-1, dtype=torch.float64)
        return per_token.masked_fill(~batch.real, 0.0).clamp(min=0.0).sum(dim=-1)
