"""What a run and its methods cost, and which one to take: the cheapest that is surely not much worse than the best."""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.report.headline import MARGIN, Answer, Gap, Standing
from peo_bench.report.wording import decimal, listing, method_name
from peo_bench.results.costs_records import Costs, MethodCost
from peo_bench.results.records import Hardware

TAKE, PRICE = "What should I take?", "What did it cost?"
NAMED = 4
"""So many methods are told by name above the fold, the best first; the scoreboard has all."""


def advise(standing: Standing) -> tuple[Answer, ...]:
    """Return what to take and what that costs, free controls included; nothing where there is nothing to choose."""
    ranked = standing.ranked
    if len(ranked) < 2:
        return ()
    priced = [method for method in ranked if _price(standing, method) is not None]
    if len(priced) < 2 or priced[0] != ranked[0]:
        return (Answer(TAKE, _unpriced(standing, ranked)),)
    best = priced[0]
    cheaper = {m: standing.gap(best, m) for m in priced[1:] if _is_cheaper(standing, m, best)}
    as_good = [m for m, gap in cheaper.items() if gap is not None and gap.ci_high <= MARGIN]
    if as_good:
        return (Answer(TAKE, _instead(standing, _cheapest_of(standing, as_good), best)),)
    maybe = [m for m, gap in cheaper.items() if gap is not None and not gap.real]
    said = f"{_named(standing, best)}, for {_words(standing, best)}; nothing cheaper is surely as good"
    return (Answer(TAKE, f"{said}{_perhaps(standing, best, maybe)}."),)


def price_told(standing: Standing, costs: Costs, hardware: Hardware | None) -> tuple[Answer, ...]:
    """Say what the run took as a whole and what its best methods take alone; nothing where no price is known."""
    told = [text for text in (_whole(costs, hardware), _each(standing)) if text]
    return (Answer(PRICE, " ".join(told)),) if told else ()


def _whole(costs: Costs, hardware: Hardware | None) -> str:
    """Write the work of all jobs, reused ones too: trainings, hours of GPU or minutes of CPU, answers generated."""
    kinds = costs.kinds.values()
    if not kinds:
        return ""
    seconds = sum(kind.seconds for kind in kinds)
    if hardware is not None and hardware.gpus:
        time = f"{decimal(seconds / 3600, 1)} GPU hours"
    else:
        time = f"{decimal(seconds / 60, 0)} CPU minutes" if seconds >= 60 else f"{decimal(seconds, 0)} CPU seconds"
    units, answers = _trainings(costs), sum(kind.cost.get("answers", 0) for kind in kinds)
    parts = [f"{decimal(units, 1)} trainings"] if units else []
    parts += [time, *([f"{answers:,} generated answers"] if answers else [])]
    return f"The whole run: {listing(parts)}."


def _trainings(costs: Costs) -> float | None:
    """Return what all jobs trained on, in trainings of one expert; None where no expert was trained."""
    for cost in costs.methods.values():
        passed = (cost.pairs_trained or 0) + (cost.examples_trained or 0) / 2
        if cost.train_units and passed:
            every = [kind.cost for kind in costs.kinds.values()]
            done = sum(kind.get("pairs_trained", 0) + kind.get("examples_trained", 0) / 2 for kind in every)
            return done * cost.train_units / passed
    return None


def _each(standing: Standing) -> str:
    priced = [method for method in standing.ranked if _price(standing, method) is not None]
    told = [f"{_named(standing, method)} {_words(standing, method)}" for method in priced[:NAMED]]
    more = f"; {len(priced) - NAMED} more in the scoreboard" if len(priced) > NAMED else ""
    by_seed = " by training seed" if len(standing.seeds) > 1 else ""
    return f"Alone{by_seed}: {'; '.join(told)}{more}." if told else ""


def _unpriced(standing: Standing, ranked: Sequence[str]) -> str:
    """Name the best where prices cannot be compared, and those that are not told apart from it."""
    best, *rest = ranked
    gaps = {method: standing.gap(best, method) for method in rest}
    near = [method for method, gap in gaps.items() if gap is not None and not gap.real]
    also = f", or one that is not told apart from it ({listing([method_name(m) for m in near[:3]])})" if near else ""
    return f"{method_name(best)}{also}, if it costs you no more: what these have cost is not known."


def _instead(standing: Standing, taken: str, best: str) -> str:
    gap = standing.gap(best, taken)
    return (
        f"{_named(standing, taken)}, for {_words(standing, taken)} instead of {_words(standing, best)}: with "
        f"95 % confidence it is at most {MARGIN} below the best ({method_name(best)} − {method_name(taken)} {gap})."
    )


def _perhaps(standing: Standing, best: str, maybe: Sequence[str]) -> str:
    """Name the cheapest of those that are not told apart from the best, and what it may lose."""
    if not maybe:
        return ""
    name = _cheapest_of(standing, maybe)
    gap: Gap | None = standing.gap(best, name)
    lost = f"may be up to {decimal(gap.ci_high, 2)} worse" if gap else ""
    return f" ({_named(standing, name)}, for {_words(standing, name)}, is not told apart, but {lost})"


def _cheapest_of(standing: Standing, methods: Sequence[str]) -> str:
    return min(methods, key=lambda method: _price(standing, method) or (0.0, 0.0))


def _member(standing: Standing, method: str) -> str:
    """Return the cheapest method that offers these policies."""
    priced = [m for m in standing.members(method) if _own_price(standing, m) is not None]
    return min(priced, key=lambda m: (_own_price(standing, m), _serving(standing.costs[m])), default=method)


def _named(standing: Standing, method: str) -> str:
    """Name the cheapest method that offers these policies."""
    return standing.called(_member(standing, method))


def _price(standing: Standing, method: str) -> tuple[float, float] | None:
    """Return trainings and scored answers by training seed of these policies; None where they are not known."""
    return _own_price(standing, _member(standing, method))


def _own_price(standing: Standing, method: str) -> tuple[float, float] | None:
    cost = standing.costs.get(method)
    if cost is None or cost.train_units is None or not standing.seeds:
        return None
    return cost.train_units / len(standing.seeds), (cost.scorer_calls or 0) / len(standing.seeds)


def _is_cheaper(standing: Standing, method: str, other: str) -> bool:
    """Say whether a method costs less to build than another one, and no more at each answer."""
    mine, theirs = _price(standing, method), _price(standing, other)
    if mine is None or theirs is None:
        return False
    served, their_served = (_serving(standing.costs[_member(standing, m)]) for m in (method, other))
    return served <= their_served and mine < theirs


def _serving(cost: MethodCost) -> float:
    return (cost.decode_factor or 1.0) + (cost.scorer_calls_per_answer or 0.0)


def _words(standing: Standing, method: str) -> str:
    """Write a price: trainings of an expert's size, scored answers, passes at each answer."""
    units, scored = _price(standing, method) or (0.0, 0.0)
    said = f"{decimal(units, 1)} trainings"
    if scored:
        said += f" and {decimal(scored, 0)} scored texts"
    factor = standing.costs[_member(standing, method)].decode_factor or 1.0
    return f"{said}, {decimal(factor, 1)} passes per token" if factor > 1 else said
