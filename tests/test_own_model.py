"""Bases, data, scorers and a judge of one's own, from docs/own-model.md alone: its files are used as they stand."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import models
import own_study
import scorer_checkpoints as made
from judge_server import JudgeServer
from tiny_run import peo_bench
from transformers import AutoModelForCausalLM, AutoTokenizer

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import Weights, policy
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.data.pairs import pairs_job
from peo_bench.data.schema import PairSource
from peo_bench.engine.engine import Engine, Request
from peo_bench.errors import UsageError
from peo_bench.files.dialogue import to_prompt
from peo_bench.jobs.job import Job
from peo_bench.jobs.store import Store
from peo_bench.models.rendering import answer_end
from peo_bench.process import batch_size, device
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.scorers.trained import scoring_tokenizer
from peo_bench.training.foresight import foresee_adapters

DOCS = (Path(__file__).parents[1] / "docs" / "own-model.md").read_text(encoding="utf-8")
QUICK = [
    *("--workers", "1", "--preferences", "3", "--limit", "24", "--set", "decoding.max_new_tokens=6"),
    *("--set", "training.learning_rate=0.05"),  # so that answers differ from the reference's, and are judged
    *("--set", "validation_prompts=8", "--set", "test_prompts=21", "--set", "judge.prompts=21"),
]


def blocks() -> dict[str, str]:
    """Return the files of the docs by name, and under "prompts" the sources of prompts alone."""
    found = dict(re.findall(r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)```", DOCS, re.DOTALL))
    return found | {"prompts": re.findall(r"```yaml\n(  sources:.*?)```", DOCS, re.DOTALL)[0]}


def study(folder: Path, base: str) -> Path:
    """Write the folder of the docs with tiny models."""
    for name in ("suite.yaml", "task.yaml"):
        (folder / name).write_text(blocks()[name], encoding="utf-8")
    own_study.KINDS[base](folder / "models" / "base")
    made.save_beaver(folder / "cost", objective="harmless", sign=-1.0, score_type="cost")
    (folder / "cost" / "model").rename(folder / "models" / "cost")
    made.save_chat(folder / "reward")
    (folder / "reward" / "model").rename(folder / "models" / "reward")
    safer = own_study.conversations(160, seed=1)
    rows = own_study.conversations(160)
    both = [a | {"safer": b["chosen"], "riskier": b["rejected"]} for a, b in zip(rows, safer, strict=True)]
    own_study.write_rows(folder / "data" / "pairs.jsonl", both)
    asked = [{"prompt": f"What about test {i} ?"} for i in range(20)]
    dialogue = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "And this ?"}]
    own_study.write_rows(folder / "data" / "prompts.jsonl", [*asked, {"prompt": dialogue}])
    return folder


@pytest.fixture(scope="module")
def pairs_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of a Qwen-type model on conversational pairs, judged over loopback; and what the judge was asked."""
    folder = study(tmp_path_factory.mktemp("qwen"), "qwen")
    server = JudgeServer()
    peo_bench(
        folder, "run", "--suite", "suite.yaml", "--methods", "soup", *QUICK, "--judge", f"openai:m@{server.url}",
        "--out", "out",
    )  # fmt: skip
    server.close()
    return folder, [call.prompt for call in server.calls]


def test_a_qwen_type_model_on_conversational_pairs(pairs_run: tuple[Path, list[str]]) -> None:
    folder, asked = pairs_run
    run = json.loads((folder / "out" / "run.json").read_text())
    assert run["status"] == "complete"
    assert not any("left out" in note for note in run["notes"]), "every conversation is used"
    assert any("<|im_end|>" in note for note in run["notes"])
    texts = pd.read_parquet(folder / "out" / "answers.parquet")
    assert {"reward", "cost"} <= set(texts)
    assert not any(name.endswith("_proxy") for name in texts)
    dialogue = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "And this ?"}]
    assert json.dumps(dialogue) in set(texts["prompt"])
    assert "System: Be kind.\n\nUser: And this ?" in asked, "judges read turns, not JSON"
    assert "System: Be kind.\\n\\nUser: And this ?" in (folder / "out" / "report.html").read_text(encoding="utf-8")
    kinds = {path.name.rpartition("-")[0] for path in (folder / "cache" / "peo-bench").rglob("*-*") if path.is_dir()}
    assert "reward-model" not in kinds, "no reward model is trained where checkpoints score"


