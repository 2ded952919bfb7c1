"""Atomic writes, each test named after what goes wrong, and the permissions of what is written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from training_fixtures import TEMPLATE, tiny_model, tiny_tokenizer

from peo_bench.core.method import PolicyFamily
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.errors import DiskFull, UsageError
from peo_bench.files import atomic
from peo_bench.files.atomic import finite, follow_umask, replacing, write_json, write_text
from peo_bench.jobs.job import Job, job_kind
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import Store
from peo_bench.steering import families


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request):
    """Set the process's umask for one test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["old", None])
def test_full_disk(tmp_path, monkeypatch, before):
    """The disk is full when the new content is flushed: the old file is whole and nothing else is left."""
    target = tmp_path / "file.txt"
    if before:
        target.write_text(before)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DiskFull, match=r"txt: no room to write this file, 3 bytes or more \([\d,]+ bytes are free"):
        write_text(target, "new")
    assert names(tmp_path) == (["file.txt"] if before else [])
    assert before is None or target.read_text() == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_interrupt(tmp_path, stop):
    """Whatever stops the writer, half of the new content is never seen."""
    target = tmp_path / "file.txt"
    target.write_text("old")

    def interrupted():
        with replacing(target) as temporary:
            temporary.write_text("ne")
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert names(tmp_path) == ["file.txt"]
    assert target.read_text() == "old"


def test_what_is_no_json(tmp_path):
    """A value that cannot be written leaves the old file, too."""
    target = tmp_path / "file.json"
    write_json(target, {"value": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(target, {"value": float("nan")})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(target, {"value": object()})
    assert names(tmp_path) == ["file.json"]
    assert target.read_text() == '{\n  "value": 1\n}\n'


def test_no_permission_for_the_folder(tmp_path, monkeypatch):
    """A folder that takes no new file is an error before anything is written."""
    target = tmp_path / "file.txt"
    target.write_text("old")
    refused = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    tmp_path.chmod(0o555)
    if os.geteuid() == 0:  # root may write anywhere

        def refuse(*args):
            raise refused

        monkeypatch.setattr(atomic.os, "open", refuse)
    with pytest.raises(PermissionError):
        write_text(target, "new")
    tmp_path.chmod(0o755)
    assert names(tmp_path) == ["file.txt"]
    assert target.read_text() == "old"


def test_no_folder(tmp_path):
    """Folders are not made in passing."""
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "absent" / "file.txt", "new")


def test_the_target_is_a_folder(tmp_path):
    """A folder is not replaced, and no temporary file stays beside it."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="taken: is a folder where a file belongs"):
        write_text(tmp_path / "taken", "new")
    assert names(tmp_path) == ["taken"]


def test_what_is_no_file_stays_what_it_is(tmp_path):
    """Renamed over, a device would be gone for the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: is a pipe or a device, no file: give another path"):
        write_text(tmp_path / "pipe", "new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(UsageError, match="/dev/null: is a pipe or a device"):
        write_text(Path("/dev/null"), "new")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UsageError, match="loop: is a link that leads back to itself: delete it"):
        write_text(tmp_path / "loop", "new")


def test_a_read_only_file_is_named_and_kept(tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("old")
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with pytest.raises(UsageError, match="mine: is read-only: make it writable or give another path"):
        write_text(tmp_path / "mine", "new")
    assert (names(tmp_path), (tmp_path / "mine").read_text()) == (["mine"], "old")


def test_symlink(tmp_path):
    """The file behind a link is replaced, next to where it lies; the link stays, also one to a file yet to come."""
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.txt", tmp_path / "link.txt"
    link.symlink_to(real)
    for text in ("first", "second"):
        write_text(link, text)
        assert link.is_symlink()
        assert not real.is_symlink()
        assert real.read_text() == text
    assert names(tmp_path / "elsewhere") == ["real.txt"]


def test_temporary_file_left_by_a_kill(tmp_path, monkeypatch):
    """What a killed writer left is neither read nor overwritten: the next writer takes another name."""
    tokens = iter(["dead", "dead", "live"])
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda size: next(tokens))
    killed = atomic._create_beside(tmp_path / "file.txt")
    killed.write_text("half of wh")
    write_text(tmp_path / "file.txt", "whole")
    assert (tmp_path / "file.txt").read_text() == "whole"
    assert killed.read_text() == "half of wh"
    assert names(tmp_path) == sorted(["file.txt", killed.name])


WORLD = SimpleNamespace(names=("helpful", "harmless"), given={})


def test_failed_export(tmp_path, monkeypatch):
    """An export that stops half-way leaves no folder behind."""
    family = PolicyFamily(Space("simplex"), lambda preference: policy("lost"))
    found = family, WORLD, Store(tmp_path / "store")
    monkeypatch.setattr(families, "load_family", lambda *args: found)
    with pytest.raises(UsageError, match="lost is missing or damaged: repeat the run"):
        families.SteeredPolicy(tmp_path, "soup", 0.5).export(tmp_path / "out" / "policy")
    assert names(tmp_path / "out") == []


def test_an_exports_card_says_how_the_runs_prompts_were_written(tmp_path, monkeypatch):
    """Stock transformers writes today's date where the run wrote one day's; the reader of the card is told."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} " + TEMPLATE
    family = PolicyFamily(Space("simplex"), lambda preference: policy("base"))
    run = SimpleNamespace(command="peo-bench run", peo_bench="0", suite="s", model="m", licence="none")
    monkeypatch.setattr(families, "load_family", lambda *args: (family, WORLD, Store(tmp_path / "store")))
    monkeypatch.setattr(families, "read_record", lambda *args: run)
    monkeypatch.setattr("peo_bench.engine.engine.Engine.materialised", lambda *args: (tiny_model(), tokenizer))
    families.SteeredPolicy(tmp_path, "soup", 0.5).export(tmp_path / "dated")
    card = (tmp_path / "dated" / "README.md").read_text()
    assert "- the run's prompts and answers: its chat template writes the date, which is 2024-07-26 here" in card
    tokenizer.chat_template = TEMPLATE
    families.SteeredPolicy(tmp_path, "soup", 0.5).export(tmp_path / "plain")
    assert "writes the date" not in (tmp_path / "plain" / "README.md").read_text()


# ---- permissions ----------------------------------------------------------------------------------------------


def test_umask_of_a_new_file(tmp_path, umask):
    """A new file is as readable as any other new file."""
    write_text(tmp_path / "file.txt", "new")
    assert mode(tmp_path / "file.txt") == 0o666 & ~umask


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o666])
def test_existing_mode(tmp_path, umask, kept):
    """A private file stays private and an open one open, whatever the umask."""
    target = tmp_path / "file.txt"
    target.write_text("old")
    target.chmod(kept)
    write_text(target, "new")
    assert (target.read_text(), mode(target)) == ("new", kept)


def test_a_private_file_is_never_open_while_it_is_written(tmp_path, umask):
    target = tmp_path / "file.txt"
    target.write_text("old")
    target.chmod(0o600)
    with replacing(target) as temporary:
        assert mode(temporary) & 0o077 == 0
        temporary.write_text("new")


def test_folder_of_private_files(tmp_path, umask):
    """Files and folders follow the umask at every depth, a setgid bit stays, a link's target is left alone."""
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o604)
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("")
    (folder / "link").symlink_to(outside)
    (folder / "deep" / "file").chmod(0o600)
    (folder / "deep").chmod(0o2700)
    folder.chmod(0o700)
    follow_umask(folder)
    assert mode(folder) == 0o777 & ~umask
    assert mode(folder / "deep") == 0o2000 | 0o777 & ~umask
    assert mode(folder / "deep" / "file") == 0o666 & ~umask
    assert mode(outside) == 0o604
    assert names(folder) == ["deep", "link"]


