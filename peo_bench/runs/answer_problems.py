"""What in `answers.parquet` contradicts itself, or is not what a policy's text alone scores.

Each answer is a policy's, whichever methods offer it, and each prompt is one text: whoever changes a score under one
name alone is found by the other rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peo_bench.core import roles
from peo_bench.errors import UsageError
from peo_bench.results.differences import MOST, NUMPY, column_problems
from peo_bench.results.operating_points import Offer
from peo_bench.results.record import damaged
from peo_bench.scorers import SCORERS, registered_scorer
from peo_bench.scorers.columns import DIGITS

FILE = "answers.parquet"
WHO = ["method", "seed", "split", "preference", "spec_key"]
"""Columns that say whose an answer is."""
ASKED = ["prompt", "category"]
OWN = ["answer", "length", "kl"]
"""Of a prompt, and of an answer to it; more columns hold scores."""


def answer_problems(path: Path, answers: pd.DataFrame, offers: Sequence[Offer]) -> Iterator[str]:
    """Say what contradicts itself among the `answers` (of the file at `path`) of policies that were offered.

    At most `MOST` lines of each kind. `UsageError` for a table that lacks a column, or holds no numbers in one of them.
    """
    scores = [column for offer in offers for column in (*offer.job.params["scorers"], *roles.scorers(offer.job.needs))]
    bound = ["kl_bound"] if any(offer.spec.candidates for offer in offers) else []
    columns = list(dict.fromkeys(["prompt_id", *ASKED, *WHO, *OWN, *bound, *scores]))
    for name in columns:
        if name not in answers:
            raise damaged(path, f"it has no column {name!r}")
        if name in (*OWN[1:], *bound, *scores) and not pd.api.types.is_numeric_dtype(answers[name]):
            raise damaged(path, f"column {name!r} does not hold numbers throughout")
    yield from column_problems(FILE, answers, columns)
    policy = ["seed", "split", "spec_key", "prompt_id"]
    yield from islice(_unequal(answers, "prompt", ["prompt_id"], ASKED), MOST)
    yield from islice(_unequal(answers, "policy", policy, [*OWN, *bound, *scores]), MOST)
    yield from islice(_other_prompts(answers), MOST)
    for i in islice(answers.index[(answers["length"] == 0) & (answers["answer"].str.strip() != "")], MOST):
        yield f"{_place(answers, i)}: length is 0 tokens, though there is an answer"
    by_name = {column: name for offer in offers for column, name in offer.job.params["scorers"].items()}
    for column, name in by_name.items():
        yield from islice(_unscored(answers, column, name), MOST)


def _unequal(answers: pd.DataFrame, what: str, key: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    """Name rows with the same `key` - of one `what` - whose `columns` differ from the first of them."""
    by = [answers[name] for name in key]
    is_first = answers.groupby([*key], sort=False, dropna=False).cumcount() == 0
    first = pd.Series(np.where(is_first, answers.index, -1)).groupby(by, sort=False, dropna=False).transform("max")
    for column in columns:
        values = answers[column]
        theirs = values.loc[first].set_axis(answers.index)
        for i in answers.index[(values != theirs) & ~(values.isna() & theirs.isna())]:
            other = answers["method"][first[i]]
            yield (
                f"{_place(answers, i)}: {column} is {_short(values[i])}, {_short(theirs[i])} for {other}: "
                f"they are of one {what}"
            )


def _other_prompts(answers: pd.DataFrame) -> Iterator[str]:
    """Name policies that answer other prompts than the first one of their seed and split, or in another order."""
    first: dict[tuple[Any, Any], list[str]] = {}
    for (_, seed, split, _, _), table in answers.groupby(WHO, sort=False, dropna=False):
        prompts = table["prompt_id"].tolist()
        expected = first.setdefault((seed, split), prompts)
        if prompts != expected:
            differs = (i for i, pair in enumerate(zip(prompts, expected, strict=False)) if pair[0] != pair[1])
            row = table.index[next(differs, -1)]
            yield f"{_place(answers, row)}: the prompts of other policies are others, or in another order"


def _unscored(answers: pd.DataFrame, column: str, name: str) -> Iterator[str]:
    """Name rows whose score is not what the scorer called `name` gives the text, where the text is all it reads."""
    if not getattr(SCORERS.get(name), "reads_text_alone", False):
        return
    try:
        scores = registered_scorer(name).score(answers["prompt"].tolist(), answers["answer"].tolist())
    except UsageError as error:
        yield f"{FILE}: {name} cannot score its texts ({error})"
        return
    for i, stated, score in zip(answers.index, answers[column], scores, strict=True):
        if not abs(stated - round(score, DIGITS)) <= NUMPY:
            yield f"{_place(answers, i)}: {column} is {stated}, {name} gives this text {round(score, DIGITS)}"


def _place(answers: pd.DataFrame, i: int) -> str:
    method, seed, split, preference = (answers[name][i] for name in WHO[:4])
    where = f"{method}, seed {seed}, {split}" + ("" if pd.isna(preference) else f", preference {preference}")
    return f"{FILE}: {where}, prompt {answers['prompt_id'][i]}"


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
