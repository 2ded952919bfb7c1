"""Preferences in tests: weights of helpful and harmless."""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.core.preference import Preference


def asked(weights: Sequence[float]) -> Preference:
    """The preference with these weights of helpful and harmless."""
    return Preference(("helpful", "harmless"), tuple(weights))
