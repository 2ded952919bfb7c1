r"""The one internal form of a preference pair, and how rows of the known layouts become pairs.

Four layouts are read:

- `pairs`: one column each for prompt, preferred and other answer; texts, or lists of messages as TRL takes them
  (`{"role": ..., "content": ...}`), each row by what it holds. Lists may begin with the prompt, the turns that both
  have in common, whether there is a `prompt` or not; texts may with `implicit_prompt`.
- `hh`: two transcripts with `\n\nHuman:` and `\n\nAssistant:` turns (Bai et al. 2022, arXiv 2204.05862). The prompt
  is everything up to and including the last `\n\nAssistant:`, the answer is what follows.
- `pku`: two answers and, per objective, the index of the preferred one (Ji et al. 2023, arXiv 2307.04657), so that one
  row labels a pair for both objectives.
- `rated`: answers with a number each, one per row (as in HelpSteer2, Wang et al. 2024, arXiv 2406.08673) or in a list
  (as in UltraFeedback, Cui et al. 2023, arXiv 2310.01377). Any two answers to a prompt that are rated differently are a
  pair.

A prompt may be a dialogue (see `peo_bench.files.dialogue`) in every layout: a list of messages, or its JSON text as in
CSV files. It begins with a question, which a system turn may precede, and ends with one.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from peo_bench.files.dialogue import ASSISTANT as ANSWERS
from peo_bench.files.dialogue import USER, Turn, messages_in, opening, problem_of, to_prompt, turns_of
from peo_bench.files.rows import RowError, whole_text
from peo_bench.settings import Frozen

Row = Mapping[str, object]
"""A row of a file, by column, as it was read."""

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"

Share = Literal["policy", "scorer", "validation", "test"]
"""Of the prompts: to train policies on, to train scorers on, to choose by, to report."""

LABEL_COLUMNS = {"helpful": "better_response_id", "harmless": "safer_response_id"}
"""The fields of the `pku` layout that say which answer an objective prefers."""

SAFE_COLUMNS = ("is_response_0_safe", "is_response_1_safe")
"""Columns that a `pku` file may have: whether each answer is safe by itself."""

FRACTIONS = {"policy": 0.5, "scorer": 0.25, "validation": 0.1, "test": 0.15}
"""How prompts are shared out by default: training policies, training the proxies, validation, test."""

FIELDS = {
    "pairs": ("prompt", "chosen", "rejected"),
    "hh": ("chosen", "rejected"),
    "pku": ("prompt", "response_0", "response_1", *LABEL_COLUMNS.values()),
    "rated": ("prompt", "answer", "rating"),
    "prompts": ("prompt",),
    "transcripts": ("chosen",),
}
"""What a row of each layout must have; `PairSource.columns` maps these names to a file's own."""

IMPLICIT = {"pairs": "prompt"}
"""What a row of a layout may do without, where the others hold it."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt; `chosen` is better for `objective`. A prompt alone has empty ones.

    `labels`, where both objectives were judged, maps each objective to 1 (prefers `chosen`) or -1 (prefers `rejected`).
    `safe`, where somebody judged it, says of each of the two answers whether it is safe by itself.
    """

    prompt: str
    chosen: str
    rejected: str
    objective: str
    labels: Mapping[str, int] | None = None
    category: str | None = None
    safe: tuple[bool, bool] | None = None

    @property
    def prompt_id(self) -> str:
        """The prompt's identity."""
        return prompt_id(self.prompt)


@dataclass(frozen=True)
class Rated:
    """An answer to a prompt, and how good it is for the source's objective; higher is better."""

    prompt: str
    answer: str
    rating: float
    category: str | None = None


