"""`peo-bench winrate`, `outputs` and `annotate`: read alpaca_eval's annotations, hand it our answers, run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from peo_bench.cli import Json, RunFolder, app, console, echo, received
from peo_bench.cli.steer import Helpful, MethodName, SeedChoice
from peo_bench.errors import UsageError


@app.command()
def winrate(
    file: Annotated[
        Path, typer.Argument(metavar="ANNOTATIONS", help="alpaca_eval's annotations or judgements.parquet.")
    ],
    model: Annotated[str | None, typer.Option("--model", help="Which model, if the file has several.")] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="Against which, if the file has several.")] = None,
    only: Annotated[list[str], typer.Option("--only", help="COLUMN=VALUE: rows to keep; repeatable.")] = [],  # noqa: B006
    difficulty: Annotated[
        Path | None, typer.Option("--difficulty", help="AlpacaEval's instruction_difficulty.csv, for length control.")
    ] = None,
    gamed: Annotated[
        Path | None, typer.Option("--gamed", help="AlpacaEval's df_gamed.csv, for length control.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how often a model beats the baseline, in percent, from a judge's verdicts."""
    if (difficulty is None) != (gamed is None):
        raise UsageError("length control needs both files: give --difficulty FILE and --gamed FILE")
    from peo_bench.files.atomic import finite
    from peo_bench.winrates.annotations import read_annotations
    from peo_bench.winrates.difficulty import read_difficulty, read_regulariser
    from peo_bench.winrates.summary import summarise

    kept = _conditions(only)
    with received(*(path for path in (file, difficulty, gamed) if path)):
        annotations = read_annotations(file, model=model, baseline=baseline, only=kept)
        files = None if difficulty is None or gamed is None else (read_difficulty(difficulty), read_regulariser(gamed))
        found = finite(summarise(annotations, files))
    if not found["n_total"]:
        raise UsageError(f"{file}: none of {found['n_rows']} rows has a verdict: `preference` is from 1 to 2, or 0")
    if as_json:
        typer.echo(json.dumps(found, indent=2, allow_nan=False))
        return
    _show(found)


@app.command()
def outputs(
    run: RunFolder,
    to: Annotated[Path, typer.Option("--to", help="JSON file to write; .gz compresses.")],
    method: MethodName = "peo",
    helpful: Helpful = 0.5,
    seed: SeedChoice = None,
    name: Annotated[str | None, typer.Option("--name", help="Generator name; by default method and weight.")] = None,
) -> None:
    """Write the answers of a run's method to its test prompts as alpaca_eval's model outputs."""
    from peo_bench.results.answers import answers_of
    from peo_bench.winrates.annotations import model_outputs, write_rows

    generator = name or (method if method == "reference" else f"{method}-helpful-{helpful:g}")
    with received(run):
        answers = answers_of(run, method, helpful, seed=seed)
        rows = model_outputs(answers, generator)
    write_rows(to, rows)
    echo(f"{to}: {len(answers)} answers of {generator}")


@app.command()
def annotate(
    answers: Annotated[Path, typer.Argument(metavar="OUTPUTS", help="Model outputs, as `peo-bench outputs` writes.")],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The baseline's model outputs.")],
    annotator: Annotated[str, typer.Option("--annotator", help="alpaca_eval's configuration: a name or a folder.")],
    to: Annotated[Path, typer.Option("--to", help="JSON file of annotations to write; .gz compresses.")],
) -> None:
    """Let the installed alpaca_eval judge model outputs; keys and addresses come from the environment."""
    from peo_bench.files.atomic import finite
    from peo_bench.judges.alpaca_eval import annotate as ask
    from peo_bench.winrates.annotations import check_target, read_model_outputs, write_rows

    check_target(to)
    with received(answers, reference):
        texts, against = read_model_outputs(answers), read_model_outputs(reference)
    rows = ask(texts, against, annotator)
    write_rows(to, [finite(row) for row in rows])
    echo(f"{to}: {len(rows)} annotations by {annotator}; type `peo-bench winrate {to}`")


def _conditions(texts: list[str]) -> dict[str, str]:
    parts = [text.partition("=") for text in texts]
    for text, (column, sign, _) in zip(texts, parts, strict=True):
        if not (column and sign):
            raise UsageError(f"--only {text!r}: give COLUMN=VALUE, as in --only annotator=NAME")
    return {column: value for column, _, value in parts}


def _show(found: dict[str, Any]) -> None:
    table = Table(
        "",
        "",
        show_header=False,
        title=escape(f"{found['model'] or 'model'} against {found['baseline'] or 'the baseline'}"),
    )
    for label, text in _lines(found):
        table.add_row(label, escape(text))
    console().print(table)
    for warning in found["warnings"]:
        echo(f"warning: {warning}", err=True)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    def percent(key: str) -> str:
        return "–" if found[key] is None else f"{found[key]:.2f} %"

    missing = found["n_missing"] + found["n_invalid"]
    lines = [
        ("judge", found["annotator"] or "not named"),
        ("win rate ↑", f"{percent('win_rate')} (95 %: {percent('ci_low')} to {percent('ci_high')})"),
        ("standard error", percent("standard_error")),
        ("discrete win rate ↑", percent("discrete_win_rate")),
        ("wins / losses / draws", f"{found['n_wins']} / {found['n_wins_base']} / {found['n_draws']}"),
        ("verdicts", f"{found['n_total']} of {found['n_rows']} rows, {missing} missing"),
        ("length-controlled ↑", percent("length_controlled_winrate")),
    ]
    if found["length_controlled_reason"]:
        lines[-1] = ("length-controlled ↑", f"– ({found['length_controlled_reason']})")
    if found["length_controlled_by_instruction"] is not None:
        lines.append(("… each row with its own difficulty", percent("length_controlled_by_instruction")))
    if found["n_absent"]:
        lines.append(("instructions not in the file", str(found["n_absent"])))
    if found["n_without_text"]:
        lines.append(("rows without an answer's text, in no length control", str(found["n_without_text"])))
    if found["n_duplicates"]:
        lines.append(("instructions more than once", str(found["n_duplicates"])))
    if found["length_controlled_winrate"] is None:
        reason = found["length_adjusted_reason"]
        value = f"– ({reason})" if reason else percent("length_adjusted_winrate")
        lines.append(("length-adjusted ↑ (own fit, no difficulty)", value))
    return lines
