"""`peo-bench pareto`: analyse anybody's points."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from peo_bench.cli import Json, app, console, echo, received
from peo_bench.errors import UsageError, unknown
from peo_bench.files.atomic import finite
from peo_bench.files.plain import require_file

if TYPE_CHECKING:
    from peo_bench.pareto.checks import FloatArray


@app.command()
def pareto(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="One point per row, with a header.")],
    maximize: Annotated[list[str], typer.Option("--maximize", help="Column where higher is better; repeatable.")] = [],  # noqa: B006
    minimize: Annotated[list[str], typer.Option("--minimize", help="Column where lower is better; repeatable.")] = [],  # noqa: B006
    group: Annotated[str | None, typer.Option("--group", help="Column that names the method of a point.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            help="Bound of the hypervolume: X,Y for the maximised, then the minimised columns; or COL=value,...",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw two columns to a .html, .svg, .pdf or .png file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how good the fronts of a CSV file's groups are; --json also lists the non-dominated rows."""
    from peo_bench.pareto import coverage

    columns = [*maximize, *minimize]
    directions = [True] * len(maximize) + [False] * len(minimize)
    with received(file):
        groups, rows = read_points(file, columns, group)
    bound = parse_reference(reference, columns)
    if plot is not None and len(columns) != 2:
        raise UsageError(
            f"--plot draws two columns, {len(columns)} were given: name two with --maximize and --minimize"
        )
    with received(file):
        analysed = {name: _indicators(name, groups, rows[name], directions, bound) for name in groups}
    result = {
        "file": str(file),
        "objectives": [{"column": c, "maximise": up} for c, up in zip(columns, directions, strict=True)],
        "reference": None if bound is None else dict(zip(columns, bound, strict=True)),
        "groups": analysed,
        "coverage": {a: {b: coverage(groups[a], groups[b], directions) for b in groups if b != a} for a in groups},
    }
    if plot is not None:
        from peo_bench.report.paper import fronts_figure, write_figure

        write_figure(fronts_figure(groups, (columns[0], columns[1]), directions, bound), plot)
    if as_json:
        typer.echo(json.dumps(finite(result), indent=2, allow_nan=False))
        return
    screen = console()
    screen.print(_table(analysed))
    for name, values in analysed.items():
        if values["n_beyond_reference"]:
            screen.print(
                f"[yellow]{escape(repr(name))}: {values['n_beyond_reference']} of {values['n_points']} points are not "
                "better than the reference everywhere and add no hypervolume[/yellow]"
            )
    if bound is None:
        screen.print("No hypervolume without a bound: give one with --reference, chosen before seeing the points.")
    if plot is not None:
        screen.print(f"plot: {plot}", highlight=False, markup=False, soft_wrap=True)


def read_points(
    path: Path, columns: list[str], group: str | None
) -> tuple[dict[str, FloatArray], dict[str, list[int]]]:
    """Return by group the points (n_points, n_objectives) and their rows' numbers, the first below the header being 1.

    White space around and inside the names of groups does not matter; a warning says where it differs.
    Raises UsageError, in one line, for a file, column or cell that cannot be used.
    """
    import numpy as np

    if len(columns) < 2:
        raise UsageError("give at least two objectives, as in --maximize reward --minimize cost")
    if len(set(columns)) < len(columns):
        raise UsageError(f"--maximize and --minimize name a column twice: {', '.join(columns)}")
    require_file(path, "give a CSV file with a header")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file: give a CSV file with a header") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV: {error}") from None
    if not lines:
        raise UsageError(f"{path}: is empty: give a CSV file with a header")
    header = [name.strip() for name in lines[0][1]]
    for column in [*columns, *([] if group is None else [group])]:
        if header.count(column) != 1:
            twice = f"{path}: the header names {column!r} {header.count(column)} times"
            raise UsageError(twice) if column in header else unknown(f"column in {path}", column, header)
    if len(lines) == 1:
        raise UsageError(f"{path}: no points below the header")
    points: dict[str, list[list[float]]] = {}
    rows: dict[str, list[int]] = {}
    respaced: dict[str, str] = {}
    for i, (number, cells) in enumerate(lines[1:], 1):
        if len(cells) != len(header):
            raise UsageError(f"{path}:{number}: has {len(cells)} cells, the header {len(header)}")
        name = "all" if group is None else " ".join(cells[header.index(group)].split())
        if group is not None and name != cells[header.index(group)]:
            respaced.setdefault(cells[header.index(group)], name)
        points.setdefault(name, []).append([_number(path, number, c, cells[header.index(c)]) for c in columns])
        rows.setdefault(name, []).append(i)
    for written, name in respaced.items():
        echo(f"warning: {path}: {group} {written!r} counts as {name!r}: white space tells no groups apart", err=True)
    return {name: np.array(own) for name, own in points.items()}, rows


def parse_reference(text: str | None, columns: list[str]) -> list[float] | None:
    """Return the bound by column from "X,Y" (in the order of `columns`) or "COL=value,...".

    >>> parse_reference("cost=3,reward=-1", ["reward", "cost"])
    [-1.0, 3.0]
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    split = [part.rpartition("=") for part in parts]
    named = {name.strip(): value for name, _, value in split}
    values = [named.get(column) for column in columns] if all(named) else parts
    try:
        bound = [float(value) for value in values if value is not None]
    except ValueError:
        bound = []
    fits = len(bound) == len(columns) == len(parts) and all(map(math.isfinite, bound))
    if not fits:
        example = ",".join(f"{column}=0" for column in columns)
        raise UsageError(f"--reference {text!r}: give one number for each of {', '.join(columns)}, as in {example}")
    return bound


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{path}:{line}: column {column!r}: {text!r} is not a finite number")
    return value


def _indicators(
    name: str, groups: dict[str, FloatArray], rows: list[int], directions: list[bool], bound: list[float] | None
) -> dict[str, Any]:
    import numpy as np

    from peo_bench import pareto as fronts

    points = groups[name]
    mask = fronts.nondominated(points, directions)
    found: dict[str, Any] = {
        "n_points": len(points),
        "n_nondominated": int(mask.sum()),
        "nondominated_rows": [row for row, on_front in zip(rows, mask, strict=True) if on_front],
        "hypervolume": None,
        "n_beyond_reference": 0,
        "exclusive_contributions": None,
        "spacing": _finite(fronts.spacing(points, directions)),
        "sparsity": _finite(fronts.sparsity(points, directions)),
        "igd_plus": None,
        "additive_epsilon": None,
    }
    if bound is not None:
        found["hypervolume"] = fronts.hypervolume(points, bound, directions)
        found["n_beyond_reference"] = fronts.n_beyond_reference(points, bound, directions)
        found["exclusive_contributions"] = fronts.exclusive_contributions(points, bound, directions).tolist()
    if len(groups) > 1:
        rest = np.concatenate([other for key, other in groups.items() if key != name])
        target = rest[fronts.nondominated(rest, directions)]
        found["igd_plus"] = fronts.igd_plus(points, target, directions)
        found["additive_epsilon"] = fronts.additive_epsilon(points, target, directions)
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(groups: dict[str, dict[str, Any]]) -> Table:
    keys = ("n_points", "n_nondominated", "hypervolume", "igd_plus", "additive_epsilon", "spacing")
    table = Table("group", "points", "non-dominated", "hypervolume ↑", "IGD+ to the others ↓", "epsilon ↓", "spacing")
    for name, values in groups.items():
        cells = ["–" if values[key] is None else f"{values[key]:.6g}" for key in keys]
        table.add_row(escape(name), *cells)
    return table
