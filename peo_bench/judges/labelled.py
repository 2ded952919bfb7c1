"""Read pairs of answers that people have labelled, in our format, PandaLM's or LLMBar's.

Our format is a list of objects (JSON, JSON lines or Parquet; gzip too):

    prompt, answer_a, answer_b   texts
    labels                       what people said: a list of "a", "b", "tie" (one per annotator), or `label` with one
    objective                    "helpful" (default) or "harmless": what they were asked
    verdicts                     optional, what a judge said: {"ab": "a" | "b" | "tie" | null, "ba": ...}, null unparsed
    replies                      optional, instead of `verdicts`: its raw replies, {"ab": text, "ba": text}

"ab" means that answer_a was shown first. Verdicts name the answer, whatever its position; raw replies name the
position, as our prompt asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from peo_bench.errors import UsageError
from peo_bench.files.rows import RowError, file_rows
from peo_bench.judges.endpoint import valid_text
from peo_bench.judges.matchups import ORDERS
from peo_bench.judges.parsing import A_BETTER, B_BETTER, TIE, UNPARSEABLE, parse_reply, swapped
from peo_bench.settings import Frozen

Label = Literal["a", "b", "tie"]
Order = Literal["ab", "ba"]
VALUES: dict[str | None, float] = {"a": A_BETTER, "b": B_BETTER, "tie": TIE, None: UNPARSEABLE}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class LabelledPair:
    """Two answers, people's labels and, by order, a recorded judge's verdicts: 1.0 a better, 0.0 b, 0.5 tie, NaN."""

    prompt: str
    answer_a: str
    answer_b: str
    labels: tuple[float, ...]
    objective: str = "helpful"
    verdicts: Mapping[str, float] = field(default_factory=dict)


class _Ours(Frozen):
    """One row of our format."""

    prompt: str
    answer_a: str
    answer_b: str
    labels: tuple[Label, ...] = Field(min_length=1)
    objective: Literal["helpful", "harmless"] = "helpful"
    verdicts: dict[Order, Label | None] = {}
    replies: dict[Order, str] = {}
    id: str | int | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_label(cls, value: object) -> object:
        if isinstance(value, dict) and "label" in value:
            rest = {key: item for key, item in value.items() if key != "label"}
            return {"labels": [value["label"]]} | rest
        return value


def _text(value: object) -> object:
    return str(value) if isinstance(value, bool | int | float) else value


Scalar = Annotated[str, BeforeValidator(_text)]
"""A text; PandaLM's answers `True` and `5` are no texts in its JSON."""


class _PandaLM(BaseModel):
    """One row of PandaLM's test set, but for the labels."""

    idx: Scalar
    instruction: Scalar
    input: Scalar
    response1: Scalar
    response2: Scalar


class _Said(BaseModel):
    """What a judge of LLMBar's said in one order: its reply or, of rating judges, the winner alone."""

    completion: tuple[str, ...] | None = Field(None, min_length=1)
    winner: str | None = None


class _Result(BaseModel):
    """What a judge of LLMBar's said, by order."""

    ab: _Said | None = Field(None, alias="swap = False")
    ba: _Said | None = Field(None, alias="swap = True")


class _LLMBar(BaseModel):
    """One row of LLMBar's; of `results` the last one counts, those before it are of other forms."""

    input: str
    output_1: str
    output_2: str
    label: Literal[1, 2]
    results: tuple[object, ...] = ()


M = TypeVar("M", bound=BaseModel)


def _row_as(model: type[M], where: str, row: object) -> M:
    """Return the row as `model`, null for absent; `UsageError` naming the first key that does not fit."""
    given = {key: value for key, value in row.items() if value is not None} if isinstance(row, Mapping) else row
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the row"
        raise UsageError(f"{where}: {key}: {first['msg'].lower()}; see docs/judges.md for the format") from None


