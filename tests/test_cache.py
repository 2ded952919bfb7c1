"""`peo-bench cache`: sizes by kind and run, and a pruning that takes nothing that is needed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from peo_bench.jobs.job import Job, job_kind
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.records import JOBS, write_records
from peo_bench.jobs.runner import Outcome
from peo_bench.jobs.store import Store


@job_kind("test-sized", version=1)
def write_bytes(job, inputs, work):
    (work.dir / "weights").write_bytes(b"x" * job.params["bytes"])
    return {}


JOB_KINDS.add("test-sized", write_bytes)
SHARED, MINE, YOURS, OLD = (Job("test-sized", {"bytes": n}) for n in (1_000_000, 2_000_000, 3_000_000, 4_000_000))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with four artefacts, an unfinished one, a paid reply, and two runs that share one job."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "home" / "peo-bench"
    store = Store(root)
    for job in (SHARED, MINE, YOURS, OLD):
        store.run(job)
    for name, own in (("mine", MINE), ("yours", YOURS)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        write_records(tmp_path / "runs" / name / JOBS, Outcome({job.id: store[job.id] for job in (SHARED, own)}))
    (root / "judge-replies").mkdir()
    (root / "judge-replies" / "a.json").write_text("{}")
    month_ago = time.time() - 30 * 86_400
    for job in (SHARED, OLD):
        os.utime(store.path(job.id) / "meta.json", (month_ago, month_ago))
    return root


def there(root: Path) -> set[str]:
    return {job.id for job in (SHARED, MINE, YOURS, OLD) if Store(root).get(job.id)}


def test_sizes_by_kind_and_by_run(peo_bench, cache):
    code, out, _ = peo_bench("cache", "--json")
    assert code == 0
    found = json.loads(out)
    (kind,) = found["kinds"]
    assert (kind["kind"], kind["artefacts"]) == ("test-sized", 4)
    small = 10_000  # what meta.json and the like take
    assert 0 < kind["bytes"] - 10_000_000 < small
    by_run = {row["run"]: row for row in found["runs"]}
    assert 0 < by_run["mine"]["bytes"] - 3_000_000 < small
    assert 0 < by_run["mine"]["bytes_of_no_other"] - 2_000_000 < small
    assert 0 < by_run["yours"]["bytes_of_no_other"] - 3_000_000 < small
    code, out, _ = peo_bench("cache")
    assert code == 0
    assert "yours" in out
    assert str(cache) in out


def test_what_is_older_goes_but_not_what_a_kept_run_needs_nor_what_was_paid_for(peo_bench, cache):
    code, out, _ = peo_bench("cache", "prune", "--older-than", "7", "--keep-run", "runs/mine", "--dry-run")
    assert (code, there(cache)) == (0, {job.id for job in (SHARED, MINE, YOURS, OLD)})
    assert f"test-sized/{OLD.id}\n1 artefacts, 4.0 MB would be deleted\n" in out
    assert peo_bench("cache", "prune", "--older-than", "7", "--keep-run", "runs/mine")[0] == 0
    assert there(cache) == {job.id for job in (SHARED, MINE, YOURS)}
    assert peo_bench("cache", "prune", "--older-than", "0")[0] == 0
    assert there(cache) == set()
    assert (cache / "judge-replies" / "a.json").exists()


def test_nothing_goes_while_a_run_works(peo_bench, cache):
    with Store(cache).lock(MINE.id):
        code, _, err = peo_bench("cache", "prune", "--older-than", "0")
    assert (code, err) == (2, f"error: {cache}: a run is at work ({MINE.id}): wait until it has ended\n")
    assert there(cache) == {job.id for job in (SHARED, MINE, YOURS, OLD)}


def test_a_link_is_neither_counted_nor_followed(peo_bench, cache, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "meta.json").write_text("mine")
    (cache / "test-sized" / "link").symlink_to(outside)
    (cache / "more").symlink_to(outside)
    assert peo_bench("cache", "prune", "--older-than", "0")[0] == 0
    assert (outside / "meta.json").read_text() == "mine"


def test_a_cut_off_pruning_leaves_nothing_damaged(cache, monkeypatch, caplog):
    from peo_bench.jobs import usage

    monkeypatch.setattr(usage.shutil, "rmtree", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        usage.prune(cache, time.time() + 1, keep=())
    store = Store(cache)
    assert [job for job in (SHARED, MINE, YOURS, OLD) if store.get(job.id) is None] != []
    store.run(SHARED)
    assert not caplog.records


def test_a_folder_that_is_no_run_is_one_line(peo_bench, cache, tmp_path):
    code, _, err = peo_bench("cache", "prune", "--older-than", "0", "--keep-run", str(tmp_path))
    assert (code, err.count("\n")) == (2, 1)
    assert "give the folder of a finished run" in err
