"""The leaderboards' page: static, sortable, without plotly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from peo_bench.boards.leaderboard import Board, as_run_folder, row_names
from peo_bench.boards.records import BoardRow
from peo_bench.errors import UsageError
from peo_bench.files.atomic import write_text
from peo_bench.report import contents, figures, svg
from peo_bench.report.build import asset, content_security_policy, environment
from peo_bench.report.headline import Answer
from peo_bench.report.tables import Table, scoreboard
from peo_bench.report.wording import method_name
from peo_bench.resources import resource_dir


class Published(BaseModel):
    """Figures of one paper: `columns` maps a heading to its direction, None for what is no score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    source: str
    setting: str
    columns: dict[str, bool | None]
    rows: list[list[float | str]]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text, every number of a column with as many decimals as the column's longest."""
        columns = ([cell for cell in column if isinstance(cell, float)] for column in zip(*self.rows, strict=True))
        decimals = [max((len(f"{cell:g}".partition(".")[2]) for cell in column), default=0) for column in columns]
        return [
            [cell if isinstance(cell, str) else f"{cell:.{n}f}" for cell, n in zip(row, decimals, strict=True)]
            for row in self.rows
        ]

    @property
    def headings(self) -> list[str]:
        """The columns' names, with an arrow for the better direction."""
        return [name + {True: " ↑", False: " ↓", None: ""}[better] for name, better in self.columns.items()]


def published() -> list[Published]:
    """Return the published figures of other work that come with peo-bench."""
    text = (resource_dir("leaderboards") / "published.yaml").read_text(encoding="utf-8")
    return [Published.model_validate(entry) for entry in yaml.safe_load(text)]


def write_page(boards: Sequence[Board], path: Path) -> None:
    """Write the page of all `boards` and of the published figures."""
    sorting, style = asset("tables.js"), asset("report.css")
    policy = content_security_policy([sorting], [style])
    page = environment().get_template("leaderboard.html.j2")
    context = {"boards": [_section(board) for board in boards], "published": published()}
    try:
        write_text(path, page.render(**context, policy=policy, sorting=Markup(sorting), style=Markup(style)))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot write there ({error.strerror}): give --out a file in a folder that exists"
        ) from None


@dataclass(frozen=True)
class BoardSection:
    """One leaderboard of the page."""

    name: str
    about: str
    headline: str
    answers: tuple[Answer, ...]
    notes: list[str]
    legend: list[tuple[str, Markup]]
    figure: Markup
    swatches: dict[str, Markup]
    scoreboard: Table
    provenance: list[tuple[str, str]]


def _section(board: Board) -> BoardSection:
    folder = as_run_folder(board)
    (view,) = contents.task_views(folder)
    styles = figures.method_styles(contents.shown_methods(view))
    swatches = {method: Markup(svg.swatch(style)) for method, style in styles.items()}
    measure, names = board.measure, row_names(board)
    scorers = "; ".join(f"{column} by {', '.join(by)}" for column, by in measure.scorers.items())
    return BoardSection(
        name=measure.name,
        about=f"{measure.prompts.n} prompts, {len(measure.preferences)} preferences; {scorers}.",
        headline=view.verdict.headline,
        answers=view.verdict.answers,
        notes=list(folder.run.notes),
        legend=[(method_name(method), swatch) for method, swatch in swatches.items()],
        figure=Markup(svg.front_svg(view, styles, figures.front_geometry(view), contents.describe(view))),
        swatches=swatches,
        scoreboard=scoreboard(view),
        provenance=[(names[row.id], _provenance(row)) for row in board.rows],
    )


def _provenance(row: BoardRow) -> str:
    about = row.provenance
    seeds = ", ".join(map(str, row.seeds))
    packages = ", ".join(f"{name} {version}" for name, version in about.packages.items())
    return (
        f"{row.model}, seeds {seeds}, {row.n_prompts} prompts; {about.command}; configuration "
        f"{about.config_sha256[:12]}, peo-bench {about.peo_bench}, {packages}; {about.finished}; "
        f"data: {about.licence}"
    )
