"""Names that somebody else chose make paths inside one folder only."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peo_bench.errors import UsageError
from peo_bench.files.inside import inside

NASTY = st.text(alphabet="./\\\0\n ab-", max_size=12)


@settings(max_examples=50, deadline=None)
@given(NASTY)
def test_every_name_is_refused_or_stays_inside(name: str) -> None:
    with tempfile.TemporaryDirectory() as where, contextlib.suppress(UsageError):
        assert inside(Path(where), name).resolve().parent == Path(where).resolve()


def test_links_that_lead_outside_are_refused(tmp_path: Path) -> None:
    board = tmp_path / "board"
    board.mkdir()
    (board / "out").symlink_to(tmp_path)
    (board / "same").symlink_to(board / "other")
    with pytest.raises(UsageError, match="lead nowhere else"):
        inside(board, "out")
    assert inside(board, "same") == board / "same"
