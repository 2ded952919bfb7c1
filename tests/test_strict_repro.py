"""`--strict-repro`: the same bytes whatever the number of processes and threads, and nothing reused of other runs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import peo_bench

from peo_bench.process import STRICT, is_strict, strictly

TINY = [
    *("--methods", "soup", "--limit", "12", "--preferences", "2", "--strict-repro", "--out", "out"),
    *("--set", "sft.steps=4", "--set", "data.corpus=128", "--set", "data.oracle_samples=4"),
    *("--set", "training.batch_size=8", "--set", "reward_model.epochs=1", "--set", "peo-expo.budget=4"),
]
TABLES = ("points.csv", "search.csv", "curves.csv", "metrics.json", "answers.parquet")


def state() -> tuple[object, ...]:
    environment = {name: os.environ.get(name) for name in STRICT}
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), environment


def test_inside_there_is_one_thread_and_no_kernel_that_adds_in_any_order() -> None:
    before = state()
    with strictly(True):
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), is_strict()) == (1, True, True)
        assert STRICT.items() <= os.environ.items(), "what it starts does so too"
    assert state() == before
    with strictly(False):
        assert not is_strict()


def test_a_strict_run_is_the_same_with_any_number_of_processes_and_threads(tmp_path: Path) -> None:
    """And it shares no cache with other runs, whose threads and versions nobody knows."""
    for name, workers, threads in (("a", "1", "2"), ("b", "2", "1")):
        (tmp_path / name).mkdir()
        before = f"import os; os.environ['OMP_NUM_THREADS'] = '{threads}'"
        peo_bench(tmp_path / name, "run", *TINY, "--workers", workers, before=before)
    for table in TABLES:
        assert (tmp_path / "a/out" / table).read_bytes() == (tmp_path / "b/out" / table).read_bytes(), table
    run = json.loads((tmp_path / "a/out/run.json").read_text())
    assert run["hardware"]["threads"] == 1
    assert any("--strict-repro" in note for note in run["notes"])
    (cache,) = [path.name for path in (tmp_path / "a/cache/peo-bench").iterdir()]
    assert cache.startswith("strict-")


@pytest.mark.parametrize(("workers", "asked", "threads"), [(2, "3", 3), (2, None, max(1, (os.cpu_count() or 1) // 2))])
def test_the_threads_of_a_job_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers, asked, threads
) -> None:
    from peo_bench.jobs.runner import Runner

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert Runner(tmp_path, workers).threads == threads
