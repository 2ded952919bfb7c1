"""Artefacts that are not as they were written are built again; nothing is followed, and nothing is lost."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from peo_bench.errors import UsageError
from peo_bench.jobs.artefact import CHECKSUM, sealed
from peo_bench.jobs.job import Cost, Job, JobKind, job_kind, never_alone, resulting
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import Store
from peo_bench.jobs.versions import current_versions, version_notes

RUNS: list[str] = []


class Value(BaseModel, strict=True):
    value: float


@resulting(Value)
@job_kind("test-stored", version=1)
def store_value(job, inputs, work):
    RUNS.append(job.id)
    (work.dir / "deep").mkdir(exist_ok=True)
    (work.dir / "deep" / "value.txt").write_text("5")
    work.charge(Cost(pairs_trained=2))
    return {"value": 5.5}


JOB_KINDS.add("test-stored", store_value)
JOB = Job("test-stored", {"value": 5, "rate": 0.1})


def edit(path, **changes):
    """Change meta.json as someone would who also renews its checksum."""
    meta = json.loads((path / "meta.json").read_text())
    del meta[CHECKSUM]
    (path / "meta.json").write_text(json.dumps(sealed(meta | changes)))


def swap(path, make):
    """Put something else in the place of `path`."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    make(path)


def one_number(path):
    file = path / "meta.json"
    file.write_text(file.read_text().replace("5.5", "6.5"))


def other_job(path):
    edit(path, params={"value": 6, "rate": 0.1})


def link_to_copy(path):
    copy = path.parents[2] / "copy" / path.name
    shutil.copytree(path, copy)
    swap(path, lambda folder: folder.symlink_to(copy))


