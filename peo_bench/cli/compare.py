"""`peo-bench compare`: finished runs side by side."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from peo_bench.cli import Json, app, console, received
from peo_bench.cli.run import result_table


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more finished run folders.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default: runs/compare-<digest>.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the methods of finished runs, prompt by prompt; runs that were not measured alike are refused."""
    from peo_bench.boards.compare import compare_runs
    from peo_bench.files.digest import digest
    from peo_bench.report.build import build_report
    from peo_bench.report.contents import task_views
    from peo_bench.results.folder import read_run_folder

    folder = out or Path("runs") / f"compare-{digest([str(run.resolve()) for run in runs])[:8]}"
    with received(*runs):
        compare_runs(runs, folder, shlex.join(["peo-bench", *sys.argv[1:]]))
        report = build_report(folder)
    files = read_run_folder(folder)
    run, metrics = files.run, files.metrics.tasks[files.run.task]
    if as_json:
        typer.echo(json.dumps({"run": run.to_json(), "metrics": metrics.to_json()}, indent=2))
        return
    screen = console()
    screen.print(result_table(metrics, run.asked))
    screen.print(task_views(files)[0].verdict.headline, highlight=False, markup=False)
    for note in run.notes:
        screen.print(f"note: {note}", highlight=False, markup=False)
    screen.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