def test_the_export_answers_in_plain_transformers_as_here(pairs_run: tuple[Path, list[str]]) -> None:
    folder, _ = pairs_run
    peo_bench(folder, "export", "out", "--method", "soup", "--helpful", "0.5", "--to", "mine")
    dialogue = json.dumps([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "And this ?"}])
    asked = ["What about test 1 ?", dialogue]
    said = peo_bench(folder, "steer", "out", "--method", "soup", "--helpful", "0.5", "--json", *asked)
    assert [row["prompt"] for row in json.loads(said.stdout)] == asked
    tokenizer, model = (kind.from_pretrained(folder / "mine") for kind in (AutoTokenizer, AutoModelForCausalLM))
    messages = [{"role": "user", "content": "What about test 1 ?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        out = model.generate(**ids, max_new_tokens=6, do_sample=False)
    assert out.shape[1] > ids["input_ids"].shape[1]


def test_a_llama_type_model_on_prompts_alone(tmp_path: Path) -> None:
    """Prompts and reward models, no pairs: an online method trains, and others say what they need."""
    folder = study(tmp_path, "llama")
    text = re.sub(r"  sources:\n(    - .*\n)+", blocks()["prompts"], (folder / "suite.yaml").read_text())
    (folder / "suite.yaml").write_text(text)
    for name in ("helpful", "harmful"):
        rows = [{"prompt": f"{name} question number {i}"} for i in range(60)]
        own_study.write_rows(folder / "data" / f"prompts-{name}.jsonl", rows)
    peo_bench(folder, "run", "--suite", "suite.yaml", "--methods", "morlhf", *QUICK, "--out", "out")
    assert json.loads((folder / "out" / "run.json").read_text())["status"] == "complete"
    points = pd.read_csv(folder / "out" / "points.csv")
    assert {"morlhf", "expo.morlhf", "reference"} == set(points["method"]), "no control that would need experts"
    refused = peo_bench(folder, "plan", "--suite", "suite.yaml", "--methods", "peo", check=False)
    assert refused.returncode == 2
    assert "peo trains on pairs, and data.sources of suite study hold prompts alone" in refused.stderr
    (folder / "task.yaml").write_text(re.sub(r"    cost: \{.*\n", "", (folder / "task.yaml").read_text()))
    refused = peo_bench(folder, "plan", "--suite", "suite.yaml", "--methods", "morlhf", check=False)
    assert "no model for column 'cost' can be trained: give scorers for every column" in refused.stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.quantization=4bit", "training.quantization=4bit needs a CUDA device, and none is used here"),
        ("training.attention=flash_attention_2", "training.attention=flash_attention_2 needs a CUDA device"),
        ("engine.device=cuda", "engine.device=cuda needs a CUDA device"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_needs_a_gpu_is_one_line_without_one(setting: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        resolve_config(RunRequest(methods="soup", set=[setting, "training.form=lora"]))


def test_a_quantised_trunk_is_trained_under_adapters_alone() -> None:
    with pytest.raises(UsageError, match="quantization 4bit is for form: lora"):
        resolve_config(RunRequest(methods="soup", set=["training.form=full", "training.quantization=4bit"]))


def test_auto_is_settled_by_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded, and what jobs are named by, is a precision: the same suite is float32 here, bfloat16 there."""
    suite = yaml.safe_load(blocks()["suite.yaml"]) | {"task": "peo_pairs", "model": "smollm2"}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    request = RunRequest(suite=str(tmp_path / "s.yaml"), methods="soup")
    here = resolve_config(request).suite
    assert {here.precision, here.training.precision, here.reward_model.precision} == {"float32"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    there = resolve_config(request).suite
    assert {there.precision, there.training.precision, there.reward_model.precision} == {"bfloat16"}
    forced = resolve_config(RunRequest(suite=request.suite, methods="soup", set=["engine.device=cpu"])).suite
    assert (forced.precision, device()) == ("float32", "cpu")
    resolve_config(request)
    assert device() == "cuda", "one run's setting is not the next one's"


def test_the_suite_says_how_many_answers_are_generated_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_config(RunRequest(methods="soup", set=["engine.batch_size=7"]))
    assert batch_size() == 7
    resolve_config(RunRequest(methods="soup"))
    assert batch_size() is None
    monkeypatch.setenv("PEO_BENCH_BATCH_SIZE", "none")
    with pytest.raises(UsageError, match="give a number of answers"):
        batch_size()


@pytest.mark.parametrize(("kind", "layer"), [("gpt2", "transformer.h.0.attn.c_attn"), ("deepseek", "gate_up_proj")])
def test_a_base_whose_adapters_could_not_be_run_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, layer: str
) -> None:
    """PEFT trains adapters on GPT-2's Conv1D and on experts in one parameter; the engine runs neither."""
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    base = models.save_base(tmp_path, "base", getattr(models, kind)()).path / "model"
    with pytest.raises(UsageError, match=rf"{layer}.*type --set training.form=full"):
        foresee_adapters(checkpoint_job(str(base), "base"))
    foresee_adapters(checkpoint_job(str(own_study.KINDS["gemma"](tmp_path / "plain")), "base"))


@pytest.mark.parametrize(
    ("changed", "most"),
    [({"attention": "eager"}, 1e-3), ({"gradient_checkpointing": True}, 1e-6), ({"quantization": "4bit"}, 0.05)],
)
def test_how_a_trunk_is_held_leaves_what_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], most: float
) -> None:
    """Other jobs, and task vectors of the same length; of quantised weights nearly (on bitsandbytes' CPU kernels)."""
    if "quantization" in changed:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    own_study.write_rows(tmp_path / "pairs.jsonl", own_study.conversations())
    reference = checkpoint_job(str(own_study.llama(tmp_path / "base", hidden=128)), "base")
    pairs = pairs_job([PairSource(objective="helpful", path="pairs.jsonl")], ["helpful"], limit=16, data_dir=tmp_path)
    training = {
        "objective": "helpful",
        "seed": 0,
        "batch_size": 8,
        "learning_rate": 0.005,
        "epochs": 3.0,
        "lora_rank": 4,
    }
    store, norms = Store(tmp_path / "cache"), {}
    for params in (training, training | changed):
        job = Job("aspect", params, {"reference": reference, "pairs": pairs})
        for each in (reference, pairs, job):
            store.run(each)
        norms[job.id] = store[job.id].result["task_vector_norm"]
    plain, other = norms.values()
    assert other == pytest.approx(plain, rel=most)


@pytest.mark.parametrize("kind", own_study.KINDS)
def test_each_kind_is_trained_answers_is_exported_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Plain transformers gives the answers that the engine gave, and ends where it ended, on turns of every kind."""
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    own_study.write_rows(tmp_path / "pairs.jsonl", own_study.conversations())
    reference = checkpoint_job(str(own_study.KINDS[kind](tmp_path / "base")), "base")
    pairs = pairs_job([PairSource(objective="helpful", path="pairs.jsonl")], ["helpful"], limit=16, data_dir=tmp_path)
    training = {"objective": "helpful", "seed": 0, "batch_size": 8, "learning_rate": 0.01, "lora_rank": 4}
    expert = Job("aspect", training, {"reference": reference, "pairs": pairs})
    store = Store(tmp_path / "cache")
    for job in (reference, pairs, expert):
        store.run(job)
    assert store[expert.id].result["task_vector_norm"] > 0
    scoring = scoring_tokenizer(store[reference.id].path / "model")
    assert scoring.pad_token_id not in (None, *answer_end(scoring)[-1:]), "reward models can be trained from it too"
    engine = Engine(store.__getitem__, device="cpu")
    spec = policy(reference.id, [(expert.id, 1.0)])
    asked = [[("user", "And this ?")], [("user", "a"), ("assistant", "b"), ("user", "c")]]
    asked += [[("system", "Be kind."), *turns] for turns in asked] if kind != "gemma" else []
    greedy = Decoding(max_new_tokens=24, temperature=0.0)
    answers = engine.generate([Request(spec, to_prompt(turns), str(i)) for i, turns in enumerate(asked)], greedy)
    model, words = engine.materialised(Weights(reference.id, ((expert.id, 1.0),)))
    for part in (model, words):
        part.save_pretrained(tmp_path / "mine")
    plain, tokenizer = (each.from_pretrained(tmp_path / "mine") for each in (AutoModelForCausalLM, AutoTokenizer))
    for turns, answer in zip(asked, answers, strict=True):
        messages = [{"role": role, "content": text} for role, text in turns]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = plain.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert out.tolist() == list(answer.tokens)
