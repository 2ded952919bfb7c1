"""Training curves go to an experiment tracker while jobs train, through transformers' own callbacks.

A tracker changes no result, so it is no part of any job's parameters: worker processes learn of it from their
environment. A job found in the store does not train, so it logs nothing.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError, unknown
from peo_bench.jobs.workspace import Workspace
from peo_bench.process import environment

if TYPE_CHECKING:
    from transformers import Trainer

TRACKERS = ("tensorboard", "trackio", "wandb")
NAME, FOLDER = "PEO_BENCH_TRACKER", "PEO_BENCH_TRACKER_DIR"
PROJECT = "peo-bench"


@contextmanager
def tracking(tracker: str | None, folder: Path) -> Iterator[None]:
    """Have the jobs of this process, and of workers started inside, report to `tracker` (None: to nobody).

    What it writes is below `folder`. Nothing is sent anywhere unless the tracker's own variables say so (WANDB_MODE,
    TRACKIO_SPACE_ID). Raises `UsageError` for a tracker that is not known or not installed.
    """
    if tracker is None:
        yield
        return
    if tracker not in TRACKERS:
        raise unknown("tracker", tracker, TRACKERS)
    if importlib.util.find_spec(tracker) is None:
        raise UsageError(f"--tracker {tracker}: the package is not installed: type `pip install {tracker}`")
    path = str(folder.resolve())
    mode = os.environ.get("WANDB_MODE", "offline")
    wandb = {"WANDB_DIR": path, "WANDB_PROJECT": PROJECT, "WANDB_MODE": mode, "WANDB_SILENT": "true"}
    own = {"wandb": wandb, "trackio": {"TRACKIO_DIR": path}}
    with environment({NAME: tracker, FOLDER: path} | own.get(tracker, {})):
        yield


@contextmanager
def tracked(trainer: Trainer, work: Workspace) -> Iterator[None]:
    """Log what `trainer` does inside as one run, named by the job's label and id, where there is a tracker."""
    tracker = os.environ.get(NAME)
    if not tracker:
        yield
        return
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    trainer.args.report_to = [tracker]
    trainer.args.run_name = re.sub(r"[^\w.=-]+", "-", work.name)
    trainer.args.project, trainer.args.trackio_static_space_id = PROJECT, False
    folder = Path(os.environ[FOLDER])
    folder.mkdir(parents=True, exist_ok=True)
    with environment({"TENSORBOARD_LOGGING_DIR": str(folder / trainer.args.run_name)}):
        for callback in get_reporting_integration_callbacks(trainer.args.report_to):
            trainer.add_callback(callback)
        try:
            yield
        finally:
            if tracker == "wandb":  # its callback leaves the run open, and the next job's curves would go there
                import wandb

                wandb.finish()
