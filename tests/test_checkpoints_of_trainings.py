"""Which checkpoint a training goes on from when some are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peo_bench.training.checkpoints import COMPLETE, last_checkpoint, seal

FILES = {"model.safetensors": b"weights" * 20, "optimizer.pt": b"moments" * 20, "trainer_state.json": b"{}" * 20}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Checkpoints of steps 9 and 10, sealed; by name "10" sorts before "9"."""
    for step in (9, 10):
        checkpoint = tmp_path / f"checkpoint-{step}"
        (checkpoint / "inner").mkdir(parents=True)
        for name, content in FILES.items():
            (checkpoint / name).write_bytes(content + bytes([step]))
        (checkpoint / "inner" / "rng").write_bytes(b"random")
        seal(checkpoint)
    return tmp_path


def test_the_latest_counts(saved: Path) -> None:
    assert last_checkpoint(saved) == saved / "checkpoint-10"


@pytest.mark.parametrize("name", [*FILES, "inner/rng", COMPLETE])
@pytest.mark.parametrize("how", ["cut", "changed", "gone", "empty"])
def test_a_damaged_one_is_dropped_and_the_one_before_taken(
    saved: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved / "checkpoint-10" / name
    content = path.read_bytes()
    os.truncate(path, {"cut": len(content) // 2, "changed": 0, "gone": 0, "empty": 0}[how])
    if how == "changed":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    if how == "gone":
        path.unlink()
    assert last_checkpoint(saved) == saved / "checkpoint-9"
    assert not (saved / "checkpoint-10").exists(), "the trainer must be free to write it again"
    unsealed = (name, how) == (COMPLETE, "gone")
    assert len(caplog.records) == (0 if unsealed else 1)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "inner/more"])
def test_a_file_that_was_added_is_damage(saved: Path, name: str) -> None:
    """A trainer takes what lies there: of two files with weights, perhaps the one that nobody has sealed."""
    (saved / "checkpoint-10" / name).write_bytes(b"weights")
    assert last_checkpoint(saved) == saved / "checkpoint-9"


def test_the_start_is_taken_where_none_is_whole(saved: Path) -> None:
    for step in (9, 10):
        os.truncate(saved / f"checkpoint-{step}" / "optimizer.pt", 3)
    assert last_checkpoint(saved) is None
    assert last_checkpoint(saved / "nowhere") is None


def test_files_are_on_disk_before_the_mark_is(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark whose files are still in memory would outlive them in a power failure."""
    (saved / "checkpoint-10" / COMPLETE).unlink()
    flushed: list[str] = []

    def record(descriptor: int) -> None:
        assert not (saved / "checkpoint-10" / COMPLETE).exists()
        flushed.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr("peo_bench.training.checkpoints.write_json", lambda path, value: flushed.append(path.name))
    seal(saved / "checkpoint-10")
    assert flushed[-1] == COMPLETE
    assert {*FILES, "rng", "inner", "checkpoint-10"} <= set(flushed[:-1])
