"""Rows to train on, and their order."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import TypedDict

from peo_bench.errors import UsageError


class TextRow(TypedDict, total=False):
    """A row of texts to train on; a file of pairs has `chosen` and `rejected`, a corpus has `answer`."""

    prompt_id: str
    prompt: str
    chosen: str
    rejected: str
    answer: str
    labels: dict[str, int]


def read_rows(path: Path, columns: tuple[str, ...]) -> list[TextRow]:
    """Return the rows of a JSONL file; raise `UsageError` if it is empty or a row lacks one of `columns`."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows:
        raise UsageError(f"{path}: no rows, nothing to train on")
    for number, row in enumerate(rows, 1):
        missing = [name for name in columns if name not in row]
        if missing:
            raise UsageError(f"{path}:{number}: column {missing[0]!r} is missing; needed: {', '.join(columns)}")
    return rows


def training_order(lengths: list[int], batch_size: int, epochs: float, seed: int) -> list[int]:
    """Return the row numbers in the order of training: one permutation per epoch, the last cut at `epochs`.

    Batches are random; within a batch, rows are sorted by length, so that micro batches carry little padding. (Grouping
    whole batches by length would be faster and biases a short training: length goes with behaviour.)

    >>> sorted(training_order([3, 9, 4], batch_size=2, epochs=1, seed=0))
    [0, 1, 2]
    """
    rng = random.Random(seed)
    order: list[int] = []
    rows = math.ceil(len(lengths) * epochs)
    while len(order) < rows:
        order += rng.sample(range(len(lengths)), min(len(lengths), rows - len(order)))
    batches = (order[start : start + batch_size] for start in range(0, rows, batch_size))
    return [row for batch in batches for row in sorted(batch, key=lengths.__getitem__)]
