"""Real PKU-SafeRLHF and HH rows through loaders, splits, scoring and report; skipped where ../shared/data is absent."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parent))
import scorer_checkpoints as made
from test_scorers import beaver_by_hand
from tiny_run import peo_bench

from peo_bench.data.pairs import pairs_job
from peo_bench.data.schema import PairSource
from peo_bench.data.sources import read_source, source_identity
from peo_bench.files.dialogue import turns_of
from peo_bench.jobs.store import Store

SHARED = Path(__file__).parents[2] / "shared" / "data"
HH = "hh_rlhf/harmless-base"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")

SOURCES = [
    {"objective": "helpful", "path": "helpful_pairs/*.jsonl.gz"},
    {"objective": "harmless", "path": "pku_saferlhf/pairs_*.jsonl",
     "columns": {"chosen": "safer_response", "rejected": "other_response"}},
    {"objective": "harmless", "path": f"{HH}/*.jsonl.gz", "layout": "hh", "single_turn": True},
]  # fmt: skip


def hh_lines() -> list[str]:
    return gzip.decompress(next((SHARED / HH).glob("*.jsonl.gz")).read_bytes()).decode().splitlines()


def save_policy(folder: Path) -> Path:
    """Write a tiny Llama with a byte-level tokenizer, which every text fits."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=letters, show_progress=False)
    inner.train_from_iterator(hh_lines()[:200], trainer)
    words = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the real slices: a tiny policy, scored by a tiny beaver reward and one label of a tiny encoder."""
    where = tmp_path_factory.mktemp("real")
    training = {"form": "full", "batch_size": 8, "micro_batch_size": 8, "max_length": 512, "epochs": 1}
    several = {"layout": "sequence-classification", "model": str(made.save_deberta(where / "several"))}
    suite = {
        "schema_version": 1, "name": "real", "title": "Real slices, tiny models", "task": "peo_pairs",
        "model": str(save_policy(where / "policy")),
        "data": {"kind": "pairs", "max_chars": 400, "pairs": 24, "sources": SOURCES},
        "training": training, "reward_model": training, "decoding": {"max_new_tokens": 16},
        "validation_prompts": 12, "test_prompts": 24, "own_proxies": True,
        "scorers": {"reward": {"layout": "beaver", "model": str(made.save_beaver(where / "beaver"))},
                    "several": several | {"columns": {"cost": 2}}},
    }  # fmt: skip
    (where / "real.yaml").write_text(yaml.safe_dump(suite))
    peo_bench(
        where, "run", "--suite", "real.yaml", "--methods", "soup", "--preferences", "3", "--workers", "1",
        "--data-dir", str(SHARED), "--out", "out",
    )  # fmt: skip
    return where


def test_the_run_is_scored_and_reported(run: Path) -> None:
    assert json.loads((run / "out" / "run.json").read_text())["status"] == "complete"
    texts = pd.read_parquet(run / "out" / "answers.parquet")
    test = texts[texts["split"] == "test"]
    assert test["prompt_id"].nunique() == 24
    rows = test.iloc[::7]
    by_hand = [beaver_by_hand(run / "beaver", row.prompt, row.answer) for row in rows.itertuples()]
    assert rows["reward"].tolist() == pytest.approx(by_hand, abs=1e-4)
    assert test[["reward", "cost", "reward_proxy", "cost_proxy"]].notna().all().all()
    page = (run / "out" / "report.html").read_text()
    assert "Real slices, tiny models" in page
    prompt = test["prompt"].map(lambda text: text if text.isascii() and text.replace(" ", "").isalpha() else None)
    assert prompt.dropna().iloc[0] in page, "the report embeds the real prompts"


def test_no_prompt_crosses_the_splits(run: Path) -> None:
    """By the text of prompts as they stand in the files, case and white space aside; PKU has several pairs of each."""
    texts = pd.read_parquet(run / "out" / "answers.parquet")
    splits = {split: set(group["prompt"]) for split, group in texts.groupby("split")}
    folder = next((run / "cache").rglob("helpful-policy.jsonl")).parent
    for split in ("policy", "scorer"):
        files = [folder / f"{objective}-{split}.jsonl" for objective in ("helpful", "harmless")]
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        assert rows
        splits[split] = {row["prompt"] for row in rows}
    plain = {name: {" ".join(text.lower().split()) for text in prompts} for name, prompts in splits.items()}
    names = sorted(plain)
    assert names == ["policy", "scorer", "test", "validation"]
    assert not any(plain[a] & plain[b] for a in names for b in names if a < b)


def test_damage_in_real_rows_is_counted_and_named(tmp_path: Path) -> None:
    """A cut line, an absent column and a transcript without an answer among 200 real dialogues."""
    lines = hh_lines()[:200]
    whole: Any = json.loads(lines[50])
    lines[10] = lines[10][:40]
    lines[50] = json.dumps({"chosen": whole["chosen"]})
    lines[90] = json.dumps(whole | {"rejected": "no turns at all"})
    (tmp_path / "hh.jsonl").write_text("\n".join(lines))
    sources = [PairSource(objective="harmless", path="hh.jsonl", layout="hh")]
    result = Store(tmp_path / "store").run(pairs_job(sources, ["harmless"], data_dir=tmp_path)).result
    assert result["dropped"]["harmless"]["malformed"] == 3
    assert [entry.partition(":")[2].partition(":")[0] for entry in result["malformed"]] == ["11", "51", "91"]
    assert "not JSON" in result["malformed"][0]
    assert "'rejected' is missing" in result["malformed"][1]
    assert "no assistant turn" in result["malformed"][2]


def test_real_dialogues_are_turns() -> None:
    """Every transcript of HH's slice becomes the turns that it holds, but for what is counted by reason."""
    source = PairSource(objective="harmless", path=f"{HH}/*.jsonl.gz", layout="hh", turns=True)
    loaded = read_source(source_identity(source, SHARED))
    assert len(loaded.items) + loaded.dropped.total() == 2312
    assert len(loaded.items) > 2250
    told = read_source(source_identity(source.model_copy(update={"turns": False}), SHARED)).items
    whole = {" ".join(pair.prompt.split()) for pair in told}
    several = 0
    for pair in loaded.items:
        turns = turns_of(pair.prompt)
        several += len(turns) > 1
        marks = {"user": "Human:", "assistant": "Assistant:"}
        again = " ".join(f"{marks[role]} {text}" for role, text in turns) + " Assistant:"
        assert " ".join(again.split()) in whole
    assert several > 1500
