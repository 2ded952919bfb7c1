"""One sentence for who wins, made from the statistics and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from peo_bench.report.wording import decimal, interval, listing, method_name
from peo_bench.results.costs_records import MethodCost
from peo_bench.results.metrics_records import Comparison, MethodMetrics

KL_TOLERANCE = 0.1
"""Mean KLs count as similar while they differ by at most this share of the larger one, or by as many nats."""


CONTRARY = 0.95
"""Share of resamples with the larger hypervolume from which on the headline says that it disagrees."""


@dataclass(frozen=True)
class Verdict:
    """The headline and the sentences that limit what it claims."""

    headline: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Gap:
    """A paired difference in steered utility, `a` minus `b`, that is a number and has an interval."""

    a: str
    b: str
    difference: float
    ci_low: float
    ci_high: float
    p_holm: float | None
    covers: str
    detectable: float | None
    hypervolume_share: float | None

    @classmethod
    def of(cls, comparison: Comparison) -> Gap | None:
        """Return a comparison of metrics.json; None where its difference or interval is no number."""
        if comparison.ends is None:
            return None
        names = (field.name for field in fields(cls))
        return cls(**{name: getattr(comparison, name) for name in names})

    @property
    def turned(self) -> Gap:
        """The difference `b` minus `a`; the share of the other direction is what ties leave of 1."""
        share = None if self.hypervolume_share is None else 1 - self.hypervolume_share
        other = replace(self, a=self.b, b=self.a, difference=-self.difference, hypervolume_share=share)
        return replace(other, ci_low=-self.ci_high, ci_high=-self.ci_low)

    @property
    def upwards(self) -> Gap:
        """The same with the method of higher steered utility first."""
        return self.turned if self.difference < 0 else self

    @property
    def real(self) -> bool:
        """Whether it may be called a difference: interval without zero, and Holm's p-value at most 0.05."""
        return (self.ci_low > 0 or self.ci_high < 0) and self.p_holm is not None and self.p_holm <= 0.05

    def __str__(self) -> str:
        """Write the difference with its interval."""
        return interval((self.difference, self.ci_low, self.ci_high), signed=True)


@dataclass(frozen=True)
class Standing:
    """What verdict and advice rest on: methods asked for, free controls, what was measured, training seeds, costs."""

    methods: Sequence[str]
    controls: Sequence[str]
    measured: Mapping[str, MethodMetrics]
    comparisons: Sequence[Comparison]
    seeds: Sequence[int]
    costs: Mapping[str, MethodCost] = field(default_factory=dict)

    def utility(self, method: str) -> float | None:
        """Return a method's steered utility, None where it was not measured."""
        return self.measured[method].steered_utility.value if method in self.measured else None

    def ranked(self, methods: Sequence[str]) -> list[str]:
        """Return those of `methods` that were measured, the highest steered utility first."""
        known = {method: utility for method in methods if (utility := self.utility(method)) is not None}
        return sorted(known, key=lambda method: -known[method])

    def gap(self, a: str, b: str) -> Gap | None:
        """Return the difference a - b, None where it was not tested."""
        return find_comparison(self.comparisons, a, b)


def make_verdict(standing: Standing) -> Verdict:
    """Compare the methods by steered utility, best first.

    A difference is called one only where its paired 95 % interval excludes zero and its p-value, corrected by Holm
    for all pairs of the run, is at most 0.05. The leader is also held against the best of the free controls.
    """
    ranked = standing.ranked(standing.methods)
    if not ranked:
        return Verdict("No method was measured.", (_seeds(standing.seeds),))
    if len(ranked) == 1:
        utility = standing.measured[ranked[0]].steered_utility
        only = interval((utility.value, utility.ci_low, utility.ci_high))
        headline = f"{method_name(ranked[0])} reaches a steered utility of {only}."
        return Verdict(headline, (*_against_control(ranked[0], standing), _seeds(standing.seeds)))
    leader, *rivals = ranked
    gap = standing.gap(leader, rivals[0])
    details = (
        _kl(standing.measured, leader, rivals[0]),
        *_against_control(leader, standing),
        *_power(gap),
        _seeds(standing.seeds, gap),
    )
    return Verdict(_headline(leader, rivals, standing), details)


