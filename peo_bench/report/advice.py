"""What a method cost, and which one to take: the cheapest that is surely not much worse than the best."""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.report.headline import Gap, Standing
from peo_bench.report.wording import decimal, method_name
from peo_bench.results.costs_records import MethodCost

MARGIN = 0.02
"""Steered utility, in standard deviations of the reference policy: what a cheaper method may lose to be as good."""
AIDS = ("reference", "oracle")
"""Yardsticks that nobody can take."""


def advise(standing: Standing) -> tuple[str, ...]:
    """Return what to take and what that costs, free controls included; nothing where prices or gaps are not known."""
    ranked = [m for m in standing.ranked(list(standing.measured)) if m not in AIDS and _price(standing, m) is not None]
    if len(ranked) < 2:
        return ()
    best = ranked[0]
    cheaper = {m: standing.gap(best, m) for m in ranked[1:] if _is_cheaper(standing, m, best)}
    as_good = [m for m, gap in cheaper.items() if gap is not None and gap.ci_high <= MARGIN]
    if as_good:
        return (_instead(standing, min(as_good, key=lambda m: _price(standing, m) or (0.0, 0.0)), best),)
    said = f"What to take: {method_name(best)}, for {_words(standing, best)}; nothing cheaper is surely as good"
    maybe = [(m, gap) for m, gap in cheaper.items() if gap is not None and not gap.real]
    return (f"{said}{_perhaps(standing, maybe)}.",)


def _instead(standing: Standing, taken: str, best: str) -> str:
    gap = standing.gap(best, taken)
    return (
        f"What to take: {method_name(taken)}, for {_words(standing, taken)} instead of {_words(standing, best)}: with "
        f"95 % confidence it is at most {MARGIN} below the best "
        f"({method_name(best)} − {method_name(taken)} {gap})."
    )


def _perhaps(standing: Standing, maybe: Sequence[tuple[str, Gap]]) -> str:
    """Name the cheapest of those that are not told apart from the best, and what it may lose."""
    if not maybe:
        return ""
    name, gap = min(maybe, key=lambda item: _price(standing, item[0]) or (0.0, 0.0))
    lost = f"may be up to {decimal(gap.ci_high, 2)} worse"
    return f" ({method_name(name)}, for {_words(standing, name)}, is not told apart, but {lost})"


def _price(standing: Standing, method: str) -> tuple[float, float] | None:
    """Return trainings and scored answers by training seed; None where they are not known."""
    cost = standing.costs.get(method)
    if cost is None or cost.train_units is None or not standing.seeds:
        return None
    return cost.train_units / len(standing.seeds), (cost.scorer_calls or 0) / len(standing.seeds)


def _is_cheaper(standing: Standing, method: str, other: str) -> bool:
    """Say whether a method costs less to build than another one, and no more at each answer."""
    mine, theirs = _price(standing, method), _price(standing, other)
    if mine is None or theirs is None or _serving(standing.costs[method]) > _serving(standing.costs[other]):
        return False
    return mine < theirs


def _serving(cost: MethodCost) -> float:
    return (cost.decode_factor or 1.0) + (cost.scorer_calls_per_answer or 0.0)


def _words(standing: Standing, method: str) -> str:
    """Write a price: trainings of an expert's size, scored answers, passes at each answer."""
    units, scored = _price(standing, method) or (0.0, 0.0)
    said = f"{decimal(units, 1)} trainings"
    if scored:
        said += f" and {decimal(scored, 0)} scored texts"
    factor = standing.costs[method].decode_factor or 1.0
    return f"{said}, {decimal(factor, 1)} passes per token" if factor > 1 else said
