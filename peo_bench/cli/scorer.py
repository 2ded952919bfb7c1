"""`peo-bench scorer check`: what a reward or cost model checkpoint does, before a task file names it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from peo_bench.cli import Json, app, console, echo, received, writable_cache
from peo_bench.errors import UsageError, unknown

scorer = typer.Typer(help="Reward and cost models as checkpoints.", no_args_is_help=True)
app.add_typer(scorer, name="scorer")


@scorer.command()
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, or a hub id (owner/name@revision).")],
    layout: Annotated[str, typer.Option(help="beaver, hh-gpt2, sequence-classification or trained.")],
    template: Annotated[str | None, typer.Option(help="A text with {prompt} and {answer}, or chat.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    prompt: Annotated[str, typer.Option(help="With --answer: print this text's score.")] = "hello",
    answer: Annotated[str, typer.Option()] = "Hello! How can I help you today?",
    as_json: Json = False,
) -> None:
    """Load a scorer, try its head and its batches, and show the direction of each of its labels."""
    found = _check(model, layout, template, dtype, prompt, answer)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("label", "score", "helpful: better is higher", "harmless: better is higher")
    for row in found["labels"]:
        shares = [f"{row[name]['higher']} of {row[name]['of']}" for name in ("helpful", "harmless")]
        table.add_row(str(row["label"]), f"{row['score']:.4f}", *shares)
    console().print(table)
    echo(f"scored: {prompt!r} / {answer!r}, {found['tokens']} tokens of at most {found['max_length']}")
    echo(f"batch 1 against batch k: {found['batch_gap']:.1g} standard deviations, at most {found['tolerance']:g}")
    echo("a task declares a direction by its objective's `maximise`; a run tests it on these pairs")


@contextmanager
def naming(model: str) -> Iterator[None]:
    """Name the checkpoint in what is said of it."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{model}: {str(error).removeprefix('scorer: ')}") from None


def _check(model: str, layout: str, template: str | None, dtype: str, prompt: str, answer: str) -> dict[str, Any]:
    from dataclasses import asdict

    from peo_bench.data.given_checkpoint import take_over
    from peo_bench.scorers import LAYOUTS, open_scorer
    from peo_bench.scorers.anchors import ANCHORS
    from peo_bench.scorers.kinds import scorer_identity
    from peo_bench.scorers.self_test import TOLERANCE, check_batch, signs
    from peo_bench.scorers.settings import ScorerConfig
    from peo_bench.settings import check as checked

    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    config = checked({"layout": layout, "model": model, "template": template, "dtype": dtype}, ScorerConfig, "scorer")
    with received(Path(model)), tempfile.TemporaryDirectory(dir=writable_cache()) as folder, naming(model):
        take_over(scorer_identity(config), Path(folder) / "model")
        loaded = open_scorer(Path(folder), config.layout, config.dtype, config.template)
        gap = check_batch(loaded, config.dtype)
        (scores,) = loaded.score_labels([prompt], [answer]).labels
        return {
            "labels": [
                {"label": label, "score": score}
                | {name: asdict(signs(loaded, label, anchors)) for name, anchors in ANCHORS.items()}
                for label, score in enumerate(scores)
            ],
            "tokens": len(loaded.encode([prompt], [answer])[0]["input_ids"]),
            "max_length": loaded.max_length,
            "batch_gap": gap,
            "tolerance": TOLERANCE[config.dtype],
        }
