"""`peo-bench steer`: generate from a finished run's family at a preference."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from peo_bench.cli import Json, RunFolder, app, echo, received
from peo_bench.errors import UsageError

MethodName = Annotated[str, typer.Option("--method", help="A method of the run.")]
Helpful = Annotated[float, typer.Option("--helpful", help="Weight of helpfulness, 0 to 1; harmlessness gets the rest.")]
SeedChoice = Annotated[int | None, typer.Option("--seed", help="Training seed, by default the run's first.")]


def weight(helpful: float) -> float:
    """Return the weight of helpfulness; off the simplex is a `UsageError`."""
    if not 0 <= helpful <= 1:
        raise UsageError(f"--helpful {helpful:g} is off the simplex: give a weight between 0 and 1")
    return helpful


@app.command()
def steer(
    run: RunFolder,
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT...", help="What to answer.")] = None,
    method: MethodName = "peo",
    helpful: Helpful = 0.5,
    seed: SeedChoice = None,
    samples: Annotated[int, typer.Option("--samples", "-n", help="Answers per prompt.", min=1)] = 1,
    web: Annotated[bool, typer.Option("--web", help="Open a page with a slider on this machine instead.")] = False,
    port: Annotated[int, typer.Option("--port", help="Port of --web; 0 takes a free one.", min=0, max=65535)] = 0,
    as_json: Json = False,
) -> None:
    """Answer prompts with a trained family at a preference given here, or on a page with a slider."""
    if web:
        if prompts:
            raise UsageError("steer --web takes no prompts: ask on the page")
        _serve(run, seed, port)
        return
    if not prompts:
        raise UsageError("steer needs a prompt to answer: give one in quotes, or --web for a page with a slider")
    asked = weight(helpful)
    from peo_bench.steering.families import SteeredPolicy, check_prompts

    prompts = check_prompts(prompts)
    with received(run):
        policy = SteeredPolicy(run, method, asked, seed)
        answers = policy.generate(prompts, samples)
    offered = {"preference": policy.preference.to_json(), "spec_key": policy.spec.key}
    rows = [{"prompt": prompts[i // samples], "answer": answer, **offered} for i, answer in enumerate(answers)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        echo(f"> {row['prompt']}\n{row['answer']}\n")


def _serve(run: Path, seed: int | None, port: int) -> None:
    """Serve the page until Ctrl-C; a second one does not wait for the answer in work."""
    from peo_bench.report.steering_page import steering_page
    from peo_bench.steering.web import family_answers, steer_server

    with received(run):
        methods, answers = family_answers(run, seed)
    server = steer_server(received(run)(answers), *steering_page(methods, run.resolve().name), port)
    echo(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        if server.answering.locked():
            echo("finishing the answer in work (Ctrl-C again: at once)", err=True)
        try:
            server.server_close()
        except KeyboardInterrupt:
            os._exit(130)  # a thread is inside torch, which aborts where the interpreter ends under it
        raise typer.Exit(130) from None
