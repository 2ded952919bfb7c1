"""What a scorer must show before its numbers are believed: the same score in any batch, and the right sign."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peo_bench.errors import Diverged, UsageError
from peo_bench.models.files import reason
from peo_bench.models.loading import unreadable
from peo_bench.scorers.anchors import ANCHORS, Anchor

if TYPE_CHECKING:
    from peo_bench.scorers.model import ModelScorer

TOLERANCE = {"float32": 1e-3, "float16": 0.3, "bfloat16": 0.3}
"""Largest difference between a text's score alone and in a batch, in standard deviations of the scores of the texts
tried. Rounding stays below: 3e-5 and (SmolLM2-135M) 0.11 were seen; a head that reads padding was off by 2.4."""


CONSTANT = 1e-6
"""Spread of scores, relative to the largest, below which they are all the same but for rounding."""


@dataclass(frozen=True)
class Sign:
    """How a label ordered pairs of a better and a worse answer; `gap`: mean score of the better minus the worse."""

    higher: int
    lower: int
    of: int
    gap: float


def batch_gap(scorer: ModelScorer, more: Sequence[Anchor] = ()) -> float:
    """Return the largest change of a score by its batch, in standard deviations of the scores; 0 is perfect.

    Texts of very different lengths (the anchors) are scored together and one by one. Labels that score all
    of them alike have no gap; raises `UsageError` if all labels do, or if a score is not finite.
    """
    texts = [(p, answer) for anchors in (*ANCHORS.values(), more) for p, *answers in anchors for answer in answers]
    prompts, answers = [p for p, _ in texts], [a for _, a in texts]
    try:
        together = scorer.score_labels(prompts, answers).labels
        alone = [scorer.score_labels([p], [a]).labels[0] for p, a in texts]
    except Diverged:
        raise UsageError(
            "scorer: its scores are not finite (nan or inf among its weights): copy or save it again"
        ) from None
    except unreadable() as error:  # settings that nothing read before
        raise UsageError(
            f"scorer: the checkpoint loads but cannot score a text ({type(error).__name__}: {reason(error)}): check "
            "its config.json and tokenizer_config.json, or save it again"
        ) from None
    gaps = []
    for label in range(scorer.n_labels):
        values = [row[label] for row in alone]
        if max(values) - min(values) <= CONSTANT * max(map(abs, values)):
            continue
        worst = max(abs(row[label] - value) for row, value in zip(together, values, strict=True))
        gaps.append(worst / max(statistics.stdev(values), 1e-12))
    if not gaps:
        raise UsageError(
            f"scorer: {len(texts)} different texts get the same score ({values[0]:g}), as from a head that was never "
            "trained: give the finished reward model"
        )
    return max(gaps)


def check_batch(scorer: ModelScorer, dtype: str, more: Sequence[Anchor] = ()) -> float:
    """Return `batch_gap`; raise `UsageError` if it is beyond the tolerance of `dtype`."""
    gap = batch_gap(scorer, more)
    if gap > TOLERANCE[dtype]:
        raise UsageError(
            f"scorer: scores depend on the batch: a text's score alone and among others differ by {gap:.2g} standard "
            f"deviations (at most {TOLERANCE[dtype]:g} in {dtype}): does the checkpoint's pad_token_id agree with its "
            "tokenizer's padding token?"
            + ("" if dtype == "float32" else f" Or is {dtype} too coarse for it: try dtype: float32")
        )
    return gap


def signs(scorer: ModelScorer, label: int, anchors: Sequence[Anchor]) -> Sign:
    """Return how often the better answer of an anchor pair got the higher, and how often the lower score."""
    prompts = [prompt for prompt, _, _ in anchors]
    better, worse = (
        [row[label] for row in scorer.score_labels(prompts, [anchor[side] for anchor in anchors]).labels]
        for side in (1, 2)
    )
    gaps = [good - bad for good, bad in zip(better, worse, strict=True)]
    return Sign(sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps), len(gaps), statistics.fmean(gaps))


def check_sign(
    scorer: ModelScorer, column: str, label: int, objective: str, maximise: bool, own: Mapping[str, Sequence[Anchor]]
) -> Sign:
    """Return how `column` ordered the anchor pairs; raise `UsageError` unless most go in the declared direction.

    A majority shows the sign, which is all that is asked here; how good a scorer is, it does not show.
    """
    anchors = own.get(column) or ANCHORS.get(objective)
    if not anchors:
        raise UsageError(
            f"scorer of {column!r}: there are no anchor pairs for objective {objective!r}: "
            f"add `anchors: {{{column}: [[prompt, better, worse], ...]}}` to the scorer"
        )
    found = signs(scorer, label, anchors)
    right, wrong = (found.higher, found.lower) if maximise else (found.lower, found.higher)
    if right <= wrong:
        declared = "higher" if maximise else "lower"
        raise UsageError(
            f"scorer of {column!r}: {declared} is declared to be better, but the better answer has the {declared} "
            f"score in {right} of {found.of} anchor pairs and the other in {wrong}: set "
            f"`maximise: {str(not maximise).lower()}` for {objective!r} if the sign is the other way round; if the "
            f"anchor pairs mean nothing to this model, add `anchors: {{{column}: [[prompt, better, worse], ...]}}`"
        )
    return found
