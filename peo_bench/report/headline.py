"""One sentence for who wins, made from the statistics and from nothing else, and whether it is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from peo_bench.report.points import AIDS
from peo_bench.report.wording import decimal, interval, listing, method_name
from peo_bench.results.costs_records import MethodCost
from peo_bench.results.metrics_records import Comparison, MethodMetrics

KL_TOLERANCE = 0.1
"""Mean KLs count as similar while they differ by at most this share of the larger one, or by as many nats."""
MARGIN = 0.02
"""Steered utility, in standard deviations of the reference policy: methods that surely differ by less tie."""
LEAST_TOLD = 0.001
"""Detectable differences below are not told: rounded, they would be a difference of zero."""
CONTRARY = 0.95
"""Share of resamples with the larger hypervolume from which on the headline says that it disagrees."""


@dataclass(frozen=True)
class Answer:
    """What a stranger asks of a run, in a few words, and what there is to say."""

    question: str
    said: str


@dataclass(frozen=True)
class Verdict:
    """The headline, and the answers to what a stranger asks next."""

    headline: str
    answers: tuple[Answer, ...]


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

    @property
    def tie(self) -> bool:
        """Whether the whole interval lies within the margin, and no difference is established."""
        return not self.real and self.ci_low >= -MARGIN and self.ci_high <= MARGIN

    def __str__(self) -> str:
        """Write the difference with its interval."""
        return interval((self.difference, self.ci_low, self.ci_high), signed=True)


@dataclass(frozen=True)
class Standing:
    """What verdict and advice rest on.

    Methods asked for, free controls, what was measured of those that differ, training seeds, costs of all, and `same`:
    methods that offer the policies of another one, and which. `trained`: whether the run has training seeds at all.
    """

    methods: Sequence[str]
    controls: Sequence[str]
    measured: Mapping[str, MethodMetrics]
    comparisons: Sequence[Comparison]
    seeds: Sequence[int]
    costs: Mapping[str, MethodCost] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)
    trained: bool = True

    def utility(self, method: str) -> float | None:
        """Return a method's steered utility, None where it was not measured."""
        return self.measured[method].steered_utility.value if method in self.measured else None

    @property
    def ranked(self) -> list[str]:
        """The methods and controls that were measured, the highest steered utility first."""
        field = [method for method in dict.fromkeys([*self.methods, *self.controls]) if method not in AIDS]
        known = {method: utility for method in field if (utility := self.utility(method)) is not None}
        return sorted(known, key=lambda method: -known[method])

    def members(self, method: str) -> list[str]:
        """Return a method and those that offer the same policies."""
        return [method, *(double for double, first in self.same.items() if first == method)]

    def gap(self, a: str, b: str) -> Gap | None:
        """Return the difference a - b, None where it was not tested."""
        return find_comparison(self.comparisons, a, b)

    def called(self, method: str) -> str:
        """Return a method's name, and whether it is a control, for a sentence."""
        return method_name(method) if method in self.methods else f"{method_name(method)} (control)"


def make_verdict(standing: Standing) -> Verdict:
    """Compare methods and free controls by steered utility, best first.

    A difference is called one only where its paired 95 % interval excludes zero and its p-value, corrected by Holm
    for all pairs of the run, is at most 0.05; a tie only where the interval lies within `MARGIN`.
    """
    ranked = standing.ranked
    if not ranked:
        return Verdict("No method was measured.", ())
    if len(ranked) == 1:
        utility = standing.measured[ranked[0]].steered_utility
        only = interval((utility.value, utility.ci_low, utility.ci_high))
        headline = f"{standing.called(ranked[0])} reaches a steered utility of {only}."
        return Verdict(headline, (Answer("Is it real?", _joined("Nothing to compare it with.", _seeds(standing))),))
    leader, *rivals = ranked
    gap = standing.gap(leader, rivals[0])
    real = _joined(_real(gap), _power(gap), _kl(standing, leader, rivals[0], gap), _seeds(standing, gap))
    return Verdict(_headline(leader, rivals, standing), (*_asked(standing), Answer("Is it real?", real)))


def find_comparison(comparisons: Sequence[Comparison], a: str, b: str) -> Gap | None:
    """Return the difference a - b, in whichever order it was stored, or None."""
    for entry in comparisons:
        gap = Gap.of(entry) if {entry.a, entry.b} == {a, b} else None
        if gap is not None:
            return gap if gap.a == a else gap.turned
    return None


