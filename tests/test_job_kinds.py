"""What a job's kind says of it: the defaults that ids leave out, what a run folder keeps, labels, batches."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from preferences import asked

from peo_bench.core.decoding import Decoding, sampling_params
from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.rounds import build_families, replay
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job, JobKind, job_kind
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.runner import Runner
from peo_bench.jobs.store import Store
from peo_bench.training.settings import RECORDED, DPOSettings


def kind(name: str, **said: object) -> JobKind:
    """A kind whose jobs give their rate times ten."""
    return job_kind(name, version=1, **said)(lambda job, inputs, work: {"value": 10 * job.params.get("rate", 0)})


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch):
    """Make a kind known, in place of one of the same name."""
    return lambda added: monkeypatch.setitem(JOB_KINDS._entries, added.name, added)


# ---- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(JOB_KINDS.names()))
def test_what_a_former_version_made_is_not_reused(name, register, tmp_path: Path):
    """As since gradients 4, whose weighted loss takes one backward pass: other bits, another cost."""
    today = JOB_KINDS.get(name)
    register(job_kind(name, version=today.version - 1, defaults=today.defaults)(lambda job, inputs, work: {}))
    old = Store(tmp_path).run(Job(name))
    register(replace(today, result=dict))
    assert Store(tmp_path).get(old.id) is not None
    assert Store(tmp_path).get(Job(name).id) is None


# ---- defaults and ids --------------------------------------------------------------------------------------------


def test_an_id_hashes_what_is_not_at_its_default(register):
    """By hand: the kind, its version, the parameter that departs, no needs."""
    register(kind("test-rate", defaults={"rate": 0.1, "steps": 3}))
    content = json.dumps(["test-rate", 1, {"rate": 0.2}, {}], separators=(",", ":"))
    expected = hashlib.sha256(content.encode()).hexdigest()[:16]
    assert Job("test-rate", {"rate": 0.2}).id == Job("test-rate", {"steps": 3, "rate": 0.2}).id
    assert Job("test-rate", {"rate": 0.2}).id == f"test-rate-{expected}"
    assert Job("test-rate", {"rate": 0.2}).params == {"rate": 0.2, "steps": 3}


def test_an_option_added_later_leaves_ids_and_artefacts_alone(register, tmp_path: Path):
    register(kind("test-rate", defaults={"sampling": {"top_p": 1.0}}))
    old = Job("test-rate", {"rate": 3, "sampling": {"top_p": 0.9}})
    Store(tmp_path).run(old)
    register(kind("test-rate", defaults={"sampling": {"top_p": 1.0, "top_k": 0}, "clip": None}))
    new = Job("test-rate", {"rate": 3, "sampling": {"top_p": 0.9}})
    assert new.id == old.id
    assert (new.params["clip"], new.params["sampling"]["top_k"]) == (None, 0)
    assert Store(tmp_path)[new.id].result == {"value": 30}
    assert Job("test-rate", {"rate": 3, "sampling": {"top_p": 0.9, "top_k": 5}}).id != old.id


def test_a_default_that_changes_takes_no_artefact_of_another_value(register, tmp_path: Path):
    """The id would be the same without a new version; the artefact says what it was made with, and is made again."""
    register(kind("test-rate", defaults={"rate": 1}))
    assert Store(tmp_path).run(Job("test-rate")).result == {"value": 10}
    register(kind("test-rate", defaults={"rate": 2}))
    assert Store(tmp_path).get(Job("test-rate").id) is None
    assert Store(tmp_path).run(Job("test-rate")).result == {"value": 20}


def test_settings_at_their_defaults_are_not_in_the_ids_of_trainings():
    """At those that jobs are recorded with: suites whose defaults were made safer later do not rename what is done."""
    given = {"objective": "helpful", "seed": 0}
    assert Job("aspect", given).id == Job("aspect", given | DPOSettings(**RECORDED).job_params()).id
    assert Job("aspect", given).id != Job("aspect", given | DPOSettings(beta=0.2).job_params()).id
    assert Job("candidates", {"specs": []}).id == Job("candidates", {"specs": [], **sampling_params()}).id
    longer = sampling_params(Decoding(max_new_tokens=65))
    assert Job("candidates", {"specs": []}).id != Job("candidates", {"specs": [], **longer}).id


# ---- what a run folder keeps -------------------------------------------------------------------------------------


class Own(Method):
    """A method with kinds of its own: weights behind a job with a result, and data that it lets go."""

    name = "own"
    reference = "test"

    def build(self, world: World) -> Build:
        data = Job("test-data", {"rate": 1})
        weights = Job("test-weights-of-own", {"rate": 2}, {"data": data})
        found = Job("test-found", {"rate": 3}, {"delta:0": weights})
        handles = yield Round([data, found])
        strength = handles[found.id].result["value"]
        return PolicyFamily(Space("simplex"), lambda w: policy("base", [(weights.id, strength)]))


def test_a_method_with_kinds_of_its_own_is_steered_from_what_is_kept(register, tmp_path: Path):
    register(kind("test-data", keeps="nothing"))
    register(kind("test-weights-of-own"))
    register(kind("test-found", keeps="result"))
    world = SimpleNamespace(reference=SimpleNamespace(id="base"), proxies={}, evaluation={}, preferences=[])
    with Runner(tmp_path / "cache") as runner:
        built = build_families(runner, {"own": Own()}, world, []).families["own"]
    runner.store.copy_to(tmp_path / "kept", built.kept)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["test-found", "test-weights-of-own"]
    again = replay(Own(), world, Store(tmp_path / "kept"))
    assert again.resolve(asked((1.0, 0.0))) == built.family.resolve(asked((1.0, 0.0)))
    with pytest.raises(UsageError, match="is missing: repeat the run"):
        replay(Own(), world, Store(tmp_path / "empty"))


# ---- labels and batches ------------------------------------------------------------------------------------------


def test_kinds_say_what_tells_their_jobs_apart():
    assert Job("aspect", {"objective": "helpful", "seed": 3}).label == "aspect helpful"
    assert Job("modpo", {"objective": "helpful", "weight": 0.5}).label == "modpo helpful 0.5"
    assert Job("gradients", {"combiner": "raco", "weights": [0.5, 0.5]}).label == "gradients raco [0.5, 0.5]"
    assert Job("sandbox-prompts", {"test": 3}).label == "sandbox-prompts"


def test_a_batch_differs_in_nothing_but_the_policy(register):
    """Also not in the order of the needs."""
    register(kind("test-rate"))
    a, b, c = (Job("test-rate", {"rate": rate}) for rate in (1, 2, 3))

    def answers(spec: str, n: int = 8, **needs: Job) -> str:
        return JOB_KINDS.get("answers").batch(Job("answers", {"spec": spec, "n_prompts": n}, needs))

    first = answers("one", reference=a, **{"scorer:reward": b, "delta:x": c})
    assert first == answers("other", **{"delta:y": a, "scorer:reward": b}, reference=a)
    assert first != answers("one", reference=a, **{"scorer:reward": c, "delta:x": c})
    assert first != answers("one", n=9, reference=a, **{"scorer:reward": b, "delta:x": c})
