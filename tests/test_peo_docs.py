"""The recorded figures about PEO are those of docs/peo.md."""

from __future__ import annotations

import json

import gold_bound
import peo_verdicts
import proxy_quality
import search_efficiency


def test_the_documented_tables_are_the_recorded_ones():
    result = json.loads(peo_verdicts.RESULT.read_text(encoding="utf-8"))
    assert peo_verdicts.tables(result) in peo_verdicts.DOCS.read_text(encoding="utf-8")


def test_the_strategies_of_the_table_are_as_recorded():
    result = json.loads(search_efficiency.RESULT.read_text(encoding="utf-8"))
    cells = {
        suite: {c: row for c, row in result["cells"].items() if c.startswith(f"{suite}:")}
        for suite in search_efficiency.SUITES
    }
    assert result["summary"] == {suite: search_efficiency.summary(own) for suite, own in cells.items()}
    page = peo_verdicts.DOCS.read_text(encoding="utf-8")
    assert search_efficiency.table(result["summary"]) in page
    assert search_efficiency.until_table(result["cells"]) in page


def test_the_table_at_matched_kl_is_the_recorded_one():
    result = json.loads(peo_verdicts.RESULT_MATCHED.read_text(encoding="utf-8"))
    assert peo_verdicts.matched_table(result) in peo_verdicts.DOCS.read_text(encoding="utf-8")


def test_the_most_that_a_search_could_gain_is_the_recorded_one():
    cells = json.loads(gold_bound.RESULT.read_text(encoding="utf-8"))
    assert {name.split(":")[0] for name in cells} == {name.split(":")[0] for name in gold_bound.CELLS}
    assert gold_bound.table(cells) in gold_bound.DOCS.read_text(encoding="utf-8")
    assert all(row["gain_at_most"] >= 0 for row in cells.values()), "the soups are among the places"


def test_the_table_of_proxies_is_the_recorded_one():
    rows = json.loads(proxy_quality.RESULT.read_text(encoding="utf-8"))["rows"]
    assert {row["scorer_prompts"] for row in rows} == set(proxy_quality.SIZES)
    assert proxy_quality.table(rows) in proxy_quality.DOCS.read_text(encoding="utf-8")
