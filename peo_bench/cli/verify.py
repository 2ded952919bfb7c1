"""`peo-bench verify`: does everything a run says follow from its scores?"""

from __future__ import annotations

import typer

from peo_bench.cli import RunFolder, app, received


@app.command()
def verify(run: RunFolder) -> None:
    """Recompute a finished run's numbers from its scores by prompt and check digests; exit code 3 if one differs."""
    from peo_bench.jobs.store import Store
    from peo_bench.results.folder import read_run_folder
    from peo_bench.results.verification import verify_run

    with received(run):
        problems = verify_run(run)
        store, jobs = Store(run / "artefacts"), read_run_folder(run).job_ids
        problems += [f"artefacts: {job_id} is damaged" for job_id in jobs if store.get(job_id) is None]
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo(f"{run}: {len(problems)} problems, {len(jobs)} artefacts and all numbers checked")
    raise typer.Exit(3 if problems else 0)
