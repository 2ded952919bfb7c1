"""`peo-bench fetch`: copies of all that a suite reads of the hub, for machines without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peo_bench.cli import app, echo
from peo_bench.runs.request import RunRequest, Set, Suite


@app.command()
def fetch(
    suite: Suite,
    to: Annotated[Path, typer.Option("--to", help="Folder for the copies; what is there and whole stays.")],
    model: Annotated[str | None, typer.Option("--model", help="Base model in place of the suite's.")] = None,
    set_: Set = [],  # noqa: B006 - typer copies it
) -> None:
    """Copy checkpoints and data sets of a suite from the hub, with their digests; `run --offline DIR` reads them."""
    from peo_bench.data.fetched import MANIFEST
    from peo_bench.data.fetched import fetch as copy
    from peo_bench.errors import UsageError
    from peo_bench.runs.config import resolve_config
    from peo_bench.runs.repositories import wanted

    config = resolve_config(RunRequest(methods="soup", suite=suite, model=model, set=set_))
    repositories = wanted(config)
    if not repositories:
        raise UsageError(f"suite {config.suite.name} reads nothing of the hub: there is nothing to fetch")
    manifest = copy(repositories, to, echo)
    size = sum(file.size for entry in manifest.repositories for file in entry.files.values())
    echo(f"{to / MANIFEST}: {len(manifest.repositories)} repositories, {size / 1e9:.1f} GB")
    echo(f"copy {to} as it is, and type `peo-bench run --suite {suite} --offline {to} ...` there")
