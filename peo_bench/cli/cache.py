"""`peo-bench cache`: what finished work takes on the disk, and how to take less."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from peo_bench.cli import Json, app, cache_dir, console, echo, received
from peo_bench.errors import UsageError

if TYPE_CHECKING:
    from peo_bench.jobs.usage import Stored

cache_app = typer.Typer(help="What finished work takes on the disk, and how to take less.", no_args_is_help=False)
app.add_typer(cache_app, name="cache")
DAY = 86_400.0


@cache_app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of run folders.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Print the cache's size by kind of job, and by run how much of it that run and no other needs."""
    if context.invoked_subcommand:
        return
    from peo_bench.jobs.usage import stored, stores

    cache = cache_dir()
    items = [item for root in stores(cache) for item in stored(root)]
    kinds = {kind: [item for item in items if item.kind == kind] for kind in sorted({item.kind for item in items})}
    by_run = _by_run(runs, items)
    rows = {
        "cache": str(cache),
        "bytes": sum(item.size for item in items),
        "kinds": [{"kind": k, "artefacts": len(own), "bytes": _sum(own)} for k, own in kinds.items()],
        "runs": by_run,
    }
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _print(["kind", "artefacts", "MB"], [(k, len(own), _mb(_sum(own))) for k, own in kinds.items()])
    if by_run:
        told = [(r["run"], r["artefacts"], _mb(r["bytes"]), _mb(r["bytes_of_no_other"])) for r in by_run]
        _print(["run", "artefacts", "MB", "MB that no other run needs"], told)
    echo(f"{cache}: {_mb(_sum(items))} MB; finished run folders need none of it to be read, steered or verified")


@cache_app.command()
def prune(
    older_than: Annotated[float, typer.Option("--older-than", min=0, help="Days since an artefact was made.")],
    keep_run: Annotated[
        list[Path] | None, typer.Option("--keep-run", help="Run folder whose jobs stay; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")] = False,
) -> None:
    """Delete finished, unfinished and damaged work that is older; replies that judges were paid for stay."""
    from peo_bench.jobs.usage import jobs_of
    from peo_bench.jobs.usage import prune as delete_old

    with received(*(keep_run or ())):
        keep = {job_id for run in keep_run or () for job_id in jobs_of(run)}
    gone = delete_old(cache_dir(), time.time() - older_than * DAY, keep, delete=not dry_run)
    for item in gone:
        echo(f"{item.kind}/{item.id}")
    echo(f"{len(gone)} artefacts, {_mb(_sum(gone))} MB {'would be' if dry_run else 'were'} deleted")


def _by_run(runs: Path, items: Iterable[Stored]) -> list[dict[str, str | int]]:
    """Return a row for every finished run folder in `runs`; what is none is passed over."""
    from peo_bench.jobs.usage import jobs_of

    sizes = {item.id: item.size for item in items}
    needed: dict[str, set[str]] = {}
    for folder in sorted(runs.glob("*/jobs.jsonl")):
        try:
            with received(folder.parent):
                needed[folder.parent.name] = jobs_of(folder.parent) & set(sizes)
        except UsageError as error:
            echo(f"left out: {error}", err=True)
    rows: list[dict[str, str | int]] = []
    for name, own in needed.items():
        others = set().union(*(ids for other, ids in needed.items() if other != name))
        alone = sum(sizes[job_id] for job_id in own - others)
        whole = sum(sizes[job_id] for job_id in own)
        rows.append({"run": name, "artefacts": len(own), "bytes": whole, "bytes_of_no_other": alone})
    return rows


def _sum(items: Iterable[Stored]) -> int:
    return sum(item.size for item in items)


def _mb(size: str | int) -> str:
    return f"{int(size) / 1e6:,.1f}"


def _print(columns: list[str], rows: Iterable[Iterable[object]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(str, row))
    console().print(table)
