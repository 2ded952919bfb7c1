"""What the preference slider moves: for each balance that was asked for, the policy that every method offers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peo_bench.report.contents import TaskView
from peo_bench.report.points import Point
from peo_bench.report.texts import Answer, Texts
from peo_bench.report.wording import balance


@dataclass(frozen=True)
class Offered:
    """One method: the key of the policy it offers at each step."""

    method: str
    name: str
    keys: list[str]


@dataclass(frozen=True)
class Steer:
    """The slider: training seed where there are several, weights and their words by step, the first step, methods.

    `prompt`: the prompt of the page that it opens on.
    """

    seed: int | None
    weights: list[float]
    steps: list[str]
    start: int
    methods: list[Offered]
    prompt: int = 0


def steer_data(view: TaskView) -> Steer | None:
    """Return the slider's steps from all helpful to all harmless, and per method the policy's key at each.

    The first training seed's policies; a method that was not asked for a balance offers its nearest, a single policy
    always itself. ``seed`` names that seed where there are several. None with fewer than two balances.
    """
    methods = [method for method in ("reference", *view.methods) if _offers(view, method)]
    weights = sorted({w for m in methods for p in _offers(view, m) if (w := p.weight) is not None}, reverse=True)
    if len(weights) < 2:
        return None
    trained = sorted({point.seed for method in view.methods for point in view.of(method)})
    return Steer(
        seed=trained[0] if len(trained) > 1 else None,
        weights=weights,
        steps=[balance(weight, *view.names) for weight in weights],
        start=len(weights) // 2,
        methods=[_method(view, method, weights) for method in methods],
    )


def opened(steer: Steer, texts: Texts) -> Steer:
    """Open the slider on the prompt to which methods' answers disagree most at its first step.

    The largest gap between two scores, in standard deviations of that score over all answers of the page.
    """
    own = [texts.policies[key] for m in steer.methods if (key := m.keys[steer.start]) in texts.policies]
    gaps = np.zeros(len(texts.prompts))
    for i in range(1, len(texts.scorers) + 1):
        spread = np.nanstd(_scores(texts.policies.values(), i))
        scores = _scores(own, i)
        for j in np.flatnonzero(np.isfinite(scores).any(axis=0)) if spread > 0 else ():
            gaps[j] = max(gaps[j], (np.nanmax(scores[:, j]) - np.nanmin(scores[:, j])) / spread)
    return replace(steer, prompt=int(np.argmax(gaps)))


def _scores(policies: Iterable[list[Answer | None]], i: int) -> NDArray[np.float64]:
    """Return score `i` of every answer, (n_policies, n_prompts), NaN where it is missing."""
    rows = [[np.nan if a is None else a[i] for a in answers] for answers in policies]  # None becomes NaN, too
    return np.array(rows, dtype=float)


def _offers(view: TaskView, method: str) -> list[Point]:
    points = [point for point in view.of(method) if point.grid == "asked" and point.key]
    return [point for point in points if point.seed == points[0].seed]


def _method(view: TaskView, method: str, weights: list[float]) -> Offered:
    points = _offers(view, method)

    def nearest(weight: float) -> str:
        return min(points, key=lambda p: 0.0 if p.weight is None else abs(p.weight - weight)).key

    return Offered(method, points[0].name, [nearest(w) for w in weights])
