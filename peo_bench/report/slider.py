"""What the preference slider moves: for each balance that was asked for, the policy that every method offers."""

from __future__ import annotations

from typing import Any

from peo_bench.report.contents import Json, Point, TaskView
from peo_bench.report.wording import balance


def steer_data(view: TaskView) -> Json | None:
    """Return the slider's steps from all helpful to all harmless, and per method the policy's key at each.

    The first training seed's policies; a method that was not asked for a balance offers its nearest, a single policy
    always itself. ``seed`` names that seed where there are several. None with fewer than two balances.
    """
    methods = [method for method in ("reference", *view.methods) if _offers(view, method)]
    weights = sorted({w for m in methods for p in _offers(view, m) if (w := p.weight) is not None}, reverse=True)
    if len(weights) < 2:
        return None
    names = (view.axes[0].name, view.axes[1].name)
    trained = sorted({point.seed for method in view.methods for point in view.of(method)})
    return {
        "seed": trained[0] if len(trained) > 1 else None,
        "weights": weights,
        "steps": [balance(weight, *names) for weight in weights],
        "start": len(weights) // 2,
        "methods": [_method(view, method, weights) for method in methods],
    }


def _offers(view: TaskView, method: str) -> list[Point]:
    points = [point for point in view.of(method) if point.grid == "asked" and point.key]
    return [point for point in points if point.seed == points[0].seed]


def _method(view: TaskView, method: str, weights: list[float]) -> Json:
    points = _offers(view, method)

    def nearest(weight: float) -> str:
        return min(points, key=lambda p: 0.0 if p.weight is None else abs(p.weight - weight)).key

    offered: dict[str, Any] = {"method": method, "name": points[0].name, "keys": [nearest(w) for w in weights]}
    return offered
