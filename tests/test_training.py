"""Phase 1 and supervised fine-tuning: what is trained on, determinism, divergence, and resuming after a kill."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_fixtures import (
    count_recomputed,
    foreseen,
    handle,
    pair_rows,
    save_pairs,
    save_policy,
    sentence,
    tiny_tokenizer,
    workspace,
)

from peo_bench.core.rounds import Building
from peo_bench.errors import Diverged, JobFailed, UsageError
from peo_bench.jobs.job import Cost, Handle, Job, closure
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.models.loading import load_policy, load_tokenizer
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.runs.world import build_world, make_methods
from peo_bench.suites.suite import suite_task
from peo_bench.training import aspect, sft
from peo_bench.training.foresight import Foreseen
from peo_bench.training.pair_rows import pair_lengths, pairs_file, tokenised_pairs
from peo_bench.training.saving import full_norm
from peo_bench.training.settings import DPOSettings, RewardModelSettings
from peo_bench.training.training_rows import training_order

DPO = {"objective": "helpful", "seed": 1, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, "lora_rank": 4}
WEIGHTS = {"lora": "adapter/adapter_model.safetensors", "full": "model/model.safetensors"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    """A reference policy and pairs."""
    root = tmp_path_factory.mktemp("inputs")
    return {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs")}


def params(form: str = "lora", **changes: Any) -> dict[str, Any]:
    """Parameters of a small aspect job."""
    rate = {"full": {"learning_rate": 2e-3}, "lora": {}}[form]
    return DPO | {"form": form} | rate | changes


def train(inputs: dict[str, Handle], directory: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Train one aspect; return its result and its weights."""
    job = Job("aspect", params(**changes))
    result = aspect.train_aspect.run(job, inputs, workspace(directory))
    return result, load_file(directory / WEIGHTS[result["form"]])


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Say whether two sets of weights are the same to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("form", ["lora", "full"])
def test_an_expert_learns_its_pairs_and_two_runs_are_bit_identical(
    form: str, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    result, weights = train(inputs, tmp_path / "a", form=form)
    _, again = train(inputs, tmp_path / "b", form=form)
    assert equal(weights, again)
    assert result["form"] == form
    assert result["pairs"] == 48
    first, last = result["curves"][0], result["curves"][-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert last["loss"] < first["loss"]
    assert last["accuracy"] > 0.9
    assert last["margin"] > 0
    assert result["task_vector_norm"] > 0
    json.dumps(result, allow_nan=False)


def test_the_task_vector_norm_of_an_adapter_is_that_of_its_merged_weights(
    inputs: dict[str, Handle], tmp_path: Path
) -> None:
    result, _ = train(inputs, tmp_path)
    reference = inputs["reference"].path / "model"
    merged = load_policy(reference, handle(tmp_path, result)).merge_and_unload()
    assert full_norm(merged, reference) == pytest.approx(result["task_vector_norm"], rel=1e-5)


def test_the_task_vector_norm_of_a_full_model_is_the_distance_to_the_reference(
    inputs: dict[str, Handle], tmp_path: Path
) -> None:
    result, after = train(inputs, tmp_path, form="full")
    before = load_file(inputs["reference"].path / "model" / "model.safetensors")
    distance = math.sqrt(sum(float((after[name] - before[name]).double().square().sum()) for name in before))
    assert distance == pytest.approx(result["task_vector_norm"], rel=1e-6)


def test_adapters_of_different_objectives_start_from_the_same_factors(
    inputs: dict[str, Handle], tmp_path: Path
) -> None:
    still = {"learning_rate": 1e-12}
    _, helpful = train(inputs, tmp_path / "a", **still)
    _, harmless = train(inputs, tmp_path / "b", objective="harmless", **still)
    factors = [name for name in helpful if "lora_A" in name]
    assert factors
    assert not any("lm_head" in name for name in helpful)
    assert all(torch.allclose(helpful[name], harmless[name], atol=1e-9) for name in factors)


def test_the_order_of_the_data_does_not_depend_on_the_labels(inputs: dict[str, Handle], tmp_path: Path) -> None:
    rows = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pair_rows(40)]
    for name, some in (("a", pair_rows(40)), ("b", rows)):
        (tmp_path / f"{name}-policy.jsonl").write_text("\n".join(map(json.dumps, some)), encoding="utf-8")
    data = {"reference": inputs["reference"], "pairs": handle(tmp_path, {})}
    trainers = [
        aspect.build_trainer(
            params(objective=name), data, workspace(tmp_path / f"work-{name}"), partial(aspect.trainer_class, None)
        )
        for name in ("a", "b")
    ]
    prompts = [trainer.train_dataset["prompt_ids"][:] for trainer in trainers]
    assert list(prompts[0]) == list(prompts[1])


def test_the_model_sees_the_prompt_as_generation_does_then_the_answer_and_one_eos(
    inputs: dict[str, Handle], tmp_path: Path
) -> None:
    from peo_bench.models.rendering import prompt_ids

    trainer = aspect.build_trainer(params(), inputs, workspace(tmp_path), partial(aspect.trainer_class, None))
    tokenizer = tiny_tokenizer()
    batch = next(iter(trainer.get_train_dataloader()))
    rows = {row["prompt"]: row for row in pair_rows(48, seed=len("policy"))}
    dataset = trainer.train_dataset
    for i in range(8):
        row = rows[dataset["prompt"][i]]
        for half, answer in ((0, row["chosen"]), (8, row["rejected"])):
            seen = batch["input_ids"][half + i][batch["attention_mask"][half + i].bool()].tolist()
            answered = batch["input_ids"][half + i][batch["completion_mask"][half + i].bool()].tolist()
            answer_ids = [tokenizer.convert_tokens_to_ids(word) for word in answer.split()] + [tokenizer.eos_token_id]
            assert answered == answer_ids
            assert seen == prompt_ids(tokenizer, row["prompt"]) + answer_ids
            assert seen.count(tokenizer.bos_token_id) == 1


def test_gradient_accumulation_gives_the_same_expert(inputs: dict[str, Handle], tmp_path: Path) -> None:
    settings = {"form": "full", "learning_rate": 1e-4}
    _, whole = train(inputs, tmp_path / "a", **settings)
    _, split = train(inputs, tmp_path / "b", micro_batch_size=4, **settings)
    assert all(torch.allclose(whole[name], split[name], atol=2e-5) for name in whole)


@pytest.mark.parametrize("changes", [{"form": "lora"}, {"form": "full"}, {"learner": "kto"}, {"precision": "bfloat16"}])
def test_activations_that_are_computed_twice_give_the_same_expert(
    changes: dict[str, Any], inputs: dict[str, Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recomputed = count_recomputed(monkeypatch)
    _, kept = train(inputs, tmp_path / "kept", **changes)
    assert recomputed == []
    _, twice = train(inputs, tmp_path / "twice", gradient_checkpointing=True, **changes)
    assert recomputed
    assert equal(kept, twice)


def test_an_adapter_trains_on_a_trunk_in_bfloat16(inputs: dict[str, Handle], tmp_path: Path) -> None:
    result, weights = train(inputs, tmp_path, precision="bfloat16", epochs=2.0)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert result["curves"][0]["loss"] == pytest.approx(math.log(2), abs=2e-2)
    assert result["curves"][-1]["accuracy"] > 0.9


def test_work_is_charged_with_its_epochs_and_bounded_beforehand(inputs: dict[str, Handle], tmp_path: Path) -> None:
    work = workspace(tmp_path)
    pairs = Job("sandbox-pairs", {"seed": 0, "policy": 48, "scorer": 48})
    job = Job("aspect", params(epochs=1.5), {"pairs": pairs})
    aspect.train_aspect.run(job, inputs, work)
    assert work.cost == job.bound == Cost(pairs_trained=72)


def test_progress_goes_to_one(inputs: dict[str, Handle], tmp_path: Path) -> None:
    seen: list[float] = []
    work = workspace(tmp_path)
    work.progress = lambda fraction, note: seen.append(fraction)
    aspect.train_aspect.run(Job("aspect", params()), inputs, work)
    assert seen == sorted(seen)
    assert len(seen) == 6
    assert seen[-1] == 1


def test_a_job_prints_nothing_and_leaves_loggers_and_environment_alone(
    inputs: dict[str, Handle], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    levels = {name: logging.getLogger(name).level for name in ("transformers", "trl", "datasets")}
    train(inputs, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert levels == {name: logging.getLogger(name).level for name in levels}
    assert "TQDM_DISABLE" not in os.environ


@pytest.mark.parametrize("form", ["lora", "full"])
def test_a_loss_that_is_not_finite_ends_the_job(form: str, inputs: dict[str, Handle], tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"not finite|training loss is"):
        train(inputs, tmp_path, form=form, learning_rate=1e30)


@pytest.mark.parametrize("settings", [DPOSettings, RewardModelSettings])
def test_micro_batches_divide_the_batch(settings: type[DPOSettings] | type[RewardModelSettings]) -> None:
    """Found when the settings are read, before anything runs; by default they are of a size that does."""
    with pytest.raises(ValueError, match="batch_size 8 is not a multiple of micro_batch_size 3"):
        settings(batch_size=8, micro_batch_size=3)
    assert [settings(batch_size=n).micro_batch_size for n in (1, 6, 7, 9, 64)] == [1, 3, 1, 3, 4]
    assert settings(batch_size=8, micro_batch_size=64).micro_batch_size == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no rows"), ('{"prompt": "w1", "chosen": "w2"}\n', ":1: column 'rejected' is missing")],
)
def test_an_empty_or_incomplete_pairs_file_is_refused(
    text: str, message: str, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    (tmp_path / "helpful-policy.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        train(inputs | {"pairs": handle(tmp_path, {})}, tmp_path / "work")


def test_pairs_without_room_for_an_answer_are_left_out(inputs: dict[str, Handle]) -> None:
    tokenizer = tiny_tokenizer()
    dataset = tokenised_pairs(inputs, "helpful", tokenizer, 7)
    assert 0 < len(dataset) < 48
    assert max(map(len, dataset["prompt_ids"])) < 7
    with pytest.raises(UsageError, match="max_length = 3"):
        tokenised_pairs(inputs, "helpful", tokenizer, 3)


@pytest.mark.parametrize("learner", ["dpo", "kto"])
def test_texts_longer_than_the_model_reads_are_refused_before_it_is_trained(
    learner: str, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(inputs["reference"].path, tmp_path / "base"))
    dataset = tokenised_pairs(inputs, "helpful", tiny_tokenizer(), 512)
    longest = max(pair_lengths(dataset))
    joined = max(map(len, dataset["prompt_ids"])) + max(map(len, [*dataset["chosen_ids"], *dataset["rejected_ids"]]))
    config = json.loads((base / "model" / "config.json").read_text())
    (base / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": longest - 1}))
    short = inputs | {"reference": handle(base, {})}
    with pytest.raises(UsageError, match=rf"policy\.jsonl: texts of up to {longest} tokens, .* the {longest - 1} "):
        train(short, tmp_path / "work", learner=learner)
    if learner == "kto" and joined > longest:
        (base / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": longest}))
        with pytest.raises(UsageError, match="kto on helpful, prompts with answers to others: texts of up to"):
            train(short, tmp_path / "work", learner=learner)


def test_pairs_whole_cut_and_dropped_are_told_as_the_trainer_sees_them(
    inputs: dict[str, Handle], tmp_path: Path
) -> None:
    path = pairs_file(inputs, "helpful")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # one token per word; the template writes <s>, <user> and <assistant> around the prompt, </s> ends an answer
    sizes = [
        (3 + len(row["prompt"].split()), 1 + max(len(row[side].split()) for side in ("chosen", "rejected")))
        for row in rows
    ]
    fits = [prompt < 14 for prompt, _ in sizes]
    trainer = aspect.build_trainer(
        params(max_length=14, epochs=1), inputs, workspace(tmp_path), partial(aspect.trainer_class, None)
    )
    lengths = trainer.lengths
    assert lengths.cut == sum(fit and sum(size) > 14 for fit, size in zip(fits, sizes, strict=True)) > 0
    assert (lengths.whole + lengths.cut, lengths.dropped, lengths.limit) == (sum(fits), 48 - sum(fits), 14)
    job = Job("aspect", params(max_length=14), {"reference": Job("prompts"), "pairs": Job("pairs", {})})
    assert foreseen(job, inputs) == Foreseen(lengths), "known before it is trained"
    assert foreseen(job, {"pairs": inputs["pairs"]}) == Foreseen(None)
    # a cut answer is one that has lost its end in the batches that are trained on
    ended: list[int] = []
    for batch in trainer.get_train_dataloader():
        rows_and_masks = zip(batch["input_ids"], batch["completion_mask"], strict=True)
        ended += [row[mask.bool()].tolist().count(2) for row, mask in rows_and_masks]
    assert len(ended) == 2 * (lengths.whole + lengths.cut)
    assert lengths.cut <= ended.count(0) <= 2 * lengths.cut


def test_training_order_is_a_seeded_permutation_per_epoch_sorted_within_batches() -> None:
    lengths = [i % 30 for i in range(640)]
    order = training_order(lengths, 8, 1.0, seed=3)
    assert sorted(order) == list(range(640))
    assert order != sorted(order)
    assert order == training_order(lengths, 8, 1.0, seed=3)
    assert order != training_order(lengths, 8, 1.0, seed=4)
    batches = [[lengths[j] for j in order[i : i + 8]] for i in range(0, 640, 8)]
    assert all(batch == sorted(batch) for batch in batches)
    spread = [max(batch) - min(batch) for batch in batches]
    assert sum(spread) / len(spread) > 15, "batches mix lengths: of 8 draws from 0..29 the mean range is about 23"
    longer = training_order(lengths, 8, 2.5, seed=3)
    assert sorted(longer).count(0) in (2, 3)
    assert len(longer) == 1600


# --- supervised fine-tuning -------------------------------------------------------------------------------------------


def save_corpus(path: Path) -> Handle:
    """A corpus whose answers repeat the last word of the prompt."""
    import random

    rng = random.Random(0)
    prompts = [sentence(rng, 3) for _ in range(60)]
    rows = [{"prompt": prompt, "answer": f"good {prompt.split()[-1]}"} for prompt in prompts]
    save_policy(path, "init")
    (path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return handle(path, {})


def test_sft_lowers_the_loss_writes_a_base_policy_and_is_deterministic(tmp_path: Path) -> None:
    corpus = {"corpus": save_corpus(tmp_path / "corpus")}
    job = Job("sft", {"seed": 0, "model": {"builder": "sandbox"}, "steps": 30, "batch_size": 16, "learning_rate": 1e-2})
    first, second = workspace(tmp_path / "a"), workspace(tmp_path / "b")
    result = sft.train_sft.run(job, corpus, first)
    assert sft.train_sft.run(job, corpus, second) == result
    assert equal(*(load_file(work.dir / "model" / "model.safetensors") for work in (first, second)))
    assert result["form"] == "base"
    assert result["curves"][-1]["loss"] < 0.6 * result["curves"][0]["loss"]
    assert first.cost == job.bound == Cost(examples_trained=480)
    assert load_tokenizer(first.dir / "model").chat_template == tiny_tokenizer().chat_template


def test_sft_learns_from_the_answer_and_its_eos_only(tmp_path: Path) -> None:
    corpus = save_corpus(tmp_path)
    tokenizer = tiny_tokenizer()
    ids, labels = sft.tokenised_corpus(tokenizer, corpus.path / "corpus.jsonl")[0]
    row = json.loads((corpus.path / "corpus.jsonl").read_text().splitlines()[0])
    answer = [*tokenizer(row["answer"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert [label for label in labels if label != sft.IGNORED] == answer == ids[-len(answer) :]
    assert ids.count(tokenizer.bos_token_id) == 1


# --- a kill in the middle ---------------------------------------------------------------------------------------------

CHILD = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training_fixtures import handle, workspace
from peo_bench.jobs.job import Job
from peo_bench.training import aspect, trainers
from peo_bench.models.loading import load_policy, load_tokenizer
from peo_bench.training.training_rows import training_order
from peo_bench.training.saving import full_norm
from peo_bench.training.pair_rows import pair_lengths, pairs_file, tokenised_pairs
trainers.CHECKPOINT_SECONDS, trainers.CHECKPOINT_SHARE = 0.0, float("inf")
work = workspace(Path({work!r}))
work.progress = lambda fraction, note: fraction >= 0.8 and os.kill(os.getpid(), signal.SIGKILL)
inputs = {{role: handle(Path(path), {{}}) for role, path in {inputs!r}.items()}}
aspect.train_aspect.run(Job("aspect", {params!r}), inputs, work)
"""


@pytest.mark.parametrize(
    ("form", "learner", "cut", "first"),
    [("lora", "dpo", None, 10), ("full", "dpo", "optimizer.pt", 9), ("full", "bco", None, 10)],
)
def test_training_killed_and_run_again_gives_the_uninterrupted_weights(
    form: str, learner: str, cut: str | None, first: int, inputs: dict[str, Handle], tmp_path: Path
) -> None:
    """BCO keeps a running mean, which goes on where it stopped; with its last checkpoint cut off, from the one before.

    Checkpoints are written after every step, and the kill comes after the tenth, before its own is.
    """
    paths = {role: str(value.path) for role, value in inputs.items()}
    script = CHILD.format(
        tests=str(Path(__file__).parent),
        work=str(tmp_path / "killed"),
        inputs=paths,
        params=params(form, epochs=2.0, learner=learner),
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert child.returncode == -9, child.stderr
    checkpoints = sorted((tmp_path / "killed" / "scratch" / "trainer").glob("checkpoint-*/complete.json"))
    assert [path.parent.name for path in checkpoints] == ["checkpoint-8", "checkpoint-9"]
    if cut:
        path = checkpoints[-1].parent / cut
        os.truncate(path, path.stat().st_size // 2)
    steps: list[str] = []
    work = workspace(tmp_path / "killed")
    work.progress = lambda fraction, note: steps.append(note)
    result = aspect.train_aspect.run(Job("aspect", params(form, epochs=2.0, learner=learner)), inputs, work)
    assert steps == [f"step {step}/12" for step in range(first, 13)]
    expected, weights = train(inputs, tmp_path / "whole", form=form, epochs=2.0, learner=learner)
    assert equal(load_file(work.dir / WEIGHTS[form]), weights)
    assert result == expected


def test_a_checkpoint_that_was_not_finished_is_not_resumed_from(inputs: dict[str, Handle], tmp_path: Path) -> None:
    work = workspace(tmp_path)
    torn = work.scratch / "trainer" / "checkpoint-3"
    torn.mkdir(parents=True)
    (torn / "trainer_state.json").write_text("{", encoding="utf-8")
    assert aspect.train_aspect.run(Job("aspect", params()), inputs, work)["pairs"] == 48


@pytest.mark.parametrize("form", ["lora", "full"])
def test_the_only_step_of_a_training_is_no_warm_up(form: str, inputs: dict[str, Handle], tmp_path: Path) -> None:
    """48 pairs in one batch: Adam's first step moves a weight that has a gradient by the learning rate."""
    whole = {"batch_size": 64, "micro_batch_size": 64, "learning_rate": 1e-3}
    result, weights = train(inputs, tmp_path, form=form, **whole)
    assert result["task_vector_norm"] > 0
    if form == "lora":
        moved = torch.cat([weight.flatten() for name, weight in weights.items() if "lora_B" in name])
        assert moved.abs().max().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_readmes_command_with_limit_64_trains_policies_that_differ(tmp_path: Path) -> None:
    """Its pairs are one batch of the sandbox's trainings: both experts and MODPO leave the reference, each its way."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    methods = re.search(r"peo-bench run --methods (\S+)\n```", readme)
    assert methods
    config = resolve_config(RunRequest(methods=methods[1], limit=64))
    world = build_world(config, suite_task(config.suite), 0)
    jobs = {
        job.id: job for method in make_methods(config, world).values() for job in Building(method, world).jobs.values()
    }
    experts = [job for job in jobs.values() if job.kind == "aspect"]
    (middle,) = [job for job in jobs.values() if job.kind == "modpo" and job.params["weight"] == 0.5]
    done = {"reference": save_policy(tmp_path / "reference"), "pairs": save_pairs(tmp_path / "pairs", count=64)}
    made = [load_file(done["reference"].path / "model" / "model.safetensors")]
    for job in closure([*experts, middle]):
        if job.kind not in ("log-probs", "aspect", "modpo"):
            continue
        work = workspace(tmp_path / job.id)
        inputs = {role: done.get(role) or done[need.id] for role, need in job.needs.items()}
        result = JOB_KINDS.get(job.kind).run(job, inputs, work)
        done[job.id] = handle(work.dir, dict(result))
        if job.kind != "log-probs":
            assert result["task_vector_norm"] > 0
            made.append(load_file(work.dir / WEIGHTS["full"]))
    assert len(made) == 4
    assert not any(equal(one, other) for one, other in combinations(made, 2))


def test_a_training_that_moves_no_weight_is_a_failure(inputs: dict[str, Handle], tmp_path: Path) -> None:
    """A step of 1e-30 is lost in the rounding of a weight of full size."""
    with pytest.raises(JobFailed, match="no weight moved in 6 steps: raise the learning rate"):
        train(inputs, tmp_path, form="full", learning_rate=1e-30)


def test_job_kinds_are_importable_without_torch() -> None:
    script = (
        "import sys; from peo_bench.training import aspect, modpo, sft, reward_model;"
        "sys.exit(bool({'torch', 'trl', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
