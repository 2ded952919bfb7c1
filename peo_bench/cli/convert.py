"""`peo-bench convert`: safetensors of an older checkpoint's pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peo_bench.cli import app, echo, received


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A checkpoint with pytorch_model.bin or its like.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; must not exist yet.")],
) -> None:
    """Write an older checkpoint's weights as safetensors; its pickles are read as tables of tensors, no more."""
    from peo_bench.models.convert import convert as write

    with received(folder):
        write(folder, to)
    echo(to)
