"""Where a job works: a folder that survives a kill, a progress bar and a cost counter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from peo_bench.files.journal import Journal, Memo
from peo_bench.jobs.artefact import SCRATCH
from peo_bench.jobs.job import Cost

Progress = Callable[[float, str], None]
"""Called with the fraction done (0 to 1) and a short note."""


class Workspace:
    """Handed to a job kind's `run`.

    `dir` becomes the artefact when `run` returns. If the process is killed, the next attempt gets the same folder with
    what was in it, so long jobs keep a `journal`, a `memo` or checkpoints there. `scratch` is deleted when the job has
    finished.
    """

    def __init__(
        self, directory: Path, progress: Progress = lambda fraction, note: None, name: str | None = None
    ) -> None:
        """Work in `directory`, which exists; `name` is the job's for people, by default the folder's."""
        self.dir = directory
        self.name = name or directory.name
        self.progress = progress
        self.cost = Cost()

    @property
    def scratch(self) -> Path:
        """A folder for checkpoints and other files that are no part of the artefact."""
        path = self.dir / SCRATCH
        path.mkdir(exist_ok=True)
        return path

    def journal(self, name: str) -> Journal:
        """Open the journal `name`.jsonl of this job."""
        return Journal(self.dir / f"{name}.jsonl")

    def memo(self, name: str) -> Memo:
        """Open the memo `name` of this job, which is no part of the artefact."""
        return Memo(self.scratch / f"{name}.jsonl")

    def charge(self, cost: Cost) -> None:
        """Add to what this job has cost."""
        self.cost = self.cost + cost
