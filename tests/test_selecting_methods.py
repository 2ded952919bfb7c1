"""best-of-n and rps as methods: their specs, the geometry of neighbours, exact utilities on the log-linear oracle."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preferences import asked

from peo_bench.core.decoding import Decoding
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.errors import UsageError
from peo_bench.methods import make_method
from peo_bench.methods.rps import neighbours
from peo_bench.runs.config import RunConfig, all_methods
from peo_bench.suites.suite import load_suite
from tests.test_closed_form import INTERIOR, PREFERENCES, REWARDS, Tabular, world
from tests.test_selection import wins

SIMPLEX = Space("simplex")


@pytest.fixture(scope="module")
def tabular() -> Tabular:
    return Tabular()


def mean_utility(tabular: Tabular, spec, w) -> float:
    """Return E w . r of the answers that `spec` gives, exactly, averaged over prompts."""
    rewards = np.tensordot(w, REWARDS, 1)
    ps = [np.exp(tabular.log_probs(mixture)) for mixture in spec.mixtures]
    return float(np.mean([wins([p[x] for p in ps], u).sum(axis=0) @ u for x, u in enumerate(rewards)]))


# ---- geometry -------------------------------------------------------------------------------------------------


def test_neighbours_by_hand():
    """At 45 degrees the directions 40, 50, 35, 55: helpful weight cos / (cos + sin) = 1 / (1 + tan)."""
    found = neighbours(SIMPLEX, asked((0.5, 0.5)), 5, 5.0, 30.0)
    degrees = (45, 40, 50, 35, 55)
    assert [w.weights[0] for w in found] == pytest.approx(
        [1 / (1 + math.tan(math.radians(d))) for d in degrees], abs=1e-9
    )
    assert [w.weights[0] for w in found] == pytest.approx([0.5, 0.543744, 0.456256, 0.588163, 0.411837], abs=1e-6)


def test_at_an_end_of_the_simplex_all_neighbours_lie_inside():
    found = neighbours(SIMPLEX, asked((1.0, 0.0)), 5, 5.0, 30.0)
    expected = [1 / (1 + math.tan(math.radians(d))) for d in (0, 5, 10, 15, 20)]
    assert [w.weights[0] for w in found] == pytest.approx(expected, abs=1e-9)
    mirrored = neighbours(SIMPLEX, asked((0.0, 1.0)), 5, 5.0, 30.0)
    assert [w.weights[1] for w in mirrored] == pytest.approx(expected, abs=1e-9)
    assert len(neighbours(SIMPLEX, asked((1.0, 0.0)), 99, 5.0, 30.0)) == 7
    assert len(neighbours(SIMPLEX, asked((0.5, 0.5)), 99, 5.0, 30.0)) == 13


@given(st.floats(0, 1), st.integers(1, 9), st.floats(1, 20), st.floats(5, 80))
def test_neighbours_are_near_distinct_and_start_at_the_target(w, k, step, cone):
    target = asked((w, 1 - w))
    found = neighbours(SIMPLEX, target, k, step, cone)
    assert found[0] == target
    assert 1 <= len(found) <= k
    angles = [math.degrees(math.atan2(p["harmless"], p["helpful"]) - math.atan2(1 - w, w)) for p in found]
    assert all(abs(angle) <= cone + 1e-5 for angle in angles)
    assert (np.diff(np.abs(angles)) > -1e-5).all()
    for p in found:
        assert min(p.weights) >= 0
        assert sum(p.weights) == pytest.approx(1)


def test_of_finitely_many_points_the_nearest_within_the_cone():
    """Angles of (0.25, 0.75) and (0.75, 0.25) to (0.5, 0.5): 26.57 degrees; of the ends: 45."""
    space = Space("points", tuple(map(asked, PREFERENCES)))
    assert [p.weights for p in neighbours(space, asked((0.5, 0.5)), 5, 5.0, 30.0)] == [
        (0.5, 0.5),
        (0.25, 0.75),
        (0.75, 0.25),
    ]
    assert [p.weights for p in neighbours(space, asked((0.5, 0.5)), 2, 5.0, 30.0)] == [(0.5, 0.5), (0.25, 0.75)]
    assert [p.weights for p in neighbours(space, asked((0.5, 0.5)), 5, 5.0, 20.0)] == [(0.5, 0.5)]
    assert [p.weights for p in neighbours(space, asked((0.6, 0.4)), 1, 5.0, 30.0)] == [(0.5, 0.5)]


# ---- families -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", PREFERENCES)
@pytest.mark.parametrize("inner", ["soup", "mod", "modpo", "expo.soup"])
def test_one_candidate_is_the_wrapped_family(tabular, inner, w):
    wanted = tabular.build(inner).resolve(asked(w))
    for name, setting in ((f"best-of-n.{inner}", "n"), (f"rps.{inner}", "k")):
        found = tabular.build(name, {setting: 1})
        assert found.resolve(asked(w)) == wanted
        assert found.space == tabular.build(inner).space


def test_alone_best_of_n_is_that_of_the_reference_and_trains_nothing():
    tabular = Tabular()
    family = tabular.build("best-of-n", {"n": 3})
    kinds = {job.rpartition("-")[0] for job in tabular.results}
    assert kinds == {"sft", "prompts", "reward-model", "candidates"}
    spec = family.resolve(asked((0.25, 0.75)))
    assert spec.candidates == (policy(world().reference.id),) * 3
    assert tabular.build("best-of-n", {"n": 1}).resolve(asked((0.25, 0.75))) == policy(world().reference.id)


def test_the_utility_is_the_preference_in_units_of_the_reference(tabular, monkeypatch):
    """w . r with deviations 2 and 0.5: reward 0.25 / 2, cost -0.75 / 0.5, scaled to absolute sum 1."""
    units = {"reference": {"reward": [7.0, 2.0], "cost": [-3.0, 0.5]}, "points": []}
    monkeypatch.setattr(Tabular, "run", lambda self, job: units if job.kind == "candidates" else {"form": "full"})
    scorers = [world().proxies[o].id for o in ("helpful", "harmless")]
    utility = Tabular().build("best-of-n.soup").resolve(asked((0.25, 0.75))).utility
    size = 0.125 + 1.5
    assert dict(utility.terms) == pytest.approx({scorers[0]: 0.125 / size, scorers[1]: -1.5 / size}, abs=1e-9)
    at_an_end = Tabular().build("rps.soup").resolve(asked((1.0, 0.0)))
    assert at_an_end.utility.terms == ((scorers[0], 1.0),)


def test_a_selection_serves_every_preference_whatever_the_inner_family_offers(tabular):
    """MODPO has a policy per asked preference; between two of them the utility still follows the preference."""
    family = tabular.build("best-of-n.modpo")
    assert family.space.project(asked((0.6, 0.4))) == asked((0.6, 0.4))
    assert family.resolve(asked((0.6, 0.4))).candidates == family.resolve(asked((0.5, 0.5))).candidates
    assert family.resolve(asked((0.6, 0.4))).key != family.resolve(asked((0.5, 0.5))).key


def test_both_measure_the_units_once_and_train_nothing_more(tabular):
    tabular.build("best-of-n.soup")
    known = set(tabular.results)
    tabular.build("rps.soup")
    tabular.build("best-of-n")
    assert set(tabular.results) == known


# ---- exact utilities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("w", PREFERENCES)
def test_expected_utility_rises_with_n_to_the_best_answer(tabular, w):
    values = [
        mean_utility(tabular, tabular.build("best-of-n.soup", {"n": n}).resolve(asked(w)), w) for n in (1, 2, 4, 8, 512)
    ]
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(float(np.tensordot(w, REWARDS, 1).max(axis=-1).mean()), abs=0.01)


@pytest.mark.parametrize("w", INTERIOR)
def test_rps_ties_with_best_of_k_on_a_calibrated_family(tabular, w):
    """The tabular soup is optimal for every preference, so neighbours have nothing that the target lacks."""
    names = {"soup": {}, "best-of-n.soup": {"n": 5}, "rps.soup": {}}
    single, best, rps = (mean_utility(tabular, tabular.build(*item).resolve(asked(w)), w) for item in names.items())
    assert abs(rps - best) < 0.02 * (best - single)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("expo.best-of-n.soup", "best-of-n.soup chooses among finished answers"),
        ("expo.best-of-n", "best-of-n chooses among finished answers"),
        ("rps.best-of-n.soup", "best-of-n.soup chooses among finished answers"),
        ("best-of-n.rps.soup", "rps.soup chooses among finished answers"),
        ("rps", "'rps' wraps another method"),
        ("soup.best-of-n", "'soup' wraps no other method"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(name, reason):
    with pytest.raises(UsageError, match=reason):
        make_method(name)


def test_the_best_of_equal_answers_is_refused():
    greedy = replace(world(), decoding=Decoding(max_new_tokens=1, temperature=0.0))
    with pytest.raises(UsageError, match=r"set decoding\.temperature above 0"):
        next(make_method("best-of-n.soup").build(greedy))
    next(make_method("best-of-n.soup", {"best-of-n.soup": {"n": 1}}).build(greedy))
    next(make_method("rps.soup").build(greedy))


def test_settings_reach_the_wrapper_and_what_it_wraps():
    settings = {"best-of-n.expo.soup": {"n": 7}, "expo.soup": {"budget": 9}}
    method = make_method("best-of-n.expo.soup", settings)
    assert method.candidates == 7
    assert method.inner.settings.budget == 9
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        make_method("rps.soup", {"rps.soup": {"k": 0}})


def test_all_methods_and_controls():
    """`all` has the wrappers on what needs no training; ExPO is no control of what it cannot wrap."""
    suite = load_suite("sandbox")
    names = all_methods(suite)
    assert {"best-of-n", "rps.soup"} <= set(names)
    controls = RunConfig(suite=suite, methods=names, preferences=(0.5,)).controls
    assert "expo.mod" in controls
    assert "slerp" in names
    assert "expo.slerp" not in controls, "it chooses a strength itself"
    for name in (*names, *controls):
        make_method(name)
