"""`peo-bench judge calibrate`: how far a judge agrees with people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from peo_bench.cli import Json, app, cache_dir, console, echo, received, writable_cache
from peo_bench.cli.run import CARD, card_row
from peo_bench.errors import UsageError
from peo_bench.runs.request import Judges, MaxUsd, Set, Suite

if TYPE_CHECKING:
    from peo_bench.judges.labelled import LabelledPair

judge_app = typer.Typer(help="Look at judges themselves.", no_args_is_help=True)
app.add_typer(judge_app, name="judge")
RECORDED = "recorded verdicts"


@judge_app.callback()
def judges() -> None:
    """Look at judges themselves."""


@judge_app.command()
def calibrate(
    data: Annotated[Path, typer.Option("--data", help="Labelled pairs; see docs/judges.md for the format.")],
    judge: Judges = [],  # noqa: B006 - typer reads the default, nobody changes it
    layout: Annotated[str, typer.Option("--layout", help="ours, pandalm or llmbar.")] = "ours",
    verdicts: Annotated[Path | None, typer.Option("--verdicts", help="PandaLM's file of a judge's results.")] = None,
    suite: Suite = "sandbox",
    set_: Set = [],  # noqa: B006
    max_usd: MaxUsd = None,
    as_json: Json = False,
) -> None:
    """Compare judges with people's labels; without --judge, the verdicts that the file holds. Kept for later runs."""
    from peo_bench.files.atomic import finite
    from peo_bench.judges.labelled import read_labelled
    from peo_bench.runs.config import parse_settings
    from peo_bench.suites.suite import load_suite, with_settings

    with received(*(path for path in (data, verdicts) if path)):
        pairs = read_labelled(data, layout, verdicts)
    settings = with_settings(load_suite(suite), parse_settings(set_, ())[0]).judge
    found, code = _calibrated(pairs, judge, settings, max_usd, str(data))
    if as_json:
        typer.echo(json.dumps(finite(found), indent=2, allow_nan=False))
    else:
        console().print(_table(found))
    raise typer.Exit(code)


def _calibrated(
    pairs: list[LabelledPair], names: list[str], settings: Any, max_usd: float | None, data: str
) -> tuple[dict[str, Any], int]:
    """Return by judge id its card and agreement, and the exit code."""
    from peo_bench.judges.agreement import agreement, labelled_table, recorded
    from peo_bench.judges.budget import Budget
    from peo_bench.judges.card import card
    from peo_bench.judges.judge import Desk, make_judges
    from peo_bench.runs.judging import REPLIES, save_calibration, unreadable

    if not names:
        if not any(pair.verdicts for pair in pairs):
            raise UsageError(f"{data} holds no verdicts: name a judge, as in --judge openai:MODEL@BASE_URL")
        rows = recorded(pairs)
        agreed = agreement(pairs, rows)
        return {RECORDED: card(rows, n_calls=0, priced=False) | agreed}, 3 if agreed["n_missing"] else 0
    desk = Desk(writable_cache() / REPLIES, Budget(max_usd))
    found, lost = {}, 0
    for judge in make_judges(names, settings, max_usd):
        judged = judge.judge(labelled_table(pairs), desk)
        agreed = agreement(pairs, judged.rows) if len(judged.rows) else {"agreement": None, "n_missing": len(pairs)}
        found[judge.id] = card(judged.rows, n_calls=judged.n_calls, priced=judged.priced) | agreed
        if not len(judged.missing):
            save_calibration(cache_dir(), judge, {"data": data, **agreed})
        reasons = [*judged.missing["reason"], *unreadable(judged.rows)]
        lost += len(reasons)
        if reasons:
            echo(f"missing: {len(reasons)} verdicts of {judge.id}, the first because {reasons[0]}", err=True)
    return found, 5 if desk.budget.reached else 3 if lost else 0


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _table(found: dict[str, Any]) -> Table:
    from peo_bench.results.judge_records import JudgeCard

    table = Table("judge", *CARD, "95 % interval", "with each annotator", "people with each other", "pairs")
    for name, entry in found.items():
        more = [_share(entry.get(key)) for key in ("agreement_annotators", "people")]
        interval = f"[{entry['ci_low']:.1%}, {entry['ci_high']:.1%}]" if "ci_low" in entry else "-"
        table.add_row(escape(name), *card_row(JudgeCard(**entry)), interval, *more, str(entry.get("n_pairs", 0)))
    return table
