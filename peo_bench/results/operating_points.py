"""Operating points: the rows of `points.csv`, from the answers of every policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from peo_bench.core.method import Objective, World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import PolicySpec
from peo_bench.jobs.job import Job
from peo_bench.pareto import nondominated

Floats = npt.NDArray[np.float64]
Units = Mapping[int, Mapping[str, Sequence[float]]]
"""By training seed and score column: mean and standard deviation of the reference policy on validation prompts."""
Cell = str | int | float | bool | None
Row = dict[str, Cell]
"""A row of `points.csv` by column."""


def point_columns(objectives: Sequence[Objective]) -> list[str]:
    """Return the columns of `points.csv`."""
    names, columns = [o.name for o in objectives], [o.column for o in objectives]
    return [
        *("task", "split", "method", "seed", "grid"),
        *(f"{what}_{name}" for what in ("preference", "projected") for name in names),
        "spec_key",
        *(f"coef_{name}" for name in names),
        *(name for column in columns for name in (column, f"{column}_se")),
        *(f"{column}_proxy" for column in columns),
        *("kl", "kl_se", "kl_bound", "length", "truncated", "n", "nondominated", "ess", "hollow"),
    ]


@dataclass(frozen=True)
class Offer:
    """What a method offers for one asked preference; without one for the reference policy.

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

    def identity(self, objectives: Sequence[Objective]) -> Row:
        """Return the columns of `points.csv` that say which policy this is."""
        row: Row = {"split": self.split, "method": self.method, "seed": self.seed, "grid": self.grid}
        row["spec_key"] = self.spec.key
        for name, preference in (("preference", self.asked), ("projected", self.projected)):
            if preference is not None:
                row |= {f"{name}_{o.name}": preference[o.name] for o in objectives}
        if self.coefficients is not None:
            row |= {f"coef_{o.name}": c for o, c in zip(objectives, self.coefficients, strict=True)}
        return row


def point_row(identity: Mapping[str, Cell], table: pd.DataFrame, objectives: Iterable[Objective]) -> Row:
    """Return the row of one policy from its answers: means and standard errors over prompts.

    KL in nats per answer, or an upper bound of it where it cannot be measured; length in tokens.
    """
    row: Row = {**identity, "n": len(table), "kl_se": standard_error(table["kl"])}
    row |= {name: table[name].mean() for name in ("length", "truncated", "kl", "kl_bound") if name in table}
    for column in (objective.column for objective in objectives):
        row |= {column: table[column].mean(), f"{column}_se": standard_error(table[column])}
        if f"{column}_proxy" in table:
            row[f"{column}_proxy"] = table[f"{column}_proxy"].mean()
    return row


def standard_error(values: pd.Series[float]) -> float:
    """Return the standard error of the mean over prompts (n - 1 in the denominator)."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def point_table(rows: Sequence[Row], objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return `points.csv` as a table: strict non-dominance within task, split, seed, method and grid; 6 decimals."""
    frame = pd.DataFrame(rows)
    known = point_columns(objectives)
    frame = frame.reindex(columns=[*known, *(name for name in frame if name not in known)])
    columns = [objective.column for objective in objectives]
    maximise = [objective.maximise for objective in objectives]
    frame["nondominated"] = False
    for _, group in frame.groupby(["task", "split", "seed", "method", "grid"]):
        usable = group[group["hollow"].isna() | ~group["hollow"].fillna(False).astype(bool)]
        frame.loc[usable.index, "nondominated"] = nondominated(usable[columns].to_numpy(dtype=float), maximise)
    return frame.round(6)


@dataclass(frozen=True)
class Scores:
    """Scores by method, training seed and asked preference, one table per policy, prompts in the same order."""

    tables: Mapping[tuple[str, int], Mapping[Preference, pd.DataFrame]]

    @classmethod
    def of(cls, answers: pd.DataFrame, objectives: Sequence[str]) -> Scores:
        """Sort out the test answers of `answers.parquet` to asked preferences, the weights of `objectives`."""
        asked = answers[(answers["split"] == "test") & answers["preference"].notna()]
        tables: dict[tuple[str, int], dict[Preference, pd.DataFrame]] = {}
        for key, table in asked.groupby(["method", "seed", "preference"], sort=False):
            method, seed, weight = cast(tuple[str, int, float], key)
            preference = Preference.of(objectives, **{objectives[0]: float(weight)})
            tables.setdefault((method, int(seed)), {})[preference] = table.sort_values("prompt_id")
        return cls(tables)

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the answers."""
        return list(dict.fromkeys(method for method, _ in self.tables))

    def complete(self, method: str, seeds: Iterable[int], preferences: Iterable[Preference]) -> bool:
        """Say whether every preference of every seed was evaluated."""
        asked = set(preferences)
        return all(asked <= set(self.tables.get((method, seed), ())) for seed in seeds)

    def array(self, method: str, seeds: Iterable[int], columns: list[str], units: Units | None = None) -> Floats:
        """Return (n_seeds, n_preferences, n_prompts, n_objectives), by rising weight of the first objective.

        With `units`, each seed's scores are first expressed in that seed's reference units, since each seed may have
        scorers of its own.
        """
        stacks = []
        for seed in seeds:
            tables = self.tables[method, seed]
            rising = sorted(tables, key=lambda preference: preference.weights)
            scores = np.stack(
                [np.column_stack([tables[preference][column] for column in columns]) for preference in rising],
                dtype=float,
            )
            if units is not None:
                shift, scale = (np.array([units[seed][column][k] for column in columns]) for k in (0, 1))
                scores = (scores - shift) / scale
            stacks.append(scores)
        return np.stack(stacks)


def answer_table(offers: Iterable[tuple[Offer, pd.DataFrame]]) -> pd.DataFrame:
    """Return `answers.parquet`: every answer with its prompt, policy and scores."""
    parts = []
    for offer, table in offers:
        part = table.drop(columns="truncated").copy()
        part.insert(3, "method", offer.method)
        part.insert(4, "seed", offer.seed)
        part.insert(5, "split", offer.split)
        part.insert(6, "preference", np.nan if offer.asked is None else offer.asked.weights[0])
        part.insert(7, "spec_key", offer.spec.key)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def reference_units(table: pd.DataFrame, world: World) -> dict[str, tuple[float, float]]:
    """Return by column the mean and standard deviation of the reference policy's validation scores."""
    return {
        objective.column: (float(table[objective.column].mean()), float(table[objective.column].std(ddof=1)))
        for objective in world.objectives
    }
