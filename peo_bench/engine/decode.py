"""Sampling from mixtures: log pi = sum_j a_j log pi_j + const, one forward per source and token.

Every source has its own key-value cache. Their logits are mixed, divided by the temperature, cut to the nucleus, and
get Gumbel noise, whose argmax is an exact sample from the mixture (Gumbel-max) with the common random numbers of
`noise`. Rows that have ended leave the batch. Near ties are decided on logits of the row alone, so that no answer
depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache

from peo_bench.core.decoding import Decoding
from peo_bench.engine.near_ties import perturbed
from peo_bench.engine.noise import Noise
from peo_bench.engine.passes import Pass, first_of_each, left_padded, positions

LEAVE = 0.25
"""Share of the running rows that must have ended before they leave: leaving copies the caches of those that stay."""
STEPS_UNSEEN = {"cpu": 1, "cuda": 8}
"""Tokens per look at which rows have ended: a look makes a GPU wait."""


class Source:
    """A pass that decodes token by token, with its key-value cache."""

    def __init__(self, source: Pass, prompt_mask: Tensor, max_new_tokens: int) -> None:
        """Prepare the mask for the whole answer; `prompt_mask` is the batch's (rows, width)."""
        mask = prompt_mask[source.rows]
        self.source, self.plain = source, source.is_plain(len(prompt_mask))
        self.mask = torch.cat([mask, mask.new_ones(len(mask), max_new_tokens)], dim=1)
        self.positions = positions(self.mask)
        self.cache: Cache | None = None

    def begin(self, ids: Tensor, prompts: Sequence[Sequence[int]], shared: int) -> Tensor:
        """Read the prompts (rows, width), each once per weights; return the logits (members, vocabulary) behind."""
        own = [tuple(prompts[row]) for row in self.source.rows.tolist()]
        firsts, place = first_of_each(list(zip(own, self.source.weights.tolist(), strict=True)), ids.device)
        part = self.source.only(firsts, self.source.rows[firsts])
        logits, self.cache = part.logits(
            input_ids=ids[part.rows, shared:],
            attention_mask=self.mask[firsts, : ids.shape[1]],
            position_ids=self.positions[firsts, shared : ids.shape[1]],
            past_key_values=part.beginning(ids, shared),
            use_cache=True,
            logits_to_keep=1,
        )
        if len(firsts) < len(place):
            self.cache.batch_select_indices(place)
        return logits[place, -1]

    def step(self, ids: Tensor) -> Tensor:
        """Read the last token of every row; return the logits (members, vocabulary) behind it."""
        length = ids.shape[1]
        logits, self.cache = self.source.logits(
            input_ids=ids[self.source.rows, -1:],
            attention_mask=self.mask[:, :length],
            position_ids=self.positions[:, length - 1 : length],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return logits[:, -1]

    def add_to(self, scores: Tensor | None, found: Tensor, rows: int) -> Tensor:
        """Return `scores` (rows, vocabulary), None where there are none yet, and a_j times the logits `found`."""
        found = found.float()
        if scores is None and self.plain:
            return found
        scores = found.new_zeros(rows, found.shape[1]) if scores is None else scores
        return scores.index_add_(0, self.source.rows, self.source.coefficients[:, None] * found)

    def keep(self, kept: Tensor) -> None:
        """Drop all rows of the batch but `kept` (rows,), a mask."""
        members = kept[self.source.rows].nonzero().flatten()
        places = kept.cumsum(dim=0) - 1
        self.source = self.source.only(members, places[self.source.rows[members]])
        self.mask, self.positions = self.mask[members], self.positions[members]
        if self.cache is not None and len(members):
            self.cache.batch_select_indices(members)


@dataclass(frozen=True)
class Rows:
    """What tells the rows of a batch apart, and how they end.

    `prompts` are token ids, of which all share the first `shared`; `keys` index the noise, `stop` are the ids that end
    an answer, `pad` fills the width.
    `alone(row, ids)` returns log pi (vocabulary,) of a row's next token by forwards of that row only; None lets
    rounding decide near ties.
    """

    prompts: Sequence[Sequence[int]]
    keys: Sequence[int]
    stop: Sequence[int]
    pad: int
    shared: int = 0
    alone: Callable[[int, list[int]], Tensor] | None = None


def decode(passes: Sequence[Pass], rows: Rows, decoding: Decoding) -> list[tuple[int, ...]]:
    """Return each row's answer tokens, its stop token included if it came within `max_new_tokens`."""
    with torch.inference_mode():
        batch = _Batch(passes, rows, decoding)
        while batch.running:
            batch.step()
    return [_cut(answer, frozenset(rows.stop)) for answer in batch.answers]


class _Batch:
    """The rows of a batch that still run; `answers` (rows of the whole batch) fills up as they leave."""

    def __init__(self, passes: Sequence[Pass], rows: Rows, decoding: Decoding) -> None:
        self.rows, self.decoding = rows, decoding
        device = passes[0].rows.device
        self.ids, mask = left_padded(rows.prompts, rows.pad, device, rows.shared)
        self.width = self.ids.shape[1]
        self.sources = [Source(source, mask, decoding.max_new_tokens) for source in passes]
        self.noise = Noise(torch.tensor(rows.keys, device=device))
        self.stop = torch.tensor(rows.stop, device=device)
        self.row = torch.arange(len(self.ids), device=device)
        self.ended = torch.zeros(len(self.ids), dtype=torch.bool, device=device)
        self.answers: list[list[int]] = [[] for _ in rows.prompts]
        self.unseen = STEPS_UNSEEN.get(device.type, STEPS_UNSEEN["cuda"])

    @property
    def running(self) -> bool:
        return len(self.row) > 0

    def step(self) -> None:
        """Add a token to every row; let go of rows that have ended, of all at the last position."""
        tokens = self._scores().argmax(dim=1)
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        self.ended |= torch.isin(tokens, self.stop)
        length = self.ids.shape[1] - self.width
        if length == self.decoding.max_new_tokens:
            self._let_go(torch.zeros_like(self.ended))
        elif length % self.unseen == 0 and int(self.ended.sum()) >= max(1, LEAVE * len(self.row)):
            self._let_go(~self.ended)

    def _scores(self) -> Tensor:
        """Return what to take the argmax of, (rows, vocabulary).

        Sums of logits stand for sums of log-probabilities: they differ by a constant per row, which neither the softmax
        in top-p nor the argmax sees.
        """
        scores: Tensor | None = None
        for source in self.sources:
            if len(source.source.rows):
                begins = source.cache is None
                found = source.begin(self.ids, self.rows.prompts, self.rows.shared) if begins else source.step(self.ids)
                scores = source.add_to(scores, found, len(self.ids))
        assert scores is not None, "every row has a source"
        draw = (self.noise, self.ids.shape[1] - self.width) if self.decoding.temperature > 0 else None
        scores, tied = perturbed(scores, draw, self.decoding)
        if self.rows.alone and tied.any():
            for i in (tied & ~self.ended).nonzero().flatten().tolist():
                row = int(self.row[i])
                ids = [*self.rows.prompts[row], *self.ids[i, self.width :].tolist()]
                own = None if draw is None else (self.noise.of(slice(i, i + 1)), draw[1])
                scores[i] = perturbed(self.rows.alone(row, ids)[None], own, self.decoding)[0]
        return scores

    def _let_go(self, kept: Tensor) -> None:
        """Keep the answers of all rows but `kept` (rows,), a mask, and go on without them."""
        answers = self.ids[~kept, self.width :].tolist()
        for row, answer in zip(self.row[~kept].tolist(), answers, strict=True):
            self.answers[row] = answer
        self.ids, self.row, self.ended = self.ids[kept], self.row[kept], self.ended[kept]
        self.noise = self.noise.of(kept.nonzero().flatten())
        if len(self.row):
            for source in self.sources:
                source.keep(kept)


def _cut(tokens: list[int], stop: frozenset[int]) -> tuple[int, ...]:
    end = next((i + 1 for i, token in enumerate(tokens) if token in stop), len(tokens))
    return tuple(tokens[:end])
