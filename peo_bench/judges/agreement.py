"""How far a judge agrees with people: verdicts on labelled pairs against each label and against their majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from peo_bench.judges.card import by_order
from peo_bench.judges.labelled import LabelledPair
from peo_bench.judges.matchups import ORDERS
from peo_bench.winrates.winrate import effective_wilson

NAMES = {1.0: "a", 0.0: "b", 0.5: "tie"}


def labelled_table(pairs: Sequence[LabelledPair]) -> pd.DataFrame:
    """Return the pairs as a judge takes them (see `peo_bench.judges.matchups`); `prompt_id` is the position."""
    return pd.DataFrame(
        {
            "objective": [pair.objective for pair in pairs],
            "seed": 0,
            "preference": np.nan,
            "method_a": "a",
            "method_b": "b",
            "spec_key_a": "a",
            "spec_key_b": "b",
            "prompt_id": [str(i) for i in range(len(pairs))],
            **{key: [getattr(pair, key) for pair in pairs] for key in ("prompt", "answer_a", "answer_b")},
        }
    )


def recorded(pairs: Sequence[LabelledPair]) -> pd.DataFrame:
    """Return the verdicts that the file itself holds, as rows of `judgements.parquet`."""
    table = labelled_table(pairs)
    parts = []
    for order in ORDERS:
        kept = [i for i, pair in enumerate(pairs) if order in pair.verdicts]
        verdicts = [pairs[i].verdicts[order] for i in kept]
        parts.append(table.iloc[kept].assign(order=order, verdict=verdicts, asked=True, usd=0.0))
    return pd.concat(parts, ignore_index=True)


def majority(labels: Sequence[float]) -> float:
    """Return the label that more annotators gave than any other; NaN where two share the lead.

    >>> majority([1.0, 0.5, 1.0]), majority([1.0, 0.0])
    (1.0, nan)
    """
    (first, votes), *others = Counter(labels).most_common()
    return float("nan") if others and others[0][1] == votes else first


def agreement(pairs: Sequence[LabelledPair], rows: pd.DataFrame) -> dict[str, Any]:
    """Return shares (0 to 1) in which verdicts equal people's labels; a tie must be a tie.

    `agreement`: with the majority, every order by itself, then averaged (what benchmarks call accuracy); its interval
    is over pairs. `agreement_annotators`: with each single label. `agreement_combined`: of the two orders' mean
    verdict, above one half a, below b. `agreement_decided`: like `agreement`, on pairs that people did not call a tie.
    `people`: two annotators with one another. An unparseable reply agrees with nobody. Pairs without a majority are
    left out of all but `agreement_annotators`; pairs whose verdict is missing are left out and counted in `n_missing`.
    """
    verdicts = by_order(rows).reset_index().set_index("prompt_id")[list(ORDERS)]
    shown = [order for order in ORDERS if (rows["order"] == order).any()]
    answered = rows.groupby("prompt_id")["order"].nunique()
    kept = [i for i in range(len(pairs)) if answered.get(str(i), 0) == len(shown)]
    given = verdicts.loc[[str(i) for i in kept], shown].to_numpy(dtype=float)
    most = np.array([majority(pairs[i].labels) for i in kept])
    with_majority = ~np.isnan(most)
    hits = (given == most[:, None]).mean(axis=1)
    each = [np.mean([given[row] == label for label in pairs[i].labels]) for row, i in enumerate(kept)]
    combined = 0.5 * (1 + np.sign(given.mean(axis=1) - 0.5))
    decided = with_majority & (most != 0.5)
    agreeing = hits[with_majority]
    low, high = effective_wilson(agreeing) if len(agreeing) > 1 else (float("nan"), float("nan"))
    return {
        "agreement": _mean(agreeing),
        "ci_low": low,
        "ci_high": high,
        "agreement_annotators": _mean(each),
        "agreement_combined": _mean((combined == most)[with_majority]) if len(shown) == 2 else None,
        "agreement_decided": _mean(hits[decided]),
        "people": _people([pairs[i].labels for i in kept]),
        "n_pairs": len(kept),
        "n_missing": len(pairs) - len(kept),
        "n_no_majority": int((~with_majority).sum()),
        "n_people_ties": int((most == 0.5).sum()),
        "confusion": _confusion(most, given),
    }


def _people(labels: Sequence[Sequence[float]]) -> float | None:
    pairs = [a == b for given in labels for a, b in combinations(given, 2)]
    return _mean(pairs) if pairs else None


def _confusion(most: np.ndarray, given: np.ndarray) -> dict[str, dict[str, int]]:
    """Return replies by the people's majority (outer) and the judge's verdict (inner)."""
    table: dict[str, dict[str, int]] = {
        name: dict.fromkeys((*NAMES.values(), "unparseable"), 0) for name in NAMES.values()
    }
    for label, verdicts in zip(most, given, strict=True):
        for verdict in verdicts if label in NAMES else ():
            table[NAMES[label]][NAMES.get(verdict, "unparseable")] += 1
    return table


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
