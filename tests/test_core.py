"""Specs, spaces, jobs, the runner and the store."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preferences import asked

from peo_bench.core.method import Method, PolicyFamily, Round
from peo_bench.core.preference import Preference
from peo_bench.core.rounds import build_families, replay, see_ahead
from peo_bench.core.space import Space
from peo_bench.core.spec import Merge, PolicySpec, Utility, Weights, policy, spec_from_json
from peo_bench.errors import JobFailed, UsageError
from peo_bench.files.journal import Journal
from peo_bench.jobs.job import Cost, Job, closure, job_kind
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.runner import Runner
from peo_bench.jobs.store import Store
from peo_bench.methods import METHODS
from peo_bench.registry import Registry

RUNS: list[str] = []


@job_kind("test-value", version=1, bound=lambda job: Cost(pairs_trained=job.params["value"]))
def make_value(job, inputs, work):
    RUNS.append(job.id)
    if job.params["value"] < 0:
        raise JobFailed("negative on purpose")
    total = job.params["value"] + sum(handle.result["value"] for handle in inputs.values())
    (work.dir / "value.txt").write_text(str(total))
    work.charge(Cost(pairs_trained=job.params["value"]))
    return {"value": total}


JOB_KINDS.add("test-value", make_value)


def value(n: int, **needs: Job) -> Job:
    return Job("test-value", {"value": n}, needs)


# ---- specs ----------------------------------------------------------------------------------------------------


def test_equal_policies_have_equal_keys():
    """Order, zero terms, duplicate terms and rounding noise do not matter; coefficients do."""
    spec = policy("base", [("a", 0.3), ("b", 0.7)])
    assert spec.key == policy("base", [("b", 0.7), ("a", 0.1), ("a", 0.2), ("c", 0.0)]).key
    assert spec.key == policy("base", [("a", 0.3 + 1e-13), ("b", 0.7)]).key
    assert spec.key != policy("base", [("a", 0.31), ("b", 0.7)]).key


def test_keys_leave_defaults_out():
    """The JSON that is hashed has no trace of defaults, so a new field with a default keeps every key."""
    assert policy("base").to_json() == {"weights": {"base": "base"}}
    assert PolicySpec(mix=((0.5, Weights("x")), (0.5, Weights("x")))) == policy("x")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-3, 3)), max_size=5), st.floats(0.1, 2))
def test_json_round_trip(terms, a):
    spec = PolicySpec(mix=((a, Weights("base", tuple(terms))), (1 - a / 2, Weights("other"))))
    assert spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "spec",
    [
        policy("base"),
        policy("base", [("a", 0.5)]),
        policy("base", [("a", 0.5), ("b", 0.0)], Merge("ties", 0.2, strength=1.5)),
        PolicySpec(
            candidates=(policy("base"), policy("base", [("a", 1.0)])), utility=Utility((("r", 0.5), ("c", -0.5)))
        ),
    ],
)
def test_plain_and_selecting_specs_survive_json(spec):
    assert spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_merge_of_strength_0_is_the_base_and_a_share_of_0_counts_in_others():
    merge = Merge("ties", 0.2)
    assert policy("base", [("a", 0.5)], Merge("ties", 0.2, strength=0.0)) == policy("base")
    assert policy("base", [("a", 0.5), ("b", 0.0)], merge).mix[0][1].terms == (("a", 0.5), ("b", 0.0))
    assert policy("base", [("a", 0.5)], merge).key != policy("base", [("a", 0.5)]).key


def test_what_is_half_a_selection_is_refused():
    mixture, utility = policy("base"), Utility((("r", 1.0),))
    selection = PolicySpec(candidates=(mixture, mixture), utility=utility)
    for parts in (
        {"candidates": (mixture, mixture)},
        {"utility": utility},
        {"mix": mixture.mix, "candidates": (mixture, mixture), "utility": utility},
        {"candidates": (selection, mixture), "utility": utility},
    ):
        with pytest.raises(ValueError, match="a selection needs a utility and candidates that are mixtures"):
            PolicySpec(**parts)
    alone = PolicySpec(candidates=(mixture,), utility=utility)
    assert (alone, alone.candidates, alone.utility) == (mixture, (), None)


def test_a_spec_without_sources_is_refused():
    with pytest.raises(ValueError, match="at least one source"):
        PolicySpec(mix=((0.0, Weights("base")),))


# ---- spaces ---------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=4))
def test_projection_on_the_simplex(weights):
    """The result is on the simplex, idempotent, and satisfies the variational inequality of a projection."""
    space, given = Space("simplex"), Preference(tuple("abcd"[: len(weights)]), tuple(weights))
    found = space.project(given)
    p = np.array(found.weights)
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1)
    assert space.project(found).weights == pytest.approx(found.weights, abs=1e-12)
    for vertex in np.eye(len(p)):
        assert (np.array(weights) - p) @ (vertex - p) <= 1e-9


def test_preferences_are_by_name_in_the_order_of_the_objectives():
    """What is left out has the rest, rounded to 9 decimals; off the simplex, and for others' names, is one line."""
    usual, other = (
        Preference.of(["helpful", "harmless"], helpful=0.7),
        Preference.of(["harmless", "helpful"], helpful=0.7),
    )
    assert (usual.weights, other.weights) == ((0.7, 0.3), (0.3, 0.7))
    assert usual["harmless"] == other["harmless"] == 0.3
    assert usual == other
    assert {usual: 1}[other] == 1, "a preference is one whatever the order of its names"
    assert usual not in (Preference.of(["helpful", "harmless"], helpful=0.3), Preference(("helpful",), (0.7,)), 0.7)
    assert Preference.of(["a", "b", "c"], a=0.2, c=0.5).to_json() == {"a": 0.2, "b": 0.3, "c": 0.5}
    assert Preference.even(["a", "b", "c", "d"]).weights == (0.25,) * 4
    for wrong in ({"helpful": 1.5}, {"helpful": 0.5, "harmless": 0.6}, {"helpful": 0.5, "harmless": 0.4}, {}):
        with pytest.raises(UsageError, match="off the simplex"):
            Preference.of(["helpful", "harmless"], **wrong)
    with pytest.raises(UsageError, match="did you mean helpful"):
        Preference.of(["helpful", "harmless"], helpfull=0.5)
    with pytest.raises(ValueError, match="2 weights"):
        Preference(("helpful", "harmless", "brief"), (0.5, 0.5))


