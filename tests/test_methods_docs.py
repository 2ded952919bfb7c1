"""docs/methods.md is made from the registry and cannot drift."""

from __future__ import annotations

from pathlib import Path

import pytest

from peo_bench.methods import METHODS, learners_table, methods_table

DOCS = Path(__file__).parents[1] / "docs" / "methods.md"


def test_the_table_is_the_registrys():
    assert methods_table() in DOCS.read_text(encoding="utf-8"), (
        "docs/methods.md is stale: paste the output of "
        "`python -c 'from peo_bench.methods import methods_table; print(methods_table())'`"
    )


def test_the_learners_are_those_of_the_code():
    assert learners_table() in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_says_what_it_trains_costs_and_leaves_open(name):
    method = METHODS.get(name)
    assert all((method.reference, method.trains, method.costs, method.exact, method.ours, method.__doc__))
