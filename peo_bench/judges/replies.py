"""Judge replies on disk, one small file per call, so that no answer that was paid for is asked again.

A reply is found by the request: endpoint, model, messages, temperature, seed, token limit and prompt hash - all that
changes the answer and nothing that does not (retries, timeouts, concurrency). It is on disk before it counts. Files are
atomic; a damaged one is said, and its call is made again. Keys of the API never come here.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TypeVar

from peo_bench.files.atomic import write_json
from peo_bench.files.digest import digest
from peo_bench.files.inside import free_name
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.artefact import Damaged, require_plain
from peo_bench.settings import Frozen

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=Frozen)


class Replies:
    """The replies under `root`; several threads and processes may use it at once."""

    def __init__(self, root: Path) -> None:
        """Use `root`, created on first write."""
        self.root = root

    def get(self, request: JsonObject, model: type[M]) -> M | None:
        """Return the reply to `request`, or None if there is none or it is damaged."""
        path = self._path(request)
        if not path.exists():
            return None
        try:
            require_plain(path)
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["request"] == request and record["sum"] == digest(record["reply"]):
                return model.model_validate(record["reply"], strict=True)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, Damaged):  # pydantic's error is a ValueError
            pass
        logger.warning("%s is damaged: its call is made again", path)
        return None

    def put(self, request: JsonObject, reply: Frozen) -> None:
        """Keep `reply`; returns once it is on disk."""
        path = self._path(request)
        for place, folder in ((path.parent, True), (path, False)):
            if os.path.lexists(place):
                _make_way(place, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = reply.model_dump()
        write_json(path, {"request": request, "reply": content, "sum": digest(content)})

    def _path(self, request: JsonObject) -> Path:
        key = digest(request)
        return self.root / key[:2] / f"{key}.json"


def _make_way(place: Path, folder: bool) -> None:
    """Move aside what is no plain folder (or file): a link leads elsewhere, anything else lets nobody write there."""
    try:
        require_plain(place, folder)
    except Damaged:
        aside = free_name(place)
        place.rename(aside)
        logger.warning("%s is not what belongs there: it is now %s", place, aside)
