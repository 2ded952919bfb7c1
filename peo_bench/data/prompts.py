"""A task's own prompts: which ones, from where, and how a hash of their text shares them out.

An evaluation set is read whole or not at all: results on parts of a benchmark do not compare, so a malformed row is an
error that names and counts, where training pairs would go on without it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from peo_bench.data.schema import (
    DataSource,
    DroppedError,
    Row,
    category_of,
    check_prompt,
    prompt_id,
    read_prompt,
    split_of,
    transcript_prompt,
)
from peo_bench.data.sources import Loaded, read_first, read_source, source_identity
from peo_bench.errors import UsageError
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.files.rows import RowError

logger = logging.getLogger(__name__)

HUB_FIELDS = ("hub", "name", "data_dir", "file", "revision")
WHOLE: dict[Literal["validation", "test"], float] = {"test": 1.0}
"""The split of a prompt set that is all for testing."""


@dataclass(frozen=True)
class Prompt:
    """A prompt to evaluate on, with its category where the data has one."""

    prompt: str
    category: str | None

    @property
    def prompt_id(self) -> str:
        """The prompt's identity."""
        return prompt_id(self.prompt)


class PromptSource(DataSource):
    """Where a task's prompts come from: `path` under the folder given with `--data-dir`, else `hub`."""

    layout: Literal["prompts", "transcripts"] = "prompts"
    """`prompts` (a column with the prompt) or `transcripts` (HH transcripts in the column `chosen`)."""
    where: dict[str, str] = Field(default_factory=dict)
    """Keep the rows whose columns have these values."""
    splits: dict[Literal["validation", "test"], float] = WHOLE
    """Positive shares of `validation` and `test`, by a hash of the text; all for testing by default."""

    @model_validator(mode="after")
    def _found_somewhere(self) -> PromptSource:
        if self.path is None and self.hub is None:
            raise ValueError("give path: (files under --data-dir), hub: (a data set id) or both")
        if "test" not in self.splits or any(share <= 0 for share in self.splits.values()):
            raise ValueError("splits needs a positive share for test")
        return self

    def convert(self, row: Row) -> Prompt:
        """Return the prompt in `row`; raise `RowError` or `DroppedError`."""
        (column,) = self.required.values()
        value = row.get(column)
        if value is None:
            raise RowError(f"column {column!r} is missing or null")
        for name, wanted in self.where.items():
            if name not in row:
                raise RowError(f"column {name!r} is missing")
            if str(row[name]) != wanted:
                raise DroppedError(f"{name} is not {wanted}")
        text = transcript_prompt(value, column, self) if self.layout == "transcripts" else read_prompt(value, column)
        check_prompt(text, self)
        return Prompt(text, category_of(row, self))

    def given(self, data: str) -> PromptSource:
        """Return the same source with its rows in `data`: a file, a folder that holds `path` or the files, a hub id."""
        place = Path(data)
        if not place.exists():
            return self.model_copy(update={"hub": data, "path": None, "file": None})
        inside = sorted(place.glob(self.path)) if self.path and place.is_dir() else []
        where = place / self.path if self.path and inside else place
        return self.model_copy(update={"path": str(where.absolute()), "hub": None})


def prompts_identity(source: PromptSource, data_dir: Path | None = None) -> JsonObject:
    """Return the JSON that identifies what `source` holds: its files where they are found, else the hub's data set.

    Raises `UsageError` where there is neither.
    """
    if source.path is not None:
        files = source.model_copy(update=dict.fromkeys(HUB_FIELDS) | {"split": "train"})
        try:
            return source_identity(files, data_dir)
        except UsageError as problem:
            if source.hub is None:
                raise
            logger.info("taking prompts from the hub's %s: %s", source.hub, problem)
    return source_identity(source.model_copy(update={"path": None}), data_dir)


def read_task_prompts(identity: Mapping[str, Any]) -> dict[str, list[Prompt]]:
    """Return the prompts of a source by split, without repetitions, categories taking turns in a fixed random order.

    Raises `UsageError` if any row is malformed.
    """
    loaded = read_source(identity, PromptSource)
    _refuse_malformed(loaded)
    splits = identity.get("splits", WHOLE)
    parts: dict[str, dict[str, Prompt]] = {name: {} for name in splits}
    for prompt in loaded.items:
        parts[split_of(prompt.prompt, splits)].setdefault(prompt.prompt_id, prompt)
    return {name: _taking_turns(part.values()) for name, part in parts.items()}


def first_prompts(identity: Mapping[str, Json], n: int) -> Loaded[Prompt]:
    """Return what the first `n` rows of each file of a prompt set hold; raise `UsageError` if any is malformed."""
    loaded: Loaded[Prompt] = read_first(identity, PromptSource, n)
    _refuse_malformed(loaded)
    return loaded


def _refuse_malformed(loaded: Loaded[Prompt]) -> None:
    if loaded.malformed:
        bad, total = loaded.dropped["malformed"], loaded.dropped.total() + len(loaded.items)
        raise UsageError(
            f"{bad} of {total} evaluation prompts are malformed, the first at {loaded.malformed[0]}: mend the file "
            "(results on a part of the prompts would not compare)"
        )


def _taking_turns(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Order prompts so that any beginning of the list has nearly as many of every category."""
    shuffled = sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.prompt_id.encode()).hexdigest())
    turns: Counter[str | None] = Counter()
    keyed: list[tuple[int, str, Prompt]] = []
    for prompt in shuffled:
        keyed.append((turns[prompt.category], prompt.category or "", prompt))
        turns[prompt.category] += 1
    return [prompt for _, _, prompt in sorted(keyed, key=lambda item: item[:2])]
