"""Policy specs: what a policy *is*, as data.

Normal form: select ∘ mix-of-log-probabilities ∘ weights, each part with an identity default. A key hashes only what
differs from the defaults, with like terms merged and coefficients rounded, so that a field added later leaves the keys
(and caches) of earlier specs alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from peo_bench.files.digest import digest
from peo_bench.files.json_types import JsonObject

DIGITS = 9
"""Decimals to which coefficients are rounded; equal policies of different methods then get equal keys."""


def _totals(terms: Iterable[tuple[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, coefficient in terms:
        total[name] = total.get(name, 0.0) + float(coefficient)
    return total


def _merge(terms: Iterable[tuple[str, float]], zeros: bool = False) -> tuple[tuple[str, float], ...]:
    rounded = ((name, round(value, DIGITS)) for name, value in _totals(terms).items())
    return tuple(sorted((name, value) for name, value in rounded if value or zeros))


MergeKind = Literal["slerp", "ties", "dare", "della", "model-stock"]


@dataclass(frozen=True)
class Merge:
    """How task vectors become one where they are not simply added: see `peo_bench.engine.merging` for the kinds.

    `density` is the share of every tensor that is kept, `epsilon` how much it varies with the rank (della), `seed` that
    of what is dropped at random; `strength` multiplies the result.
    """

    kind: MergeKind
    density: float = 1.0
    epsilon: float = 0.0
    seed: int = 0
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Round the strength."""
        object.__setattr__(self, "strength", round(self.strength, DIGITS))

    def to_json(self) -> JsonObject:
        """Return the JSON form, defaults left out."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


@dataclass(frozen=True)
class Weights:
    """theta = base + sum_i c_i * delta_i; `base` and the deltas are job ids.

    A delta is theta_trained - base for a full fine-tune and scaling * B A for a LoRA adapter. With `merge` the deltas
    are combined by its rule, where the c_i are shares, and a share of 0 counts.
    """

    base: str
    terms: tuple[tuple[str, float], ...] = ()
    merge: Merge | None = None

    def __post_init__(self) -> None:
        """Merge duplicate terms, round coefficients, drop zeros (of sums) and sort; strength 0 leaves the base."""
        if self.merge and not self.merge.strength:
            object.__setattr__(self, "terms", ())
            object.__setattr__(self, "merge", None)
        object.__setattr__(self, "terms", _merge(self.terms, zeros=self.merge is not None))

    def to_json(self) -> JsonObject:
        """Return the JSON form, defaults left out."""
        terms: JsonObject = {"terms": [list(term) for term in self.terms]} if self.terms else {}
        merge: JsonObject = {"merge": self.merge.to_json()} if self.merge else {}
        return {"base": self.base} | terms | merge

    def times(self, factor: float) -> Weights:
        """Return the weights `factor` times as far from the base."""
        if self.merge:
            return replace(self, merge=replace(self.merge, strength=factor * self.merge.strength))
        return Weights(self.base, tuple((name, factor * c) for name, c in self.terms))


@dataclass(frozen=True)
class Utility:
    """u(prompt, answer) = sum_k c_k score_k(prompt, answer) over finished answers; higher is better.

    `terms` pairs reward and cost models with coefficients of their raw scores (a cost's is negative). A model is named
    by its job id, one that may have several labels as "job id/column". Selection sees the order of utilities only, so
    the coefficients are scaled to sum_k |c_k| = 1.
    """

    terms: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        """Merge, scale, round and sort; raise ValueError if nothing is left."""
        total = _totals(self.terms)
        size = sum(map(abs, total.values()))
        if not size:
            raise ValueError("a utility needs at least one scorer with a non-zero coefficient")
        if abs(size - 1) < 1e-8:  # scaled already: scaling what was rounded could move its last digit
            size = 1.0
        object.__setattr__(self, "terms", _merge((name, c / size) for name, c in total.items()))


@dataclass(frozen=True)
class PolicySpec:
    """A policy: a mixture, log pi = sum_j a_j log pi_j + const with each pi_j given by its `Weights`, or a selection.

    A mixture of a single source with coefficient 1 is an ordinary policy. A selection has no `mix` of its own: each of
    its `candidates` (mixtures) gives one answer, with noise of its own, and the answer with the highest `utility` is
    kept, the first of equals. Selecting among one candidate is that candidate.
    """

    mix: tuple[tuple[float, Weights], ...] = ()
    candidates: tuple[PolicySpec, ...] = ()
    utility: Utility | None = None

    def __post_init__(self) -> None:
        """Merge equal sources, round coefficients, drop zeros and sort; raise ValueError for what is no policy."""
        if self.candidates or self.utility:
            if self.mix or not (self.candidates and self.utility) or any(c.candidates for c in self.candidates):
                raise ValueError("a selection needs a utility and candidates that are mixtures, and has no mix itself")
            if len(self.candidates) > 1:
                return
        mix = self.candidates[0].mix if self.candidates else self.mix
        sources = {json.dumps(weights.to_json(), sort_keys=True): weights for _, weights in mix}
        merged = _merge((json.dumps(weights.to_json(), sort_keys=True), a) for a, weights in mix)
        if not merged:
            raise ValueError("a policy spec needs at least one source with a non-zero coefficient")
        object.__setattr__(self, "mix", tuple((a, sources[text]) for text, a in merged))
        object.__setattr__(self, "candidates", ())
        object.__setattr__(self, "utility", None)

    def to_json(self) -> JsonObject:
        """Return the JSON form.

        `{"weights": ...}` for an ordinary policy, `{"mix": [[a, weights], ...]}` for a mixture, `{"best": [[scorer, c],
        ...], "of": [candidate, ...]}` for a selection.
        """
        if self.utility:
            return {"best": [list(term) for term in self.utility.terms], "of": [c.to_json() for c in self.candidates]}
        if len(self.mix) == 1 and self.mix[0][0] == 1.0:
            return {"weights": self.mix[0][1].to_json()}
        return {"mix": [[a, weights.to_json()] for a, weights in self.mix]}

    @property
    def key(self) -> str:
        """16 hex digits: equal policies have equal keys."""
        return digest(self.to_json())

    @property
    def mixtures(self) -> tuple[PolicySpec, ...]:
        """The mixtures that give an answer each: the candidates of a selection, else the policy itself."""
        return self.candidates or (self,)

    @property
    def scorers(self) -> tuple[str, ...]:
        """Names of the reward and cost models that a selection asks about every candidate answer."""
        return tuple(name for name, _ in self.utility.terms) if self.utility else ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of every job that this policy needs: bases, deltas, scorers."""
        sources = [weights for mixture in self.mixtures for _, weights in mixture.mix]
        deltas = [name for weights in sources for name, _ in weights.terms]
        scorers = [name.partition("/")[0] for name in self.scorers]
        return tuple(dict.fromkeys([*(weights.base for weights in sources), *deltas, *scorers]))


def policy(base: str, terms: Iterable[tuple[str, float]] = (), merge: Merge | None = None) -> PolicySpec:
    """Return the ordinary policy with weights base + sum_i c_i delta_i, or with the deltas combined by `merge`."""
    return PolicySpec(mix=((1.0, Weights(base, tuple(terms), merge)),))


def spec_from_json(value: Mapping[str, Any]) -> PolicySpec:
    """Invert `PolicySpec.to_json`."""

    def weights(item: Mapping[str, Any]) -> Weights:
        terms = tuple((name, c) for name, c in item.get("terms", ()))
        return Weights(item["base"], terms, Merge(**item["merge"]) if "merge" in item else None)

    if "best" in value:
        utility = Utility(tuple((name, c) for name, c in value["best"]))
        return PolicySpec(candidates=tuple(map(spec_from_json, value["of"])), utility=utility)
    if "weights" in value:
        return PolicySpec(mix=((1.0, weights(value["weights"])),))
    return PolicySpec(mix=tuple((a, weights(item)) for a, item in value["mix"]))
