"""Checkpoints of long trainings: one counts once all of it is on disk and its checksums are written beside it.

A mark that is written last says which files a checkpoint has, with their SHA-256. What was cut off or changed since is
dropped, with a sentence, and the training goes on from the checkpoint before, or from the start.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from peo_bench.files.atomic import sync_dir, write_json
from peo_bench.jobs.artefact import Damaged, check_files, flush, require_plain

logger = logging.getLogger(__name__)

COMPLETE = "complete.json"


def seal(checkpoint: Path) -> None:
    """Flush every file of `checkpoint` to disk, then mark it as complete."""
    files = flush(checkpoint, {COMPLETE})
    sync_dir(checkpoint.parent)
    write_json(checkpoint / COMPLETE, files)


def last_checkpoint(directory: Path) -> Path | None:
    """Return the latest checkpoint in `directory` that is as it was sealed; the others later than it are deleted."""
    for checkpoint in sorted(directory.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            _check(checkpoint)
        except Damaged as reason:
            if (checkpoint / COMPLETE).exists():
                logger.warning("%s is damaged (%s): training goes on from what was saved before", checkpoint, reason)
            if checkpoint.is_dir() and not checkpoint.is_symlink():
                shutil.rmtree(checkpoint, ignore_errors=True)
            else:
                checkpoint.unlink(missing_ok=True)
        else:
            return checkpoint
    return None


def _step(checkpoint: Path) -> int:
    step = checkpoint.name.rpartition("-")[2]
    return int(step) if step.isdecimal() else -1


def _check(checkpoint: Path) -> None:
    require_plain(checkpoint, folder=True)
    require_plain(checkpoint / COMPLETE)
    try:
        files = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise Damaged(f"{COMPLETE} cannot be read") from None
    if not isinstance(files, dict) or not files:
        raise Damaged(f"{COMPLETE} names no files")
    check_files(checkpoint, files, {COMPLETE})
