"""Everything that is said of one file of annotations: rates, counts, length control, and why a value is absent."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from peo_bench.winrates.annotations import Annotations
from peo_bench.winrates.difficulty import DifficultyTable, located
from peo_bench.winrates.length_controlled import (
    ITSELF,
    LengthControlled,
    Regulariser,
    length_adjusted,
    length_controlled,
    standardised_gap,
)
from peo_bench.winrates.winrate import FloatArray, graded, rate_interval, win_rate

DOUBTFUL = 1.0
"""Points between a length-controlled value by position and one by instruction that call for a warning."""


def summarise(annotations: Annotations, files: tuple[DifficultyTable, Regulariser] | None = None) -> dict[str, Any]:
    """Return the numbers of `peo-bench winrate --json`; values that cannot be had are None or NaN.

    With `files`, `length_controlled_winrate` follows upstream; `length_controlled_by_instruction` is there where rows
    are missing and every instruction's own difficulty gives another value. `length_adjusted_winrate` is our own fit
    without difficulty, for any prompts. `length_controlled_reason` and `length_adjusted_reason` say why there is no
    value, `warnings` what makes one doubtful. `n_without_text` counts rows of which an answer's length is not known:
    they are in the plain rates and in no fit.
    """
    rate, interval = win_rate(annotations.preference), rate_interval(graded(annotations.preference))
    known = [text for text in annotations.instruction if text is not None]
    found: dict[str, Any] = {
        "model": annotations.model,
        "baseline": annotations.baseline,
        "annotator": annotations.annotator,
        **asdict(rate),
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "n_rows": len(annotations.preference),
        "n_absent": None if files is None else max(0, len(files[0].values) - len(annotations.preference)),
        "n_duplicates": len(known) - len(set(known)),
        "n_without_text": int(np.isnan(annotations.length_baseline + annotations.length_model).sum()),
        "avg_length": _mean(annotations.length_model),
        "avg_length_baseline": _mean(annotations.length_baseline),
    }
    found |= _length_control(_with_lengths(annotations), files)
    return found | {"warnings": [*_codes(annotations.preference), *found["warnings"]]}


def _codes(preferences: FloatArray) -> list[str]:
    """Return a hint where all verdicts are 0 and 1, which somebody may have meant as lost and won."""
    given = preferences[np.isfinite(preferences)]
    draws, losses = int((given == 0).sum()), int((given == 1).sum())
    if not draws or draws + losses < len(given):
        return []
    return [
        f"preference is 0 in {draws} rows, 1 in {losses} and nothing else: by alpaca_eval's rule 0 is a draw and 1 a "
        "win of the baseline; if 1 stands for a win of the model here, write 2 for it and 1 for the baseline's"
    ]


def _length_control(annotations: Annotations, files: tuple[DifficultyTable, Regulariser] | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "length_controlled_winrate": None,
        "lc_standard_error": None,
        "length_controlled_by_instruction": None,
        "length_controlled_reason": None,
        "length_adjusted_winrate": None,
        "length_adjusted_reason": None,
        "warnings": [],
    }
    if not annotations.row:
        reason = "the rows have neither texts nor lengths"
        return found | {"length_controlled_reason": reason, "length_adjusted_reason": reason}
    z = standardised_gap(annotations.length_baseline, annotations.length_model)
    itself = _is_itself(annotations)
    try:
        found["length_adjusted_winrate"] = (ITSELF if itself else length_adjusted(annotations.preference, z)).win_rate
    except ValueError as reason:
        found["length_adjusted_reason"] = str(reason)
    if files is None:
        return found | {"length_controlled_reason": "needs --difficulty FILE and --gamed FILE"}
    try:
        return found | (_controlled_values(ITSELF, None) if itself else _controlled(annotations, z, *files))
    except ValueError as reason:
        return found | {"length_controlled_reason": str(reason)}


def _controlled(
    annotations: Annotations, z: FloatArray, table: DifficultyTable, regulariser: Regulariser
) -> dict[str, Any]:
    """Return the controlled values, and as `warnings` where positions make the first one doubtful."""
    place = located(annotations, table)
    published = length_controlled(annotations.preference, z, place.published, regulariser)
    own = None if place.own is None else length_controlled(annotations.preference, z, place.own, regulariser)
    doubts = _doubts(len(table.values) - len(annotations.row), len(table.values), published, own)
    return _controlled_values(published, own) | {"warnings": doubts}


def _controlled_values(published: LengthControlled, own: LengthControlled | None) -> dict[str, Any]:
    return {
        "length_controlled_winrate": published.win_rate,
        "lc_standard_error": published.standard_error,
        "length_controlled_by_instruction": None if own is None else own.win_rate,
    }


def _doubts(n_absent: int, n: int, published: LengthControlled, own: LengthControlled | None) -> list[str]:
    doubts = []
    if n_absent > 0:
        doubts.append(
            f"{n_absent} of {n} instructions are not in the length-controlled fit: difficulties are looked up by a "
            "row's position, as alpaca_eval does, which is wrong behind a missing row"
        )
    if own is not None and abs(own.win_rate - published.win_rate) > DOUBTFUL:
        doubts.append(
            f"length-controlled: {published.win_rate:.2f} by position, {own.win_rate:.2f} with every row's own "
            "difficulty: believe the second; the first is for comparison with published values only"
        )
    return doubts


def _with_lengths(annotations: Annotations) -> Annotations:
    """Leave out rows whose lengths are not known."""
    known = np.flatnonzero(np.isfinite(annotations.length_baseline + annotations.length_model))
    return replace(
        annotations,
        preference=annotations.preference[known],
        length_baseline=annotations.length_baseline[known],
        length_model=annotations.length_model[known],
        instruction=tuple(annotations.instruction[i] for i in known),
        row=tuple(annotations.row[i] for i in known),
    )


def _is_itself(annotations: Annotations) -> bool:
    """Whether the model is the baseline: by name, or, where the baseline has none, by draws of equal length."""
    if annotations.baseline is not None:
        return annotations.baseline == annotations.model
    same = bool((annotations.length_baseline == annotations.length_model).all())
    return same and win_rate(annotations.preference).n_draws == len(annotations.preference)


def _mean(lengths: FloatArray) -> float | None:
    known = lengths[np.isfinite(lengths)]
    return float(known.mean()) if len(known) else None