DAMAGE = {
    "one number in meta.json": one_number,
    "meta.json of another job": other_job,
    "meta.json of an unknown kind": lambda path: edit(path, kind="nothing"),
    "meta.json is a list": lambda path: (path / "meta.json").write_text("[]"),
    "meta.json is null": lambda path: (path / "meta.json").write_text("null"),
    "meta.json is a number": lambda path: (path / "meta.json").write_text("7"),
    "meta.json is empty": lambda path: (path / "meta.json").write_text(""),
    "meta.json is not UTF-8": lambda path: (path / "meta.json").write_bytes(b"\xff\xfe{}"),
    "meta.json is nested without end": lambda path: (path / "meta.json").write_text("[" * 200_000),
    "meta.json is a folder": lambda path: swap(path / "meta.json", os.mkdir),
    "meta.json is a pipe": lambda path: swap(path / "meta.json", os.mkfifo),
    "an older schema": lambda path: edit(path, schema=1),
    "unknown costs": lambda path: edit(path, cost={"watts": 3}),
    "costs are a list": lambda path: edit(path, cost=[]),
    "versions are missing": lambda path: edit(path, versions=None),
    "an empty result": lambda path: edit(path, result={}),
    "words for a number in the result": lambda path: edit(path, result={"value": "many"}),
    "costs are null": lambda path: edit(path, cost={"answers": None}),
    "costs are a text": lambda path: edit(path, cost={"answers": "9"}),
    "costs are negative": lambda path: edit(path, cost={"answers": -9}),
    "costs are true": lambda path: edit(path, cost={"answers": True}),
    "costs are beyond numbers": lambda path: edit(path, cost={"answers": 10**400}),
    "versions are lists": lambda path: edit(path, versions={"torch": [1]}),
    "versions are null": lambda path: edit(path, versions={"torch": None}),
    "seconds are true": lambda path: edit(path, seconds=True),
    "seconds are negative": lambda path: edit(path, seconds=-1.0),
    "seconds are without end": lambda path: edit(path, seconds=1e308),
    "the schema is true": lambda path: edit(path, schema=True),
    "an unknown key": lambda path: edit(path, approved=True),
    "files without a size": lambda path: edit(path, files={"deep/value.txt": {}}),
    "files are a list": lambda path: edit(path, files=[]),
    "a file whose name no path takes": lambda path: edit(path, files={"\ud800": {"size": 0, "sha256": ""}}),
    "a file whose name no terminal takes": lambda path: edit(path, files={"\udc80": {"size": 0, "sha256": ""}}),
    "seconds are missing": lambda path: edit(path, seconds=None),
    "a file outside": lambda path: edit(path, files={"../../../outside": {"size": 0, "sha256": ""}}),
    "a file without a name": lambda path: edit(path, files={"": {"size": 0, "sha256": ""}}),
    "a file of no possible name": lambda path: edit(path, files={"a\0b": {"size": 0, "sha256": ""}}),
    "a file is changed": lambda path: (path / "deep" / "value.txt").write_text("6"),
    "a file is gone": lambda path: (path / "deep" / "value.txt").unlink(),
    "a file is a folder": lambda path: swap(path / "deep" / "value.txt", os.mkdir),
    "a file is a pipe": lambda path: swap(path / "deep" / "value.txt", os.mkfifo),
    "a file links to itself": lambda path: swap(path / "deep" / "value.txt", lambda file: file.symlink_to(file)),
    "a file is a link": lambda path: swap(path / "deep" / "value.txt", lambda file: file.symlink_to("/etc/hostname")),
    "a file was added": lambda path: (path / "model.safetensors").write_text("other weights"),
    "a file was added in a folder": lambda path: (path / "deep" / "other.txt").write_text("6"),
    "a hidden file was added": lambda path: (path / ".config").write_text("{}"),
    "scratch was added": lambda path: shutil.copytree(path / "deep", path / "scratch"),
    "a link was added": lambda path: (path / "deep" / "more").symlink_to("/etc"),
    "a pipe was added": lambda path: os.mkfifo(path / "deep" / "more"),
    "a folder is a link": lambda path: swap(path / "deep", lambda folder: folder.symlink_to("/etc")),
    "a folder is a file": lambda path: swap(path / "deep", lambda folder: folder.write_text("")),
    "the artefact is a file": lambda path: swap(path, lambda folder: folder.write_text("")),
    "the artefact is a pipe": lambda path: swap(path, os.mkfifo),
    "the artefact links to itself": lambda path: swap(path, lambda folder: folder.symlink_to(folder)),
    "the artefact is a link to a copy": link_to_copy,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_damaged_is_built_again_and_kept_aside(tmp_path, caplog, damage):
    root = tmp_path / "cache"
    path = Store(root).run(JOB).path
    files = json.loads((path / "meta.json").read_text())["files"]
    DAMAGE[damage](path)
    RUNS.clear()
    store = Store(root)
    assert store.get(JOB.id) is None
    again = store.run(JOB)
    assert [JOB.id] == RUNS
    assert again.result == {"value": 5.5}
    assert json.loads((again.path / "meta.json").read_text())["files"] == files
    assert (again.path / "deep" / "value.txt").read_text() == "5"
    assert [path.name for path in (root / "damaged").iterdir()] == [f"{JOB.id}.1"]
    assert len([entry for entry in caplog.records if entry.levelname == "WARNING"]) == 1, "said once"
    assert "is built again" in caplog.text


def test_links_are_moved_not_followed(tmp_path):
    """What a link points to stays as it is: nothing outside the store is read, written or deleted."""
    root = tmp_path / "cache"
    path = Store(root).run(JOB).path
    link_to_copy(path)
    copy = path.resolve()
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    Store(root).run(JOB)
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before
    assert not path.is_symlink()


@pytest.mark.parametrize("make", [lambda path: path.write_text(""), os.mkfifo, lambda path: path.symlink_to("/etc")])
@pytest.mark.parametrize("where", ["partial", "kind"])
def test_what_is_in_the_way_is_moved_aside(tmp_path, where, make):
    """Something that is no folder where a job works, or where artefacts of its kind lie."""
    place = tmp_path / "partial" / JOB.id if where == "partial" else tmp_path / "test-stored"
    place.parent.mkdir(exist_ok=True)
    make(place)
    assert Store(tmp_path).run(JOB).result == {"value": 5.5}
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_a_newer_schema_is_refused_with_a_sentence(tmp_path):
    path = Store(tmp_path).run(JOB).path
    edit(path, schema=99)
    with pytest.raises(UsageError, match=r"written by a newer peo-bench \(schema 99, this one reads 2\): upgrade"):
        Store(tmp_path).get(JOB.id)
    assert path.exists(), "what a newer one wrote is not touched"


def test_an_artefact_knows_its_job(tmp_path):
    """Two artefacts exchanged: both are whole, neither is what its name says."""
    store = Store(tmp_path)
    other = Job("test-stored", {"value": 6})
    one, two = store.run(JOB).path, store.run(other).path
    one.rename(tmp_path / "third")
    two.rename(one)
    (tmp_path / "third").rename(two)
    assert Store(tmp_path).get(JOB.id) is None
    assert Store(tmp_path).get(other.id) is None


def test_other_versions_are_remembered_and_said(tmp_path, monkeypatch):
    """Work that was done with another torch is kept, and a note of the run says how much of it there is."""
    old = current_versions() | {"torch": "1.0", "peo-bench": "0.0.1"}
    monkeypatch.setattr("peo_bench.jobs.store.current_versions", lambda: old)
    first = Store(tmp_path).run(JOB)
    monkeypatch.undo()
    second = Store(tmp_path).run(Job("test-stored", {"value": 6}))
    handles = [Store(tmp_path)[handle.id] for handle in (first, second)]
    now = current_versions()
    assert [dict(handle.versions) for handle in handles] == [old, now]
    ours, torch = version_notes(handles)
    assert ours.startswith(f"1 of 2 jobs were done with peo-bench 0.0.1 (now {now['peo-bench']})")
    assert torch.startswith(f"1 of 2 jobs were done with torch 1.0 (now {now['torch']})")
    assert version_notes([handles[1]]) == []


@job_kind("test-resumed", version=1)
def resume(job, inputs, work):
    RUNS.append(job.id)
    if job.params["lacks_memory"]:
        raise RuntimeError("CUDA out of memory")
    state = work.dir / "state.json"
    begun = json.loads(state.read_text()) if state.exists() else 0
    state.unlink(missing_ok=True)
    return {"from": begun}


JOB_KINDS.add("test-resumed", resume)


def begun(root, content, lacks_memory=False):
    """A job of which a killed attempt left a file."""
    job = Job("test-resumed", {"lacks_memory": lacks_memory})
    (root / "partial" / job.id).mkdir(parents=True)
    (root / "partial" / job.id / "state.json").write_text(content)
    RUNS.clear()
    return job


def test_what_an_earlier_attempt_left_is_used(tmp_path):
    assert Store(tmp_path).run(begun(tmp_path, "7")).result == {"from": 7}
    assert len(RUNS) == 1


def test_what_cannot_be_read_of_an_earlier_attempt_is_moved_aside_and_the_job_done_anew(tmp_path, caplog):
    """Otherwise every attempt would stumble over it."""
    job = begun(tmp_path, "{")
    assert Store(tmp_path).run(job).result == {"from": 0}
    assert len(RUNS) == 2
    assert (tmp_path / "damaged" / f"{job.id}.1" / "state.json").read_text() == "{"
    assert "cannot go on from what an earlier attempt left (JSONDecodeError" in caplog.text


@pytest.mark.parametrize("what", ["fifo", "link", "temporary"])
def test_an_earlier_attempts_folder_holds_plain_files_only(tmp_path, what):
    """A pipe would be waited for, a link followed; temporary files of a killed write go."""
    job = begun(tmp_path, "7")
    folder, secret = tmp_path / "partial" / job.id, tmp_path / "secret"
    secret.write_text("secret")
    left = folder / (".state.json.0f12ab9c" if what == "temporary" else "evaluations.jsonl")
    {"fifo": os.mkfifo, "link": lambda path: path.symlink_to(secret), "temporary": lambda path: path.touch()}[what](
        left
    )
    work = Store(tmp_path).workspace(job)
    assert [path.name for path in work.dir.iterdir()] == ["state.json"]
    if what != "temporary":
        work.journal("evaluations").append(1)
    assert secret.read_text() == "secret"


def test_a_failure_that_is_no_matter_of_reading_leaves_what_was_begun(tmp_path):
    """A lack of memory must not cost the checkpoints."""
    job = begun(tmp_path, "7", lacks_memory=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        Store(tmp_path).run(job)
    assert len(RUNS) == 1
    assert (tmp_path / "partial" / job.id / "state.json").read_text() == "7"


@job_kind("test-killed", version=1)
def keep_then_write(job, inputs, work):
    """Work of which each step is kept at once; what is computed is noted outside the store."""
    journal = work.memo("kept")
    for step in ("one", "two"):
        if step not in journal:
            with (work.dir.parents[2] / "computed").open("a") as log:
                log.write(f"{job.id} {step}\n")
            journal.value(step, lambda: 1)
            journal.write()
    (work.dir / "deep").mkdir(exist_ok=True)
    (work.dir / "deep" / "value.txt").write_text("5")
    work.charge(Cost(pairs_trained=2))
    return {"value": 5.5}


def together(store, jobs, progress):
    for job in jobs:
        work = store.workspace(job)
        result = keep_then_write.run(job, {}, work)
        store.adopt(job, functools.partial(write_value, result=result), 0.0)


def write_value(work, result):
    (work.dir / "value.txt").write_text("5")
    return result


JOB_KINDS.add("test-killed", keep_then_write)
JOB_KINDS.add(
    "test-killed-together", JobKind("test-killed-together", 1, never_alone, lambda job: Cost(), together=together)
)
STEPS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "chmod")
"""What changes a disk, as `os` calls it; a file's content is written between two of them."""


def do(kind, root):
    """Do a job of `kind` at the store `root`."""
    job = Job(kind)
    store = Store(root)
    store.run_together([job]) if JOB_KINDS.get(kind).together else store.run(job)
    return store[job.id]


def killed_at(step, kind, root):
    """Do the job in a child that ends without a word before its `step`-th change to the disk; say whether it did."""
    child = os.fork()
    if child == 0:
        left = itertools.count(step, -1)

        def counted(change):
            return lambda *args, **kwargs: change(*args, **kwargs) if next(left) else os._exit(9)

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            do(kind, root)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("kind", ["test-killed", "test-killed-together"])
def test_a_kill_at_any_step_loses_nothing_and_does_nothing_twice(tmp_path, kind, caplog):
    """Whatever the step: no artefact or a whole one, what was kept is used, and what was finished takes its place."""
    for step in itertools.count(1):
        root = tmp_path / str(step) / "cache"
        root.mkdir(parents=True)
        if not killed_at(step, kind, root):
            break
        sealed_before = (root / "partial" / Job(kind).id / "meta.json").exists()
        done_before = (tmp_path / str(step) / "computed").read_text() if sealed_before else None
        handle = do(kind, root)
        assert handle.result == {"value": 5.5}
        computed = (tmp_path / str(step) / "computed").read_text()
        lines = computed.splitlines()
        assert len(lines) - len(set(lines)) <= 1, "at most the step in work is computed again"
        assert done_before in (None, computed), "what is finished is not done again"
        assert not any((root / "partial").iterdir())
        assert not (root / "damaged").exists()
        assert {path.name for path in handle.path.iterdir()} <= {"meta.json", "deep", "value.txt"}
    assert step > 15, "the steps were counted"
    assert not caplog.records


def test_files_are_on_disk_before_the_record_is(tmp_path, monkeypatch):
    """A record whose files are still in memory would outlive them in a power failure."""
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda file: (events.append(Path(os.readlink(f"/proc/self/fd/{file}")).name), fsync(file))
    )
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append(Path(paths[1]).name), replace(*paths)))
    path = Store(tmp_path).run(JOB).path
    sealed_at, placed_at = events.index("meta.json"), events.index(path.name, events.index("meta.json"))
    assert {"value.txt", "deep", path.name} <= set(events[:sealed_at])
    assert "test-stored" in events[placed_at:], "the folder that got a new entry"


