"""Sampling from mixtures inside stock `generate`.

log pi = sum_j a_j log pi_j + const. The first source of every row runs in `generate`; a logits processor forwards the
other sources with their own key-value caches, mixes, applies temperature and top-p, and adds Gumbel noise. Decoding is
greedy, so each token is an exact sample from the mixture (Gumbel-max), with the common random numbers of `noise`. Near
ties are decided on logits of the row alone, so that no answer depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from peo_bench.core.decoding import Decoding
from peo_bench.engine.noise import Noise
from peo_bench.engine.ties import perturbed


@dataclass(frozen=True)
class Pass:
    """One forward of `model` for some rows of a batch.

    `enter` makes the model use this pass's adapters and coefficients; `rows` (n,) are indices into the batch, possibly
    repeated; `coefficients` (n,) are the a_j.
    """

    model: PreTrainedModel
    enter: Callable[[], None]
    rows: Tensor
    coefficients: Tensor

    def is_plain(self, rows: int) -> bool:
        """Tell whether this pass holds each of `rows` rows once, with coefficient 1."""
        return len(self.rows) == rows and bool((self.coefficients == 1).all())

    def logits(self, **inputs: Tensor | Cache | bool | None) -> tuple[Tensor, Cache]:
        """Return fp32 logits and the key-value cache."""
        self.enter()
        output = self.model(**inputs)
        return output.logits.float(), output.past_key_values


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, both (rows, width) int64, prompts flush right."""
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions(mask: Tensor) -> Tensor:
    """Return position ids (rows, width): 0 at each row's first real token."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


class Auxiliary:
    """A further source of some rows, decoded alongside with its own key-value cache."""

    def __init__(self, source: Pass, prompt_mask: Tensor, max_new_tokens: int) -> None:
        """Prepare the mask for the whole answer; `prompt_mask` is the batch's (rows, width)."""
        mask = prompt_mask[source.rows]
        self.source = source
        self.mask = torch.cat([mask, mask.new_ones(len(mask), max_new_tokens)], dim=1)
        self.positions = positions(self.mask)
        self.cache: Cache | None = None
        self.seen = 0

    def add_to(self, scores: Tensor, ids: Tensor) -> None:
        """Add a_j times this source's next-token logits to the rows of `scores` (rows, vocabulary)."""
        length = ids.shape[1]
        logits, self.cache = self.source.logits(
            input_ids=ids[self.source.rows, self.seen :],
            attention_mask=self.mask[:, :length],
            position_ids=self.positions[:, self.seen : length],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.seen = length
        scores.index_add_(0, self.source.rows, self.source.coefficients[:, None] * logits[:, -1])


@dataclass(frozen=True)
class Rows:
    """What tells the rows of a batch apart, and how they end.

    `prompts` are token ids, `keys` index the noise, `stop` are the ids that end an answer, `pad` fills the width.
    `alone(row, ids)` returns log pi (vocabulary,) of a row's next token by forwards of that row only; None lets
    rounding decide near ties.
    """

    prompts: Sequence[Sequence[int]]
    keys: Sequence[int]
    stop: Sequence[int]
    pad: int
    alone: Callable[[int, list[int]], Tensor] | None = None


class MixtureSampler(LogitsProcessor):  # type: ignore[misc]
    """Turn the first source's logits into log pi / T + noise, whose argmax is a sample from pi.

    Sums of logits stand for sums of log-probabilities: they differ by a constant per row, which neither the softmax in
    top-p nor the argmax sees.
    """

    def __init__(self, passes: Sequence[Pass], prompt_mask: Tensor, rows: Rows, decoding: Decoding) -> None:
        """`passes[0]` runs in `generate`."""
        self.first = passes[0]
        self.others = [Auxiliary(source, prompt_mask, decoding.max_new_tokens) for source in passes[1:]]
        self.plain = self.first.is_plain(len(rows.keys))
        self.prompt_mask, self.rows, self.decoding = prompt_mask, rows, decoding
        self.noise = Noise(torch.tensor(rows.keys, device=prompt_mask.device))
        self.stop = torch.tensor(rows.stop, device=prompt_mask.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the perturbed scores (rows, vocabulary) for position `len(answer so far)`."""
        width = self.prompt_mask.shape[1]
        position = input_ids.shape[1] - width
        drawn = self.decoding.temperature > 0
        scores, tied = perturbed(
            self._mixed(input_ids, scores), (self.noise, position) if drawn else None, self.decoding
        )
        if self.rows.alone and tied.any():
            running = ~torch.isin(input_ids[:, width:], self.stop).any(dim=1)
            for row in (tied & running).nonzero().flatten().tolist():
                start = int(width - self.prompt_mask[row].sum())
                alone = self.rows.alone(row, input_ids[row, start:].tolist())
                draw = (self.noise.of(slice(row, row + 1)), position) if drawn else None
                scores[row] = perturbed(alone[None], draw, self.decoding)[0]
            self.first.enter()
        return scores

    def _mixed(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self.plain:
            scores = scores * self.first.coefficients[:, None]
        for other in self.others:
            other.add_to(scores, input_ids)
        if self.others:
            self.first.enter()
        return scores


def decode(passes: Sequence[Pass], rows: Rows, decoding: Decoding) -> list[tuple[int, ...]]:
    """Return each row's answer tokens, its stop token included if it came within `max_new_tokens`."""
    ids, mask = left_padded(rows.prompts, rows.pad, passes[0].rows.device)
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens, do_sample=False, eos_token_id=list(rows.stop), pad_token_id=rows.pad
    )
    with torch.inference_mode():
        sampler = MixtureSampler(passes, mask, rows, decoding)
        passes[0].enter()
        output = passes[0].model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([sampler]),
        )
    return [_cut(answer, frozenset(rows.stop)) for answer in output[:, ids.shape[1] :].tolist()]


def _cut(tokens: list[int], stop: frozenset[int]) -> tuple[int, ...]:
    end = next((i + 1 for i, token in enumerate(tokens) if token in stop), len(tokens))
    return tuple(tokens[:end])
