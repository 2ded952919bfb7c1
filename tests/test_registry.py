"""Registries: names are taken once, things are what they claim to be, and what is wrong is said in one line."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from peo_bench import registry as registries
from peo_bench.core.method import Method
from peo_bench.errors import UsageError
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.judges import JUDGES
from peo_bench.methods import METHODS
from peo_bench.methods.peo import PEO
from peo_bench.methods.soup import Soup
from peo_bench.registry import Registry
from peo_bench.scorers import SCORERS, registered_scorer, scorer_version
from peo_bench.scorers.columns import score_texts
from peo_bench.suites import SUITES, TASKS
from peo_bench.training.learners import LEARNERS

PEO_PLACE = "peo_bench.methods.peo:PEO"
EVERY = {
    "job_kinds": JOB_KINDS,
    "judges": JUDGES,
    "learners": LEARNERS,
    "methods": METHODS,
    "scorers": SCORERS,
    "suites": SUITES,
    "tasks": TASKS,
}


@pytest.fixture
def methods() -> Registry[type[Method]]:
    """A registry of methods of its own, with one that is built in."""
    return Registry("method", "peo_bench.none", {"peo": PEO_PLACE}, expected="a method", valid=METHODS._valid)


@pytest.mark.parametrize("value", [Soup, "peo_bench.methods.soup:Soup"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_built_in_name_is_taken(methods, value, loaded):
    """Whether it has been used or not, and whatever takes its place, a built-in method stays what it is."""
    if loaded:
        methods.get("peo")
    with pytest.raises(UsageError, match=r"method 'peo' is registered twice, as peo_bench\.methods\.peo:PEO and .*oup"):
        methods.add("peo", value)
    assert methods.get("peo") is PEO


@pytest.mark.parametrize("name", ["reference", "oracle", "all", "none"])
def test_a_name_that_means_something_else_is_no_methods_name(monkeypatch, name):
    """Rows of the tables, and what `--methods` understands."""
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    with pytest.raises(UsageError, match=f"method '{name}', .*soup:Soup: this name means something else: rename it"):
        METHODS.add(name, "peo_bench.methods.soup:Soup")


@pytest.mark.parametrize("value", [PEO, PEO_PLACE])
def test_the_same_thing_twice_is_fine(methods, value):
    methods.add("peo", value)
    methods.add("mine", Soup)
    methods.add("mine", Soup)
    assert methods.get("peo") is PEO
    assert methods.names() == ["mine", "peo"]


def test_an_entry_point_cannot_take_a_name(methods, monkeypatch):
    points = [EntryPoint("peo", "peo_bench.methods.soup:Soup", "peo_bench.none")]
    monkeypatch.setattr(registries, "entry_points", lambda group: points)
    with pytest.raises(UsageError, match="registered twice"):
        methods.names()


def test_a_clash_within_an_import_in_a_circle_is_a_clash(methods):
    """A package that registers its name while it is being imported cannot be loaded yet."""
    with pytest.raises(UsageError, match=r"'peo' is registered twice, as .*peo:PEO and half_imported\.module:Thing"):
        methods.add("peo", "half_imported.module:Thing")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_package:Thing", "cannot be loaded (No module named 'no_such_package')"),
        ("peo_bench.methods.soup:Absent", "has no attribute 'Absent'"),
        ("peo_bench.methods.soup:Build", "is not a method"),
    ],
)
def test_what_cannot_be_had_is_one_line(methods, place, said):
    methods.add("other", place)
    with pytest.raises(UsageError) as error:
        methods.get("other")
    text = str(error.value)
    assert text.startswith(f"method 'other': {place}")
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize("group", EVERY)
def test_every_registry_says_what_it_takes(group, monkeypatch):
    """All built-in things are valid, a number is not."""
    registry = EVERY[group]
    assert registry.group == f"peo_bench.{group}"
    assert [registry.get(name) for name in registry.names()]
    monkeypatch.setitem(registry._entries, "seven", 7)
    with pytest.raises(UsageError, match=f"{registry.what} 'seven': 7 is not {re.escape(registry.expected)}$"):
        registry.get("seven")


# ---- scorers --------------------------------------------------------------------------------------------------


class Plain:
    """A scorer as short as it gets: no version."""

    def score(self, prompts, answers):
        return [len(answer) for answer in answers]


class Versioned(Plain):
    version = 3


class NeedsPath(Plain):
    def __init__(self, path):
        self.path = path


class BadVersion(Plain):
    version = "1.0"


def test_the_version_of_a_scorer_is_one_where_it_gives_none(monkeypatch):
    for name, scorer in (("plain", Plain), ("versioned", Versioned)):
        monkeypatch.setitem(SCORERS._entries, name, scorer)
    assert (scorer_version("plain"), scorer_version("versioned")) == (1, 3)
    assert registered_scorer("plain").score([""], ["four"]) == [4]


@pytest.mark.parametrize("bad", [Plain(), Path, BadVersion, NeedsPath])
def test_bad_scorers_are_one_line(monkeypatch, bad):
    monkeypatch.setitem(SCORERS._entries, "bad", bad)
    with pytest.raises(UsageError, match=r"^scorer 'bad'.*(is not a class with a method score|without arguments).*$"):
        registered_scorer("bad")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1.0], "returned 1 numbers for 2 answers"),
        ([1.0, 2.0, 3.0], "returned 3 numbers for 2 answers"),
        (None, "must return a list of numbers"),
        (["good", "bad"], "must return a list of numbers"),
    ],
)
def test_bad_scores_are_one_line(returned, said):
    class Bad:
        def score(self, prompts, answers):
            return returned

    with pytest.raises(UsageError, match=f"^scorer 'reward': score {said}"):
        score_texts({"reward": Bad()}, ["", ""], ["a", "b"])
