"""The terminal's view of a run that another process is working on."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from peo_bench.errors import JobFailed
from peo_bench.results.progress import PERIOD, headline, is_running, read_progress, running

LINES_EVERY = 30.0
"""Seconds after which the running jobs are printed again where the output is no terminal."""


def watch_run(run: Path, screen: Console) -> None:
    """Show what the run in `run` does until it ends; return at once if none works there.

    Raises `JobFailed` if it ends without a result.
    """
    if not is_running(run):
        return
    before = _result(run)
    (_watch_live if screen.is_terminal else _watch_lines)(run, screen)
    if _result(run) == before:
        raise JobFailed(f"the run in {run} ended without a result: type its command again to continue it")


def _watch_live(run: Path, screen: Console) -> None:
    with Live(console=screen, transient=True, auto_refresh=False) as live:
        while is_running(run):
            state = read_progress(run)
            if state is not None:
                live.update(escape("\n  ".join([headline(state), *running(state.running, time.time())])), refresh=True)
            time.sleep(PERIOD)


def _watch_lines(run: Path, screen: Console) -> None:
    """Print a line where stage or counts have changed, and all running jobs now and then."""
    shown, told = "", time.monotonic()
    while is_running(run):
        state = read_progress(run)
        if state is not None:
            line = headline(state)
            due = time.monotonic() - told >= LINES_EVERY
            if line != shown or due:
                for text in (line, *(f"  {job}" for job in running(state.running, time.time()))):
                    screen.print(text, highlight=False, markup=False, soft_wrap=True)
                shown, told = line, time.monotonic()
        time.sleep(PERIOD)


def _result(run: Path) -> int | None:
    """Return when the folder's result was written (ns), None before the first."""
    try:
        return (run / "run.json").stat().st_mtime_ns
    except OSError:
        return None