class DataSource(Frozen):
    """Where rows come from: a hub data set, or files under `--data-dir`."""

    path: str | None = None
    """A file, folder or glob under `--data-dir`: jsonl, json, csv (these also packed as .gz or .zst) or parquet."""
    hub: str | None = None
    """A Hugging Face data set's id."""
    name: str | None = None
    """Its configuration."""
    data_dir: str | None = None
    """A folder in its repository."""
    file: str | None = None
    """One JSON file of its repository, for data sets with a loading script."""
    split: str = "train"
    """Its split."""
    revision: str | None = None
    """Its revision; a commit pins the run's data."""
    layout: str
    """How rows are laid out."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column names by the layout's fields, where they differ."""
    category: str | None = None
    """The column with the kind of harm."""
    single_turn: bool = False
    """Keep prompts of one question only; of transcripts (layouts `hh` and `transcripts`) the bare question."""
    turns: bool = Field(False, exclude_if=lambda value: not value)
    """Read transcripts (layouts `hh` and `transcripts`) as dialogues, which go through the chat template turn by turn;
    by default the transcript is one text.
    """

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        surplus = sorted(set(self.columns) - set(FIELDS[self.layout]))
        if surplus:
            raise ValueError(f"columns maps {surplus[0]!r}; layout {self.layout} has {', '.join(FIELDS[self.layout])}")
        if self.turns and self.layout not in ("hh", "transcripts"):
            raise ValueError("turns belongs to layouts hh and transcripts: messages are turns by themselves")
        return self

    @property
    def named(self) -> dict[str, str]:
        """The columns by field of the layout."""
        return {field: self.columns.get(field, field) for field in FIELDS[self.layout]}

    @property
    def required(self) -> dict[str, str]:
        """The columns a row must have, by field of the layout."""
        return self.named

    @abstractmethod
    def convert(self, row: Row) -> object:
        """Return what `row` holds; raise `RowError` or `DroppedError`."""

    def join(self, items: Sequence[Any]) -> tuple[list[Any], Counter[str]]:
        """Return what the converted rows hold together, and by reason how many of their parts are in nothing."""
        return list(items), Counter()


class PairSource(DataSource):
    """Where the pairs of one objective come from."""

    objective: str
    """The objective that the pairs are about."""
    layout: Literal["pairs", "hh", "pku", "rated", "prompts"] = "pairs"
    """`pairs` (prompt, chosen, rejected: texts or lists of messages), `hh` (transcripts), `pku` (two answers, one label
    per objective), `rated` (prompt, answer, rating), or `prompts` alone, for methods that train on their own answers.
    """
    answers: str | None = None
    """The column with a list of answers, in which `answer` and `rating` are looked up, as in `scores.honesty` (layout
    `rated`); by default every row is one answer.
    """
    lower_is_better: bool = False
    """Whether the answer with the lower rating is the better one (layout `rated`)."""
    implicit_prompt: bool = Field(False, exclude_if=lambda value: not value)
    """Whether texts of the layout `pairs` begin with their prompt: the words that both answers begin with."""

    @model_validator(mode="after")
    def _consistent(self) -> PairSource:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give either path: (files under --data-dir) or hub: (a data set id)")
        if self.layout == "pku" and self.objective not in LABEL_COLUMNS:
            raise ValueError(f"layout pku knows the objectives {', '.join(LABEL_COLUMNS)}, not {self.objective!r}")
        if self.layout != "rated" and (self.answers or self.lower_is_better):
            raise ValueError("answers and lower_is_better belong to layout rated")
        if self.implicit_prompt and self.layout != "pairs":
            raise ValueError("implicit_prompt belongs to layout pairs")
        return self

    @property
    def required(self) -> dict[str, str]:
        """The columns a row must have, by field of the layout."""
        columns = self.named
        if self.layout != "rated":
            return columns
        if self.answers:
            return {"prompt": columns["prompt"], "answers": self.answers}
        return {field: column.partition(".")[0] for field, column in columns.items()}

    @property
    def labels_on_both(self) -> bool:
        """Whether every pair carries the label of every objective."""
        return self.layout == "pku"

    def convert(self, row: Row) -> Pair | list[Rated]:
        """Return the pair in `row`, without answers if it is a prompt alone, or its rated answers.

        Raises `RowError` or `DroppedError`.
        """
        if self.layout == "prompts":
            prompt = read_prompt(_value(row, self.named["prompt"]), self.named["prompt"])
            check_prompt(prompt, self)
            return Pair(prompt, "", "", self.objective, category=category_of(row, self))
        return _rated(row, self) if self.layout == "rated" else to_pair(row, self)

    def join(self, items: Sequence[Pair | list[Rated]]) -> tuple[list[Pair], Counter[str]]:
        """Return the pairs that the converted rows hold together, and by reason how many answers are in none.

        Rated answers are paired with every other answer to the same prompt that has another rating.
        """
        pairs: list[Pair] = []
        by_prompt: dict[str, list[Rated]] = {}
        for item in items:
            if isinstance(item, Pair):
                pairs.append(item)
            else:
                for rated in item:
                    by_prompt.setdefault(rated.prompt, []).append(rated)
        alone: Counter[str] = Counter()
        for several in by_prompt.values():
            found = [
                Pair(better.prompt, better.answer, worse.answer, self.objective, category=better.category)
                for better, worse in permutations(several, 2)
                if better.rating > worse.rating and better.answer != worse.answer
            ]
            pairs += found
            paired = {answer for pair in found for answer in (pair.chosen, pair.rejected)}
            alone.update("no other rating of its prompt" for rated in several if rated.answer not in paired)
        return pairs, alone


