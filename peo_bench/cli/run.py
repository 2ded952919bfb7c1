"""`peo-bench run` and `peo-bench plan`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from peo_bench.cli import Json, app, cache_dir, console, writable_cache
from peo_bench.cli.progress import RunProgress
from peo_bench.errors import UsageError
from peo_bench.runs.config import RunConfig, resolve_config

Methods = Annotated[str, typer.Option("--methods", "-m", help="Comma-separated, or all; see `peo-bench list methods`.")]
Suite = Annotated[str, typer.Option("--suite", help="A suite's name or the path of a suite file.")]
Model = Annotated[str | None, typer.Option("--model", help="Base model: smollm2, a folder or a hub id.")]
Set = Annotated[list[str], typer.Option("--set", help="METHOD.KEY=VALUE or SECTION.KEY=VALUE; may be repeated.")]
Seed = Annotated[int, typer.Option("--seed", help="Training seed.", min=0)]
Seeds = Annotated[str | None, typer.Option("--seeds", help="Several training seeds, as in 0,1,2.")]
Preferences = Annotated[str, typer.Option("--preferences", help="Number of points, or helpful weights as in 0,0.5,1.")]
Limit = Annotated[int | None, typer.Option("--limit", help="At most so many pairs and prompts of each kind.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where local data files are.")]
Experts = Annotated[list[str], typer.Option("--expert", help="OBJECTIVE=PATH: use this checkpoint for phase 1.")]
Judges = Annotated[
    list[str],
    typer.Option("--judge", help="openai:MODEL@BASE_URL, scorers or alpaca_eval:CONFIG; repeatable."),
]
MaxUsd = Annotated[float | None, typer.Option("--max-usd", help="Most that judges may spend now.", min=0)]
Policies = Annotated[list[str], typer.Option("--policy", help="NAME=PATH: compare this finished policy as a point.")]

Capabilities = Annotated[str, typer.Option("--capabilities", help="lm-eval tasks: names or YAML files, by commas.")]

UNUSED = "As in run; no effect on a plan."


@app.command()
def run(
    methods: Methods = "peo,modpo",
    suite: Suite = "sandbox",
    model: Model = None,
    set_: Set = [],  # noqa: B006 - typer reads the default, nobody changes it
    seed: Seed = 0,
    seeds: Seeds = None,
    preferences: Preferences = "5",
    limit: Limit = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; by default runs/<derived name>.")] = None,
    data_dir: DataDir = None,
    expert: Experts = [],  # noqa: B006
    policy: Policies = [],  # noqa: B006
    capabilities: Capabilities = "",
    judge: Judges = [],  # noqa: B006
    max_usd: MaxUsd = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; by default one per core.", min=1)] = None,
    tracker: Annotated[
        str | None, typer.Option("--tracker", help="tensorboard, trackio or wandb: training curves, in OUT/tracker.")
    ] = None,
) -> None:
    """Train, evaluate and compare methods; type the same command again to continue or to see the result."""
    config = _config(
        methods, suite, model, set_, seed, seeds, preferences, limit, data_dir, expert, policy, capabilities, judge
    )
    from peo_bench.report.build import build_report
    from peo_bench.runs.execute import execute
    from peo_bench.training.tracker import tracking

    folder = out or Path("runs") / config.name
    screen = console()
    n = workers or default_workers()
    try:
        with tracking(tracker, folder / "tracker"), RunProgress(screen) as progress:
            result = execute(
                config, folder, writable_cache(), workers=n, command=_command(), observe=progress, max_usd=max_usd
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; finished work is kept: type `{_command()}` again to continue", err=True)
        raise typer.Exit(130) from None
    report = build_report(folder)
    screen.print(result_table(result.metrics, config.methods))
    if result.judging.metrics:
        screen.print(judge_table(result.judging.metrics))
    for item in result.missing:
        screen.print(f"[red]missing[/red] {escape(item['what'])}: {escape(item['reason'])}", highlight=False)
    screen.print(f"report: {report}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if result.complete else 5 if result.judging.budget_reached else 3)


@app.command()
def plan(
    methods: Methods = "peo,modpo",
    suite: Suite = "sandbox",
    model: Model = None,
    set_: Set = [],  # noqa: B006
    seed: Seed = 0,
    seeds: Seeds = None,
    preferences: Preferences = "5",
    limit: Limit = None,
    data_dir: DataDir = None,
    expert: Experts = [],  # noqa: B006
    policy: Policies = [],  # noqa: B006
    capabilities: Capabilities = "",
    judge: Judges = [],  # noqa: B006
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option("--out", help=UNUSED)] = None,
    max_usd: Annotated[float | None, typer.Option("--max-usd", help=UNUSED, min=0)] = None,
    workers: Annotated[int | None, typer.Option("--workers", help=UNUSED, min=1)] = None,
    tracker: Annotated[str | None, typer.Option("--tracker", help=UNUSED)] = None,
) -> None:
    """Show the stages of a run with upper bounds of their cost; nothing is executed.

    Every option of `run` is taken, so that `run` can be typed over with `plan`.
    """
    config = _config(
        methods, suite, model, set_, seed, seeds, preferences, limit, data_dir, expert, policy, capabilities, judge
    )
    from peo_bench.runs.plan import plan_run

    stages = plan_run(config, cache_dir())
    if as_json:
        typer.echo(json.dumps(stages, indent=2))
        return
    titles = ("pairs trained", "answers", "tokens (at most)", "scorer calls", "judge calls", "USD (at most)")
    keys = ("pairs_trained", "responses", "tokens_generated", "scorer_calls", "judge_calls")
    table = Table("stage", "jobs", "cached", *titles)
    for stage in stages:
        cost = stage["cost"]
        unpriced = "no price" if cost.get("judge_calls") else "0"
        table.add_row(
            stage["stage"],
            "?" if stage["jobs"] is None else str(stage["jobs"]),
            str(stage["cached"]),
            *(f"{cost.get(key, 0):,}" for key in keys),
            f"{cost['usd']:,.2f}" if "usd" in cost else unpriced,
        )
    screen = console()
    screen.print(table)
    for note in (note for stage in stages for note in stage.get("notes", ())):
        screen.print(f"[yellow]{escape(note)}[/yellow]", highlight=False)


def default_workers() -> int:
    """Return one process per core on CPU (at most 4), one where there is a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, min(4, os.cpu_count() or 1))


