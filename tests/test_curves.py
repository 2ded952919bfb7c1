"""Training curves of all jobs in one table."""

from __future__ import annotations

from pathlib import Path

from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.runs.curves import training_curves


def test_curves_are_gathered_once_per_job(tmp_path: Path) -> None:
    jobs = {
        "expert": Job("aspect", {"objective": "helpful"}),
        "twin": Job("aspect", {"objective": "helpful", "beta": 0.3}),
        "own": Job("modpo", {"objective": "helpful", "weight": 0.5}),
        "silent": Job("candidates", {}),
    }
    handles = {}
    for name, job in jobs.items():
        curves = [{"step": 0, "loss": len(handles)}, {"step": 10, "loss": 0.5}]
        handles[job.id] = Handle(job.id, tmp_path, {} if name == "silent" else {"curves": curves}, Cost(), 1.0)
    by_id = {name: {job.id: job} for name, job in jobs.items()}
    peo = by_id["expert"] | by_id["twin"] | by_id["silent"]
    modpo = by_id["expert"] | by_id["own"]
    table = training_curves(handles, {0: {"peo": peo, "modpo": modpo, "expo.modpo": modpo}})
    assert list(table.columns) == ["seed", "method", "job", "step", "name", "value"]
    assert len(table) == 6
    named = dict(table.groupby("job", sort=False)["method"].first())
    twin, expert = (f"aspect helpful {jobs[name].id[-6:]}" for name in ("twin", "expert"))
    assert named == {expert: "shared", twin: "peo", "modpo helpful 0.5": "modpo"}
    assert table[table["job"] == "modpo helpful 0.5"]["value"].tolist() == [2.0, 0.5]


def test_a_run_without_curves_has_an_empty_table() -> None:
    assert list(training_curves({}, {0: {}}).columns) == ["seed", "method", "job", "step", "name", "value"]
