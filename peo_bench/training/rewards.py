"""Reward combiners: what online methods make of one answer's scores, as numbers.

A combiner maps utilities u of shape (answers, objectives), higher is better, to one reward per answer. Utilities are
the run's proxy scores in standard deviations of the reference policy around its mean (both fixed once, on validation
prompts), or the scores as they are where `raw` says so; a cost is negated before it gets here. Combiners with a memory
observe the mean utilities of every batch before they combine it; `state` is that memory as JSON, so that a resumed
training goes on with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MEMORY = 0.9
"""Share of the running mean that a new batch leaves in place."""
AHEAD = 0.1
"""How far an ideal point stays beyond the best mean so far, in standard deviations of the reference policy."""


class Combiner:
    """w . u, linear scalarisation: what MORLHF maximises. The base of all others."""

    raw: ClassVar[bool] = False
    logs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, weights: Sequence[float], reference: Floats) -> None:
        """Combine with `weights` (objectives,); `reference` are the reference policy's utilities (n, objectives)."""
        self.weights = np.asarray(weights, dtype=np.float64)
        self.state: dict[str, Any] = {}

    def combine(self, utilities: Floats, anchors: Floats) -> Floats:
        """Return rewards (answers,); `anchors` (answers, objectives) are the prompts' own reference values."""
        return np.asarray(utilities @ self.weights)

    def observe(self, means: Floats) -> None:
        """Take note of a batch's mean utilities (objectives,)."""

    def logged(self) -> dict[str, float]:
        """Return what belongs into the training curve, by the names in `logs`."""
        return {}


class Transform(Combiner):
    """sum_k w_k log sigma(r_k - r_k^ref(x)) (Wang et al. 2024, arXiv 2402.00742).

    r are raw scores, whose scale is that of Bradley-Terry; r^ref is the prompt's anchor. A sum of log sigmoids is a
    logical AND: an answer that is bad in one respect gains little by being better still in the other.
    """

    raw = True

    def __init__(self, weights: Sequence[float], reference: Floats, quantile: float) -> None:
        """Use the `quantile` of the reference policy's answers to a prompt as its anchor."""
        super().__init__(weights, reference)
        self.quantile = quantile

    def combine(self, utilities: Floats, anchors: Floats) -> Floats:
        """Return the weighted sum of log sigmoids."""
        return np.asarray(-np.logaddexp(0.0, anchors - utilities) @ self.weights)


class Worst(Combiner):
    """u_k for the objective k that is furthest from its goal: argmax_k w_k (z_k - mean u_k), the mean a running one.

    The reward is u_k and not w_k u_k, so that reward and KL keep the exchange rate of the other methods.

    With equal weights and z = 0 this is MaxMin-RLHF (Chakraborty et al. 2024, arXiv 2402.08925, algorithm 1), with a
    preference and an ideal point z weighted Tchebycheff scalarisation of the expected utilities.
    """

    logs = ("chosen",)

    def __init__(self, weights: Sequence[float], reference: Floats, quantile: float | None = None) -> None:
        """Start from the `quantile` of the reference's utilities as ideal point, or compare with the origin, the mean.

        An ideal point must stay out of reach, or the largest regret becomes that of the smallest weight: it moves on,
        `AHEAD` of the best mean so far (as in MOEA/D, Zhang and Li 2007).
        """
        super().__init__(weights, reference)
        origin = np.zeros(len(self.weights))
        self.moves = quantile is not None
        self.state["ideal"] = (origin if quantile is None else np.quantile(reference, quantile, axis=0)).tolist()

    def observe(self, means: Floats) -> None:
        """Update the running means, and the ideal point where they come near it."""
        before = np.asarray(self.state.get("means", means))
        self.state["means"] = (MEMORY * before + (1 - MEMORY) * means).tolist()
        if self.moves:
            self.state["ideal"] = np.maximum(self.state["ideal"], np.add(self.state["means"], AHEAD)).tolist()

    @property
    def chosen(self) -> int:
        """The objective that the next update improves; never one without weight."""
        regrets = self.weights * np.subtract(self.state["ideal"], self.state["means"])
        return int(np.argmax(np.where(self.weights > 0, regrets, -np.inf)))

    def combine(self, utilities: Floats, anchors: Floats) -> Floats:
        """Return the chosen objective's utilities."""
        return np.asarray(utilities[:, self.chosen])

    def logged(self) -> dict[str, float]:
        """Return which objective was chosen."""
        return {"chosen": float(self.chosen)}


class Lagrangian(Combiner):
    """(u_main - lambda c) / (1 + lambda), c = threshold - u_other: Safe RLHF's Lagrangian with dual ascent on lambda.

    ln lambda grows by rate * lambda * mean c after every batch (Dai et al. 2023, arXiv 2310.12773; its public
    code: lambda from 1, rate 0.1, at most 5). The mean is a running one. Of two objectives the one at index
    `constrained` must reach the threshold on average; the other is the main one.
    """

    logs = ("multiplier",)

    def __init__(
        self, weights: Sequence[float], reference: Floats, quantile: float, rate: float, most: float, constrained: int
    ) -> None:
        """Constrain one objective to the `quantile` of the reference's utilities."""
        super().__init__(weights, reference)
        self.main, self.other = 1 - constrained, constrained
        self.threshold, self.rate, self.most = float(np.quantile(reference[:, self.other], quantile)), rate, most
        self.state = {"multiplier": 1.0}

    def observe(self, means: Floats) -> None:
        """Do one step of dual ascent."""
        shortfall = self.threshold - float(means[self.other])
        shortfall = self.state["shortfall"] = MEMORY * self.state.get("shortfall", shortfall) + (1 - MEMORY) * shortfall
        multiplier = self.state["multiplier"]
        self.state["multiplier"] = min(multiplier * math.exp(self.rate * multiplier * shortfall), self.most)

    def combine(self, utilities: Floats, anchors: Floats) -> Floats:
        """Return the Lagrangian per answer."""
        multiplier = self.state["multiplier"]
        surplus = utilities[:, self.other] - self.threshold
        return np.asarray((utilities[:, self.main] + multiplier * surplus) / (1 + multiplier))

    def logged(self) -> dict[str, float]:
        """Return the multiplier."""
        return {"multiplier": float(self.state["multiplier"])}


COMBINERS: Mapping[str, type[Combiner]] = {
    "linear": Combiner,
    "transform": Transform,
    "worst": Worst,
    "lagrangian": Lagrangian,
}
