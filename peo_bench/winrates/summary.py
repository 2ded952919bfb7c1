"""Everything that is said of one file of annotations: rates, counts, length control, and why a value is absent."""

from __future__ import annotations

from dataclasses import replace
from typing import TypedDict

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


class LengthControl(TypedDict):
    """Win rates at equal lengths, in percent.

    `length_controlled_winrate` follows upstream; `length_controlled_by_instruction` is there where rows are missing and
    every instruction's own difficulty gives another value. `length_adjusted_winrate` is our own fit without difficulty,
    for any prompts. The reasons say why there is no value, `warnings` what makes one doubtful.
    """

    length_controlled_winrate: float | None
    lc_standard_error: float | None
    length_controlled_by_instruction: float | None
    length_controlled_reason: str | None
    length_adjusted_winrate: float | None
    length_adjusted_reason: str | None
    warnings: list[str]


class Summary(LengthControl):
    """The numbers of `peo-bench winrate --json`: rates in percent, their interval, counts of rows, lengths.

    `n_without_text` counts rows of which an answer's length is not known: they are in the plain rates and in no fit.
    """

    model: str | None
    baseline: str | None
    annotator: str | None
    win_rate: float
    standard_error: float
    discrete_win_rate: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    n_missing: int
    n_invalid: int
    ci_low: float
    ci_high: float
    n_rows: int
    n_absent: int | None
    n_duplicates: int
    n_without_text: int
    avg_length: float | None
    avg_length_baseline: float | None


def summarise(annotations: Annotations, files: tuple[DifficultyTable, Regulariser] | None = None) -> Summary:
    """Return all that is said of `annotations`; values that cannot be had are None or NaN.

    `files` are what AlpacaEval's length control needs.
    """
    rate, interval = win_rate(annotations.preference), rate_interval(graded(annotations.preference))
    known = [text for text in annotations.instruction if text is not None]
    control = _length_control(_with_lengths(annotations), files)
    control["warnings"] = [*_codes(annotations.preference), *control["warnings"]]
    return {
        "model": annotations.model,
        "baseline": annotations.baseline,
        "annotator": annotations.annotator,
        "win_rate": rate.win_rate,
        "standard_error": rate.standard_error,
        "discrete_win_rate": rate.discrete_win_rate,
        "n_wins": rate.n_wins,
        "n_wins_base": rate.n_wins_base,
        "n_draws": rate.n_draws,
        "n_total": rate.n_total,
        "n_missing": rate.n_missing,
        "n_invalid": rate.n_invalid,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "n_rows": len(annotations.preference),
        "n_absent": None if files is None else max(0, len(files[0].values) - len(annotations.preference)),
        "n_duplicates": len(known) - len(set(known)),
        "n_without_text": int(np.isnan(annotations.length_baseline + annotations.length_model).sum()),
        "avg_length": _mean(annotations.length_model),
        "avg_length_baseline": _mean(annotations.length_baseline),
        **control,
    }


def _codes(preferences: FloatArray) -> list[str]:
    """Return a hint where all verdicts are 0 and 1, which somebody may have meant as lost and won."""
    given = preferences[np.isfinite(preferences)]
    draws, losses = int((given == 0).sum()), int((given == 1).sum())
    if not len(given) or draws + losses < len(given):
        return []
    found = f"0 in {draws} rows, 1 in {losses} and nothing else" if draws else f"1 in all {losses} rows"
    return [
        f"preference is {found}: by alpaca_eval's rule 0 is a draw and 1 a "
        "win of the baseline; if 1 stands for a win of the model here, write 2 for it and 1 for the baseline's"
    ]


def _length_control(annotations: Annotations, files: tuple[DifficultyTable, Regulariser] | None) -> LengthControl:
    found: LengthControl = {
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
        return {**found, "length_controlled_reason": reason, "length_adjusted_reason": reason}
    z = standardised_gap(annotations.length_baseline, annotations.length_model)
    itself = _is_itself(annotations)
    try:
        found["length_adjusted_winrate"] = (ITSELF if itself else length_adjusted(annotations.preference, z)).win_rate
    except ValueError as reason:
        found["length_adjusted_reason"] = str(reason)
    if files is None:
        return {**found, "length_controlled_reason": "needs --difficulty FILE and --gamed FILE"}
    try:
        return _with_values(found, ITSELF, None) if itself else _controlled(found, annotations, z, *files)
    except ValueError as reason:
        return {**found, "length_controlled_reason": str(reason)}


def _controlled(
    found: LengthControl, annotations: Annotations, z: FloatArray, table: DifficultyTable, regulariser: Regulariser
) -> LengthControl:
    """Return `found` with the controlled values, and as `warnings` where positions make the first one doubtful."""
    place = located(annotations, table)
    published = length_controlled(annotations.preference, z, place.published, regulariser)
    own = None if place.own is None else length_controlled(annotations.preference, z, place.own, regulariser)
    doubts = _doubts(len(table.values) - len(annotations.row), len(table.values), published, own)
    return {**_with_values(found, published, own), "warnings": doubts}


def _with_values(found: LengthControl, published: LengthControlled, own: LengthControlled | None) -> LengthControl:
    return {
        **found,
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
