"""CONTRIBUTING.md's method is executed as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from test_closed_form import INTERIOR, Tabular

from peo_bench.methods import METHODS

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_method_of_contributing_works_literally(monkeypatch):
    """It is under 30 lines, and its policies are the soup's."""
    code = re.search(r"```python\n(.*?)```", TEXT, flags=re.S)
    assert code is not None
    assert len(code[1].splitlines()) <= 30
    names: dict[str, object] = {}
    exec(code[1], names)
    monkeypatch.setitem(METHODS._entries, "my-soup", names["MySoup"])
    tabular = Tabular()
    mine, soup = tabular.build("my-soup"), tabular.build("soup")
    assert [mine.resolve(w).key for w in INTERIOR] == [soup.resolve(w).key for w in INTERIOR]
