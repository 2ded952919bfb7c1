"""Compare the formulas of peo_bench/runs/memory.py with measured peaks of the real code, above the loaded baseline.

Every case runs in a process of its own on the CPU, on a random model of a few ten million parameters: what the process
holds (resident memory) is read when the model is loaded, and its peak afterwards. glibc is told to give back every
large block at once (MALLOC_MMAP_THRESHOLD_): by default it comes to keep blocks of up to 32 MiB in its heap, and a
training then holds up to twice what it uses. Writes results/memory.json.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from peo_bench.models.sizes import sizes_of
from peo_bench.runs import memory
from peo_bench.training.settings import DPOSettings

OUT = Path(__file__).parent / "results" / "memory.json"
LONG, TEXTS = 512, 64


@dataclass(frozen=True)
class Case:
    """A model's shape and what is done with it."""

    what: str
    hidden: int = 512
    intermediate: int = 1536
    layers: int = 12
    vocabulary: int = 8192
    settings: dict = field(default_factory=dict)


CASES = {
    "lora, fp32": Case("training", settings={"micro_batch_size": 2}),
    "lora, bf16": Case(
        "training",
        hidden=128,
        intermediate=384,
        vocabulary=1024,
        settings={"micro_batch_size": 14, "precision": "bfloat16"},
    ),
    "lora, fp32, checkpointing": Case(
        "training", layers=6, settings={"micro_batch_size": 6, "gradient_checkpointing": True}
    ),
    "full, fp32": Case("training", settings={"micro_batch_size": 1, "form": "full"}),
    "log-probabilities, fp32": Case("reading", layers=2, vocabulary=32768, settings={"micro_batch_size": 8}),
    "generating, fp32": Case("generating", settings={"rows": 64, "prompt": 300, "new": 24}),
    "scoring, fp32": Case("scoring", hidden=768, intermediate=2048, layers=2),
}


def words(n: int, seed: int) -> str:
    return " ".join(f"w{(seed * 7919 + i * 31) % 900}" for i in range(n))


def tokenizer(length: int):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(900))]
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=length, **special)


def config(case: Case):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=case.vocabulary, hidden_size=case.hidden, intermediate_size=case.intermediate,
        num_hidden_layers=case.layers, num_attention_heads=8, max_position_embeddings=2048, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def save_base(case: Case, folder: Path) -> Path:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(config(case)).save_pretrained(folder)
    tokenizer(2048).save_pretrained(folder)
    return folder


def resident(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"no {key} in /proc/self/status")


def begin() -> int:
    """Give back what is free, forget the peak so far and return what is held."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def measured(run: Callable[[], object]) -> int:
    before = begin()
    run()
    return resident("VmHWM") - before


def pairs_file(folder: Path, n: int) -> None:
    half = LONG // 2
    rows = [
        {"prompt": words(half, 3 * i), "chosen": words(half, 3 * i + 1), "rejected": words(half, 3 * i + 2)}
        for i in range(n)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def trained(case: Case, folder: Path) -> int:
    """Train two optimiser steps with the real job; what it holds is read where TRL's loop begins."""
    from peo_bench.data.given_checkpoint import checkpoint_job
    from peo_bench.data.pairs import pairs_job
    from peo_bench.data.schema import PairSource
    from peo_bench.jobs.job import Job
    from peo_bench.jobs.store import Store
    from peo_bench.training import trainers

    settings = training(case)
    micro = settings.micro_batch_size
    base = save_base(case, folder / "base")
    pairs_file(folder, 64 + 8 * micro)
    store, found = Store(folder / "store"), {}
    reference = checkpoint_job(str(base), "base")
    pairs = pairs_job([PairSource(objective="helpful", path=str(folder / "pairs.jsonl"))], ["helpful"], limit=2 * micro)
    params = {"objective": "helpful", "seed": 0, **settings.job_params()}
    needs = {"reference": reference, "pairs": pairs}
    log_probs = Job("log-probs", {key: params[key] for key in ("objective", "seed", *settings.job_params())}, needs)
    name = "pair_log_probs" if case.what == "reading" else "train"
    real = getattr(trainers, name)

    def watched(*args, **kwargs):
        result = []
        found["peak"] = measured(lambda: result.append(real(*args, **kwargs)))
        return result[0]

    setattr(trainers, name, watched)
    last = log_probs if case.what == "reading" else Job("aspect", params, needs)
    for job in (reference, pairs, last):
        store.run(job)
    return found["peak"]


