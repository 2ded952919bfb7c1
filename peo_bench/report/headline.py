"""One sentence for who wins, made from the statistics and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peo_bench.report.glossary import Json
from peo_bench.report.wording import decimal, interval, listing, method_name
from peo_bench.results.folder import number

KL_TOLERANCE = 0.1
"""Mean KLs count as similar while they differ by at most this share of the larger one."""


CONTRARY = 0.95
"""Share of resamples with the larger hypervolume from which on the headline says that it disagrees."""


@dataclass(frozen=True)
class Verdict:
    """The headline and the sentences that limit what it claims."""

    headline: str
    details: tuple[str, ...]


def make_verdict(methods: Sequence[str], controls: Sequence[str], task: Json, seeds: Sequence[int]) -> Verdict:
    """Compare ``methods`` by steered utility (``task`` is one task of metrics.json), best first.

    A difference is called one only where its paired 95 % interval excludes zero and its p-value, corrected by Holm
    for all pairs of the run, is at most 0.05. The leader is also held against the best of the free ``controls``.
    """
    measured = task.get("methods", {})
    ranked = sorted((m for m in methods if _utility(measured, m) is not None), key=lambda m: -_utility(measured, m))
    if not ranked:
        return Verdict("No method was measured.", (_seeds(seeds),))
    if len(ranked) == 1:
        only = interval(measured[ranked[0]]["steered_utility"])
        headline = f"{method_name(ranked[0])} reaches a steered utility of {only}."
        return Verdict(headline, (*_against_control(ranked[0], controls, task), _seeds(seeds)))
    leader, *rivals = ranked
    gap = find_comparison(task, leader, rivals[0])
    details = (
        _kl(measured, leader, rivals[0]),
        *_against_control(leader, controls, task),
        *_power(gap),
        _seeds(seeds, gap),
    )
    return Verdict(_headline(leader, rivals, task), details)


def find_comparison(task: Json, a: str, b: str) -> Json | None:
    """Return the comparison a - b from ``task``, in whichever order it was stored, or None."""
    for entry in task.get("comparisons", []):
        gap, low, high = (number(entry.get(key)) for key in ("difference", "ci_low", "ci_high"))
        if gap is None or low is None or high is None:
            continue
        if (entry["a"], entry["b"]) == (a, b):
            return dict(entry)
        if (entry["a"], entry["b"]) == (b, a):
            return _turned(entry)
    return None


def turned_up(comparison: Json) -> Json:
    """Return the comparison with the method of higher steered utility first."""
    return _turned(comparison) if comparison["difference"] < 0 else comparison


def _turned(entry: Json) -> Json:
    ends = {"difference": -entry["difference"], "ci_low": -entry["ci_high"], "ci_high": -entry["ci_low"]}
    share = number(entry.get("hypervolume_share"))
    shares = {} if share is None else {"hypervolume_share": 1 - share}
    return {**entry, "a": entry["b"], "b": entry["a"], **ends, **shares}


def is_real(comparison: Json | None) -> bool:
    """Say whether a difference may be called one: interval without zero, and Holm's p-value at most 0.05."""
    if comparison is None:
        return False
    return bool((comparison["ci_low"] > 0 or comparison["ci_high"] < 0) and comparison["p_holm"] <= 0.05)


def _headline(leader: str, rivals: list[str], task: Json) -> str:
    """Say who leads, whom it beats and from whom it is not told apart; at most three names a group.

    No test here shows that two methods are equal, so none "tie". The difference is the leader's minus the next best's.
    """
    gaps = {rival: find_comparison(task, leader, rival) for rival in rivals}
    beaten = [rival for rival, gap in gaps.items() if gap and gap["difference"] > 0 and is_real(gap)]
    open_ = [rival for rival in rivals if rival not in beaten]
    name, nearest, first = method_name(leader), method_name(rivals[0]), gaps[rivals[0]]
    if first is None:
        return f"{name} has the highest steered utility; whether it differs from {nearest} was not tested."
    gap = f"{name} − {nearest} {interval(first, key='difference', signed=True)} in steered utility"
    larger = _larger_hypervolume(gaps)
    if not open_:
        return f"{name} beats {_names(beaten)}: {gap}{larger}."
    if not beaten:
        return f"{name} and {_names(open_)} are not told apart: {gap}{larger}."
    return f"{name} beats {_names(beaten)}; it is not told apart from {_names(open_)}: {gap}{larger}."


