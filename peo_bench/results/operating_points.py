"""Operating points: the rows of `points.csv`, from the answers of every policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from peo_bench.core.method import Objective, World
from peo_bench.core.space import Preference
from peo_bench.core.spec import PolicySpec
from peo_bench.jobs.job import Job
from peo_bench.pareto import nondominated

Floats = npt.NDArray[np.float64]
Units = Mapping[int, Mapping[str, Sequence[float]]]
"""By training seed and score column: mean and standard deviation of the reference policy on validation prompts."""

COLUMNS = [
    *("task", "split", "method", "seed", "grid", "preference_helpful", "preference_harmless"),
    *("projected_helpful", "projected_harmless", "spec_key", "coef_helpful", "coef_harmless"),
    *("reward", "reward_se", "cost", "cost_se", "reward_proxy", "cost_proxy"),
    *("kl", "kl_se", "kl_bound", "length", "truncated", "n", "nondominated", "ess", "hollow"),
]


@dataclass(frozen=True)
class Offer:
    """What a method offers for one asked preference; without one for single policies (reference, external).

    `job` evaluates it on the prompts of `split`.
    """

    method: str
    seed: int
    spec: PolicySpec
    job: Job
    asked: Preference | None = None
    projected: Preference | None = None
    coefficients: tuple[float, ...] | None = None
    split: str = "test"
    grid: str = "asked"

    def identity(self, objectives: Sequence[Objective]) -> dict[str, Any]:
        """Return the columns of `points.csv` that say which policy this is."""
        row = {"split": self.split, "method": self.method, "seed": self.seed, "grid": self.grid}
        row["spec_key"] = self.spec.key
        for name, values in (("preference", self.asked), ("projected", self.projected), ("coef", self.coefficients)):
            if values is not None:
                row |= {f"{name}_{o.name}": value for o, value in zip(objectives, values, strict=True)}
        return row


def point_row(identity: Mapping[str, Any], table: pd.DataFrame, objectives: Iterable[Objective]) -> dict[str, Any]:
    """Return the row of one policy from its answers: means and standard errors over prompts.

    KL in nats per answer, or an upper bound of it where it cannot be measured; length in tokens.
    """
    row = dict(identity) | {"n": len(table), "kl_se": standard_error(table["kl"])}
    row |= {name: table[name].mean() for name in ("length", "truncated", "kl", "kl_bound") if name in table}
    for column in (objective.column for objective in objectives):
        row |= {column: table[column].mean(), f"{column}_se": standard_error(table[column])}
        if f"{column}_proxy" in table:
            row[f"{column}_proxy"] = table[f"{column}_proxy"].mean()
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


@dataclass(frozen=True)
class Scores:
    """Scores by method, training seed and asked helpful weight, one table per policy, prompts in the same order."""

    tables: Mapping[tuple[str, int], Mapping[float, pd.DataFrame]]

    @classmethod
    def of(cls, answers: pd.DataFrame) -> Scores:
        """Sort out the test answers of `generations.parquet` to asked preferences."""
        asked = answers[(answers["split"] == "test") & answers["preference"].notna()]
        tables: dict[tuple[str, int], dict[float, pd.DataFrame]] = {}
        for key, table in asked.groupby(["method", "seed", "preference"], sort=False):
            method, seed, weight = cast(tuple[str, int, float], key)
            tables.setdefault((method, int(seed)), {})[float(weight)] = table.sort_values("prompt_id")
        return cls(tables)

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the answers."""
        return list(dict.fromkeys(method for method, _ in self.tables))

    def complete(self, method: str, seeds: Iterable[int], preferences: Iterable[Preference]) -> bool:
        """Say whether every preference of every seed was evaluated."""
        weights = {preference[0] for preference in preferences}
        return all(weights <= set(self.tables.get((method, seed), ())) for seed in seeds)

    def array(self, method: str, seeds: Iterable[int], columns: list[str], units: Units | None = None) -> Floats:
        """Return (n_seeds, n_preferences, n_prompts, n_objectives), preferences by rising helpful weight.

        With `units`, each seed's scores are first expressed in that seed's reference units, since each seed may have
        scorers of its own.
        """
        stacks = []
        for seed in seeds:
            tables = self.tables[method, seed]
            scores = np.stack([tables[weight][columns].to_numpy(dtype=float) for weight in sorted(tables)])
            if units is not None:
                shift, scale = (np.array([units[seed][column][k] for column in columns]) for k in (0, 1))
                scores = (scores - shift) / scale
            stacks.append(scores)
        return np.stack(stacks)


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
