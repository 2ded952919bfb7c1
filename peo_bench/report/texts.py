"""Choose the texts that the page carries: one fixed sample of prompts, the same for every policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pandas as pd

from peo_bench.files.dialogue import readable
from peo_bench.report.wording import balance, method_name
from peo_bench.results.folder import number

MAX_PROMPTS = 100
MAX_BYTES = 6_000_000
"""Bytes of texts that the page carries: it may have 15 MB, 5 of which are plotly."""
MAX_CHARACTERS = 4000
"""Longer texts are cut in the page; answers.parquet has them whole."""
MAX_FLIPS = 4
"""Changed verdicts told per prompt."""
BENIGN = {"", "benign", "safe", "none", "helpful"}


Answer = list[int | float | None]
"""Index into `Texts.texts`, then the scores, None where missing."""


@dataclass(frozen=True)
class PromptText:
    """A prompt of the page: whether to blur it, how much methods disagree (`_spread`), the worst score where lower is
    better, and the verdicts that changed with the order of the answers.
    """

    text: str
    category: str
    sensitive: bool
    spread: float | None
    worst: float | None
    flips: list[str]


@dataclass(frozen=True)
class Texts:
    """The texts of the page: its prompts out of so many, every different answer once, answers by policy and prompt."""

    n_prompts: int
    scorers: list[str]
    prompts: list[PromptText]
    texts: list[str]
    policies: dict[str, list[Answer | None]]


def policy_key(method: str, seed: object, weight: float | None) -> str:
    """Name one policy of a run, the same from points.csv and from answers.parquet.

    The reference policy too has one per seed: it is the same model, but draws and scorers are each seed's own.
    """
    return f"{method}|{int(number(seed) or 0)}|{'' if weight is None else f'{weight:.6f}'}"


def embed_texts(
    answers: pd.DataFrame | None,
    scorers: Mapping[str, bool],
    judgements: pd.DataFrame | None = None,
    names: tuple[str, str] = ("first", "second"),
) -> Texts | None:
    """Return the texts of test prompts that the page carries, or None without any.

    ``scorers``: the columns shown beside an answer, True where higher is better; ``names``: the objectives'.
    """
    if answers is None or answers.empty:
        return None
    table = answers[answers["split"] == "test"] if "split" in answers else answers
    if table.empty:
        return None
    prompts = table.drop_duplicates("prompt_id").set_index("prompt_id")
    chosen = _sample(table, prompts)
    shown = table[table["prompt_id"].isin(chosen)]
    columns = {column: maximise for column, maximise in scorers.items() if column in table}
    spread, worst, flips = _spread(shown, list(columns)), _worst(shown, columns), _flips(judgements, names)
    texts, policies = _answers(shown, chosen, list(columns))
    return Texts(
        n_prompts=len(prompts),
        scorers=list(columns),
        prompts=[
            _prompt(prompts.loc[[key]].iloc[0], spread.get(key), worst.get(key), flips.get(key, [])) for key in chosen
        ],
        texts=texts,
        policies=policies,
    )


def _sample(table: pd.DataFrame, prompts: pd.DataFrame) -> list[str]:
    """Take prompts from every category in turn, in an order that depends on their ids only, while they fit the page."""
    policies = table.groupby(["method", "seed", "preference"], dropna=False).ngroups
    answered = table.groupby("prompt_id").size()
    shared = [key for key in prompts.index if answered[key] >= policies] or list(prompts.index)
    by_category: dict[str, list[str]] = {}
    for key in sorted(shared, key=lambda key: hashlib.sha256(str(key).encode()).hexdigest()):
        by_category.setdefault(_category(prompts.loc[key]), []).append(key)
    rounds = (queue[i] for i in range(MAX_PROMPTS) for _, queue in sorted(by_category.items()) if i < len(queue))
    candidates = [key for key, _ in zip(rounds, range(MAX_PROMPTS), strict=False)]
    answers = table[table["prompt_id"].isin(candidates)].drop_duplicates(["prompt_id", "answer"])
    sizes = answers["answer"].map(_size).groupby(answers["prompt_id"]).sum()
    fits = [total <= MAX_BYTES for total in accumulate(int(sizes[key]) for key in candidates)]
    return [key for i, (key, fit) in enumerate(zip(candidates, fits, strict=True)) if fit or i == 0]


def _size(text: object) -> int:
    """Return the bytes of a text in the page, where <, > and & are written as six characters."""
    shown = _cut(text)
    return len(json.dumps(shown, ensure_ascii=False).encode("utf-8", "replace")) + 5 * sum(map(shown.count, "<>&"))


def _prompt(row: pd.Series, spread: float | None, worst: float | None, flips: list[str]) -> PromptText:
    category = _category(row)
    return PromptText(_cut(readable(row["prompt"])), category, category.lower() not in BENIGN, spread, worst, flips)


def _category(row: pd.Series) -> str:
    value = row.get("category", row.get("hazard"))
    return "" if value is None or value != value else str(value)


def _spread(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """Return by prompt how much methods disagree: the largest gap between two at one asked preference.

    In standard deviations of all answers shown, over the columns and preferences.
    """
    asked = table[table["preference"].notna()]
    found: dict[str, float] = {}
    for column in columns:
        sd = float(table[column].std(ddof=0))
        if not sd > 0:
            continue
        groups = asked.groupby(["prompt_id", "preference"])[column]
        gaps = ((groups.max() - groups.min()) / sd).groupby("prompt_id").max()
        for key, gap in gaps.items():
            found[str(key)] = round(max(found.get(str(key), 0.0), float(gap)), 3)
    return found


def _worst(table: pd.DataFrame, columns: Mapping[str, bool]) -> dict[str, float]:
    """Return by prompt the highest cost of any answer; nothing where no column is a cost."""
    costs = [column for column, maximise in columns.items() if not maximise]
    if not costs:
        return {}
    return {str(key): round(float(value), 3) for key, value in table.groupby("prompt_id")[costs[0]].max().items()}


def _flips(judgements: pd.DataFrame | None, names: tuple[str, str]) -> dict[str, list[str]]:
    """Say by prompt which verdicts changed with the order in which the judge saw the answers."""
    if judgements is None or judgements.empty:
        return {}
    question = ["judge", "objective", "seed", "preference", "method_a", "method_b", "prompt_id"]
    orders = judgements.pivot_table(index=question, columns="order", values="verdict", aggfunc="first", dropna=True)
    if not {"ab", "ba"} <= set(orders):
        return {}
    found: dict[str, list[str]] = {}
    both = orders.dropna(subset=["ab", "ba"])
    flipped = np.sign(both["ab"] - 0.5) != np.sign(both["ba"] - 0.5)  # verdicts may be graded: a change of side counts
    for row in both[flipped].reset_index().to_dict("records"):
        told = found.setdefault(row["prompt_id"], [])
        if len(told) < MAX_FLIPS:
            pair = f"{method_name(row['method_a'])} and {method_name(row['method_b'])}"
            told.append(
                f"{row['objective']}, {pair} at {balance(number(row['preference']), *names)}: "
                f"{_verdict(row['ab'], row)} when shown in this order, {_verdict(row['ba'], row)} in the other"
            )
    return found


def _verdict(value: float, row: Mapping[Hashable, object]) -> str:
    return "a tie" if value == 0.5 else method_name(str(row["method_a" if value > 0.5 else "method_b"]))


def _answers(
    table: pd.DataFrame, chosen: list[str], columns: list[str]
) -> tuple[list[str], dict[str, list[Answer | None]]]:
    position = {key: index for index, key in enumerate(chosen)}
    texts: dict[str, int] = {}
    policies: dict[str, list[Answer | None]] = {}
    for row in table.to_dict("records"):
        key = policy_key(row["method"], row["seed"], number(row["preference"]))
        answers = policies.setdefault(key, [None] * len(chosen))
        if answers[position[row["prompt_id"]]] is None:
            index = texts.setdefault(_cut(row["answer"]), len(texts))
            scores = [None if (value := number(row[column])) is None else round(value, 3) for column in columns]
            answers[position[row["prompt_id"]]] = [index, *scores]
    return list(texts), policies


def _cut(text: object) -> str:
    whole = str(text)
    return whole if len(whole) <= MAX_CHARACTERS else f"{whole[:MAX_CHARACTERS]} … (cut)"
