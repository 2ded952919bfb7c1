"""Choose the texts that the page carries: one fixed sample of prompts, the same for every policy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pandas as pd

from peo_bench.report.folder import Json, number

MAX_PROMPTS = 24
MAX_CHARACTERS = 4000
"""Longer texts are cut in the page; generations.parquet has them whole."""
BENIGN = {"", "benign", "safe", "none", "helpful"}


def policy_key(method: str, seed: Any, weight: float | None) -> str:
    """Name one policy of a run, the same from points.csv and from generations.parquet."""
    trained = 0 if method == "reference" else int(number(seed) or 0)
    return f"{method}|{trained}|{'' if weight is None else f'{weight:.6f}'}"


def embed_texts(generations: pd.DataFrame | None, scorers: Sequence[str], split: str = "test") -> Json | None:
    """Return the texts the page carries, or None without any.

    ``prompts``: text, category and whether to blur it; ``texts``: every different answer once;
    ``policies[key]``: per prompt the index into ``texts`` and the scores (None where missing).
    ``scorers`` are the columns shown beside an answer.
    """
    if generations is None or generations.empty:
        return None
    table = generations[generations["split"] == split] if "split" in generations else generations
    if table.empty:
        return None
    prompts = table.drop_duplicates("prompt_id").set_index("prompt_id")
    chosen = _sample(table, prompts)
    columns = [column for column in scorers if column in table]
    return {
        "n_prompts": len(prompts),
        "scorers": columns,
        "prompts": [_prompt(prompts.loc[key]) for key in chosen],
        **_answers(table[table["prompt_id"].isin(chosen)], chosen, columns),
    }


def _sample(table: pd.DataFrame, prompts: pd.DataFrame) -> list[Any]:
    """Take prompts from every category in turn, in an order that depends on their ids only."""
    policies = table.groupby(["method", "seed", "preference"], dropna=False).ngroups
    answered = table.groupby("prompt_id").size()
    shared = [key for key in prompts.index if answered[key] >= policies] or list(prompts.index)
    by_category: dict[str, list[Any]] = {}
    for key in sorted(shared, key=lambda key: hashlib.sha256(str(key).encode()).hexdigest()):
        by_category.setdefault(_category(prompts.loc[key]), []).append(key)
    rounds = (queue[i] for i in range(MAX_PROMPTS) for _, queue in sorted(by_category.items()) if i < len(queue))
    return [key for key, _ in zip(rounds, range(MAX_PROMPTS), strict=False)]


def _prompt(row: pd.Series) -> Json:
    category = _category(row)
    return {"text": _cut(row["prompt"]), "category": category, "sensitive": category.lower() not in BENIGN}


def _category(row: pd.Series) -> str:
    value = row.get("category", row.get("hazard"))
    return "" if value is None or value != value else str(value)


def _answers(table: pd.DataFrame, chosen: list[Any], columns: list[str]) -> Json:
    position = {key: index for index, key in enumerate(chosen)}
    texts: dict[str, int] = {}
    policies: Json = {}
    for row in table.to_dict("records"):
        key = policy_key(row["method"], row["seed"], number(row["preference"]))
        answers = policies.setdefault(key, [None] * len(chosen))
        if answers[position[row["prompt_id"]]] is None:
            index = texts.setdefault(_cut(row["response"]), len(texts))
            scores = [None if (value := number(row[column])) is None else round(value, 3) for column in columns]
            answers[position[row["prompt_id"]]] = [index, *scores]
    return {"texts": list(texts), "policies": policies}


def _cut(text: Any) -> str:
    whole = str(text)
    return whole if len(whole) <= MAX_CHARACTERS else f"{whole[:MAX_CHARACTERS]} … (cut)"