def _larger_hypervolume(gaps: Mapping[str, Json | None]) -> str:
    """Return a clause that names the rivals whose hypervolume is the larger in at least 95 % of resamples."""
    shares = {rival: number((gap or {}).get("hypervolume_share")) for rival, gap in gaps.items()}
    contrary = {rival: 1 - share for rival, share in shares.items() if share is not None and 1 - share >= CONTRARY}
    if not contrary:
        return ""
    have = "has" if len(contrary) == 1 else "have"
    least = f"{100 * next(iter(contrary.values())):.0f} %" if len(contrary) == 1 else f"{100 * CONTRARY:.0f} % and more"
    return f", though {_names(list(contrary))} {have} the larger hypervolume in {least} of resamples"


def _kl(measured: Json, leader: str, rival: str) -> str:
    a, b = (number(measured[m].get("kl_mean")) for m in (leader, rival))
    first, second = method_name(leader), method_name(rival)
    if a is None or b is None:
        unknown = [(name, m) for name, kl, m in ((first, a, leader), (second, b, rival)) if kl is None]
        bounded = " (only an upper bound is)" if any("kl_bound_mean" in measured[m] for _, m in unknown) else ""
        return f"Not at equal KL: the KL of {listing([name for name, _ in unknown])} is not known{bounded}."
    pair = f"{first} {decimal(a, 1)}, {second} {decimal(b, 1)} nats"
    if abs(a - b) <= KL_TOLERANCE * max(abs(a), abs(b)):
        return f"Both moved about equally far from the reference policy (mean KL: {pair})."
    return f"Mean KLs differ ({pair}): part of the gap may be distance from the reference, not a better trade-off."


def _against_control(leader: str, controls: Sequence[str], task: Json) -> tuple[str, ...]:
    measured = task.get("methods", {})
    free = [c for c in controls if c not in ("reference", "oracle", leader) and _utility(measured, c) is not None]
    if not free:
        return ()
    best = max(free, key=lambda c: _utility(measured, c))
    gap = find_comparison(task, leader, best)
    if gap is None:
        return ()
    claim = "not told apart" if not is_real(gap) else "better" if gap["difference"] > 0 else "worse"
    text = interval(gap, key="difference", signed=True)
    return (f"Against the best free control: {method_name(leader)} − {method_name(best)} {text}, {claim}.",)


def _power(gap: Json | None) -> tuple[str, ...]:
    least = number((gap or {}).get("detectable"))
    if least is None:
        return ()
    return (
        f"With these prompts a true difference of {decimal(least, 3)} between these checkpoints is detected 4 times "
        "out of 5, the number of comparisons allowed for.",
    )


def _seeds(seeds: Sequence[int], gap: Json | None = None) -> str:
    if len(seeds) == 1:
        return "One training seed: these checkpoints; training variance not included."
    if gap is not None and gap.get("covers") == "prompts":
        return f"{len(seeds)} training seeds, not the same for all: these checkpoints; training variance not included."
    return f"{len(seeds)} training seeds: differences cover prompts and training."


def _names(methods: Sequence[str]) -> str:
    if len(methods) > 3:
        return f"{len(methods)} other methods"
    return listing([method_name(m) for m in methods])


def _utility(measured: Json, method: str) -> Any:
    return number((measured.get(method, {}).get("steered_utility") or {}).get("value"))
