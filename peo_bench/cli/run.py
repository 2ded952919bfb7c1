"""`peo-bench run` and `peo-bench plan`."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer
from rich.markup import escape
from rich.table import Table

from peo_bench.cli import Json, app, cache_dir, console, echo, writable_cache
from peo_bench.cli.bars import RunProgress
from peo_bench.cli.fits import print_fit
from peo_bench.errors import UsageError
from peo_bench.kill_points import check_kill_point
from peo_bench.process import Terminated, heeding_sigterm
from peo_bench.runs.request import MaxUsd, RunRequest

if TYPE_CHECKING:
    from peo_bench.results.judge_records import JudgeCard, JudgeMetrics, OverallWinRate
    from peo_bench.results.metrics_records import EstimateRecord, TaskMetrics
    from peo_bench.runs.config import RunConfig

P = ParamSpec("P")


def takes_request(command: Callable[Concatenate[RunRequest, P], None]) -> Callable[..., None]:
    """Let a command take the options of `RunRequest` where it has one as its first parameter."""
    hints = get_type_hints(RunRequest, include_extras=True)
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default if option.default_factory is MISSING else option.default_factory(),
            annotation=hints[option.name],
        )
        for option in fields(RunRequest)
    ]

    @wraps(command)
    def expanded(*args: P.args, **given: P.kwargs) -> None:
        asked: dict[str, Any] = {option.name: given.pop(option.name) for option in shared}
        command(RunRequest(**asked), *args, **given)

    parameters = [*shared, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own)]
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


UNUSED = "As in run; no effect on a plan."


@app.command()
@takes_request
def run(
    request: RunRequest,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; by default runs/<derived name>.")] = None,
    max_usd: MaxUsd = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; by default one per core.", min=1)] = None,
    tracker: Annotated[
        str | None, typer.Option("--tracker", help="tensorboard, trackio or wandb: training curves, in OUT/tracker.")
    ] = None,
) -> None:
    """Train, evaluate and compare methods; type the same command again to continue or to see the result."""
    check_kill_point()
    config = _config(request)
    from peo_bench.report.build import build_report
    from peo_bench.runs.execute import execute
    from peo_bench.training.tracker import tracking

    folder = out or Path("runs") / config.name
    screen = console()
    n = workers or default_workers()
    try:
        with heeding_sigterm(), tracking(tracker, folder / "tracker"), RunProgress(screen) as progress:
            result = execute(
                config, folder, writable_cache(), workers=n, command=_command(), observe=progress, max_usd=max_usd
            )
            report = build_report(folder)
    except KeyboardInterrupt as end:
        what, code = ("terminated", 143) if isinstance(end, Terminated) else ("interrupted", 130)
        echo(f"{what}; finished work is kept: type `{_command()}` again to continue", err=True)
        raise typer.Exit(code) from None
    screen.print(result_table(result.metrics, (*config.methods, *config.given)))
    if result.judging.metrics:
        screen.print(judge_table(result.judging.metrics, config.stand_in or "the reference policy"))
    for item in result.missing:
        screen.print(f"[red]missing[/red] {escape(item.what)}: {escape(item.reason)}", highlight=False)
    screen.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(0 if result.complete else 5 if result.judging.budget_reached else 3)


@app.command()
@takes_request
def plan(
    request: RunRequest,
    as_json: Json = False,
    out: Annotated[Path | None, typer.Option("--out", help=UNUSED)] = None,
    max_usd: Annotated[float | None, typer.Option("--max-usd", help=UNUSED, min=0)] = None,
    workers: Annotated[int | None, typer.Option("--workers", help=UNUSED, min=1)] = None,
    tracker: Annotated[str | None, typer.Option("--tracker", help=UNUSED)] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Does it fit, how long, how much: h100, a100-80, rtx4090 or cpu.")
    ] = None,
    tokens_per_second: Annotated[
        str | None, typer.Option("--tokens-per-second", help="With --gpu: generate=N,train=N,read=N.")
    ] = None,
    price_per_hour: Annotated[float | None, typer.Option("--price-per-hour", help="USD, with --gpu.", min=0)] = None,
) -> None:
    """Show the stages of a run with upper bounds of their cost; nothing is executed.

    Every option of `run` is taken, so that `run` can be typed over with `plan`.
    """
    from peo_bench.runs.config import resolve_config
    from peo_bench.runs.devices import gpu_called
    from peo_bench.runs.plan import plan_run

    device = None if gpu is None else gpu_called(gpu)
    config = resolve_config(request, None if device is None else device.kind)
    stages = plan_run(config, cache_dir())
    needed = None
    if device is not None:
        from peo_bench.runs.fit import Asked, fit_run, parse_rates

        asked = Asked(device, parse_rates(tokens_per_second), price_per_hour)
        needed = fit_run(config, stages, asked, cache_dir())
    elif tokens_per_second is not None or price_per_hour is not None:
        raise UsageError("--tokens-per-second and --price-per-hour belong to --gpu: add --gpu h100, for instance")
    if as_json:
        planned = stages if needed is None else {"stages": stages, "resources": needed.to_json()}
        typer.echo(json.dumps(planned, indent=2))
        return
    titles = ("pairs trained", "answers", "tokens (at most)", "scorer calls", "judge calls", "USD (at most)")
    keys = ("pairs_trained", "answers", "tokens_generated", "scorer_calls", "judge_calls")
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
    for note in dict.fromkeys(note for stage in stages for note in stage.get("notes", ())):
        screen.print(f"[yellow]{escape(note)}[/yellow]", highlight=False)
    if needed is not None:
        print_fit(screen, needed)


def default_workers() -> int:
    """Return one process per core on CPU (at most 4), one where there is a GPU."""
    import torch

    return 1 if torch.cuda.is_available() else max(1, min(4, os.cpu_count() or 1))


def result_table(metrics: TaskMetrics, methods: Sequence[str]) -> Table:
    """Return the table that `run` and `compare` print; what is not among `methods` is a control."""
    unit = "sd²" if metrics.hypervolume_units == "reference" else "raw"
    titles = ("steered utility", f"hypervolume ({unit})", "mean KL (nats)", "length", "validation evals")
    table = Table("method", "rank", *titles)
    for method, values in metrics.methods.items():
        rank, bound = values.rank, values.kl_bound_mean
        evaluations = values.validation_evaluations
        table.add_row(
            escape(method) if method in methods else f"[dim]{escape(method)} (control)[/dim]",
            str(rank.best) if rank.best == rank.worst else f"{rank.best}-{rank.worst}",
            _interval(values.steered_utility),
            _interval(values.hypervolume),
            _fixed(values.kl_mean, 2) if bound is None else f"≤ {_fixed(bound, 2)}",
            _fixed(values.length_mean, 1),
            "-" if evaluations is None else str(evaluations),
        )
    return table


def judge_table(judges: Mapping[str, JudgeMetrics], reference: str) -> Table:
    """Return every judge's card and, under it, its win rates against the `reference` policy over all preferences."""
    table = Table("judge", "objective", f"win rate against {escape(reference)} (%)", *CARD)
    for name, judge in judges.items():
        shown = card_row(judge.card)
        for entry in judge.overall:
            if entry.b == "reference":
                table.add_row(escape(name), entry.objective, f"{escape(entry.a)} {_percent(entry)}", *shown)
                name, shown = "", [""] * len(CARD)
    return table


CARD = ("position consistency", "parse failures", "ties", "calls", "USD", "agreement with people")
"""Titles of a judge's card."""


def card_row(card: JudgeCard) -> list[str]:
    """Return a judge's card as cells under `CARD`."""
    consistency, agreement = (
        "-" if share is None else f"{share:.1%}" for share in (card.position_consistency, card.agreement)
    )
    usd = "unknown" if card.usd is None else f"{card.usd:.4f}"
    return [consistency, *map(str, (card.parse_failures, card.ties, card.n_calls)), usd, agreement]


def _percent(entry: OverallWinRate) -> str:
    if entry.win_rate is None:
        return "no verdicts"
    low, high = entry.ci_low, entry.ci_high
    return f"{entry.win_rate:.1f} " + ("" if low is None or high is None else f"[{low:.1f}, {high:.1f}]")


def _interval(estimate: EstimateRecord) -> str:
    return f"{_fixed(estimate.value, 3)} [{_fixed(estimate.ci_low, 3)}, {_fixed(estimate.ci_high, 3)}]"


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _config(request: RunRequest) -> RunConfig:
    from peo_bench.runs.config import resolve_config

    return resolve_config(request)


def _command() -> str:
    return shlex.join(["peo-bench", *sys.argv[1:]])
