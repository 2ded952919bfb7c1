"""Roles under which a job needs scorers, task vectors and pairs: made and read here, nowhere else.

>>> needs = {"reference": "base", scorer("reward"): "rm", delta(0): "expert", delta(1): "other"}
>>> scorers(needs), deltas(needs)
({'reward': 'rm'}, ['expert', 'other'])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
LOG_PROBS, MARGIN_LOG_PROBS = "log-probs", "margin-log-probs"
"""Roles of the log-probabilities of a training's pairs, under its reference policy and under that of its margin."""


def scorer(column: str) -> str:
    """Return the role of what scores `column`."""
    return f"scorer:{column}"


def delta(name: int | str) -> str:
    """Return the role of a task vector, by its number or the id of the job that trained it."""
    return f"delta:{name}"


def pairs(objective: str) -> str:
    """Return the role of the pairs of an objective, for jobs that need those of several."""
    return f"pairs:{objective}"


def is_pairs(role: str) -> bool:
    """Say whether pairs are needed under this role, those of one objective or of several."""
    return role == "pairs" or role.startswith("pairs:")


def scorers(needs: Mapping[str, T]) -> dict[str, T]:
    """Return what scores, by column."""
    return _under("scorer:", needs)


def deltas(needs: Mapping[str, T]) -> list[T]:
    """Return the numbered task vectors in order."""
    numbered = _under("delta:", needs)
    return [numbered[str(i)] for i in range(len(numbered))]


def apart_from_deltas(needs: Mapping[str, T]) -> dict[str, T]:
    """Return the needs that are no task vectors."""
    return {role: need for role, need in needs.items() if not role.startswith("delta:")}


def _under(prefix: str, needs: Mapping[str, T]) -> dict[str, T]:
    return {role.removeprefix(prefix): need for role, need in needs.items() if role.startswith(prefix)}