class DroppedError(ValueError):
    """A well-formed row that is left out; the text is the reason under which it is counted."""


def to_pair(row: Row, source: PairSource) -> Pair:
    """Return the pair in `row`; raise `RowError` or `DroppedError`."""
    fields = {
        field: _value(row, column)
        for field, column in source.required.items()
        if row.get(column) is not None or field != IMPLICIT.get(source.layout)
    }
    prompt, chosen, rejected, labels = _LAYOUTS[source.layout](fields, source)
    check_prompt(prompt, source)
    if not chosen or not rejected:
        raise DroppedError("empty answer")
    if chosen == rejected:
        raise DroppedError("equal answers")
    return Pair(prompt, chosen, rejected, source.objective, labels, category_of(row, source), _safe(row, source))


def _rated(row: Row, source: PairSource) -> list[Rated]:
    """Return the answers in `row` that have a rating; raise `RowError` or `DroppedError`."""
    names = source.named
    prompt = read_prompt(_value(row, names["prompt"]), names["prompt"])
    check_prompt(prompt, source)
    rows = [row] if source.answers is None else _value(row, source.answers)
    if not isinstance(rows, list | tuple):
        raise RowError(f"{source.answers} is {type(rows).__name__}, expected a list of answers")
    found = []
    for number, one in enumerate(rows):
        place = f" of answer {number + 1}" if source.answers else ""
        if not isinstance(one, Mapping):
            raise RowError(f"answer {number + 1} is {type(one).__name__}, expected an object")
        answer, rating = (_leads_to(one, names[field]) for field in ("answer", "rating"))
        if answer is None:
            raise RowError(f"{names['answer']}{place} is missing or null")
        answer = _only_answer(_turns(answer, names["answer"] + place), "answer")
        value = _number(rating, names["rating"] + place)
        if answer and value is not None:
            found.append(Rated(prompt, answer, -value if source.lower_is_better else value, category_of(row, source)))
    if not found:
        raise DroppedError("no rated answer")
    return found


def _leads_to(row: Row, path: str) -> object:
    """Return what a column holds, or what a path with dots leads to; None where it leads nowhere."""
    if path in row:
        return row[path]
    value: object = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(value: object, name: str) -> float | None:
    """Return a rating; None for one that was not given, as UltraFeedback's "N/A"."""
    if value is None or (isinstance(value, str) and value.strip().upper() in ("", "N/A", "NONE", "NULL")):
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RowError(f"{name} is {value!r:.40}, expected a number")
    return number


def normalise(prompt: str) -> str:
    r"""Return the text by which prompts count as the same.

    Case, white space and the turn markers around an HH dialogue do not matter.

    >>> normalise("\n\nHuman: What is  DPO?\n\nAssistant:")
    'what is dpo?'
    """
    text = " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())
    return re.sub(r"^human: ?(.*?) ?assistant:$", r"\1", text)