def test_points_are_found_by_the_names_of_objectives():
    """In whatever order a preference has them."""
    space = Space("points", tuple(Preference.of(["helpful", "harmless"], helpful=w) for w in (0.0, 1.0)))
    assert space.project(Preference.of(["harmless", "helpful"], helpful=0.9))["helpful"] == 1.0


def test_points_project_to_the_nearest():
    space = Space("points", (asked((0.0, 1.0)), asked((0.5, 0.5)), asked((1.0, 0.0))))
    assert space.project(asked((0.6, 0.4))) == asked((0.5, 0.5))
    assert space.project(space.project(asked((0.9, 0.1)))) == asked((1.0, 0.0))
    ends = Space("points", (asked((0.0, 1.0)), asked((1.0, 0.0))))
    assert ends.project(asked((0.9, 0.1))) == asked((1.0, 0.0))


# ---- jobs, store, runner -----------------------------------------------------------------------------------------


def test_job_ids_are_content_addresses():
    assert value(1).id == value(1).id != value(2).id
    assert value(1, a=value(2)).id != value(1, a=value(3)).id
    assert [job.params["value"] for job in closure([value(1, a=value(2)), value(2)])] == [2, 1]


WORLD = SimpleNamespace(reference=value(0), proxies={}, evaluation={}, preferences=[asked((0, 1)), asked((1, 0))])


class Adder(Method):
    """A method whose second round depends on the first one's result."""

    name = "adder"
    reference = "test"

    def build(self, world):
        first = value(2)
        handles = yield Round([first], later=Cost(pairs_trained=100))
        second = value(handles[first.id].result["value"] * 10)
        yield Round([second])
        return PolicyFamily(Space("simplex"), lambda w: policy(second.id))