def read_labelled(path: Path, layout: str = "ours", verdicts: Path | None = None) -> list[LabelledPair]:
    """Return the pairs of a labelled file. `verdicts` is PandaLM's second file, with a judge's results by `idx`.

    Raises `UsageError` naming the first row that is none, an unknown layout, or a file without rows.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"--layout {layout}: type one of {', '.join(LAYOUTS)}")
    if verdicts is not None and layout != "pandalm":
        raise UsageError(f"--verdicts belongs to --layout pandalm; with --layout {layout} verdicts stand in the file")
    beside = {str(row["idx"]): row for _, row in _rows(verdicts, {"idx"})} if verdicts else {}
    pairs = list(LAYOUTS[layout](path, beside))
    if not pairs:
        raise UsageError(f"{path}: holds no pairs")
    return pairs


def _ours(path: Path, beside: Mapping[str, Row]) -> Iterator[LabelledPair]:
    for where, row in _rows(path, set()):
        item = _row_as(_Ours, where, row)
        said: dict[str, float] = {order: VALUES[name] for order, name in item.verdicts.items()}
        for order, reply in item.replies.items():
            said.setdefault(order, _as_a(order, parse_reply(reply).value))
        labels = tuple(VALUES[label] for label in item.labels)
        prompt, a, b = map(valid_text, (item.prompt, item.answer_a, item.answer_b))
        yield LabelledPair(prompt, a, b, labels, item.objective, said)


def _pandalm(path: Path, beside: Mapping[str, Row]) -> Iterator[LabelledPair]:
    """PandaLM's test set: annotator1..3 and, beside it, a judge's `*_result` in one order: 1, 2 or 0 (tie).

    Results are compared with labels as they are written, which is the rule behind the published agreement; 38 results
    of GPT-3.5 are the word "Tie", which that rule takes for no verdict (docs/judges.md has the number with them).
    """
    values = {"1": A_BETTER, "2": B_BETTER, "0": TIE}
    for where, row in _rows(path, {"idx", "instruction", "input", "response1", "response2"}):
        item = _row_as(_PandaLM, where, row)
        given = [str(value) for key, value in row.items() if key.startswith("annotator")]
        if not given or not set(given) <= {"0", "1", "2"}:
            raise UsageError(f"{where}: annotator1, ... must be 0 (tie), 1 or 2, found {given}")
        said = {}
        if beside:
            result = next((v for key, v in beside.get(item.idx, {}).items() if key.endswith("_result")), None)
            said = {"ab": values.get(str(result), UNPARSEABLE)}
        labels = tuple(values[v] for v in given)
        prompt, a, b = map(valid_text, (f"{item.instruction}\n\n{item.input}".strip(), item.response1, item.response2))
        yield LabelledPair(prompt, a, b, labels, verdicts=said)


def _llmbar(path: Path, beside: Mapping[str, Row]) -> Iterator[LabelledPair]:
    """LLMBar's pairs (`label` 1 or 2) and, in result files, a judge's raw replies in both orders (`results`).

    Rating judges have scores and no reply; their recorded winner is taken.
    """
    for where, row in _rows(path, {"input", "output_1", "output_2", "label"}):
        item = _row_as(_LLMBar, where, row)
        said = {}
        result = _row_as(_Result, where, item.results[-1]) if item.results else _Result()
        for order, told in zip(ORDERS, (result.ab, result.ba), strict=True):
            if told is None:
                continue
            winner = {"1": A_BETTER, "2": B_BETTER}.get(told.winner or "", UNPARSEABLE)
            said[order] = _as_a(order, _llmbar_verdict(told.completion[0])) if told.completion else winner
        label = A_BETTER if item.label == 1 else B_BETTER
        prompt, a, b = map(valid_text, (item.input, item.output_1, item.output_2))
        yield LabelledPair(prompt, a, b, (label,), verdicts=said)


def _llmbar_verdict(reply: str) -> float:
    """Return which position a reply to LLMBar's prompts declares better, by the rule behind its published numbers.

    A reply that says "Output (a) is better" anywhere counts for (a), even if it quotes someone and concludes otherwise.
    """
    said = set(re.findall(r"output \(([ab])\) is better", reply, re.IGNORECASE))
    said |= set(re.findall(r"^\s*output \(([ab])\)[\s.]*$", reply, re.IGNORECASE))
    return UNPARSEABLE if not said else A_BETTER if "a" in said else B_BETTER


def _as_a(order: str, value: float) -> float:
    return value if order == "ab" else swapped(value)


def _rows(path: Path, keys: set[str]) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) of a file; raise `UsageError` for a row that is no object or lacks one of `keys`."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file: give a file of labelled pairs; see docs/judges.md for the format")
    for where, row in file_rows(path, path.name):
        if isinstance(row, RowError):
            raise UsageError(f"{where}: {row}")
        if not isinstance(row, dict) or keys - set(row):
            lacking = sorted(keys - set(row)) if isinstance(row, dict) else []
            raise UsageError(f"{where}: {'lacks ' + ', '.join(lacking) if lacking else 'is no object'}")
        yield where, row


LAYOUTS: dict[str, Callable[[Path, Mapping[str, Row]], Iterator[LabelledPair]]] = {
    "ours": _ours,
    "pandalm": _pandalm,
    "llmbar": _llmbar,
}
