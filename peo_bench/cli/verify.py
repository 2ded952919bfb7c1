"""`peo-bench verify`: does everything a run says follow from its scores?"""

from __future__ import annotations

import typer

from peo_bench import __version__
from peo_bench.cli import RunFolder, app, echo, received
from peo_bench.errors import one_line


@app.command()
def verify(run: RunFolder) -> None:
    """Recompute a finished run's numbers from its scores by prompt and check digests; exit code 3 if one differs."""
    from peo_bench.report.build import report_problems
    from peo_bench.results.record import read_record
    from peo_bench.results.records import RunRecord
    from peo_bench.runs.verification import verify_run

    with received(run):
        problems = [*verify_run(run), *report_problems(run)]
        version = read_record(run / "run.json", RunRecord).peo_bench
    for problem in problems:
        echo(one_line(problem), err=True)
    of_reports = "" if version == __version__ else f" for being there: they may be of peo-bench {version}"
    echo(f"{run}: {len(problems)} problems; numbers, artefacts, digests and reports checked{of_reports}")
    raise typer.Exit(3 if problems else 0)