def _headline(leader: str, rivals: list[str], standing: Standing) -> str:
    """Say who leads, whom it beats, with whom it ties and from whom it is not told apart; at most three names a group.

    The difference is the leader's minus the next best's.
    """
    gaps = {rival: standing.gap(leader, rival) for rival in rivals}
    beaten = [rival for rival, gap in gaps.items() if gap and gap.difference > 0 and gap.real]
    tied = [rival for rival, gap in gaps.items() if gap and gap.tie]
    open_ = [rival for rival in rivals if rival not in (*beaten, *tied)]
    name, nearest, first = standing.called(leader), method_name(rivals[0]), gaps[rivals[0]]
    if first is None:
        return f"{name} has the highest steered utility; whether it differs from {nearest} was not tested."
    told = [f"{name} beats {_names(standing, beaten)}"] if beaten else []
    if tied:
        told.append(f"{'it' if told else name} ties with {_names(standing, tied)} within {MARGIN}")
    if open_ and told:
        told.append(f"it is not told apart from {_names(standing, open_)}")
    elif open_:
        told.append(f"{name} and {_names(standing, open_)} are not told apart")
    gap = f"{method_name(leader)} − {nearest} {first} in steered utility"
    return f"{'; '.join(told)}: {gap}{_larger_hypervolume(standing, gaps)}."


def _larger_hypervolume(standing: Standing, gaps: Mapping[str, Gap | None]) -> str:
    """Return a clause that names the rivals whose hypervolume is the larger in at least 95 % of resamples."""
    shares = {rival: gap.hypervolume_share for rival, gap in gaps.items() if gap is not None}
    contrary = {rival: 1 - share for rival, share in shares.items() if share is not None and 1 - share >= CONTRARY}
    if not contrary:
        return ""
    have = "has" if len(contrary) == 1 else "have"
    least = f"{100 * next(iter(contrary.values())):.0f} %" if len(contrary) == 1 else f"{100 * CONTRARY:.0f} % and more"
    return f", though {_names(standing, list(contrary))} {have} the larger hypervolume in {least} of resamples"


def _asked(standing: Standing) -> tuple[Answer, ...]:
    """Compare the best two methods that were asked for where the headline's difference is another one."""
    best = [method for method in standing.ranked if method in standing.methods][:2]
    gap = standing.gap(*best) if len(best) == 2 and best != standing.ranked[:2] else None
    if gap is None:
        return ()
    said = f"{method_name(gap.a)} − {method_name(gap.b)} {gap}, {_claim(gap)}."
    return (Answer("Without controls?", said),)


def _claim(gap: Gap) -> str:
    if gap.real:
        return "better" if gap.difference > 0 else "worse"
    return f"a tie within {MARGIN}" if gap.tie else "not told apart"


def _real(gap: Gap | None) -> str:
    """Say of the headline's difference whether it is established."""
    if gap is None:
        return "Not tested."
    p = "" if gap.p_holm is None else f" (p = {decimal(gap.p_holm, 3)} after Holm's correction for all pairs)"
    if gap.real:
        return f"Yes: the 95 % interval leaves zero out{p}."
    if gap.tie:
        both = f"{method_name(gap.a)} and {method_name(gap.b)}"
        return f"As a tie, yes: with 95 % confidence {both} differ by less than {MARGIN}."
    inside = "includes zero" if gap.ci_low <= 0 <= gap.ci_high else "leaves zero out, but many pairs were tested"
    return f"No difference is established: the 95 % interval {inside}{p}; that they are equal is not shown either."


def _kl(standing: Standing, leader: str, rival: str, gap: Gap | None) -> str:
    """Say how far both moved from the reference policy where that may explain the gap; empty where nobody moved."""
    a, b = (standing.measured[m].kl_mean for m in (leader, rival))
    first, second = method_name(leader), method_name(rival)
    if a is None or b is None:
        unknown = [(name, m) for name, kl, m in ((first, a, leader), (second, b, rival)) if kl is None]
        bounds = [standing.measured[m].kl_bound_mean for _, m in unknown]
        bounded = " (only an upper bound is)" if any(bound is not None for bound in bounds) else ""
        known = f"Not at equal KL: the KL of {listing([name for name, _ in unknown])} is not known{bounded}."
        return known if standing.trained else ""
    pair = f"{first} {decimal(a, 1)}, {second} {decimal(b, 1)} nats"
    if abs(a - b) <= KL_TOLERANCE * max(abs(a), abs(b), 1.0):
        return f"Both moved about equally far from the reference policy (mean KL: {pair})."
    if gap is not None and gap.tie:
        return f"Mean KLs differ ({pair})."
    return f"Mean KLs differ ({pair}): part of the gap may be distance from the reference, not a better trade-off."


def _power(gap: Gap | None) -> str:
    if gap is None or gap.detectable is None or gap.detectable < LEAST_TOLD:
        return ""
    return f"A true difference of {decimal(gap.detectable, 3)} would be detected 4 times out of 5."


def _seeds(standing: Standing, gap: Gap | None = None) -> str:
    seeds = standing.seeds
    if not standing.trained:
        return "Of these answers to these prompts, not of answers drawn anew."
    if len(seeds) == 1:
        return "One training seed: these checkpoints; training variance not included."
    if gap is not None and gap.covers == "prompts":
        return f"{len(seeds)} training seeds, not the same for all: these checkpoints; training variance not included."
    return f"{len(seeds)} training seeds: differences cover prompts and training."


def _names(standing: Standing, methods: Sequence[str]) -> str:
    if len(methods) > 3:
        return f"{len(methods)} others"
    return listing([standing.called(m) for m in methods])


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
