"""`peo-bench leaderboard`: add, show, verify, html."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from peo_bench.cli import Json, RunFolder, app, console, echo, received
from peo_bench.errors import UsageError, one_line

if TYPE_CHECKING:
    from peo_bench.boards.leaderboard import Board

Dir = Annotated[Path, typer.Option("--dir", help="Folder of the leaderboards.")]

leaderboard = typer.Typer(help="Tables of results whose every row can be recomputed.", no_args_is_help=True)
app.add_typer(leaderboard, name="leaderboard")


@leaderboard.command()
def add(
    run: RunFolder,
    method: Annotated[list[str], typer.Option("--method", help="Only this method; repeatable.")] = [],  # noqa: B006
    dir_: Dir = Path("leaderboards"),
) -> None:
    """Add a finished run's methods, with their scores by prompt."""
    from peo_bench.boards.leaderboard import add_run

    with received(run, dir_):
        board, rows = add_run(dir_, run, method or None)
    for row in rows:
        echo(f"{board.folder}: {row}")


@leaderboard.command()
def show(dir_: Dir = Path("leaderboards"), published: bool = False, as_json: Json = False) -> None:
    """Print the leaderboards; with --published also the figures of other work."""
    from peo_bench.boards.leaderboard import as_run_folder
    from peo_bench.report.board import published as published_tables
    from peo_bench.report.contents import task_views
    from peo_bench.report.tables import scoreboard

    with received(dir_):
        found = _boards(dir_)
    others = published_tables() if published else []
    if as_json:
        content = {
            board.measure.name: {"measure": board.measure.to_json(), "rows": [row.to_json() for row in board.rows]}
            for board in found
        }
        typer.echo(json.dumps({"leaderboards": content, "published": [t.model_dump() for t in others]}, indent=2))
        return
    screen = console()
    for board in found:
        with received(board.folder):
            (view,) = task_views(as_run_folder(board))
            scores = scoreboard(view)
        table = Table("Method", *(title for title, _ in scores.columns), title=board.measure.name)
        for row in scores.rows:
            table.add_row(escape(row.label), *(text for text, _ in row.cells))
        screen.print(table)
        screen.print(view.verdict.headline, highlight=False, markup=False)
        for answer in view.verdict.answers:
            screen.print(f"{answer.question} {answer.said}", highlight=False, markup=False)
    for entry in others:
        screen.print(f"published, not comparable: {entry.title} ({entry.source})", markup=False, highlight=False)
        table = Table(*entry.headings)
        for cells in entry.cells:
            table.add_row(*map(escape, cells))
        screen.print(table)


@leaderboard.command()
def verify(dir_: Dir = Path("leaderboards")) -> None:
    """Recompute every row from its scores by prompt; exit code 3 if one does not agree."""
    from peo_bench.boards.leaderboard import verify as problems_of

    with received(dir_):
        problems = problems_of(dir_)
        found = _boards(dir_) if not problems else []
    for problem in problems:
        echo(one_line(problem), err=True)
    rows = sum(len(board.rows) for board in found)
    echo(f"{len(problems)} problems" if problems else f"{rows} rows in {len(found)} leaderboards, 0 problems")
    raise typer.Exit(3 if problems else 0)


@leaderboard.command()
def html(
    dir_: Dir = Path("leaderboards"),
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("leaderboard.html"),
) -> None:
    """Write all leaderboards as one static page."""
    from peo_bench.report.board import write_page

    with received(dir_):
        write_page(_boards(dir_), out)
    echo(out)


def _boards(root: Path) -> list[Board]:
    from peo_bench.boards.leaderboard import boards

    found = [board for board in boards(root) if board.stored]
    if not found:
        raise UsageError(f"{root}: no leaderboard there: give --dir, or begin one with `peo-bench leaderboard add RUN`")
    return found
