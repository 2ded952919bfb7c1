"""Selection: a policy's candidates give an answer each, reward and cost models score them, the best one is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from peo_bench.core.spec import PolicySpec

if TYPE_CHECKING:
    from peo_bench.engine.engine import Answer, Request

Score = Callable[[str, "list[Request]", "list[Answer]"], "list[float]"]
"""Returns the scores that a model, named as in `Utility`, gives to answers."""


def distinct_drafts(requests: Iterable[Request]) -> list[Request]:
    """Return the answers to generate for `requests`, each once: selections may have candidates in common."""
    return list(dict.fromkeys(draft for request in requests for draft in request.drafts))


def choose(requests: Sequence[Request], drafts: Mapping[Request, Answer], score: Score) -> list[Answer]:
    """Return every request's answer from those to its drafts: the only one, or the one with the highest utility."""
    asked: dict[str, dict[Request, None]] = {}
    for request in requests:
        for scorer in request.spec.scorers:
            asked.setdefault(scorer, {}).update(dict.fromkeys(request.drafts))
    scores = {
        scorer: dict(zip(wanted, score(scorer, list(wanted), [drafts[draft] for draft in wanted]), strict=True))
        for scorer, wanted in asked.items()
    }
    return [_best(request, drafts, scores) for request in requests]


def _best(request: Request, drafts: Mapping[Request, Answer], scores: Mapping[str, Mapping[Request, float]]) -> Answer:
    utility = request.spec.utility
    if utility is None:
        return drafts[request]
    utilities = [sum(c * scores[name][draft] for name, c in utility.terms) for draft in request.drafts]
    candidates = tuple(drafts[draft] for draft in request.drafts)
    chosen = utilities.index(max(utilities))
    return replace(candidates[chosen], candidates=candidates, chosen=chosen)


def selection_nats(spec: PolicySpec) -> float:
    """Return how much selection adds, at most, to E log pi_J(y) / ref(y), with J the candidate that is kept; nats.

    log k for any k candidates: the chain rule on (J, y) against (uniform, ref) gives
    KL(pi || ref) <= log k + E log P(J kept | y_J) + E log pi_J(y) / ref(y), and a probability's logarithm is at most 0.
    For k answers of one policy the middle term is -(k - 1) / k where no two answers tie, and the bound with it holds
    for ties too (Beirami et al. 2024, arXiv 2401.01879, theorem 1).
    """
    k = len(spec.mixtures)
    alike = all(mixture == spec.mixtures[0] for mixture in spec.mixtures)
    return math.log(k) - (k - 1) / k if alike else math.log(k)
