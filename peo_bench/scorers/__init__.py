"""Reward and cost models as checkpoints: one file per layout, checked when they are taken over (docs/scorers.md)."""

from __future__ import annotations

import importlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from peo_bench.errors import UsageError, unknown
from peo_bench.registry import Registry

if TYPE_CHECKING:
    from peo_bench.scorers.columns import RegisteredScorer
    from peo_bench.scorers.model import ModelScorer


def _is_scorer(thing: object) -> bool:
    version = getattr(thing, "version", 1)
    return isinstance(thing, type) and callable(getattr(thing, "score", None)) and isinstance(version, int)


SCORERS: Registry[type[RegisteredScorer]] = Registry(
    "scorer",
    "peo_bench.scorers",
    {
        "sandbox-cost": "peo_bench.sandbox.gold_scorers:GoldCost",
        "sandbox-reward": "peo_bench.sandbox.gold_scorers:GoldReward",
    },
    expected="a class with a method score(prompts, answers) and, if it has a version, a whole number",
    valid=_is_scorer,
)
LAYOUTS = {
    "beaver": "peo_bench.scorers.beaver:Beaver",
    "hh-gpt2": "peo_bench.scorers.hh_gpt2:HHGPT2",
    "sequence-classification": "peo_bench.scorers.sequence_classification:SequenceClassifier",
    "trained": "peo_bench.scorers.trained:RewardModelScorer",
}


class Description(TypedDict, total=False):
    """What a "scorer" artefact says of itself: how it is read, and the label of every column."""

    layout: str
    dtype: str
    template: str | None
    columns: dict[str, int]


DESCRIPTION = "scorer.json"
"""Beside `model/` in a "scorer" artefact: layout, template, dtype and columns. Absent where the run trained it."""


def scorer_version(name: str) -> int:
    """Return the version of a registered scorer, 1 where its class gives none."""
    return getattr(SCORERS.get(name), "version", 1)


def registered_scorer(name: str) -> RegisteredScorer:
    """Return the registered scorer called `name`, ready to score."""
    try:
        return SCORERS.get(name)()
    except TypeError as error:
        raise UsageError(f"scorer {name!r} cannot be made without arguments ({error})") from error


def describe(path: Path) -> Description:
    """Return what the artefact at `path` says of itself; nothing for a reward model that the run trained."""
    file = path / DESCRIPTION
    value: Description = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return value


def open_scorer(
    path: Path, layout: str = "trained", dtype: str | None = "float32", template: str | None = None
) -> ModelScorer:
    """Load `path`, or `model` in it, as a checkpoint of this layout, without a `dtype` all but the weights.

    Raises `UsageError` if it is none.
    """
    if layout not in LAYOUTS:
        raise unknown("layout of a checkpoint", layout, LAYOUTS)
    module, _, name = LAYOUTS[layout].partition(":")
    scorer: ModelScorer = getattr(importlib.import_module(module), name)(
        path, dtype, **({"template": template} if template else {})
    )
    return scorer


@lru_cache(maxsize=8)
def load_scorer(path: Path, precision: str) -> ModelScorer:
    """Return the scorer of an artefact, loaded once per process; `precision` is for those that the run trained."""
    known = describe(path)
    return open_scorer(path, known.get("layout", "trained"), known.get("dtype", precision), known.get("template"))
