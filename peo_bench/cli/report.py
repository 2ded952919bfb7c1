"""`peo-bench report`: build the report of a finished run again, or follow a working one until it has one."""

from __future__ import annotations

from typing import Annotated

import typer

from peo_bench.cli import RunFolder, app, console, echo, received


@app.command()
def report(
    run: RunFolder,
    redact: Annotated[bool, typer.Option("--redact", help="Leave prompts and answers out.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="While a run works there, show what it does first.")] = False,
) -> None:
    """Write report.html, report.md and report.json of a finished run from its other files."""
    if watch:
        from peo_bench.cli.watch import watch_run

        try:
            with received(run):
                watch_run(run, console())
        except KeyboardInterrupt:
            echo("no longer watching; the run goes on", err=True)
            raise typer.Exit(130) from None
    from peo_bench.report import build_report

    with received(run):
        echo(build_report(run, redact=redact))
