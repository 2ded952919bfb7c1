"""What gives each column its scores, and the scores of texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from peo_bench.errors import Diverged, UsageError
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.jobs.job import Handle
from peo_bench.scorers import describe, load_scorer
from peo_bench.scorers.model import ModelScorer

DIGITS = 6
"""Decimals of stored scores and KL divergences: what fp32 carries whatever the batch."""


class Scorer(Protocol):
    """Scores answers; higher is better for a reward, worse for a cost."""

    def score(self, prompts: list[str], answers: list[str]) -> list[float]:
        """Return one score per (prompt, answer)."""
        ...


class RegisteredScorer(Scorer, Protocol):
    """A scorer that a task names; its class may have a `version` (1), raised by hand when its scores change.

    One that loads nothing and takes no time to speak of may have `reads_text_alone = True`: `verify` then scores again.
    """

    def __init__(self) -> None:
        """Load what is needed."""


PROXY = "_proxy"
"""Ends the column of a scorer that search and selection saw, where another one gives the reported score."""


@dataclass(frozen=True)
class Label:
    """One label of a scorer with a head: its number."""

    scorer: ModelScorer
    number: int = 0


Columns = Mapping[str, Scorer | Label]
"""What gives each column its scores."""


def scorer_columns(scorers: Mapping[str, Handle], precision: str) -> dict[str, Label]:
    """Return what scores each column, from the scorers' artefacts by column.

    `precision` is that of reward and cost models trained in the run; others have their own.
    """
    columns = {}
    for column, handle in scorers.items():
        labels = describe(handle.path).get("columns", {})
        columns[column] = Label(load_scorer(handle.path, precision), labels.get(column.removesuffix(PROXY), 0))
    return columns


@dataclass(frozen=True)
class Scores:
    """Scores of answers by column; `cut` says by column which texts its scorer had to shorten, if any."""

    columns: dict[str, list[float]]
    cut: dict[str, list[bool]]


def score_texts(
    columns: Columns,
    prompts: list[str],
    answers: list[str],
    groups: Sequence[Hashable] | None = None,
    kept: Memo = FORGETFUL,
    ended: Sequence[bool] | None = None,
) -> Scores:
    """Return the scores of all answers by column, as the scorers give them; one that is not finite is `Diverged`.

    `ended` says which answers did not stop for lack of room, by default all: models trained here read no end there.

    Labels of one scorer share its forward passes. A score varies in its last digits with the texts in its batch, so
    texts of different `groups` (by default there is one) are never scored together. Batches that are `kept` are not
    scored again.
    """
    rows: dict[Hashable, list[int]] = {}
    for i in range(len(answers)):
        rows.setdefault(groups[i] if groups else None, []).append(i)
    scores = {name: [0.0] * len(answers) for name in columns}
    cut = {name: [False] * len(answers) for name in columns}
    for own in rows.values():
        whole = [ended[i] for i in own] if ended else None
        found = _score_group(columns, [prompts[i] for i in own], [answers[i] for i in own], kept, whole)
        for name, (values, shortened) in found.items():
            for i, value, short in zip(own, values, shortened, strict=True):
                scores[name][i], cut[name][i] = round(value, DIGITS), short
    for name, values in scores.items():
        bad = sum(value - value != 0 for value in values)
        if bad:
            raise Diverged(f"scorer {name!r}: {bad} of {len(values)} scores are not finite")
    return Scores(scores, {name: flags for name, flags in cut.items() if any(flags)})


def _score_group(
    columns: Columns, prompts: list[str], answers: list[str], kept: Memo, ended: Sequence[bool] | None
) -> dict[str, tuple[Sequence[float], Sequence[bool]]]:
    """Return by column the scores, and which texts were shortened."""
    scored = {scorer: scorer.score_labels(prompts, answers, kept, ended) for scorer in _models(columns)}
    found: dict[str, tuple[Sequence[float], Sequence[bool]]] = {}
    for name, column in columns.items():
        if isinstance(column, Label):
            labels = scored[column.scorer]
            found[name] = [row[column.number] for row in labels.labels], labels.cut
        else:
            found[name] = _checked(name, column.score(prompts, answers), len(answers)), [False] * len(answers)
    return found


def _checked(name: str, values: object, n: int) -> list[float]:
    """Return a scorer's `values` as floats; raise `UsageError` unless they are `n` numbers."""
    try:
        found = [float(value) for value in cast(Iterable[float], values)]
    except (TypeError, ValueError) as error:
        raise UsageError(f"scorer {name!r}: score must return a list of numbers ({error})") from None
    if len(found) != n:
        raise UsageError(f"scorer {name!r}: score returned {len(found)} numbers for {n} answers: return one for each")
    return found


def _models(columns: Columns) -> list[ModelScorer]:
    return list(dict.fromkeys(column.scorer for column in columns.values() if isinstance(column, Label)))


def count_scorers(columns: Columns) -> int:
    """Return how many scorers read every text: labels of one scorer are one."""
    return len(_models(columns)) + sum(not isinstance(column, Label) for column in columns.values())