def result_table(metrics: dict[str, Any], methods: Sequence[str]) -> Table:
    """Return the table that `run` and `compare` print; what is not among `methods` is a control."""
    unit = "sd²" if metrics["hypervolume_units"] == "reference" else "raw"
    titles = ("steered utility", f"hypervolume ({unit})", "mean KL (nats)", "length", "validation evals")
    table = Table("method", "rank", *titles)
    for method, values in metrics["methods"].items():
        rank = values["rank"]
        table.add_row(
            escape(method) if method in methods else f"[dim]{escape(method)} (control)[/dim]",
            str(rank["best"]) if rank["best"] == rank["worst"] else f"{rank['best']}-{rank['worst']}",
            _interval(values["steered_utility"]),
            _interval(values["hypervolume"]),
            f"≤ {values['kl_bound_mean']:.2f}" if "kl_bound_mean" in values else f"{values['kl_mean']:.2f}",
            f"{values['length_mean']:.1f}",
            str(values["validation_evaluations"]),
        )
    return table


def judge_table(judges: Mapping[str, Any]) -> Table:
    """Return every judge's card and, under it, its win rates against the reference policy over all preferences."""
    table = Table("judge", "objective", "win rate against the reference policy (%)", *CARD)
    for name, judge in judges.items():
        shown = card_row(judge["card"])
        for entry in judge["overall"]:
            if entry["b"] == "reference":
                rate = f"{escape(entry['a'])} {_percent(entry)}"
                table.add_row(escape(name), entry["objective"], rate, *shown)
                name, shown = "", [""] * len(CARD)
    return table


CARD = ("position consistency", "parse failures", "ties", "calls", "USD", "agreement with people")
"""Titles of a judge's card."""


def card_row(card: Mapping[str, Any]) -> list[str]:
    """Return a judge's card as cells under `CARD`."""
    share = {key: "-" if card.get(key) is None else f"{card[key]:.1%}" for key in ("position_consistency", "agreement")}
    usd = "unknown" if card["usd"] is None else f"{card['usd']:.4f}"
    counts = [str(card[key]) for key in ("parse_failures", "ties", "n_calls")]
    return [share["position_consistency"], *counts, usd, share["agreement"]]


def _percent(entry: Mapping[str, Any]) -> str:
    if entry["win_rate"] is None:
        return "no verdicts"
    bounds = [entry["ci_low"], entry["ci_high"]]
    return f"{entry['win_rate']:.1f} " + ("" if None in bounds else f"[{bounds[0]:.1f}, {bounds[1]:.1f}]")


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['ci_low']:.3f}, {estimate['ci_high']:.3f}]"


def _config(
    methods: str,
    suite: str,
    model: str | None,
    settings: list[str],
    seed: int,
    seeds: str | None,
    preferences: str,
    limit: int | None,
    data_dir: Path | None,
    experts: list[str],
    policies: list[str],
    capabilities: str,
    judges: list[str],
) -> RunConfig:
    if data_dir is not None:
        if not data_dir.is_dir():
            raise UsageError(
                f"--data-dir {data_dir}: no such folder: give the folder that holds the suite's data files"
            )
        os.environ["PEO_BENCH_DATA_DIR"] = str(data_dir.resolve())
    return resolve_config(
        methods=methods,
        suite=suite,
        model=model,
        settings=settings,
        seeds=(seed,) if seeds is None else _seeds(seeds),
        preferences=preferences,
        limit=limit,
        experts=experts,
        policies=policies,
        capabilities=capabilities,
        judges=judges,
    )


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise UsageError(f"--seeds {text!r}: give whole numbers separated by commas, as in 0,1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _command() -> str:
    return shlex.join(["peo-bench", *sys.argv[1:]])
