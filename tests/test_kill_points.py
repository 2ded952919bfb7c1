"""A run killed at every named point and typed again gives the tables and the report's numbers of an undisturbed one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from judge_server import JudgeServer
from tiny_run import TINY
from tiny_run import peo_bench as command

from peo_bench.kill_points import KILL_POINTS, VARIABLE, is_due

ALL = "PEO_BENCH_ALL_KILL_POINTS"
CHECKPOINT = "partial/{}-*/scratch/trainer/checkpoint-*/complete.json"
KEPT = "partial/{}-*/scratch/kept.jsonl"
POINTS = {
    **{name: (name, CHECKPOINT.format(name)) for name in ("sft", "modpo", "gradients", "online", "reward-model")},
    **{f"aspect-{side}": ("aspect", CHECKPOINT.format("aspect")) for side in ("helpful", "harmless")},
    **{name: (kind, KEPT.format(kind)) for name, kind in (("oracle", "sandbox-oracle"), ("candidates", "candidates"))},
    "search": ("extrapolation", "partial/extrapolation-*/evaluations.jsonl"),
    **dict.fromkeys(("generation", "scoring"), ("answers", KEPT.format("answers"))),
    "rename": ("candidates", "partial/candidates-*/meta.json"),
    "judging": ("judge-replies", "judge-replies/*/*.json"),
    **dict.fromkeys(("metrics", "tables", "report"), ("", "answers/*/meta.json")),
}
"""By name: the kind of work that is taken out of the finished cache, and what must lie there after the kill."""


def run(folder: Path, server: JudgeServer, kill_at: str = "") -> int:
    """Run the command line in `folder`, killed at a point; return the exit status."""
    judge = ("--judge", f"openai:m@{server.url}", "--set", "judge.prompts=1")
    args = ("run", "--methods", "peo,modpo,dpo-lw,morlhf", "--out", "out", *TINY, *judge)
    before = f"import os; os.environ |= {{{VARIABLE!r}: {kill_at!r}, 'OPENAI_API_KEY': 'none'}}"
    done = command(folder, *args, before=before, check=not kill_at)
    return done.returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, JudgeServer]]:
    where, server = tmp_path_factory.mktemp("undisturbed"), JudgeServer()
    run(where, server)
    yield where, server
    server.close()


def numbers(out: Path) -> dict[str, object]:
    """Everything the report says in numbers, but seconds."""
    tasks = json.loads((out / "report.json").read_text())["tasks"]
    return {task: {key: value for key, value in said.items() if key != "costs"} for task, said in tasks.items()}


def finished(cache: Path) -> dict[Path, int]:
    """Finished artefacts with the time of their last change."""
    return {path: path.stat().st_mtime_ns for path in cache.glob("*/*/meta.json") if path.parts[-3] != "partial"}


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(ALL), reason=f"some twenty minutes: set {ALL}=1; test_resume.py has four points")
@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_and_typed_again_equals_undisturbed(undisturbed, tmp_path: Path, record_property, point: str) -> None:
    """What is recorded is in benchmarks/results/kill_points.json."""
    whole, server = undisturbed
    kind, left = POINTS[point]
    cache = tmp_path / "cache" / "peo-bench"
    shutil.copytree(whole / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns(kind) if kind else None)
    before, asked = finished(cache), len(server.calls)
    assert run(tmp_path, server, point) == -signal.SIGKILL
    assert list(cache.glob(left)), "what was begun is there to be continued"
    kept, sealed = finished(cache), list(cache.glob("partial/*/meta.json"))
    assert before.items() <= kept.items(), "finished work stays as it is"
    assert run(tmp_path, server) == 0
    for name in ("points.csv", "metrics.json", "search.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / "out" / name).read_bytes(), name
    assert numbers(tmp_path / "out") == numbers(whole / "out")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["reused_artefacts"] == len(kept) + len(sealed)
    replies = len(list((whole / "cache" / "peo-bench" / "judge-replies").glob("*/*.json"))) if point == "judging" else 0
    again = len(server.calls) - asked - replies
    record_property("artefacts_kept", len(kept))
    record_property("replies_asked_again", again)
    in_flight = 8 if point == "judging" else 0
    assert 0 <= again <= in_flight, "a reply that was kept is not paid again"


def test_every_point_has_its_test() -> None:
    assert POINTS.keys() == KILL_POINTS.keys()
    assert len(KILL_POINTS) >= 12


def test_points_are_listed_and_unknown_ones_refused(peo_bench, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = peo_bench("doctor", "--kill-points", "--json")
    assert (code, json.loads(out)) == (0, KILL_POINTS)
    monkeypatch.setenv(VARIABLE, "serach")
    code, _, err = peo_bench("run")
    assert (code, err.count("\n")) == (2, 1)
    assert "did you mean search" in err
    assert "peo-bench doctor --kill-points" in err


def test_nothing_is_due_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not is_due("", *KILL_POINTS)
    monkeypatch.setenv(VARIABLE, "")
    assert not is_due("", *KILL_POINTS)
    monkeypatch.setenv(VARIABLE, "search")
    assert is_due("aspect", "search")
    assert not is_due("aspect")
    assert os.environ[VARIABLE] == "search"
