"""`--helpful` in `steer` and `export`: the weight of the objective of that name, wherever the task lists it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_closed_form import OBJECTIVES, world

from peo_bench.core.method import Build, Method, Objective, PolicyFamily, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import Merge, Weights, policy
from peo_bench.engine import engine
from peo_bench.jobs.store import Store
from peo_bench.methods import METHODS
from peo_bench.results.families_records import SavedWorld
from peo_bench.results.record import read_record
from peo_bench.results.records import RunRecord
from peo_bench.steering import families
from peo_bench.steering.families import save_families, saved_world, world_of
from peo_bench.steering.web import family_answers

ENGINE = engine.Engine


class Experts(Method):
    """A soup of experts that nobody trains, named after their objectives."""

    name = "experts"
    reference = "test"

    def build(self, world: World) -> Build:
        yield from ()
        return PolicyFamily(
            Space("simplex"), lambda w: policy(world.reference.id, zip(world.names, w.weights, strict=True))
        )


class Told:
    """Stands for the engine, and for the model and tokenizer that it gives: says which weights it was asked for."""

    text = ""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def check_lengths(self, requests: list, decoding: object) -> None:
        pass

    def generate(self, requests: list, decoding: object) -> list[Told]:
        for request in requests:
            self.text = json.dumps(dict(request.spec.mix[0][1].terms))
        return [self] * len(requests)

    def materialised(self, weights: object) -> tuple[Told, Told]:
        return self, self

    def save_pretrained(self, folder: Path) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a run folder for a task with these objectives; return it."""
    monkeypatch.setitem(METHODS._entries, "experts", Experts)
    monkeypatch.setattr("peo_bench.models.rendering.remarks", lambda tokenizer: ())
    monkeypatch.setattr(engine, "Engine", Told)
    card = SimpleNamespace(**dict.fromkeys(("command", "peo_bench", "suite", "model", "licence"), "x"))
    monkeypatch.setattr(
        families, "read_record", lambda path, model: card if model is RunRecord else read_record(path, model)
    )

    def written(*objectives: Objective) -> Path:
        names = [objective.name for objective in objectives]
        known = dict(zip(names, world().proxies.values(), strict=True))
        preferences = (Preference.even(names),)
        mine = replace(world(), objectives=objectives, proxies=known, pairs={}, preferences=preferences)
        assert world_of(SavedWorld.model_validate_json(saved_world(mine).model_dump_json(), strict=True)) == mine
        save_families(tmp_path, Store(tmp_path / "cache"), ["experts"], {}, {0: mine}, [])
        return tmp_path

    return written


@pytest.mark.parametrize("order", [OBJECTIVES, OBJECTIVES[::-1]])
def test_helpful_is_helpful_in_either_order(peo_bench, folder, order):
    run = folder(*order)
    asked = ("--method", "experts", "--helpful", "0.75")
    code, out, _ = peo_bench("steer", str(run), "hello", *asked, "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert json.loads(found["answer"]) == found["preference"] == {"helpful": 0.75, "harmless": 0.25}
    (page,) = family_answers(run, None)[1]("hello", 0.75)
    assert (page["answer"], page["preference"]) == (found["answer"], found["preference"])
    exported = peo_bench("export", str(run), "--to", str(run / "policy"), *asked)
    assert exported[0] == 0, exported[2]
    card = (run / "policy" / "README.md").read_text()
    assert "+0.75 x task vector of `helpful`" in card
    assert "+0.25 x task vector of `harmless`" in card


def test_a_card_says_by_what_rule_task_vectors_are_merged():
    terms = (("helpful", 0.75), ("harmless", 0.25))
    assert families._rule(Weights("base", terms)) == ""
    said = families._rule(Weights("base", terms, Merge("ties", 0.2, strength=1.25)))
    assert said == " 1.25 times what `ties` at density 0.2 makes, by these shares, of"


def test_without_an_objective_called_helpful_it_is_refused_in_one_line(peo_bench, folder):
    run = folder(Objective("brief", "length", False), OBJECTIVES[1])
    for args in (("steer", str(run), "hello"), ("export", str(run), "--to", str(run / "policy"))):
        code, _, err = peo_bench(*args, "--method", "experts", "--helpful", "1")
        assert code == 2
        assert (
            err
            == "error: --helpful: the objectives of this run are brief, harmless: give a run with one called helpful\n"
        )


def test_a_run_whose_package_is_not_here_is_one_line_that_says_what_to_install(peo_bench, folder, monkeypatch):
    run = folder(*OBJECTIVES)
    monkeypatch.delitem(METHODS._entries, "experts")
    code, _, err = peo_bench("steer", str(run), "hello", "--method", "experts", "--helpful", "1")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {run}: experts cannot be made here (unknown method 'experts'")
    assert err.endswith("install the package that adds it, in the version of the run\n")


def test_an_artefact_that_is_not_in_the_folder_is_named_in_one_line(peo_bench, folder, monkeypatch):
    run = folder(*OBJECTIVES)
    monkeypatch.setattr(engine, "Engine", ENGINE)
    lost = f"error: {run / 'artefacts'}: {world().reference.id} is missing or damaged: repeat the run"
    for args in (("steer", str(run), "hello"), ("export", str(run), "--to", str(run / "policy"))):
        code, _, err = peo_bench(*args, "--method", "experts", "--helpful", "1")
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith(lost)
