"""Whether a batch fits into memory: what does not is tried with fewer rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
SAID = ("out of memory", "can't allocate memory", "not enough memory")
"""What torch's errors say, on GPUs and in the main memory."""


def if_it_fits(batch: list[int], run: Callable[[list[int]], list[T]]) -> list[T] | None:
    """Return what `run` gives for a batch; None where memory is short. Raises where it is for a single row."""
    import torch

    try:
        return run(batch)
    except RuntimeError as error:
        if len(batch) == 1 or not any(said in str(error).lower() for said in SAID):
            raise
        logger.warning("%d rows at a time are too many for the memory: going on with half as many", len(batch))
    if torch.cuda.is_available():  # what the failed batch held; its frames are gone here
        torch.cuda.empty_cache()
    return None
