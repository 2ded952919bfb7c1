"""Operating points: the rows of `points.csv`, from the answers of every policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from peo_bench.core.method import Objective, World
from peo_bench.core.space import Preference
from peo_bench.core.spec import PolicySpec
from peo_bench.pareto import nondominated

Floats = npt.NDArray[np.float64]
Units = Mapping[int, Mapping[str, tuple[float, float]]]
"""By training seed and score column: mean and standard deviation of the reference policy on validation prompts."""

COLUMNS = [
    *("task", "split", "method", "seed", "grid", "preference_helpful", "preference_harmless"),
    *("projected_helpful", "projected_harmless", "spec_key", "coef_helpful", "coef_harmless"),
    *("reward", "reward_se", "cost", "cost_se", "reward_proxy", "cost_proxy"),
    *("kl", "kl_se", "length", "truncated", "n", "nondominated", "ess", "hollow"),
]


@dataclass(frozen=True)
class Offer:
    """What a method offers for one asked preference; without one for single policies (reference, external)."""

    method: str
    seed: int
    spec: PolicySpec
    asked: Preference | None = None
    projected: Preference | None = None
    coefficients: tuple[float, ...] | None = None
    split: str = "test"
    grid: str = "asked"


def point_row(offer: Offer, table: pd.DataFrame, task: str, objectives: Iterable[Objective]) -> dict[str, Any]:
    """Return the row of one policy: means and standard errors over prompts; kl in nats, length in tokens."""
    row: dict[str, Any] = {
        "task": task,
        "split": offer.split,
        "method": offer.method,
        "seed": offer.seed,
        "grid": offer.grid,
        "spec_key": offer.spec.key,
        "n": len(table),
        "length": table["length"].mean(),
        "truncated": table["truncated"].mean(),
        "kl": table["kl"].mean(),
        "kl_se": standard_error(table["kl"]),
    }
    for i, objective in enumerate(objectives):
        scores = table[objective.column]
        row |= {objective.column: scores.mean(), f"{objective.column}_se": standard_error(scores)}
        if f"{objective.column}_proxy" in table:
            row[f"{objective.column}_proxy"] = table[f"{objective.column}_proxy"].mean()
        for name, values in (("preference", offer.asked), ("projected", offer.projected), ("coef", offer.coefficients)):
            if values is not None:
                row[f"{name}_{objective.name}"] = values[i]
    return row


def standard_error(values: pd.Series[float]) -> float:
    """Return the standard error of the mean over prompts (n - 1 in the denominator)."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def point_table(rows: list[dict[str, Any]], objectives: Iterable[Objective]) -> pd.DataFrame:
    """Return `points.csv` as a table: strict non-dominance within task, split, seed, method and grid; 6 decimals."""
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=[*COLUMNS, *(name for name in frame if name not in COLUMNS)])
    columns = [objective.column for objective in objectives]
    maximise = [objective.maximise for objective in objectives]
    frame["nondominated"] = False
    for _, group in frame.groupby(["task", "split", "seed", "method", "grid"]):
        usable = group[group["hollow"].isna() | ~group["hollow"].fillna(False).astype(bool)]
        frame.loc[usable.index, "nondominated"] = nondominated(usable[columns].to_numpy(dtype=float), maximise)
    return frame.round(6)


@dataclass
class Scores:
    """Answers by (method, seed), one table per asked preference, for the paired bootstrap."""

    tables: dict[tuple[str, int], list[pd.DataFrame]] = field(default_factory=dict)

    def add(self, offer: Offer, table: pd.DataFrame) -> None:
        """Keep the table of one asked preference."""
        self.tables.setdefault((offer.method, offer.seed), []).append(table)

    def array(self, method: str, seeds: Iterable[int], columns: list[str], units: Units | None = None) -> Floats:
        """Return (n_preferences, n_prompts, n_objectives), averaged over training seeds.

        With `units`, each seed's scores are first expressed in that seed's reference units, since each seed may have
        scorers of its own.
        """
        stacks = []
        for seed in seeds:
            scores = np.stack([table[columns].to_numpy(dtype=float) for table in self.tables[method, seed]])
            if units is not None:
                shift, scale = (np.array([units[seed][column][k] for column in columns]) for k in (0, 1))
                scores = (scores - shift) / scale
            stacks.append(scores)
        return np.asarray(np.mean(stacks, axis=0))


def generations(offers: Iterable[tuple[Offer, pd.DataFrame]]) -> pd.DataFrame:
    """Return `generations.parquet`: every answer with its prompt, policy and scores."""
    parts = []
    for offer, table in offers:
        part = table.drop(columns="truncated").copy()
        part.insert(3, "method", offer.method)
        part.insert(4, "seed", offer.seed)
        part.insert(5, "split", offer.split)
        part.insert(6, "preference", np.nan if offer.asked is None else offer.asked[0])
        part.insert(7, "spec_key", offer.spec.key)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def reference_units(table: pd.DataFrame, world: World) -> dict[str, tuple[float, float]]:
    """Return by column the mean and standard deviation of the reference policy's validation scores."""
    return {
        objective.column: (float(table[objective.column].mean()), float(table[objective.column].std(ddof=1)))
        for objective in world.objectives
    }