def test_rounds_share_jobs_and_replay(tmp_path):
    RUNS.clear()
    with Runner(tmp_path) as runner:
        built = build_families(runner, {"a": Adder(), "b": Adder()}, WORLD, []).families
    assert len(RUNS) == 2, "equal jobs of two methods run once"
    with Runner(tmp_path) as again:
        replayed = build_families(again, {"a": Adder()}, WORLD, []).families
    assert len(RUNS) == 2, "a replay runs nothing"
    assert replayed["a"].family.resolve(asked((1, 0))).key == built["b"].family.resolve(asked((1, 0))).key
    assert again.outcome.reused == set(runner.outcome.handles)


def test_plan_sees_past_rounds_that_cannot_be_named_yet(tmp_path):
    """Before anything ran: one job and the declared bound of the rest; afterwards: both jobs and nothing more."""
    ahead = see_ahead("a", Adder(), WORLD, Store(tmp_path))
    assert (len(ahead.jobs), ahead.later, ahead.lost) == (1, Cost(pairs_trained=100), None)
    with Runner(tmp_path) as runner:
        built = build_families(runner, {"a": Adder()}, WORLD, []).families
    ahead = see_ahead("a", Adder(), WORLD, Store(tmp_path))
    assert set(ahead.jobs) == set(built["a"].jobs)
    assert (ahead.later, ahead.lost) == (Cost(), None)
    assert sum(handle.cost.pairs_trained for handle in runner.outcome.handles.values()) <= 102


class Failing(Method):
    """A method whose job fails."""

    name = "failing"
    reference = "test"

    def build(self, world):
        yield Round([value(1, a=value(-1))])
        return PolicyFamily(Space("simplex"), lambda w: policy("x"))


def test_a_failing_method_does_not_stop_the_others(tmp_path):
    with Runner(tmp_path) as runner:
        built = build_families(runner, {"bad": Failing(), "good": Adder()}, WORLD, []).families
    assert set(built) == {"good"}
    assert any("negative on purpose" in reason for reason in runner.outcome.failed.values())


def test_a_lost_method_does_not_hold_up_the_later_rounds_of_those_after_it(tmp_path):
    with Runner(tmp_path) as runner:
        built = build_families(runner, {"bad": Failing(), "good": Adder(), "broken": Breaking()}, WORLD, [])
    assert set(built.lost) == {"bad", "broken"}
    good = built.families["good"]
    assert len(good.named) == len(good.jobs) == 2, "what every round named"
    again = replay(Adder(), WORLD, Store(tmp_path))
    assert again.resolve(asked((1, 0))) == good.family.resolve(asked((1, 0)))


class Breaking(Adder):
    """A third party's method with a bug."""

    def build(self, world):
        yield Round([value(2)])
        raise KeyError("no such thing")


def test_every_lost_method_has_its_own_reason(tmp_path):
    class Other(Failing):
        def build(self, world):
            yield Round([Job("test-bug")])

    methods = {"bad": Failing(), "worse": Other(), "broken": Breaking(), "good": Adder()}
    with Runner(tmp_path) as runner:
        built = build_families(runner, methods, WORLD, [])
    assert set(built.families) == {"good"}
    assert "negative on purpose" in built.lost["bad"]
    assert built.lost["worse"] == "ZeroDivisionError: a bug in one job"
    assert built.lost["broken"] == "KeyError: 'no such thing'"


def broken_families():
    """Families that show only after training that they offer nothing, with what is said of them."""
    space = Space("simplex")

    def missing(preference):
        raise KeyError("no weights for it")

    return [
        ("KeyError: 'no weights for it'", PolicyFamily(space, missing)),
        ("KeyError: 'no weights for it'", PolicyFamily(space, lambda w: policy(value(2).id), coefficients=missing)),
        ("is made of nowhere, which no round named", PolicyFamily(space, lambda w: policy("nowhere"))),
        ("TypeError: build returned None, no PolicyFamily", None),
    ]


@pytest.mark.parametrize(("said", "family"), broken_families())
def test_a_family_that_offers_no_policy_loses_its_method_only(tmp_path, caplog, said, family):
    class Offering(Adder):
        def build(self, world):
            yield Round([value(2)])
            return family

    assert see_ahead("offering", Offering(), WORLD, Store(tmp_path)).lost is None, "not known yet"
    with Runner(tmp_path) as runner:
        built = build_families(runner, {"offering": Offering(), "good": Adder()}, WORLD, [])
    assert set(built.families) == {"good"}
    assert said in built.lost["offering"]
    caplog.clear()
    assert see_ahead("offering", Offering(), WORLD, Store(tmp_path)).lost == built.lost["offering"]
    assert not caplog.records, "a plan says it in its note"


