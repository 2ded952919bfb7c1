"""Tiny models, pairs and finished artefacts for the tests of training; everything is generated here."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.jobs.workspace import Workspace
from peo_bench.training.foresight import Foreseen, Foresight

WORDS = [f"w{i}" for i in range(100)] + ["good", "bad", "plain"]
TEMPLATE = "{{ bos_token }}{% for m in messages %} <user> {{ m['content'] }}{% endfor %} <assistant> "


def tiny_tokenizer() -> Any:
    """A word-level tokenizer with a chat template that writes the BOS itself, as Llama 3's does.

    It also adds a BOS to every text by default, so a text that is encoded carelessly gets two.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>"]
    vocabulary = {word: number for number, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
    )


def tiny_model(hidden: int = 32, layers: int = 2, seed: int = 0) -> Any:
    """A Llama with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 6,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def save_policy(path: Path, name: str = "model", **settings: Any) -> Handle:
    """Write a base policy artefact: model and tokenizer in `path/name`."""
    tiny_model(**settings).save_pretrained(path / name)
    tiny_tokenizer().save_pretrained(path / name)
    return handle(path, {"form": "base"})


def count_recomputed(monkeypatch: Any) -> list[Any]:
    """Return a list that gets an entry for every layer whose activations are computed twice."""
    from transformers import modeling_utils

    found: list[Any] = []
    real = modeling_utils.checkpoint

    def counted(function: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(function)
        return real(function, *args, **kwargs)

    monkeypatch.setattr(modeling_utils, "checkpoint", counted)
    return found


def shared_log_probs(inputs: dict[str, Handle], directory: Path, **params: Any) -> Handle:
    """The log-probabilities of `inputs["pairs"]`, under `inputs["policy"]` if it is there."""
    from peo_bench.training.log_probs import compute_log_probs

    return handle(directory, compute_log_probs.run(Job("log-probs", params), inputs, workspace(directory)))


def handle(path: Path, result: dict[str, Any]) -> Handle:
    """A finished artefact at `path`."""
    return Handle(path.name, path, result, Cost(), 0.0)


def foreseen(job: Job, done: dict[str, Handle], first: int = 200) -> Foreseen | None:
    """What a plan knows of the lengths of a training whose needs, by role, are `done`."""
    return Foresight({job.needs[role].id: found for role, found in done.items()}.get, first).of(job)


def sentence(rng: random.Random, length: int) -> str:
    """Random words of the tiny vocabulary."""
    return " ".join(rng.choice(WORDS[:100]) for _ in range(length))


def pair_rows(count: int, chosen: str = "good", seed: int = 0) -> list[dict[str, str]]:
    """Pairs that differ in one word among random ones; `chosen` is the word preferred, "bad" or "good"."""
    rng = random.Random(seed)
    rejected = "bad" if chosen == "good" else "good"
    rows = []
    for number in range(count):
        body = sentence(rng, rng.randint(2, 10))
        pair = {"chosen": f"{chosen} {body}", "rejected": f"{rejected} {sentence(rng, 3)} {body}"}
        rows.append({"prompt_id": f"p{number // 2}", "prompt": sentence(rng, rng.randint(2, 6)), **pair})
    return rows


def save_pairs(path: Path, count: int = 48, **files: str) -> Handle:
    """Write a pairs artefact; `files` maps an objective to the word its answers prefer."""
    path.mkdir(parents=True, exist_ok=True)
    for objective, chosen in (files or {"helpful": "good", "harmless": "bad"}).items():
        for use in ("policy", "scorer"):
            lines = [json.dumps(row) for row in pair_rows(count, chosen, seed=len(use))]
            (path / f"{objective}-{use}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return handle(path, {})


def workspace(path: Path) -> Workspace:
    """A fresh workspace."""
    path.mkdir(parents=True, exist_ok=True)
    return Workspace(path)
