"""`peo-bench figures`: a run's figures and tables for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peo_bench.cli import RunFolder, app, echo, received


@app.command()
def figures(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; by default RUN/figures.")] = None,
    formats: Annotated[
        str, typer.Option("--formats", help="Of html, svg, pdf, png (figures) and csv, md, tex (tables).")
    ] = "html,svg,pdf,png,csv,md,tex",
) -> None:
    """Write every figure of a finished run as HTML, SVG, PDF and PNG, and every table as CSV, Markdown and LaTeX."""
    from peo_bench.files.inside import refuse_links
    from peo_bench.report.paper import write_run_figures

    folder = out or run / "figures"
    with received(run):
        for place in (run, folder):
            if place.is_dir():
                refuse_links(place)
        for path in write_run_figures(run, folder, [name.strip() for name in formats.split(",") if name.strip()]):
            echo(path)