def prompt_id(prompt: str) -> str:
    """Return 16 hex digits, equal for prompts that count as the same."""
    return hashlib.sha256(normalise(prompt).encode("utf-8", "replace")).hexdigest()[:16]


def split_of(prompt: str, fractions: Mapping[str, float] = FRACTIONS) -> str:
    """Return the split of a prompt; equal prompts (see `normalise`) are in the same one, whatever else there is.

    So are dialogues with the same first question: one may go on from another.

    `fractions` are positive shares by split, which need not add up to 1.
    """
    position = int(prompt_id(opening(prompt)), 16) / 2**64 * sum(fractions.values())
    for name, share in fractions.items():
        position -= share
        if position < 0:
            return name
    return name


def transcript_prompt(transcript: object, field: str, source: DataSource) -> str:
    """Return the prompt of an HH transcript; raise `RowError` or `DroppedError`."""
    prompt, _ = _last_turn(_text({field: transcript}, field), field)
    return _asked(prompt, source)


Fields = tuple[str, str, str, "dict[str, int] | None"]


def _value(row: Row, column: str) -> object:
    value = row.get(column)
    if value is None:
        raise RowError(f"column {column!r} is missing or null")
    return value


def _text(fields: Row, field: str) -> str:
    value = fields[field]
    if not isinstance(value, str):
        raise RowError(f"{field} is {type(value).__name__}, expected text")
    return whole_text(value, field)


def _from_pairs(fields: Row, source: PairSource) -> Fields:
    turns, others = (_turns(fields[field], field) for field in ("chosen", "rejected"))
    if "prompt" not in fields and len(turns) == len(others) == 1:
        if not source.implicit_prompt:
            raise RowError(f"column {source.required['prompt']!r} is missing or null")
        prompt, chosen, rejected = _without_shared_words(turns[0][1], others[0][1])
        return prompt, chosen, rejected, None
    before = turns_of(read_prompt(fields["prompt"], "prompt")) if "prompt" in fields else []
    shared, turns, others = _without_shared(turns, others)
    if shared and before and before != shared:
        raise RowError("the prompt is not what both answers begin with")
    prompt = _prompt_of(before or shared)
    return prompt, _only_answer(turns, "chosen"), _only_answer(others, "rejected"), None


def read_prompt(value: object, field: str) -> str:
    """Return the prompt that a value stands for, a text or messages; raise `RowError` or `DroppedError`.

    Messages may have the answer to the last question behind it, as data sets for fine-tuning do: it is left out.
    """
    turns = messages_in(value, field)
    if turns is None:
        return whole_text(str(value), field).strip()
    return _prompt_of(turns[:-1] if len(turns) > 1 and turns[-1][0] == ANSWERS else turns)


def _prompt_of(turns: Sequence[Turn]) -> str:
    problem = problem_of(turns)
    if problem:
        raise DroppedError(problem)
    return to_prompt(turns)


def check_prompt(prompt: str, source: DataSource) -> None:
    """Raise `RowError` or `DroppedError` for a prompt that asks nothing, or of more turns than the source wants."""
    turns = turns_of(prompt)
    if not all(content.strip() for role, content in turns if role == USER):
        raise RowError("the prompt is empty")
    if source.single_turn and len(turns) > 1:
        raise DroppedError("several turns")


def _turns(value: object, field: str) -> list[Turn]:
    """Return the turns of a list of messages; a text in its place is one answer."""
    turns = messages_in(value, field)
    return [(ANSWERS, whole_text(str(value), field).strip())] if turns is None else turns


