"""What a killed job had computed is not computed again: memos, and every kind of job that keeps one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import models
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_fixtures import handle, save_pairs, save_policy, shared_log_probs, workspace

from peo_bench.core.roles import MARGIN_LOG_PROBS
from peo_bench.core.spec import policy, spec_from_json
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.data.sources import LOCATIONS
from peo_bench.engine.engine import Answer, Engine
from peo_bench.evaluation import answering
from peo_bench.files import journal
from peo_bench.files.journal import Memo
from peo_bench.jobs.job import Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import Store
from peo_bench.training import aspect

# ---- memos -------------------------------------------------------------------------------------------------------


def test_a_memo_is_written_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short jobs write nothing; what a kill leaves is what was written."""
    now = [0.0]
    monkeypatch.setattr(journal.time, "monotonic", lambda: now[0])
    memo = Memo(tmp_path / "m.jsonl")
    assert memo.value("a", lambda: 1) == 1
    assert not (tmp_path / "m.jsonl").exists()
    now[0] = journal.KEEP_SECONDS
    assert memo.value(["b", 2], lambda: [2.5, None]) == [2.5, None]
    memo.value("c", lambda: 3)
    again = Memo(tmp_path / "m.jsonl")
    assert [key in again for key in ("a", ["b", 2], "c")] == [True, True, False]
    assert again.value("a", lambda: pytest.fail("is kept")) == 1


@settings(max_examples=30, deadline=None)
@given(values=st.dictionaries(st.text(max_size=4), st.floats(width=32), max_size=6), cut=st.integers(0, 400))
def test_a_torn_memo_gives_back_what_is_whole(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, float], cut: int
) -> None:
    """Numbers come back to the last bit, and what JSON cannot hold is computed again."""
    path = tmp_path_factory.mktemp("memo") / "m.jsonl"
    memo = Memo(path)
    for key, value in values.items():
        memo.value(key, partial(float, value))
        memo.write()
    if path.exists():
        path.write_bytes(path.read_bytes()[:cut])
    again = Memo(path)
    for key, value in values.items():
        assert key not in again or (again[key] == value and math.copysign(1, again[key]) == math.copysign(1, value))
        found = again.value(key, partial(float, value))
        assert found == value or math.isnan(value)
        assert (key in again) == math.isfinite(value)


@pytest.mark.parametrize("line", ["[" * 100_000, "NaN", "7", "[]", '"x"', "Infinity"])
def test_lines_that_are_no_records_of_a_memo(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f"0123456789abcdef {line}\n")
    assert "a" not in Memo(path)
    path.unlink()
    journal.Journal(path).append([1])
    assert "a" not in Memo(path), "a journal of something else"


# ---- jobs --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill is within one process."""


@dataclass
class Machine:
    """Counts what is computed, and kills after so much of it."""

    computed: int = 0
    limit: float = math.inf
    answered: list[tuple[str, str]] = field(default_factory=list)
    """By which policy, to which prompt."""

    def restarted(self, limit: float = math.inf) -> None:
        self.computed, self.limit, self.answered = 0, limit, []

    def count(self) -> None:
        if self.computed >= self.limit:
            raise Killed
        self.computed += 1


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Memos are written at once, and whatever they keep is counted when it is computed."""
    machine, value, generate = Machine(), Memo.value, Engine._generate
    monkeypatch.setattr(journal, "KEEP_SECONDS", 0.0)

    def counted(self: Memo, key: Any, compute: Callable[[], Any]) -> Any:
        def computing() -> Any:
            machine.count()
            return compute()

        return value(self, key, computing) if self is not journal.FORGETFUL else compute()

    def generating(self: Engine, requests: list[Any], *more: Any) -> list[Answer]:
        machine.count()
        machine.answered += [(request.spec.key, request.prompt_id) for request in requests]
        return generate(self, requests, *more)

    monkeypatch.setattr(Memo, "value", counted)
    monkeypatch.setattr(Engine, "_generate", generating)
    return machine


PARAMS: dict[str, Any] = {
    **{"seed": 1, "form": "lora", "beta": 0.2, "learning_rate": 5e-3, "epochs": 2.0},
    **{"batch_size": 8, "micro_batch_size": 8, "lora_rank": 4, "lora_alpha": 8},
}
NAMES = ("helpful", "harmless")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    """A reference, pairs and two experts."""
    root = tmp_path_factory.mktemp("experts")
    made = {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs")}
    for name in NAMES:
        job = Job("aspect", PARAMS | {"objective": name})
        made[name] = handle(root / name, aspect.train_aspect.run(job, made, workspace(root / name)))
    read = {"objective": "helpful", "batch_size": 8, "micro_batch_size": 8}
    made[MARGIN_LOG_PROBS] = shared_log_probs(made | {"policy": made["harmless"]}, root / "log-probs", **read)
    return made


def frank_wolfe(found: dict[str, Handle]) -> tuple[Job, dict[str, Handle]]:
    params = PARAMS | {"objectives": list(NAMES), "weights": [0.3, 0.7], "pairs": 12, "iterations": 4}
    deltas = {f"delta:{i}": found[name] for i, name in enumerate(NAMES)}
    return Job("frank-wolfe", params), {"reference": found["reference"], "pairs": found["pairs"], **deltas}


def expert(found: dict[str, Handle]) -> tuple[Job, dict[str, Handle]]:
    """The reference's log-probabilities of six batches of pairs."""
    return Job("aspect", PARAMS | {"objective": "helpful"}), found


def kto_expert(found: dict[str, Handle]) -> tuple[Job, dict[str, Handle]]:
    return Job("aspect", PARAMS | {"objective": "helpful", "learner": "kto"}), found


