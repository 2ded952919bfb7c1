"""Libraries that load and train models keep silent."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from peo_bench.process import environment


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars, deprecations and the libraries' INFO and WARNING chatter; restore all of it afterwards."""
    import datasets
    from transformers.utils import logging as hub

    bars = [
        (datasets.are_progress_bars_disabled(), datasets.disable_progress_bars, datasets.enable_progress_bars),
        (not hub.is_progress_bar_enabled(), hub.disable_progress_bar, hub.enable_progress_bar),
    ]
    loggers = [logging.getLogger(name) for name in ("transformers", "trl", "peft", "accelerate", "datasets")]
    levels = [logger.level for logger in loggers]
    for _, disable, _ in bars:
        disable()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), environment({"TQDM_DISABLE": "1"}):
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for disabled, _, enable in bars:
            if not disabled:
                enable()