def _without_shared(turns: list[Turn], others: list[Turn]) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Return the turns that two dialogues begin with in common, and what is left of each."""
    pairs = zip(turns[:-1], others[:-1], strict=False)
    n = next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(turns), len(others)) - 1)
    return turns[:n], turns[n:], others[n:]


def _without_shared_words(text: str, other: str) -> tuple[str, str, str]:
    """Return the whole words that two texts begin with in common, and what is left of each."""
    pairs = enumerate(zip(text, other, strict=False))
    shared = text[: next((i for i, (one, two) in pairs if one != two), min(len(text), len(other)))]
    if len(shared) < min(len(text), len(other)):
        shared = re.sub(r"\S+$", "", shared)
    return shared.strip(), text[len(shared) :].strip(), other[len(shared) :].strip()


def _only_answer(turns: Sequence[Turn], field: str) -> str:
    """Return the text of the one assistant turn that is the answer."""
    if [role for role, _ in turns] != [ANSWERS]:
        raise DroppedError("answers of several turns" if len(turns) > 1 else f"{field} is no assistant's turn")
    return turns[0][1]


def _from_hh(fields: Row, source: PairSource) -> Fields:
    prompt, chosen = _last_turn(_text(fields, "chosen"), "chosen")
    other, rejected = _last_turn(_text(fields, "rejected"), "rejected")
    if prompt != other:
        raise DroppedError("prompts differ")
    return _asked(prompt, source), chosen, rejected, None


def _asked(dialogue: str, source: DataSource) -> str:
    """Return the prompt that a transcript up to its answer stands for."""
    if source.single_turn:
        return _question(dialogue)
    return _prompt_of(_spoken(dialogue)) if source.turns else dialogue


def _spoken(dialogue: str) -> list[Turn]:
    """Return the turns of a transcript up to its answer; what stands before the first of them is left out."""
    parts = re.split(f"({re.escape(HUMAN)}|{re.escape(ASSISTANT)})", dialogue.removesuffix(ASSISTANT))
    marks = zip(parts[1::2], parts[2::2], strict=True)
    return [(USER if mark == HUMAN else ANSWERS, text.strip()) for mark, text in marks]


def _question(dialogue: str) -> str:
    """Return the bare question of a dialogue that has only one."""
    if dialogue.count(HUMAN) != 1 or dialogue.count(ASSISTANT) != 1:
        raise DroppedError("several turns")
    return dialogue.removesuffix(ASSISTANT).partition(HUMAN)[2].strip()


def _last_turn(transcript: str, field: str) -> tuple[str, str]:
    before, marker, answer = transcript.rpartition(ASSISTANT)
    if not marker:
        raise RowError(f"{field} has no assistant turn, expected a transcript with {ASSISTANT!r}")
    return before + marker, answer.strip()


def _from_pku(fields: Row, source: PairSource) -> Fields:
    answers = [_text(fields, "response_0").strip(), _text(fields, "response_1").strip()]
    preferred = {objective: _index(fields[column], column) for objective, column in LABEL_COLUMNS.items()}
    winner = preferred[source.objective]
    labels = {objective: 1 if index == winner else -1 for objective, index in preferred.items()}
    return read_prompt(fields["prompt"], "prompt"), answers[winner], answers[1 - winner], labels


def _index(value: object, field: str) -> int:
    if str(value) not in {"0", "1"}:
        raise RowError(f"{field} is {value!r}, expected 0 or 1")
    return int(str(value))


def _safe(row: Row, source: PairSource) -> tuple[bool, bool] | None:
    """Return whether (chosen, rejected) are safe, where a row of the `pku` layout says so."""
    labels = [row.get(column) for column in SAFE_COLUMNS]
    if source.layout != "pku" or None in labels:
        return None
    first, second = (_truth(label, column) for label, column in zip(labels, SAFE_COLUMNS, strict=True))
    winner = _index(row[source.required[LABEL_COLUMNS[source.objective]]], LABEL_COLUMNS[source.objective])
    return (second, first) if winner else (first, second)


def _truth(value: object, field: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in known:
        raise RowError(f"{field} is {value!r}, expected true or false")
    return known[str(value).lower()]


def category_of(row: Row, source: DataSource) -> str | None:
    """Return the row's category; of a dictionary of booleans (BeaverTails), the names that are true."""
    value = row.get(source.category) if source.category else None
    if isinstance(value, Mapping):
        value = "; ".join(str(name) for name, holds in value.items() if holds)
    return whole_text(str(value), "category") if value not in (None, "") else None


_LAYOUTS: dict[str, Callable[[Row, PairSource], Fields]] = {
    "pairs": _from_pairs,
    "hh": _from_hh,
    "pku": _from_pku,
}
