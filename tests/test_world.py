"""What the rooms above `core` are given: phase 1's jobs, jobs on validation prompts, families, drivers of builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from preferences import asked
from pydantic import create_model
from test_closed_form import world

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.rounds import Ahead, replay, see_ahead
from peo_bench.core.space import Space
from peo_bench.core.spec import Utility, policy
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Cost, Job, job_kind
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import Store
from peo_bench.methods import METHODS
from peo_bench.training.settings import AnswersSettings, FrankWolfeSettings

WORLD = world()
ONLINE = replace(WORLD, training={**WORLD.training, "batch_size": 8, "micro_batch_size": 8})


def test_phase_one_is_the_given_expert_else_dpo_on_the_objectives_pairs() -> None:
    given = Job("checkpoint", {"sha256": "a"})
    mine = replace(WORLD, experts={"helpful": given})
    assert mine.aspects == [given, WORLD.dpo("harmless")]
    trained = WORLD.dpo("harmless", beta=0.7)
    read = {"reference": WORLD.reference, "pairs": WORLD.pairs["harmless"]}
    assert trained.needs == read | {"log-probs": WORLD.log_probs("harmless")}
    assert WORLD.log_probs("harmless").needs == read
    assert {key: trained.params[key] for key in ("objective", "seed", "beta")} == {
        "objective": "harmless", "seed": WORLD.seed, "beta": 0.7,
    }  # fmt: skip


def test_a_validation_job_needs_reference_prompts_proxies_and_what_is_merged() -> None:
    line, (one, other) = Job("candidates"), WORLD.aspects
    job = WORLD.validation_job("extrapolation", {"phis": []}, [one, other], line=line)
    assert job.needs == {
        "line": line, "reference": WORLD.reference, "prompts": WORLD.prompts, "delta:0": one, "delta:1": other,
        "scorer:reward": WORLD.proxies["helpful"], "scorer:cost": WORLD.proxies["harmless"],
    }  # fmt: skip
    assert job.params["n_prompts"] == WORLD.validation_prompts
    assert (job.params["seed"], job.params["phis"]) == (WORLD.seed, [])


def test_a_family_resolves_to_the_policy_of_the_projected_preference() -> None:
    offered = Space("points", (asked((0.0, 1.0)), asked((0.5, 0.5))))
    family = PolicyFamily(offered, lambda preference: policy("base", [("one", preference["helpful"])]))
    assert family.resolve(asked((0.7, 0.3))) == policy("base", [("one", 0.5)])


def test_a_utility_is_scaled_once() -> None:
    """7 and seven times 1 of 14: a half, and 0.071428571; these sum to 0.999999997, and are left at that."""
    assert Utility((("r", 1.0), ("c", -3.0))).terms == (("c", -0.75), ("r", 0.25))
    found = Utility((("a", 7.0), *((f"b{i}", 1.0) for i in range(7))))
    assert dict(found.terms) == {"a": 0.5} | {f"b{i}": 0.071428571 for i in range(7)}
    assert Utility(found.terms) == found


def test_what_is_off_the_simplex_is_repeated() -> None:
    with pytest.raises(UsageError, match=r"^helpful 0\.5, harmless 0\.6 is off the simplex"):
        Preference.of(["helpful", "harmless"], helpful=0.5, harmless=0.6)
    with pytest.raises(UsageError, match=r"^nothing is off the simplex"):
        Preference.of(["helpful", "harmless"])
    with pytest.raises(UsageError, match=r"^unknown objective 'helpfull'"):
        Preference.of(["helpful", "harmless"], helpfull=0.5)


JOB_KINDS.add("test-world", job_kind("test-world", version=1)(lambda job, inputs, work: {}))


class Seeded(Method):
    """Names a job of the world's seed."""

    name = "seeded"
    reference = "test"

    def build(self, world: World) -> Build:
        job = Job("test-world", {"seed": world.seed})
        yield Round([job], later=Cost(pairs_trained=world.seed))
        return PolicyFamily(Space("simplex"), lambda preference: policy(job.id))


NOTHING = {"reference": Job("test-world", {"seed": 0}), "proxies": {}, "evaluation": {}, "preferences": []}


def test_every_driver_of_a_build_gives_it_the_world(tmp_path: Path) -> None:
    store, seeded, job = Store(tmp_path), SimpleNamespace(seed=3, **NOTHING), Job("test-world", {"seed": 3})
    assert see_ahead("seeded", Seeded(), seeded, store) == Ahead({job.id: job}, Cost(pairs_trained=3))
    with pytest.raises(UsageError, match=f"{job.id} is missing"):
        replay(Seeded(), seeded, store)
    store.run(job)
    assert see_ahead("seeded", Seeded(), seeded, store) == Ahead({job.id: job})
    assert replay(Seeded(), seeded, store).resolve(asked((1, 0))) == policy(job.id)


# ---- settings and ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS.names())
def test_a_setting_that_a_method_gets_later_changes_no_id(name: str, tmp_path: Path) -> None:
    """A method hands its jobs what they name, not all its settings: what is new concerns the jobs that take it."""
    method = METHODS.get(name)
    later = create_model("Later", __base__=method.Settings, later=(int, 3))
    inner = METHODS.get("soup")() if method.wraps else None
    before, after = (
        see_ahead(name, method(settings, inner), ONLINE, Store(tmp_path)) for settings in (method.Settings(), later())
    )
    assert before.lost is None
    assert before.jobs
    assert list(after.jobs) == list(before.jobs)


@pytest.mark.parametrize(("kind", "settings"), [("online", AnswersSettings), ("frank-wolfe", FrankWolfeSettings)])
def test_what_a_kind_shares_with_a_methods_settings_is_left_out_of_ids_at_its_defaults(kind: str, settings) -> None:
    assert Job(kind, settings().model_dump()).id == Job(kind).id
    changed = {key: value + 1 for key, value in settings().model_dump().items()}
    assert all(Job(kind, {key: value}).id != Job(kind).id for key, value in changed.items())