def test_what_was_finished_and_damaged_before_it_had_its_place_is_done_again(tmp_path, caplog):
    """The work goes on from what is left of it."""
    root = tmp_path / "cache"
    root.mkdir()
    step = next(
        n for n in itertools.count(15) if killed_at(n, "test-killed", root) and list(root.glob("*/*/meta.json"))
    )
    assert step
    (root / "partial" / Job("test-killed").id / "deep" / "value.txt").write_text("6")
    handle = do("test-killed", root)
    assert (handle.path / "deep" / "value.txt").read_text() == "5"
    assert "was finished and is damaged (deep/value.txt is not as it was written)" in caplog.text


def test_copies_are_whole_and_free_of_what_a_killed_copy_left(tmp_path):
    """A file of the name of the record, deeper, is a file like others."""
    store, other = Store(tmp_path / "cache"), tmp_path / "artefacts"
    job = Job("test-copied")
    store.run(job)
    (other / "partial" / job.id).mkdir(parents=True)
    (other / "partial" / job.id / "half").touch()
    store.copy_to(other, [job.id])
    copy = Store(other)[job.id]
    assert (copy.path / "deep" / "meta.json").read_text() == "{}"
    assert [path.name for path in other.iterdir()] == ["test-copied"]


@job_kind("test-copied", version=1)
def write_meta(job, inputs, work):
    (work.dir / "deep").mkdir()
    (work.dir / "deep" / "meta.json").write_text("{}")
    return {}


JOB_KINDS.add("test-copied", write_meta)
