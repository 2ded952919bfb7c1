"""Append-only journals of JSON records that survive a kill at any byte, and memos: values by key, kept in a journal.

Each line is `<16 hex digits> <json>`, the digits identifying the JSON. A torn or damaged tail is cut off on opening,
with a warning, and its work is done again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from peo_bench.files.digest import digest
from peo_bench.files.json_types import Json
from peo_bench.files.plain import delete

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
KEEP_SECONDS = 5.0
"""A memo is written this often. By the clock, because a value takes from 1 ms to a minute: a kill loses at most this
much, or the one value in work, and short jobs write nothing."""


class Journal:
    """Records written so far are in `records`; `append` returns once a record is on disk."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal, keeping the longest intact prefix."""
        self.path = path
        self.records: list[Any] = []
        if path.is_symlink() or (path.exists() and not path.is_file()):
            logger.warning("%s is no file: it is deleted, and what a journal would know is done again", path)
            delete(path)
        intact = 0
        content = path.read_bytes() if path.exists() else b""
        for line in content.splitlines(keepends=True):
            record = _parse(line)
            if record is None:
                break
            self.records.append(record)
            intact += len(line)
        if intact < len(content):
            logger.warning("%s: cut %d damaged bytes; their work is done again", path, len(content) - intact)
            os.truncate(path, intact)

    def append(self, record: object) -> None:
        """Write one record and fsync it."""
        line = f"{digest(record)} {json.dumps(record, allow_nan=False)}\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)


def _parse(line: bytes) -> Any:
    """Return the record, or None if the line is torn or damaged."""
    try:
        checksum, _, text = line.decode().partition(" ")
        record = json.loads(text)
        intact = line.endswith(b"\n") and checksum == digest(record)
    except (ValueError, RecursionError):
        return None
    return record if intact else None


class Memo:
    """JSON values by key, written by the clock, so that the next attempt finds what a killed one had computed.

    In whatever order it asks; a value must follow from its key and from the job that the memo belongs to.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Keep values in the journal at `path`; without one, keep nothing."""
        self._journal = None if path is None else Journal(path)
        self._values: dict[str, Any] = {}
        for record in self._journal.records if self._journal else []:
            if isinstance(record, dict):
                self._values |= record
        self._unwritten: dict[str, Json] = {}
        self._written = time.monotonic()

    def __contains__(self, key: Json) -> bool:
        """Say whether the value of `key` is kept."""
        return digest(key) in self._values

    def __getitem__(self, key: Json) -> Any:
        """Return the value of `key`; KeyError if it is not kept."""
        return self._values[digest(key)]

    def keep(self, values: Mapping[str, Json]) -> None:
        """Keep values by the digest of their key; what JSON cannot hold (NaN) is computed again next time."""
        if self._journal is None:
            return
        new = {key: value for key, value in values.items() if _is_json(value)}
        self._values |= new
        self._unwritten |= new
        if time.monotonic() - self._written >= KEEP_SECONDS:
            self.write()

    def value(self, key: Json, compute: Callable[[], Value]) -> Value:
        """Return the kept value of `key`, or compute it and keep it; a JSON value that reads back as it is."""
        if self._journal is None:
            return compute()
        name = digest(key)
        if name in self._values:
            kept: Value = self._values[name]
            return kept
        computed = compute()
        self.keep({name: computed})  # type: ignore[dict-item]
        return computed

    def write(self) -> None:
        """Write what is not yet on disk."""
        if self._journal is not None and self._unwritten:
            self._journal.append(self._unwritten)
            self._unwritten = {}
        self._written = time.monotonic()


def _is_json(value: object) -> bool:
    try:
        digest(value)
    except ValueError:
        return False
    return True


FORGETFUL = Memo()
"""Keeps nothing."""