def find_comparison(comparisons: Sequence[Comparison], a: str, b: str) -> Gap | None:
    """Return the difference a - b, in whichever order it was stored, or None."""
    for entry in comparisons:
        gap = Gap.of(entry) if {entry.a, entry.b} == {a, b} else None
        if gap is not None:
            return gap if gap.a == a else gap.turned
    return None


def _headline(leader: str, rivals: list[str], standing: Standing) -> str:
    """Say who leads, whom it beats and from whom it is not told apart; at most three names a group.

    No test here shows that two methods are equal, so none "tie". The difference is the leader's minus the next best's.
    """
    gaps = {rival: standing.gap(leader, rival) for rival in rivals}
    beaten = [rival for rival, gap in gaps.items() if gap and gap.difference > 0 and gap.real]
    open_ = [rival for rival in rivals if rival not in beaten]
    name, nearest, first = method_name(leader), method_name(rivals[0]), gaps[rivals[0]]
    if first is None:
        return f"{name} has the highest steered utility; whether it differs from {nearest} was not tested."
    gap = f"{name} − {nearest} {first} in steered utility"
    larger = _larger_hypervolume(gaps)
    if not open_:
        return f"{name} beats {_names(beaten)}: {gap}{larger}."
    if not beaten:
        return f"{name} and {_names(open_)} are not told apart: {gap}{larger}."
    return f"{name} beats {_names(beaten)}; it is not told apart from {_names(open_)}: {gap}{larger}."


def _larger_hypervolume(gaps: Mapping[str, Gap | None]) -> str:
    """Return a clause that names the rivals whose hypervolume is the larger in at least 95 % of resamples."""
    shares = {rival: gap.hypervolume_share for rival, gap in gaps.items() if gap is not None}
    contrary = {rival: 1 - share for rival, share in shares.items() if share is not None and 1 - share >= CONTRARY}
    if not contrary:
        return ""
    have = "has" if len(contrary) == 1 else "have"
    least = f"{100 * next(iter(contrary.values())):.0f} %" if len(contrary) == 1 else f"{100 * CONTRARY:.0f} % and more"
    return f", though {_names(list(contrary))} {have} the larger hypervolume in {least} of resamples"


def _kl(measured: Mapping[str, MethodMetrics], leader: str, rival: str) -> str:
    a, b = (measured[m].kl_mean for m in (leader, rival))
    first, second = method_name(leader), method_name(rival)
    if a is None or b is None:
        unknown = [(name, m) for name, kl, m in ((first, a, leader), (second, b, rival)) if kl is None]
        bounds = [measured[m].kl_bound_mean for _, m in unknown]
        bounded = " (only an upper bound is)" if any(bound is not None for bound in bounds) else ""
        return f"Not at equal KL: the KL of {listing([name for name, _ in unknown])} is not known{bounded}."
    pair = f"{first} {decimal(a, 1)}, {second} {decimal(b, 1)} nats"
    if abs(a - b) <= KL_TOLERANCE * max(abs(a), abs(b), 1.0):
        return f"Both moved about equally far from the reference policy (mean KL: {pair})."
    return f"Mean KLs differ ({pair}): part of the gap may be distance from the reference, not a better trade-off."


def _against_control(leader: str, standing: Standing) -> tuple[str, ...]:
    free = standing.ranked([c for c in standing.controls if c not in ("reference", "oracle", leader)])
    gap = standing.gap(leader, free[0]) if free else None
    if gap is None:
        return ()
    claim = "not told apart" if not gap.real else "better" if gap.difference > 0 else "worse"
    return (f"Against the best free control: {method_name(leader)} − {method_name(gap.b)} {gap}, {claim}.",)


def _power(gap: Gap | None) -> tuple[str, ...]:
    if gap is None or gap.detectable is None:
        return ()
    return (
        f"With these prompts a true difference of {decimal(gap.detectable, 3)} between these checkpoints is detected "
        "4 times out of 5, the number of comparisons allowed for.",
    )


def _seeds(seeds: Sequence[int], gap: Gap | None = None) -> str:
    if len(seeds) == 1:
        return "One training seed: these checkpoints; training variance not included."
    if gap is not None and gap.covers == "prompts":
        return f"{len(seeds)} training seeds, not the same for all: these checkpoints; training variance not included."
    return f"{len(seeds)} training seeds: differences cover prompts and training."


def _names(methods: Sequence[str]) -> str:
    if len(methods) > 3:
        return f"{len(methods)} other methods"
    return listing([method_name(m) for m in methods])