def modpo(found: dict[str, Handle]) -> tuple[Job, dict[str, Handle]]:
    """The reference's log-probabilities; the margin's are a job's own."""
    params = PARAMS | {"objective": "helpful", "weight": 0.5, "margin_beta": 0.3}
    return Job("modpo", params), found | {"margin": found["harmless"]}


def log_probs(found: dict[str, Handle]) -> tuple[Job, dict[str, Handle]]:
    params = {"objective": "helpful", "batch_size": 8, "micro_batch_size": 8}
    return Job("log-probs", params), found | {"policy": found["harmless"]}


def reward_model(found: dict[str, Handle]) -> tuple[Job, dict[str, Handle]]:
    """Held-out pairs, scored with the finished model: chosen, then rejected answers."""
    params = {"objective": "helpful", "direction": "reward", "seed": 1, "epochs": 1.0, "learning_rate": 2e-3}
    return Job("reward-model", params), found


KEEPING = {job.__name__: job for job in (frank_wolfe, expert, kto_expert, modpo, log_probs, reward_model)}


@pytest.mark.parametrize("name", KEEPING)
def test_a_killed_job_computes_the_rest(found: dict[str, Handle], machine: Machine, tmp_path: Path, name: str) -> None:
    """Killed in the middle of what it keeps; the second attempt does the rest, and the result is the same."""
    job, inputs = KEEPING[name](found)
    run = JOB_KINDS.get(job.kind).run
    whole = run(job, inputs, workspace(tmp_path / "whole"))
    n = machine.computed
    assert n >= 2
    machine.restarted(limit=n // 2)
    with pytest.raises(Killed):
        run(job, inputs, workspace(tmp_path / "work"))
    machine.restarted()
    work = workspace(tmp_path / "work")
    assert run(job, inputs, work) == whole
    assert machine.computed == n - n // 2
    files = [path for path in (tmp_path / "whole").rglob("*.safetensors") if "scratch" not in path.parts]
    for path in files:
        assert (tmp_path / "work" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


# ---- answers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Job]]:
    """A store with a base, two fine-tunes of it and prompts; the jobs that evaluate the three policies."""
    monkeypatch.setenv(LOCATIONS, json.dumps({}))
    made = models.standard(tmp_path / "made")
    root = tmp_path / "store"
    base = checkpoint_job(str(made["base"].path / "model"), "base")
    deltas = [checkpoint_job(str(made[name].path / "model"), "delta", base) for name in ("full-a", "full-b")]
    store = Store(root)
    for job in (base, *deltas):
        store.run(job)
    prompts = Job("sandbox-prompts")
    rows = [{"prompt_id": f"p{i}", "prompt": p, "category": "", "split": "test"} for i, p in enumerate(models.PROMPTS)]

    def write(work: Any) -> dict[str, Any]:
        (work.dir / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {}

    store.adopt(prompts, write, 0.0)
    specs = [policy(base.id), *(policy(base.id, [(delta.id, 0.5)]) for delta in deltas)]
    params = {"split": "test", "n_prompts": 5, "scorers": {}, "seed": 0, "sampling": {"max_new_tokens": 6}}
    needs = {"reference": base, "prompts": prompts} | {f"delta:{delta.id}": delta for delta in deltas}
    monkeypatch.setattr(
        answering, "make_engine", lambda artefact, *more: Engine(artefact, device="cpu", batch_size=2, noise_seed=0)
    )
    return root, [Job("answers", params | {"spec": spec.to_json()}, needs) for spec in specs]


def test_answers_are_found_again_in_another_group(policies: tuple[Path, list[Job]], machine: Machine) -> None:
    """A batch of two policies is killed; one of them comes back with a third one, the other alone."""
    root, (one, two, three) = policies
    machine.restarted(limit=4)
    with pytest.raises(Killed):
        Store(root).run_together([one, two])
    first = set(machine.answered)
    assert {policy for policy, _ in first} == {spec_from_json(job.params["spec"]).key for job in (one, two)}
    machine.restarted()
    Store(root).run_together([two, three])
    Store(root).run_together([one])
    second = machine.answered
    assert len(second) == len(set(second)) == 15 - len(first)
    assert not first & set(second)
    clean = root.with_name("clean")
    Store(root).copy_to(clean, [need.id for need in one.needs.values()])
    for job in (one, two, three):
        Store(clean).run_together([job])
        table, undisturbed = (answering.read_answers(Store(where)[job.id]) for where in (root, clean))
        pd.testing.assert_frame_equal(table, undisturbed, check_exact=True)
        assert not list((root / "partial").iterdir())


def test_of_policies_that_are_scored_one_by_one_finished_ones_stay(
    policies: tuple[Path, list[Job]], machine: Machine
) -> None:
    """Killed while the KL of the last policy is computed."""
    root, jobs = policies
    Store(root).run_together(jobs[:1])
    n = machine.computed
    machine.restarted()
    Store(root).run_together(jobs[1:2])
    assert machine.computed > n, "the reference has no KL to compute"
    (root / "answers" / jobs[1].id).rename(root / "moved")
    machine.restarted(limit=machine.computed - 1)
    with pytest.raises(Killed):
        Store(root).run_together(jobs[1:2])
    machine.restarted()
    Store(root).run_together(jobs[1:2])
    assert machine.computed == 1
    again, before = (
        pd.read_parquet(where / "answers.parquet") for where in (root / "answers" / jobs[1].id, root / "moved")
    )
    pd.testing.assert_frame_equal(again, before, check_exact=True)