def test_a_build_that_breaks_at_once_is_foreseen(tmp_path):
    class AtOnce(Adder):
        def build(self, world):
            raise KeyError("no such setting")
            yield

    ahead = see_ahead("once", AtOnce(), WORLD, Store(tmp_path))
    assert (ahead.jobs, ahead.lost) == ({}, "KeyError: 'no such setting'")


def test_a_damaged_artefact_is_built_again(tmp_path, caplog):
    RUNS.clear()
    handle = Store(tmp_path).run(value(5))
    content = handle.path / "value.txt"
    content.write_text("6")
    assert Store(tmp_path).get(handle.id) is None
    assert "damaged" in caplog.text
    assert content.exists(), "reading deletes nothing"
    assert Store(tmp_path).run(value(5)).path.joinpath("value.txt").read_text() == "5"
    assert len(RUNS) == 2


def test_copies_are_independent_and_damaged_ones_are_replaced(tmp_path):
    store = Store(tmp_path / "a")
    handle = store.run(value(7))
    store.copy_to(tmp_path / "b", [handle.id])
    copy = Store(tmp_path / "b").path(handle.id) / "value.txt"
    copy.write_text("broken")
    assert (handle.path / "value.txt").read_text() == "7", "damage does not reach the source"
    store.copy_to(tmp_path / "b", [handle.id])
    assert copy.read_text() == "7"


@job_kind("test-bug", version=1)
def raise_bug(job, inputs, work):
    raise ZeroDivisionError("a bug in one job")


JOB_KINDS.add("test-bug", raise_bug)


def test_a_bug_in_a_job_fails_that_job_only(tmp_path):
    with Runner(tmp_path) as runner:
        runner.run([Job("test-bug"), value(1)])
    assert list(runner.outcome.failed.values()) == ["ZeroDivisionError: a bug in one job"]
    assert value(1).id in runner.outcome.handles


def test_journal_cuts_a_torn_tail_at_every_offset(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    for i in range(3):
        journal.append({"i": i, "text": "é"})
    content = journal.path.read_bytes()
    last = len(content) - len(content.splitlines(keepends=True)[-1])
    for end in range(last, len(content)):
        journal.path.write_bytes(content[:end])
        assert [record["i"] for record in Journal(journal.path).records] == [0, 1]
        assert journal.path.read_bytes() == content[:last]


@pytest.mark.parametrize("make", ["link", "link to nothing", "link to itself", "folder", "pipe"])
def test_journal_in_whose_place_something_else_lies_begins_anew(tmp_path, make):
    """A tail is cut off in place: behind a link that would be somebody's file."""
    path, secret = tmp_path / "kept.jsonl", tmp_path / "secret"
    secret.write_text("secret")
    {
        "link": lambda: path.symlink_to(secret),
        "link to nothing": lambda: path.symlink_to(tmp_path / "new"),
        "link to itself": lambda: path.symlink_to(path),
        "folder": lambda: (path / "x").mkdir(parents=True),
        "pipe": lambda: os.mkfifo(path),
    }[make]()
    journal = Journal(path)
    assert journal.records == []
    journal.append({"i": 1})
    assert Journal(path).records == [{"i": 1}]
    assert not path.is_symlink()
    assert secret.read_text() == "secret"
    assert not (tmp_path / "new").exists()


def test_journal_cuts_at_a_flipped_byte(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([1])
    journal.append([2])
    content = bytearray(journal.path.read_bytes())
    content[-3] ^= 1
    journal.path.write_bytes(bytes(content))
    assert Journal(journal.path).records == [[1]]


# ---- registries -----------------------------------------------------------------------------------------------


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UsageError, match="did you mean peo"):
        METHODS.get("poe")


def test_collisions_and_bad_names_are_errors():
    registry: Registry[object] = Registry("thing", "peo_bench.things", expected="anything", valid=lambda it: True)
    registry.add("one", object())
    with pytest.raises(UsageError, match="twice"):
        registry.add("one", object())
    for name in ("../evil", "mine\n", "", "a/b", "x" * 65):
        with pytest.raises(UsageError, match="not a valid name"):
            registry.add(name, object())