@job_kind("test-weights", version=1)
def make_weights(job, inputs, work):
    (work.dir / "model").mkdir()
    save_file({"weight": torch.zeros(2)}, work.dir / "model" / "model.safetensors")
    return {}


JOB_KINDS.add("test-weights", make_weights)


def test_artefacts_can_be_shared(tmp_path, umask):
    """Everything in the store, weights too, is as open as the umask leaves new files."""
    handle = Store(tmp_path / "store").run(Job("test-weights", {}))
    assert (handle.path / "model" / "model.safetensors").is_file()
    found = {path.name: mode(path) for path in (tmp_path / "store").rglob("*")}
    assert found == {
        path.name: (0o777 if path.is_dir() else 0o666) & ~umask for path in (tmp_path / "store").rglob("*")
    }


def test_artefacts_that_a_run_folder_keeps_follow_the_umask(tmp_path, umask):
    """A private cache makes no private run folder, and an open one no open."""
    store = Store(tmp_path / "store")
    handle = store.run(Job("test-weights"))
    for path in (handle.path, *handle.path.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    store.copy_to(tmp_path / "kept", [handle.id])
    kept = [path for path in (tmp_path / "kept").rglob("*") if handle.id in str(path)]
    assert {mode(path) for path in kept if path.is_file()} == {0o666 & ~umask}
    assert {mode(path) for path in kept if path.is_dir()} == {0o777 & ~umask}


# ---- values ---------------------------------------------------------------------------------------------------


def test_finite():
    """NaN and infinities become null at every depth; all else is kept, keys as text."""
    value = {"a": float("nan"), 1: [float("inf"), (2.5, "x")], "b": {"c": None, "d": True}}
    assert finite(value) == {"a": None, "1": [None, [2.5, "x"]], "b": {"c": None, "d": True}}
