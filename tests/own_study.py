"""What a researcher brings: bases of the usual kinds with their tokenizers, and pairs as people keep them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from models import lively
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def _tokenizer(template: str, special: list[str], **named: str) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer: every text fits."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **named)
    made.chat_template = template
    return made


def qwen(folder: Path) -> Path:
    """A turn ends with <|im_end|>, which is not the tokenizer's eos_token; embeddings are tied."""
    words = _tokenizer(
        CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    ids = words.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    config = Qwen2Config(vocab_size=len(words), tie_word_embeddings=True, eos_token_id=ids[1], **SIZES)
    model = lively(Qwen2ForCausalLM, config, 0)
    model.generation_config.eos_token_id = ids
    return _save(folder, model, words)


def llama(folder: Path, hidden: int = 32) -> Path:
    """Several end tokens, no padding token, weights in shards."""
    words = _tokenizer(
        LLAMA3,
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
    )  # fmt: skip
    ids = words.convert_tokens_to_ids(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    sizes = SIZES | {"hidden_size": hidden, "intermediate_size": 2 * hidden}
    config = LlamaConfig(vocab_size=len(words), bos_token_id=ids[0], eos_token_id=ids[1:], **sizes)
    return _save(folder, lively(LlamaForCausalLM, config, 0), words, max_shard_size="40KB")


def gemma(folder: Path) -> Path:
    """A chat template without a system role; tied embeddings, a sliding window, soft caps."""
    words = _tokenizer(
        GEMMA, ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
    )  # fmt: skip
    pad, eos, bos, turn = words.convert_tokens_to_ids(["<pad>", "<eos>", "<bos>", "<end_of_turn>"])
    config = Gemma2Config(
        vocab_size=len(words), head_dim=8, sliding_window=64, query_pre_attn_scalar=8,
        pad_token_id=pad, bos_token_id=bos, eos_token_id=[eos, turn], **SIZES,
    )  # fmt: skip
    return _save(folder, lively(Gemma2ForCausalLM, config, 0), words)


KINDS: dict[str, Callable[[Path], Path]] = {"qwen": qwen, "llama": llama, "gemma": gemma}


def _save(folder: Path, model: object, words: PreTrainedTokenizerFast, **options: str) -> Path:
    model.save_pretrained(folder, **options)  # type: ignore[attr-defined]
    words.save_pretrained(folder)
    return folder


def conversations(n: int = 160, seed: int = 0) -> list[dict[str, object]]:
    """Return pairs as TRL takes them: implicit prompts, some of several turns, some with a system turn."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        told = [{"role": "system", "content": "Be brief."}] if i % 5 == 0 else []
        asked = {"role": "user", "content": f"How do I make cake {i} ?"}
        before = [asked, {"role": "assistant", "content": "With sugar ?"}, {"role": "user", "content": f"No , {i} ."}]
        prompt = [*told, *(before if i % 3 == 0 else [asked])]
        good, bad = f"Mix {rng.randint(1, 9)} eggs.", f"No idea {rng.randint(1, 9)}."
        rows.append(
            {
                name: [*prompt, {"role": "assistant", "content": text}]
                for name, text in (("chosen", good), ("rejected", bad))
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
