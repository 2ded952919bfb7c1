"""Policy specs: what a policy *is*, as data.

Normal form: select ∘ search ∘ mix-of-log-probabilities ∘ weights ∘ prompt, each part with an identity default. Today's
specs use weights and mixing. A key hashes only what differs from the defaults, with like terms merged and coefficients
rounded, so that a field added later leaves the keys (and caches) of earlier specs alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

DIGITS = 9
"""Decimals to which coefficients are rounded; equal policies of different methods then get equal keys."""


def digest(value: Any) -> str:
    """Return 16 hex digits that identify a JSON value (keys sorted, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _merge(terms: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    total: dict[str, float] = {}
    for name, coefficient in terms:
        total[name] = total.get(name, 0.0) + float(coefficient)
    rounded = ((name, round(value, DIGITS)) for name, value in total.items())
    return tuple(sorted((name, value) for name, value in rounded if value))


@dataclass(frozen=True)
class Weights:
    """theta = base + sum_i c_i * delta_i; `base` and the deltas are job ids.

    A delta is theta_trained - base for a full fine-tune and scaling * B A for a LoRA adapter.
    """

    base: str
    terms: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Merge duplicate terms, round coefficients, drop zeros and sort."""
        object.__setattr__(self, "terms", _merge(self.terms))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, defaults left out."""
        return {"base": self.base} | ({"terms": [list(term) for term in self.terms]} if self.terms else {})


@dataclass(frozen=True)
class PolicySpec:
    """log pi = sum_j a_j log pi_j + const, each pi_j given by its `Weights`.

    A single source with coefficient 1 is an ordinary policy.
    """

    mix: tuple[tuple[float, Weights], ...]

    def __post_init__(self) -> None:
        """Merge equal sources, round coefficients, drop zeros and sort; raise ValueError if nothing is left."""
        sources = {json.dumps(weights.to_json(), sort_keys=True): weights for _, weights in self.mix}
        merged = _merge((json.dumps(weights.to_json(), sort_keys=True), a) for a, weights in self.mix)
        if not merged:
            raise ValueError("a policy spec needs at least one source with a non-zero coefficient")
        object.__setattr__(self, "mix", tuple((a, sources[text]) for text, a in merged))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: `{"weights": ...}` for an ordinary policy, `{"mix": [[a, weights], ...]}` else."""
        if len(self.mix) == 1 and self.mix[0][0] == 1.0:
            return {"weights": self.mix[0][1].to_json()}
        return {"mix": [[a, weights.to_json()] for a, weights in self.mix]}

    @property
    def key(self) -> str:
        """16 hex digits: equal policies have equal keys."""
        return digest(self.to_json())

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of every job whose weights this policy needs, the bases first."""
        bases = [weights.base for _, weights in self.mix]
        deltas = [name for _, weights in self.mix for name, _ in weights.terms]
        return tuple(dict.fromkeys(bases + deltas))


def policy(base: str, terms: Iterable[tuple[str, float]] = ()) -> PolicySpec:
    """Return the ordinary policy with weights base + sum_i c_i delta_i."""
    return PolicySpec(mix=((1.0, Weights(base, tuple(terms))),))


def spec_from_json(value: dict[str, Any]) -> PolicySpec:
    """Invert `PolicySpec.to_json`."""

    def weights(item: dict[str, Any]) -> Weights:
        return Weights(item["base"], tuple((name, c) for name, c in item.get("terms", ())))

    if "weights" in value:
        return PolicySpec(mix=((1.0, weights(value["weights"])),))
    return PolicySpec(mix=tuple((a, weights(item)) for a, item in value["mix"]))
