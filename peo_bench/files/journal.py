"""An append-only journal of JSON records that survives a kill at any byte.

Each line is `<16 hex digits> <json>`, the digits identifying the JSON. A torn or damaged tail is cut off on opening,
with a warning, and its work is done again.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from peo_bench.files.digest import digest

logger = logging.getLogger(__name__)


class Journal:
    """Records written so far are in `records`; `append` returns once a record is on disk."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal, keeping the longest intact prefix."""
        self.path = path
        self.records: list[Any] = []
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
    except ValueError:
        return None
    return record if line.endswith(b"\n") and checksum == digest(record) else None
