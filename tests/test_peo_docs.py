"""The recorded figures about PEO are those of docs/peo.md."""

from __future__ import annotations

import json

import peo_verdicts
import search_efficiency


def test_the_documented_tables_are_the_recorded_ones():
    result = json.loads(peo_verdicts.RESULT.read_text(encoding="utf-8"))
    assert peo_verdicts.tables(result) in peo_verdicts.DOCS.read_text(encoding="utf-8")


def test_the_strategies_of_the_table_are_as_recorded():
    result = json.loads(search_efficiency.RESULT.read_text(encoding="utf-8"))
    page = peo_verdicts.DOCS.read_text(encoding="utf-8")
    for name, row in result["summary"].items():
        shares = ", ".join(f"{row[key]:.3f}" for key in ("share_9", "share_18", "share_27"))
        assert f"| `{name}` | {shares} | {row['gold_over_soup']:+.3f} |" in page
