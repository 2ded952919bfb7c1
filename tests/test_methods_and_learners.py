"""What methods make of experts that are given or that another learner than DPO has trained."""

from __future__ import annotations

from typing import Any

import pytest
from preferences import asked
from test_closed_form import world

from peo_bench.core.method import World
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job
from peo_bench.methods import METHODS, make_method
from peo_bench.suites.suite import load_suite, with_settings

HALF = asked((0.5, 0.5))


def trained_by(learner: str, **settings: Any) -> World:
    suite = with_settings(load_suite("sandbox"), {"training.learner": learner, **settings})
    return World(**{**vars(world()), "training": suite.training.job_params()})


@pytest.mark.parametrize("learner", ["dpo", "robust", "kto"])
def test_modpo_reads_the_expert_where_its_reward_is_known(learner: str) -> None:
    """beta log pi/pi_ref with the experts' own beta, 0.3 unless it is set for them."""
    here = trained_by(learner)
    job = make_method("modpo").job(here, HALF)
    assert (job.needs["margin"], job.params["margin_beta"]) == (here.aspect("harmless"), 0.3)
    other = make_method("modpo").job(trained_by(learner, **{"training.learner_beta": 0.7}), HALF)
    assert (other.params["margin_beta"], other.params["beta"]) == (0.7, 0.3)


@pytest.mark.parametrize("learner", ["simpo", "cpo", "orpo", "ln-dpo", "ipo-mean", "f-js", "f-forward-kl", "flex-dpo"])
def test_modpo_trains_a_margin_of_its_own_where_the_expert_has_none(learner: str) -> None:
    """It is the suite's DPO expert at the suite's beta; a vertex is still the other objective's expert."""
    here = trained_by(learner)
    job = make_method("modpo").job(here, HALF)
    assert job.needs["margin"] == trained_by("dpo").aspect("harmless") != here.aspect("harmless")
    assert (job.params["margin_beta"], job.params["beta"]) == (0.3, 0.3)
    assert make_method("modpo").job(here, asked((0.0, 1.0))) == here.aspect("harmless")


def test_modpo_does_not_guess_the_beta_of_a_given_expert() -> None:
    given = Job("checkpoint", {"path": "expert"})
    plain = trained_by("dpo")
    here = World(**{**vars(plain), "experts": {"harmless": given}})
    job = make_method("modpo").job(here, HALF)
    assert job.needs["margin"] == plain.aspect("harmless")
    assert make_method("modpo").job(here, asked((0.0, 1.0))) == given


@pytest.mark.parametrize("learner", ["f-forward-kl", "f-js", "f-alpha"])
def test_mod_refuses_experts_that_mix_otherwise(learner: str) -> None:
    with pytest.raises(UsageError, match=f"mod: experts of the learner {learner} do not mix by log-probabilities"):
        next(make_method("mod").build(trained_by(learner)))
    next(make_method("mod").build(trained_by("kto")))


def test_sacpo_sets_the_beta_of_its_second_step_for_any_learner() -> None:
    (job,) = next(make_method("sacpo", {"sacpo": {"beta": 0.05}}).build(trained_by("simpo"))).jobs
    assert job.params["learner_beta"] == 0.05


@pytest.mark.parametrize(("epochs", "units"), [(1.0, 1.0), (0.25, 0.25)])
def test_online_methods_have_the_experts_steps_and_rows(epochs: float, units: float) -> None:
    """64 pairs a batch are 128 answers; an expert that sees a quarter of its pairs has a quarter of the steps."""
    here = trained_by("dpo", **{"training.epochs": epochs})
    job = make_method("morlhf").job(here, HALF)
    assert (job.params["batch_size"], job.params["micro_batch_size"], job.params["units"]) == (128, 128, units)
    assert job.params["beta"] == 0.2


def test_no_control_extrapolates_what_has_searched_already() -> None:
    """ExPO on it would be a second search on top of the first: more evaluations than others have."""
    searches = {name for name in METHODS.names() if "budget" in METHODS.get(name).Settings.model_fields} - {"expo"}
    assert {"peo", "map", "ties", "peo-bonesoup"} <= searches
    assert not any(METHODS.get(name).expo_adds for name in searches)
