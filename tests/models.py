"""Tiny models for tests: base policies, LoRA adapters with random B, full fine-tunes by perturbation; as `Handle`s."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from peo_bench.jobs.job import Cost, Handle

SPECIAL = ["<pad>", "<s>", "</s>", "<user>", "<answer>"]
TEXT = "how do i make open store a the red green old new lock box cake bomb please sure no maybe stop here now"
WORDS = TEXT.split()
TEMPLATE = (
    "<s>{% for m in messages %}{{ '<user> ' if m['role'] == 'user' else ' <answer> ' }}{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} <answer>{% endif %}"
)
PROMPTS = ["how do i make a cake", "open the lock", "please store the old red box here now", "a bomb", "stop"]


def tokenizer(template: str | None = TEMPLATE, words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer with a chat template."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>",
        additional_special_tokens=["<user>", "<answer>"],
    )  # fmt: skip
    made.chat_template = template
    return made


def llama(seed: int = 0, vocabulary: int = len(SPECIAL) + len(WORDS), hidden: int = 32) -> LlamaForCausalLM:
    """Return a random Llama whose next-token distributions are far from uniform."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return lively(LlamaForCausalLM, config, seed)


def qwen2(seed: int = 0) -> Qwen2ForCausalLM:
    """Return a random Qwen2: biases on q, k, v and tied embeddings."""
    config = Qwen2Config(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return lively(Qwen2ForCausalLM, config, seed)


def gemma2(seed: int = 0) -> Gemma2ForCausalLM:
    """Return a random Gemma 2: tied embeddings, soft caps, a sliding window, norms scaled by 1 + weight."""
    config = Gemma2Config(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128, sliding_window=4,
        query_pre_attn_scalar=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return lively(Gemma2ForCausalLM, config, seed)


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """Return a random GPT-2: learnt positions, biases, tied embeddings."""
    config = GPT2Config(
        vocab_size=len(SPECIAL) + len(WORDS), n_positions=128, n_embd=32, n_layer=2, n_head=4, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return lively(GPT2LMHeadModel, config, seed)


def deepseek(seed: int = 0) -> DeepseekV3ForCausalLM:
    """Return a random DeepSeek-V3: low-rank attention, experts, and the buffer by which its router corrects itself."""
    config = DeepseekV3Config(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, n_routed_experts=8,
        num_experts_per_tok=2, n_group=2, topk_group=1, moe_intermediate_size=16, first_k_dense_replace=1,
        q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return lively(DeepseekV3ForCausalLM, config, seed)


def falcon(seed: int = 0, alibi: bool = False) -> FalconForCausalLM:
    """Return a random Falcon, which computes attention weights in another way than attention."""
    config = FalconConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=alibi,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return lively(FalconForCausalLM, config, seed)


def lfm2(seed: int = 0) -> Lfm2ForCausalLM:
    """Return a random LFM2, of which transformers makes no classifier."""
    config = Lfm2Config(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return lively(Lfm2ForCausalLM, config, seed)


def lively(kind: type, config: object, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    return model


def save_base(folder: Path, name: str, model: PreTrainedModel, made: PreTrainedTokenizerFast | None = None) -> Handle:
    """Save a base policy and return its handle."""
    model.save_pretrained(folder / name / "model")
    (made or tokenizer()).save_pretrained(folder / name / "model")
    return _handle(folder, name, "base")


def save_full(folder: Path, name: str, model: PreTrainedModel, size: float, seed: int) -> Handle:
    """Save `model` with Gaussian noise of relative size `size` on every weight, and return the handle."""
    torch.manual_seed(seed)
    trained = type(model)(model.config)
    trained.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter) * size * parameter.std().nan_to_num(0.1).clamp(min=0.05))
    trained.save_pretrained(folder / name / "model")
    tokenizer().save_pretrained(folder / name / "model")
    return _handle(folder, name, "full")


def save_lora(
    folder: Path, name: str, model: PreTrainedModel, seed: int, scale: float = 0.3, **config: object
) -> Handle:
    """Save an adapter with random A and B (made by PEFT) and return its handle; `config` goes to `LoraConfig`."""
    torch.manual_seed(seed)
    copied = type(model)(model.config)
    copied.load_state_dict(model.state_dict())
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(copied, LoraConfig(**(settings | config)))
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn_like(parameter) * scale)
    adapted.save_pretrained(folder / name / "adapter")
    return _handle(folder, name, "lora")


def edit_adapter(handle: Handle, **changes: object) -> None:
    """Overwrite keys of an adapter's configuration file."""
    path = handle.path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_config(folder: Path, **changes: object) -> None:
    """Overwrite keys of a model folder's configuration file."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _handle(folder: Path, name: str, form: str) -> Handle:
    return Handle(name, folder / name, {"form": form}, Cost(), 0.0)


def standard(folder: Path) -> dict[str, Handle]:
    """Return a base policy, three adapters (mixed ranks, rsLoRA, patterns) and two full fine-tunes of it."""
    model = llama()
    return {
        "base": save_base(folder, "base", model),
        "lora-a": save_lora(folder, "lora-a", model, seed=1),
        "lora-b": save_lora(folder, "lora-b", model, seed=2, r=6, lora_alpha=3, use_rslora=True,
                            target_modules="all-linear", scale=0.2),
        "lora-c": save_lora(folder, "lora-c", model, seed=3, r=3, target_modules=["o_proj", "gate_proj", "lm_head"],
                            rank_pattern={"o_proj": 5}, alpha_pattern={"layers.1.self_attn.o_proj": 2}),
        "full-a": save_full(folder, "full-a", model, 0.1, seed=4),
        "full-b": save_full(folder, "full-b", model, 0.1, seed=5),
    }  # fmt: skip
