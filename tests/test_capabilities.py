"""lm-eval's tasks on policies: against HFLM on merged weights, against plain log-likelihoods, as jobs of the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from peo_bench.core.spec import policy
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.data.sources import LOCATIONS
from peo_bench.engine.engine import Engine
from peo_bench.errors import UsageError
from peo_bench.jobs.store import Store
from peo_bench.lm_eval import capabilities
from peo_bench.lm_eval.capabilities import capability_identity, capability_job, measure_together
from tests import models
from tests.test_engine import SPECS

WORDS = models.WORDS
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1}}
"""
ANSWER = """
task: tiny_answer
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: [" {stop}"], max_gen_toks: 6}}
process_results: !function views.views
metric_list: [{{metric: letters, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""
TEXT = """
task: tiny_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}]
metadata: {{version: 1}}
"""


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv(LOCATIONS, "{}")


def questions(n: int = 24) -> list[dict]:
    rng = np.random.default_rng(0)

    def text(k):
        return " ".join(rng.choice(WORDS, k))

    rows = [{"question": text(5), "choices": [text(1), text(2), text(3)], "gold": int(rng.integers(3))}]
    for _ in range(n - 1):
        rows.append({"question": text(6), "choices": [text(1), text(2), text(3)], "gold": int(rng.integers(3))})
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three tasks as YAML files with their data."""
    where = tmp_path_factory.mktemp("tasks")
    data = where / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in questions()))
    (where / "views.py").write_text("def views(doc, results):\n    return {'letters': float(len(results[0]))}\n")
    for name, text in (("tiny_choice", CHOICE), ("tiny_answer", ANSWER), ("tiny_text", TEXT)):
        (where / f"{name}.yaml").write_text(text.format(data=data, stop="red"))
    return where


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Engine:
    artefacts = models.standard(tmp_path_factory.mktemp("artefacts"))
    return Engine(artefacts.__getitem__, device="cpu", batch_size=16)


def measured(lm, folder: Path, name: str) -> dict[str, float]:
    from lm_eval.evaluator import evaluate

    tasks = capabilities._load(capability_identity(str(folder / f"{name}.yaml")))
    results = evaluate(lm, tasks, bootstrap_iters=100, log_samples=False)["results"][name]
    return {key: value for key, value in results.items() if isinstance(value, float)}


@pytest.mark.parametrize("name", ["tiny_choice", "tiny_answer", "tiny_text"])
@pytest.mark.parametrize("spec", ["lora", "full"])
def test_equal_to_hflm_on_merged_weights(engine, folder, name, spec):
    """Every kind of request gives what lm-eval's own model class gives for the same policy."""
    from lm_eval.models.huggingface import HFLM

    from peo_bench.lm_eval.policy_lm import PolicyLM

    chosen = next(s for key, s in SPECS.items() if key.startswith(spec) and len(s.mix) == 1)
    model, tokenizer = engine.materialised(chosen.mix[0][1])
    expected = measured(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu"), folder, name)
    found = measured(PolicyLM(engine, chosen), folder, name)
    assert found.keys() == expected.keys()
    assert len(found) >= 1
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4)


def plain_accuracy(engine: Engine, spec) -> float:
    """Accuracy from plain log-likelihoods of a (mixed) policy: merged models, one text at a time, no lm-eval."""
    right = []
    for row in questions():
        scores = []
        for choice in row["choices"]:
            total = 0.0
            for a, weights in spec.mix:
                model, tokenizer = engine.materialised(weights)
                context = tokenizer.encode(row["question"])
                ids = tokenizer.encode(f"{row['question']} {choice}")
                with torch.no_grad():
                    total = total + a * model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
            picked = total.log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]]
            scores.append(float(picked[len(context) - 1 :].sum()))
        right.append(int(np.argmax(scores)) == row["gold"])
    return float(np.mean(right))


def test_a_mixture_of_policies_by_plain_log_likelihoods(engine, folder):
    """MOD's policies have no weights of their own; the engine's likelihoods serve lm-eval all the same."""
    from peo_bench.lm_eval.policy_lm import PolicyLM

    mixed = next(spec for spec in SPECS.values() if len(spec.mix) > 1)
    found = measured(PolicyLM(engine, mixed), folder, "tiny_choice")
    assert found["acc,none"] == pytest.approx(plain_accuracy(engine, mixed))
    single = next(spec for spec in SPECS.values() if len(spec.mix) == 1)
    assert measured(PolicyLM(engine, single), folder, "tiny_choice")["acc,none"] == pytest.approx(
        plain_accuracy(engine, single)
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a base policy and two full fine-tunes of it."""
    where = tmp_path_factory.mktemp("policies")
    made = models.standard(where)
    store = Store(where / "store")
    base = checkpoint_job(str(made["base"].path / "model"), "base")
    store.run(base)
    deltas = [checkpoint_job(str(made[name].path / "model"), "delta", base) for name in ("full-a", "full-b")]
    for delta in deltas:
        store.run(delta)
    return store, base, {delta.id: delta for delta in deltas}


def test_results_are_jobs_that_are_reused(store, folder, monkeypatch):
    place, base, deltas = store
    specs = [policy(base.id), *(policy(base.id, [(name, 1.0)]) for name in deltas)]
    jobs = {}
    for name in ("tiny_choice", "tiny_text"):
        task = capability_identity(str(folder / f"{name}.yaml"))
        jobs[name] = [capability_job(base, spec, deltas, task, 10, "float32") for spec in specs]
        measure_together(place, jobs[name], lambda *event: None)
    assert len({job.id for several in jobs.values() for job in several}) == 6
    accuracy, normalised = place[jobs["tiny_choice"][0].id].result["rows"]
    assert [accuracy["metric"], normalised["metric"]] == ["acc", "acc_norm"]
    p = accuracy["value"]
    assert round(10 * p, 9) in range(11)
    assert accuracy["se"] == pytest.approx(np.sqrt(p * (1 - p) / 9))
    perplexities = {place[job.id].result["rows"][0]["value"] for job in jobs["tiny_text"]}
    assert len(perplexities) == 3, "every policy gives its own answers, never another's cached ones"

    import lm_eval.evaluator

    monkeypatch.setattr(lm_eval.evaluator, "evaluate", lambda *a, **k: pytest.fail("was measured again"))
    measure_together(place, jobs["tiny_choice"], lambda *event: None)


def test_a_changed_file_is_another_task(folder, tmp_path):
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tiny_answer.yaml"
    first = capability_identity(str(path))
    assert first == capability_identity(str(path))
    (tmp_path / "views.py").write_text("def views(doc, results):\n    return {'letters': 1.0}\n")
    assert capability_identity(str(path)) != first
    data = folder / "items.jsonl"
    assert json.dumps(str(data)) not in json.dumps(first), "where data lies is no part of the identity"


def test_unknown_names_and_files_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(capabilities, "_known", lambda: frozenset({"arc_easy"}))
    assert capability_identity("arc_easy") == {"task": "arc_easy"}
    with pytest.raises(UsageError, match=r"no such task: `lm-eval ls tasks`"):
        capability_identity("arc_eazy")
    with pytest.raises(UsageError, match="no such file"):
        capability_identity(str(tmp_path / "x.yaml"))
