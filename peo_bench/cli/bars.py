"""Progress of a run: bars with ETA on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunProgress:
    """Observes a runner; one bar per running job, a line per finished one."""

    def __init__(self, console: Console) -> None:
        """Show on `console`; bars only where it is a terminal."""
        self.console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, tuple[TaskID, str, float]] = {}
        self.reused = 0

    def __enter__(self) -> RunProgress:
        """Start drawing."""
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing and say how much was reused."""
        self.bars.stop()
        if self.reused:
            self.console.print(f"[dim]reused from the cache: {self.reused}[/dim]", highlight=False)

    def __call__(self, event: str, job_id: str, fraction: float, note: str) -> None:
        """Take one event of the runner."""
        if event == "start":
            self._tasks[job_id] = (self.bars.add_task(note, total=1.0, note=""), note, time.monotonic())
        elif event == "progress" and job_id in self._tasks:
            self.bars.update(self._tasks[job_id][0], completed=fraction, note=note)
        elif event == "reused":
            self.reused += 1
        elif event in ("done", "failed") and job_id in self._tasks:
            task, label, started = self._tasks.pop(job_id)
            self.bars.remove_task(task)
            seconds = time.monotonic() - started
            if event == "done":
                self.console.print(f"[green]done[/green]   {escape(label)} [dim]{seconds:.1f} s[/dim]", highlight=False)
            else:
                self.console.print(f"[red]failed[/red] {escape(label)}: {escape(note)}", highlight=False)