def generated(case: Case, folder: Path) -> int:
    from peo_bench.core.decoding import Decoding
    from peo_bench.core.spec import policy
    from peo_bench.engine.engine import Engine, Request
    from peo_bench.jobs.job import Cost, Handle

    base = save_base(case, folder / "artefact" / "model")
    handle = Handle("base", base.parent, {"form": "base"}, Cost(), 0.0)
    engine = Engine(lambda name: handle, batch_size=case.settings["rows"])
    engine.models.row_lora("base")
    rows, prompt, new = (case.settings[key] for key in ("rows", "prompt", "new"))
    requests = [Request(policy("base"), words(prompt - 1, i), f"p{i}") for i in range(rows)]
    peak = measured(lambda: engine.generate(requests, Decoding(max_new_tokens=new, top_p=0.95)))
    return peak


def scored(case: Case, folder: Path) -> int:
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaModel

    from peo_bench.scorers import open_scorer

    torch.manual_seed(0)
    tensors = {f"model.{key}": value for key, value in LlamaModel(config(case)).state_dict().items()}
    tensors |= {"score_head.weight": torch.randn(1, case.hidden), "score_head.bias": torch.zeros(1)}
    place = folder / "model"
    config(case).save_pretrained(place)
    tokenizer(LONG).save_pretrained(place)
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    scorer = open_scorer(folder, "beaver")
    texts = [words(LONG, i) for i in range(TEXTS)]
    peak = measured(lambda: scorer.score(["w1"] * TEXTS, texts))
    return peak


DO = {"training": trained, "reading": trained, "generating": generated, "scoring": scored}


def training(case: Case) -> DPOSettings:
    micro = case.settings["micro_batch_size"]
    return DPOSettings(
        **{"precision": "float32"} | case.settings, batch_size=micro, max_length=LONG, learning_rate=1e-3
    )


def formula(case: Case) -> dict:
    """Return what the formulas say that a case takes above the loaded model, in bytes by what it is for."""
    sizes = sizes_of(config(case))
    if case.what == "scoring":
        said = memory.scoring_memory(sizes, memory.FLOAT, TEXTS * LONG)
    elif case.what == "generating":
        said = memory.generating_memory(sizes, memory.Answering(memory.FLOAT, rank=0, **case.settings))
    elif case.what == "reading":
        said = memory.reading_memory(sizes, training(case), "cpu")
    else:
        said = memory.training_memory(sizes, training(case), "cpu")
    return {name: round(value) for name, value in said.parts.items() if name != "weights"}


def run(name: str) -> dict:
    """Return what one case took above the loaded model, and what the formula says, in bytes."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        peak = DO[CASES[name].what](CASES[name], Path(folder))
    parts = formula(CASES[name])
    said = sum(parts.values())
    return {"measured": peak, "formula": said, "ratio": round(said / peak, 3), "parts": parts}


def table(rows: dict) -> str:
    """Return the table of docs/fit.md."""
    lines = ["| case | measured (GiB) | formula (GiB) | formula / measured |", "|---|---|---|---|"]
    for name in CASES:
        said, peak = sum(formula(CASES[name]).values()) / 2**30, rows[name]["measured"] / 2**30
        lines.append(f"| {name} | {peak:.2f} | {said:.2f} | {said / peak:.2f} |")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--case":
        print(json.dumps(run(sys.argv[2])))
        return
    chosen = sys.argv[1:] or list(CASES)
    rows = json.loads(OUT.read_text()) if OUT.exists() and sys.argv[1:] else {}
    for name in chosen:
        command, tidy = [sys.executable, __file__, "--case", name], os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        done = subprocess.run(command, capture_output=True, text=True, env=tidy)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        rows[name] = json.loads(done.stdout.strip().splitlines()[-1])
        gib = {key: rows[name][key] / 2**30 for key in ("measured", "formula")}
        print(f"{name:28s} measured {gib['measured']:5.2f} GiB, formula {gib['formula']:5.2f}: {rows[name]['ratio']}")
        OUT.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
