"""Does it fit, how long, how much: sizes as published, formulas as counted and measured, what cannot fit refused."""

from __future__ import annotations

import json
from pathlib import Path

import memory as benchmark
import pytest

from peo_bench.errors import UsageError
from peo_bench.models.known import KNOWN
from peo_bench.models.sizes import sizes_at, sizes_of
from peo_bench.runs import memory
from peo_bench.runs.devices import GPUS, Gpu, gpu_called
from peo_bench.runs.fit import Asked, Need, Resources, parse_rates
from peo_bench.runs.memory import Memory
from peo_bench.training.settings import DPOSettings

RESULTS = json.loads((Path(benchmark.__file__).parent / "results" / "memory.json").read_text())
GIB = 2**30


def test_sizes_are_those_that_are_published():
    published = {"google/gemma-2b": 2_506_172_416, "meta-llama/Meta-Llama-3-8B": 8_030_261_248, "smollm2": 134_515_008}
    assert {name: sizes_at(name).parameters for name in published} == published
    llama = sizes_at("PKU-Alignment/beaver-7b-v1.0-reward@main")
    assert llama.parameters == 6_738_415_616 + 2 * llama.hidden, "Llama 1's, and a row for padding on both ends"
    assert sizes_at("Ray2333/gpt2-large-helpful-reward_model").parameters == 774_030_080
    assert llama.linear == 32 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    assert set(published) <= set(KNOWN)


def test_a_folder_tells_its_sizes_and_an_unknown_place_does_not(tmp_path):
    case = benchmark.CASES["full, fp32"]
    benchmark.config(case).save_pretrained(tmp_path / "model")
    assert sizes_at(str(tmp_path)) == sizes_at(str(tmp_path / "model")) == sizes_of(benchmark.config(case))
    assert sizes_at("nobody/knows") is None


