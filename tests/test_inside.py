"""Names that somebody else chose make paths inside one folder only."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folder_fixture import write_run_folder

from peo_bench.boards.leaderboard import add_run
from peo_bench.errors import UsageError
from peo_bench.files.inside import inside, refuse_links
from peo_bench.judges.replies import Replies
from peo_bench.report.build import build_report
from peo_bench.runs.execute import _locked
from peo_bench.settings import Frozen

NASTY = st.text(alphabet="./\\\0\n ab-", max_size=12)


@settings(max_examples=50, deadline=None)
@given(NASTY)
def test_every_name_is_refused_or_stays_inside(name: str) -> None:
    with tempfile.TemporaryDirectory() as where, contextlib.suppress(UsageError):
        assert inside(Path(where), name).resolve().parent == Path(where).resolve()


def test_figures_are_not_written_through_links(peo_bench, tmp_path: Path) -> None:
    run, home = write_run_folder(tmp_path / "run"), tmp_path / "home"
    home.mkdir()
    (run / "figures").symlink_to(home)
    code, _, err = peo_bench("figures", str(run), "--formats", "csv")
    assert code == 2
    assert "is a link that leads out of the folder" in err
    assert not list(home.iterdir())


def test_replies_are_kept_whatever_is_in_their_place(tmp_path: Path) -> None:
    """A link to a file of ours, a folder, a file for the folder above: moved aside, never followed."""

    class Said(Frozen):
        text: str

    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    request: dict[str, object] = {"model": "m"}
    for hinder in (lambda p: p.symlink_to(mine), lambda p: p.mkdir(), lambda p: None):
        replies = Replies(tmp_path / f"replies-{id(hinder)}")
        path = replies._path(request)
        path.parent.parent.mkdir(parents=True)
        path.parent.mkdir()
        hinder(path)
        if not path.is_symlink() and not path.exists():
            path.parent.rmdir()
            path.parent.write_text("a file")
        assert replies.get(request, Said) is None
        replies.put(request, Said(text="A"))
        assert replies.get(request, Said) == Said(text="A")
    assert mine.read_text() == "precious"


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    board = tmp_path / "board"
    board.mkdir()
    (board / "out").symlink_to(tmp_path)
    (board / "same").symlink_to(board / "other")
    with pytest.raises(UsageError, match="lead nowhere else"):
        inside(board, "out")
    assert inside(board, "same") == board / "same"


def test_loops_of_links_are_refused_too(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert inside(tmp_path, "loop") == tmp_path / "loop"
    (tmp_path / "far").symlink_to(tmp_path.parent / "far")
    with pytest.raises(UsageError, match="far: is a link that leads out of the folder"):
        refuse_links(tmp_path)


@pytest.mark.parametrize("name", ["report.html", "report.json", ".owner"])
def test_nothing_is_written_through_links_in_a_received_run_folder(tmp_path: Path, name: str) -> None:
    """Reports and repeated runs would replace a file of ours by what the folder's maker chose."""
    run = write_run_folder(tmp_path / "run", n_prompts=8, weights=(1.0, 0.5, 0.0))
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (run / name).symlink_to(mine)
    with pytest.raises(UsageError, match="leads out of the folder"):
        build_report(run)
    with pytest.raises(UsageError, match="leads out of the folder"), _locked(run):
        pass
    assert mine.read_text() == "mine"
    (run / name).unlink()
    (run / name).symlink_to("config.yaml")
    refuse_links(run)


def test_nothing_is_written_through_links_in_a_received_board(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "run", n_prompts=8, weights=(1.0, 0.5, 0.0))
    board, _ = add_run(tmp_path / "boards", run, None)
    (board.folder / "board.json").rename(tmp_path / "mine")
    before = (tmp_path / "mine").read_bytes()
    (board.folder / "board.json").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match="leads out of the folder"):
        add_run(tmp_path / "boards", run, None)
    assert (tmp_path / "mine").read_bytes() == before
