"""`peo-bench export`: write one policy of a finished run as a Hugging Face model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peo_bench.cli import RunFolder, app, echo, received
from peo_bench.cli.steer import Helpful, MethodName, SeedChoice, weight


@app.command()
def export(
    run: RunFolder,
    to: Annotated[Path, typer.Option("--to", help="Folder to write; must not exist yet.")],
    method: MethodName = "peo",
    helpful: Helpful = 0.5,
    seed: SeedChoice = None,
) -> None:
    """Merge the policy that a method offers at a preference into one model and write it with a model card."""
    asked = weight(helpful)
    from peo_bench.steering.families import SteeredPolicy

    with received(run):
        SteeredPolicy(run, method, asked, seed).export(to)
    echo(f"{to}: load it with transformers.AutoModelForCausalLM.from_pretrained({str(to)!r})")
