"""How a task or suite file declares a scorer."""

from __future__ import annotations

import string
from typing import Literal

from pydantic import Field, field_validator, model_validator

from peo_bench.settings import Frozen

Layout = Literal["registered", "sequence-classification", "beaver", "hh-gpt2", "trained"]

TAKEN = {"prompt_id", "prompt", "category", "answer", "length", "truncated", "kl", "method", "seed", "split"}
"""Columns of a table of answers that are no scores."""

CHAT = "chat"
"""The template that stands for the tokenizer's own chat template."""


class ScorerConfig(Frozen):
    """A scorer of answers. One with several `columns` serves all of them by one forward pass."""

    layout: Layout
    """How the checkpoint is laid out and read; `registered` for a scorer in code."""
    model: str
    """A hub id (`owner/name@revision`), a folder, or a registered scorer's name."""
    template: str | None = None
    """A text with {prompt} and {answer}, or `chat`; by default the tokenizer is called with the pair (layout
    `sequence-classification`).
    """
    columns: dict[str, int] = {}
    """The label of each column where a head has several; by default the key is the column."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of its weights; `auto`: bfloat16 on a CUDA device, else float32."""
    anchors: dict[str, tuple[tuple[str, str, str], ...]] = Field(default={})
    """By column, (prompt, better answer, worse answer) for the self-test of its sign, for models to which the built-in
    ones mean nothing.
    """

    @field_validator("template")
    @classmethod
    def _fields(cls, template: str | None) -> str | None:
        if template in (None, CHAT):
            return template
        names = sorted({name for _, name, _, _ in string.Formatter().parse(str(template)) if name is not None})
        if names != ["answer", "prompt"]:
            raise ValueError("a template has {prompt} and {answer} and no other field, or is 'chat'")
        return template

    @model_validator(mode="after")
    def _consistent(self) -> ScorerConfig:
        if self.layout != "sequence-classification" and (self.template or self.columns):
            raise ValueError(f"layout {self.layout} has its own template and one score: leave template and columns out")
        if any(label < 0 for label in self.columns.values()):
            raise ValueError("columns maps a column to the number of a label, from 0")
        return self


def from_text(value: object) -> object:
    """Read a plain name as a registered scorer."""
    if not isinstance(value, dict):
        return value
    return {
        key: {"layout": "registered", "model": item} if isinstance(item, str) else item for key, item in value.items()
    }


def columns_of(key: str, scorer: ScorerConfig) -> tuple[str, ...]:
    """Return the columns that a scorer declared as `key` fills: those it lists, else `key`."""
    return tuple(scorer.columns) or (key,)


def by_column(scorers: dict[str, ScorerConfig]) -> dict[str, ScorerConfig]:
    """Return the scorer of every column; a key of `scorers` is the column unless the scorer lists its `columns`."""
    found: dict[str, ScorerConfig] = {}
    for key, scorer in scorers.items():
        for column in columns_of(key, scorer):
            if column in TAKEN or column.endswith("_proxy"):
                raise ValueError(f"column {column!r} has another meaning in the tables: choose another name")
            if column in found:
                raise ValueError(f"column {column!r} has two scorers")
            found[column] = scorer
    return found
