"""Which answers are compared: methods against the reference policy and against each other at matched preferences.

Everything here is a table with one row per comparison: objective, seed, preference (asked weight of the task's first
objective), method_a, method_b, spec_key_a, spec_key_b, prompt_id, prompt, answer_a, answer_b,
score_a, score_b (the objective's score, turned so that higher is better).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from peo_bench.core.method import Objective
from peo_bench.files.dialogue import readable
from peo_bench.files.digest import digest

REFERENCE = "reference"
IDENTITY = ["objective", "seed", "preference", "method_a", "method_b", "spec_key_a", "spec_key_b", "prompt_id"]
ORDERS = ("ab", "ba")


Row = dict[str, object]
"""A row of `judgements.parquet` in the making."""


@dataclass(frozen=True)
class Comparison:
    """One row of such a table, without scores."""

    objective: str
    seed: int
    preference: float
    method_a: str
    method_b: str
    spec_key_a: str
    spec_key_b: str
    prompt_id: str
    prompt: str
    answer_a: str
    answer_b: str

    def identity(self) -> Row:
        """Return the columns `IDENTITY`."""
        return {key: getattr(self, key) for key in IDENTITY}


def comparisons(pairs: pd.DataFrame) -> Iterator[Comparison]:
    """Yield the rows of a table of comparisons, prompts as people read them."""
    rows = pairs.assign(prompt=pairs["prompt"].map(readable))
    for row in rows[[*IDENTITY, "prompt", "answer_a", "answer_b"]].itertuples(index=False):
        yield Comparison(*row)


def identities(rows: pd.DataFrame, *more: str) -> Iterator[tuple[str, ...]]:
    """Yield which comparison each row is of, and the columns `more`, as texts: equal also where there is no weight."""
    for key in rows[[*IDENTITY, *more]].itertuples(index=False):
        yield tuple(f"{value:.9f}" if isinstance(value, float) else str(value) for value in key)


def n_matches(n_methods: int, n_given: int, n_preferences: int) -> int:
    """Return how many different pairs of policies one seed compares per objective, given ones being one policy each."""
    of_methods = n_methods * (1 + n_given) + n_methods * (n_methods - 1) // 2
    return n_preferences * of_methods + n_given * (n_given + 1) // 2


def pair_table(
    answers: pd.DataFrame, methods: Sequence[str], objectives: Sequence[Objective], n_prompts: int
) -> pd.DataFrame:
    """Return the comparisons of a run from its answers (the columns of `answers.parquet`).

    The prompts are the first `n_prompts` test prompts by hash of their id: the same for every pair and every run. What
    was not evaluated is not compared.
    """
    test = answers[answers["split"] == "test"]
    chosen = sorted(test["prompt_id"].unique(), key=digest)[:n_prompts]
    test = test[test["prompt_id"].isin(chosen)].sort_values("prompt_id", kind="stable")
    parts = [
        _compared(side_a, side_b, objective)
        for _, one_seed in test.groupby("seed", sort=True)
        for side_a, side_b in _matches(one_seed, methods)
        for objective in objectives
    ]
    columns = [*IDENTITY, "prompt", "answer_a", "answer_b", "score_a", "score_b"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _matches(answers: pd.DataFrame, methods: Sequence[str]) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the two sides of every match of one seed: answers to the same prompts in the same order."""
    reference = answers[answers["method"] == REFERENCE]
    by_method = {name: dict(list(table.groupby("preference", dropna=False))) for name, table in
                 answers[answers["method"].isin(methods)].groupby("method")}  # fmt: skip
    present = [name for name in methods if name in by_method]
    for name in present:
        for table in by_method[name].values():
            yield table, reference
    for a, b in combinations(present, 2):
        for weight, table in by_method[a].items():
            if weight in by_method[b]:
                yield table, by_method[b][weight]


def _compared(a: pd.DataFrame, b: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    sign = 1.0 if objective.maximise else -1.0
    sides = a.merge(b, on="prompt_id", suffixes=("_a", "_b"), validate="one_to_one")
    return pd.DataFrame({
        "objective": objective.name, "seed": sides["seed_a"], "preference": sides["preference_a"].astype(np.float64),
        "method_a": sides["method_a"], "method_b": sides["method_b"],
        "spec_key_a": sides["spec_key_a"], "spec_key_b": sides["spec_key_b"],
        "prompt_id": sides["prompt_id"], "prompt": sides["prompt_a"],
        "answer_a": sides["answer_a"], "answer_b": sides["answer_b"],
        "score_a": sign * sides[f"{objective.column}_a"], "score_b": sign * sides[f"{objective.column}_b"],
    })  # fmt: skip
