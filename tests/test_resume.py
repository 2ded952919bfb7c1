"""Resumed equals uninterrupted, after a SIGKILL in the middle of training, search and generation."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_run import TINY, peo_bench

RUN = ("run", "--methods", "peo", "--out", "out", *TINY)
KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
AFTER = """
import itertools
calls = itertools.count(1)
def dying(function, when):
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        if when(next(calls), args):
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
"""
POINTS = {
    "training": """
from peo_bench.training import aspect
from transformers import Trainer
Trainer.training_step = dying(Trainer.training_step, lambda n, args: 'DPO' in type(args[0]).__mro__[1].__name__)
""",
    "search": """
from peo_bench.store.journal import Journal
due = lambda n, args: args[0].path.name == 'evaluations.jsonl' and len(args[0].records) == 5
Journal.append = dying(Journal.append, due)
""",
    "generation": """
from peo_bench.store.journal import Journal
Journal.append = dying(Journal.append, lambda n, args: args[0].path.name == 'answers.jsonl')
""",
    "between the artefact's last file and its name": """
from peo_bench.store import store
store.write_json = dying(store.write_json, lambda n, args: 'extrapolation' in str(args[0]))
""",
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("whole")
    peo_bench(where, *RUN)
    return where / "out"


@pytest.mark.parametrize("point", POINTS)
def test_resumed_equals_uninterrupted(uninterrupted, tmp_path, point):
    killed = peo_bench(tmp_path, *RUN, before=AFTER + POINTS[point], check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = set((tmp_path / "cache").rglob("meta.json"))
    stamps = {path: path.stat().st_mtime_ns for path in finished if "partial" not in path.parts}
    peo_bench(tmp_path, *RUN)
    for name in ("points.csv", "metrics.json", "search.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), "finished work is not done again"


def test_a_killed_search_keeps_its_evaluations(tmp_path):
    """Of 10 evaluations 4 were journalled (after the reference); the second attempt makes the other 6 only."""
    peo_bench(tmp_path, *RUN, before=AFTER + POINTS["search"], check=False)
    journal = next((tmp_path / "cache").rglob("evaluations.jsonl"))
    before = journal.read_bytes().splitlines()
    assert len(before) == 5
    peo_bench(tmp_path, *RUN)
    after = next((tmp_path / "cache").rglob("evaluations.jsonl")).read_bytes().splitlines()
    assert after[:5] == before
    assert len(after) == 11