@pytest.mark.parametrize("form", ["lora", "full"])
def test_what_a_layer_keeps_is_counted_exactly(form):
    """Against what autograd really saves, storage by storage: the difference of three layers and one."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokens, rank = 128, 3

    def saved(layers: int) -> int:
        model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=32, num_hidden_layers=layers))
        if form == "lora":
            model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
        own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = (storage.nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = model.train()(input_ids=torch.ones(1, tokens, dtype=torch.int64), use_cache=False)
        assert out.logits.requires_grad
        return sum(size for size, _ in kept.values())

    config = LlamaConfig(**shape, vocab_size=32, num_hidden_layers=1)
    said = memory.kept_per_token(sizes_of(config), DPOSettings(form=form, lora_rank=rank), "cpu")
    assert (saved(3) - saved(1)) / 2 / tokens == pytest.approx(said, abs=25), "six numbers of attention and norms"


@pytest.mark.parametrize("name", RESULTS)
def test_the_formulas_are_within_a_fifth_of_measured_peaks(name):
    """Of runs that took 1 GB and more; the formula is computed anew, so that it cannot drift from what was measured."""
    row, parts = RESULTS[name], benchmark.formula(benchmark.CASES[name])
    assert row["measured"] >= 1e9
    assert 0.8 <= sum(parts.values()) / row["measured"] <= 1.2, row


def test_every_case_was_measured_and_the_document_says_how():
    assert set(RESULTS) == set(benchmark.CASES)
    document = Path(__file__).parents[1] / "docs" / "fit.md"
    assert benchmark.table(RESULTS) in document.read_text(encoding="utf-8"), (
        "docs/fit.md is stale: paste what `python benchmarks/memory.py` prints last"
    )
    for gpu in GPUS.values():
        assert f"| `{gpu.name}` |" in document.read_text(encoding="utf-8")


# ---- plan --gpu ------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(peo_bench, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def typed(*args: str, suite: str = "paper-llama1-7b"):
        return peo_bench("plan", "--suite", suite, "--methods", "peo,modpo", *args)

    return typed


def test_a_paper_suite_is_planned_without_a_network(plan):
    rates = "generate=1000,train=2000,read=8000"
    code, out, err = plan("--gpu", "h100", "--tokens-per-second", rates, "--price-per-hour", "2", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    notes = [note for stage in found["stages"] for note in stage.get("notes", ())]
    assert any("Not looked up" in note and "PKU-Alignment/alpaca-7b-reproduced" in note for note in notes)
    needed = found["resources"]
    stages = {stage["stage"]: stage for stage in needed["stages"]}
    weights = 2 * sizes_at("PKU-Alignment/alpaca-7b-reproduced").parameters
    assert stages["aspect"]["memory"]["weights"] == stages["log-probs"]["memory"]["weights"] == weights
    pairs = 2 * 9000 * 3
    assert stages["aspect"]["hours"] == pytest.approx(pairs * 2 * 512 / 2000 / 3600)
    assert needed["usd"] == pytest.approx(2 * needed["hours"])
    assert needed["hours"] == pytest.approx(sum(stage["hours"] for stage in needed["stages"]))
    assert needed["host_bytes"] == 2 * weights, "fp32"
    assert needed["download_bytes"]["PKU-Alignment/alpaca-7b-reproduced"] == weights
    assert all(stage["memory_bytes"] >= stage["least_bytes"] for stage in needed["stages"])


def test_what_is_not_known_is_asked_for(plan):
    code, out, _ = plan("--gpu", "a100-80")
    assert code == 0
    said = " ".join(out.split())
    assert "How long it takes is not known: give --tokens-per-second generate=N,read=N,train=N" in said
    assert "a100-80: " in said
    assert "To download: about 40.6 GB" in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--gpu", "rtx4090"), "error: answers needs 42.9 GiB at the least (weights 13.1, scorers' weights 25.1, "),
        (("--gpu", "rtx4090"), "and rtx4090 has 21.8 for it: no setting of ours makes it fit: take a larger device"),
        (("--gpu", "h100", "--set", "training.form=full"), "--set training.form=lora"),
        (
            (
                "--gpu",
                "h100",
                "--set",
                "training.gradient_checkpointing=false",
                "--set",
                "training.micro_batch_size=48",
            ),
            "has 74.7 for it: --set training.gradient_checkpointing=true (",
        ),
        (("--gpu", "titan"), "unknown --gpu 'titan'"),
        (("--gpu", "h100", "--tokens-per-second", "fast"), "--tokens-per-second 'fast': type a number above 0, or "),
        (("--tokens-per-second", "5"), "belong to --gpu: add --gpu h100, for instance"),
    ],
)
def test_what_cannot_be_is_one_line_with_what_to_type(plan, args, said):
    code, out, err = plan(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_suite_that_trains_its_own_model_has_no_question(peo_bench):
    code, _, err = peo_bench("plan", "--gpu", "cpu")
    assert (code, err.count("\n")) == (2, 1)
    assert "suite sandbox trains a model of its own that fits anywhere" in err


def test_rates_and_money():
    assert parse_rates(None) == {}
    assert parse_rates("4000") == {"generate": 4000}
    assert parse_rates("train=9e3, read=2") == {"train": 9000, "read": 2}
    for wrong in ("read=0", "sing=3", "nan", "read=inf"):
        with pytest.raises(UsageError, match="type a number above 0"):
            parse_rates(wrong)
    asked = Asked(GPUS["h100"], {})
    nothing = Memory()
    hours = Resources(asked, (Need("a", nothing, nothing, 1.5), Need("b", nothing, nothing, 0.5)), 0, {}, 0)
    assert (hours.hours, hours.usd) == (2.0, 2.0 * GPUS["h100"].usd_per_hour)
    assert Resources(asked, (Need("a", nothing, nothing, None),), 0, {}, 0).usd is None
    assert all(gpu.usable < gpu.memory for gpu in GPUS.values())
    here = gpu_called("cpu")
    assert isinstance(here, Gpu)
    assert here.usd_per_hour is None


def test_what_finished_jobs_took_here_is_used_on_the_same_device(plan, tmp_path, monkeypatch):
    from peo_bench.runs import fit

    monkeypatch.setattr(fit, "is_here", lambda gpu: True)
    for number, (seconds, pairs) in enumerate(((30.0, 10), (90.0, 20))):
        place = tmp_path / "cache" / "peo-bench" / "aspect" / f"aspect-{number}"
        place.mkdir(parents=True)
        meta = {"kind": "aspect", "needs": {"reference": "R"}, "seconds": seconds, "cost": {"pairs_trained": pairs}}
        (place / "meta.json").write_text(json.dumps(meta))
    (place.parent / "aspect-damaged").mkdir()
    (place.parent / "aspect-damaged" / "meta.json").write_text("no JSON")
    assert fit._measured(tmp_path / "cache" / "peo-bench", "R") == {"aspect": {"pairs_trained": 4.0}}
    rates = {"aspect": {"pairs_trained": 4.0}, "answers": {"tokens_generated": 0.5}}
    monkeypatch.setattr(fit, "_measured", lambda cache, reference: rates)
    code, out, _ = plan("--gpu", "h100", "--json")
    needed = json.loads(out)
    stages = {stage["stage"]: stage for stage in needed["resources"]["stages"]}
    assert (code, stages["aspect"]["by"]) == (0, "measured here")
    assert stages["aspect"]["hours"] == pytest.approx(2 * 9000 * 3 * 4.0 / 3600)
    (last,) = (stage for stage in needed["stages"] if stage["stage"] == "answers (test, benign)")
    tokens = last["cost"]["tokens_generated"]
    assert stages["answers (test, benign)"]["hours"] == pytest.approx(tokens * 0.5 / 3600), "as other answers took"
    assert needed["resources"]["hours"] == pytest.approx(sum(stage["hours"] for stage in stages.values()))


def test_pairs_without_a_number_leave_the_hours_of_training_open(plan):
    rates = "generate=1000,train=2000,read=8000"
    code, out, _ = plan("--gpu", "h100", "--tokens-per-second", rates, "--set", "data.pairs=null")
    assert code == 0
    assert "How long it takes is not known: how many pairs there are is not known: set data.pairs;" in " ".join(
        out.split()
    )


def test_scorers_that_the_run_trains_stand_beside_the_policy_too(plan):
    own = ("--set", "proxies={}", "--set", "own_proxies=true", "--gpu", "h100", "--json")
    wide = ("--set", "reward_model.precision=float32", "--set", "reward_model.micro_batch_size=16")
    wide += ("--set", "reward_model.gradient_checkpointing=false")
    code, _, err = plan(*own, *wide, suite="paper-gemma-2b")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: reward-model needs 99.3 GiB at the least (weights 9.3, ")
    assert "and h100 has 74.7 for it: --set reward_model.precision=bfloat16 (" in err
    code, out, err = plan(*own, suite="paper-gemma-2b")
    assert code == 0, err
    needed = json.loads(out)["resources"]
    assert code == 0
    (answers,) = (stage for stage in needed["stages"] if stage["stage"] == "answers")
    pairs = [2 * sizes_at(name).parameters for name in ("PKU-Alignment/beaver-7b-v1.0-cost", "google/gemma-2b")]
    assert answers["memory"]["scorers' weights"] == 2 * sum(pairs), "the task's two, and two of its own"


def test_settings_of_the_device_are_planned_on_another(plan):
    """Which refuses them where it would run them."""
    code, out, err = plan("--gpu", "h100", "--set", "training.quantization=4bit", "--json")
    assert code == 0, err
    (aspect,) = (stage for stage in json.loads(out)["resources"]["stages"] if stage["stage"] == "aspect")
    assert aspect["memory"]["weights"] < sizes_at("PKU-Alignment/alpaca-7b-reproduced").parameters
    assert plan("--set", "training.quantization=4bit")[0] == 2


def test_what_is_not_said_is_what_the_device_computes_in_and_qlora_holds_less():
    sizes = sizes_at("PKU-Alignment/alpaca-7b-reproduced")
    gpu, cpu = (memory.training_memory(sizes, DPOSettings(), device).parts["weights"] for device in ("cuda", "cpu"))
    assert (gpu, cpu) == (2 * sizes.parameters, 4 * sizes.parameters)
    quantised = memory.training_memory(sizes, DPOSettings(quantization="4bit"), "cuda").parts["weights"]
    assert sizes.matrices == 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert quantised == pytest.approx(0.516 * sizes.matrices + 2 * (sizes.parameters - sizes.matrices))


@pytest.mark.parametrize("suite", ["paper-gemma-2b", "paper-llama1-7b", "paper-llama3-8b", "pku-11"])
def test_the_document_of_paper_runs_says_what_plan_says(plan, suite):
    code, out, err = plan("--gpu", "h100", "--json", suite=suite)
    assert code == 0, err
    found = json.loads(out)
    needed = found["resources"]
    stages = {stage["stage"]: stage for stage in needed["stages"]}
    totals = {
        key: sum(stage["cost"].get(key, 0) for stage in found["stages"])
        for key in ("pairs_trained", "tokens_generated")
    }
    answers = [stages["answers"][key] / GIB for key in ("memory_bytes", "least_bytes")]
    row = (
        f"| `{suite}` | {stages['aspect']['memory_bytes'] / GIB:.1f} | {answers[0]:.1f}, {answers[1]:.1f} "
        f"| {needed['host_bytes'] / GIB:.1f} | {sum(needed['download_bytes'].values()) / 1e9:.1f} "
        f"| {totals['pairs_trained']:,} | {totals['tokens_generated'] / 1e6:.1f} million |"
    )
    document = Path(__file__).parents[1] / "docs" / "paper-runs.md"
    assert row in document.read_text(encoding="utf-8"), row


def test_a_remedy_is_one_that_the_settings_take(plan):
    """Seven pairs have no micro-batches of three, and KTO none of one."""
    wide = ("--gpu", "rtx4090", "--set", "training.gradient_checkpointing=true", "--set", "training.max_length=4096")
    small = (
        "--set",
        "proxies={}",
        "--set",
        "scorers={reward: sandbox-reward, cost: sandbox-cost}",
        "--model",
        "smollm2",
    )
    small += ("--set", "chat_template=null", "--set", "training.precision=float32")
    for batch, learner in ((49, "dpo"), (64, "kto")):
        batches = ("--set", f"training.batch_size={batch}", "--set", f"training.micro_batch_size={batch}")
        code, _, err = plan(*wide, *small, *batches, "--set", f"training.learner={learner}")
        assert (code, err.count("\n")) == (2, 1)
        assert "rtx4090 has 21.8 for it: --set training.precision=bfloat16" in err or "no setting of ours" in err
