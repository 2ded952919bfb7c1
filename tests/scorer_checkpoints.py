"""Tiny reward and cost models in the file layouts of published ones, with heads that know good from bad words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from peo_bench.scorers.anchors import ANCHORS

HIDDEN = 32
TEXTS = [("how do i boil an egg", "Gently , with care ."), ("hello", "no"), ("what is a prime number", "A number " * 9)]
PROMPTS, ANSWERS = [p for p, _ in TEXTS], [a for _, a in TEXTS]


def tokenizer(*, bos: bool = True, pad: bool = True, pair: bool = False, length: int = 400) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer of the anchors' words; `pair` puts `</s>` behind both texts, as DeBERTa's does."""
    pieces = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    texts = [text for anchors in ANCHORS.values() for anchor in anchors for text in anchor]
    texts += [text for both in TEXTS for text in both] + ["BEGINNING OF CONVERSATION: USER: ASSISTANT: Human:"]
    words = dict.fromkeys(word for text in texts for word, _ in pieces.pre_tokenize_str(text))
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *words])}, unk_token="<unk>"))
    inner.pre_tokenizer = pieces
    inner.add_special_tokens(special)
    ids = [("<s>", 1), ("</s>", 2)]
    if pair:
        form = {"single": "<s> $A </s>", "pair": "<s> $A </s> $B:1 </s>:1"}
        inner.post_processor = processors.TemplateProcessing(**form, special_tokens=ids)
    elif bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=length,
        **({"pad_token": "<pad>"} if pad else {}),
        model_input_names=["input_ids", *(["token_type_ids"] if pair else []), "attention_mask"],
    )  # fmt: skip


def llama_config(words: PreTrainedTokenizerFast, **more: Any) -> LlamaConfig:
    """Return the configuration of a tiny Llama."""
    return LlamaConfig(
        vocab_size=len(words), hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip


def save_beaver(
    folder: Path, *, seed: int = 0, objective: str = "helpful", sign: float = 1.0, head: bool = True, **config: Any
) -> Path:
    """Write a score model as safe-rlhf saves one: `model.*`, `score_head.*`, `normalizer.*`, its config's own keys."""
    torch.manual_seed(seed)
    words = tokenizer(length=512)
    own = {"score_type": "reward", "score_dim": 1, "score_bias": True, "do_normalize": False} | config
    configuration = llama_config(words, architectures=["LlamaForScore"], **own)
    trunk = lively(LlamaModel(configuration))
    tensors = {f"model.{name}": value.contiguous() for name, value in trunk.state_dict().items()}
    if head:
        tensors["score_head.weight"] = torch.randn(1, HIDDEN)
        tensors["score_head.bias"] = torch.tensor([0.7])
    tensors |= {"normalizer.mean": torch.zeros(1), "normalizer.var": torch.ones(1), "normalizer.count": torch.tensor(5)}
    configuration.save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    save_file(tensors, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    if head:
        orient(folder, "beaver", "score_head", {0: (objective, sign)})
    return folder


def save_gpt2(folder: Path, *, seed: int = 1, objective: str = "harmless", pad_token_id: int | None = None) -> Path:
    """Write a GPT-2 with one label and no padding token, as Ray2333's are."""
    torch.manual_seed(seed)
    words = tokenizer(bos=False, pad=False, length=256)
    config = GPT2Config(
        vocab_size=len(words), n_positions=256, n_embd=HIDDEN, n_layer=2, n_head=4, num_labels=1,
        bos_token_id=2, eos_token_id=2, pad_token_id=pad_token_id,
    )  # fmt: skip
    lively(GPT2ForSequenceClassification(config)).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    orient(folder, "hh-gpt2", "score", {0: (objective, 1.0)})
    return folder


def save_chat(folder: Path, *, seed: int = 3, objective: str = "helpful") -> Path:
    """Write a Llama classifier whose tokenizer has a chat template, as today's reward models are."""
    torch.manual_seed(seed)
    words = tokenizer(bos=False, length=512)
    words.chat_template = "{% for m in messages %}<s> {{ m['content'] }} </s> {% endfor %}"
    lively(LlamaForSequenceClassification(llama_config(words, num_labels=1))).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    orient(folder, "sequence-classification", "score", {0: (objective, 1.0)}, template="chat")
    return folder


def save_deberta(folder: Path, *, seed: int = 2, length: int = 256) -> Path:
    """Write an encoder with three labels: helpfulness, something else, harm (higher is worse)."""
    torch.manual_seed(seed)
    words = tokenizer(pair=True, length=length)
    config = DebertaV2Config(
        vocab_size=len(words), hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, type_vocab_size=2, num_labels=3, pad_token_id=0, pooler_hidden_size=HIDDEN,
    )  # fmt: skip
    lively(DebertaV2ForSequenceClassification(config)).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    orient(folder, "sequence-classification", "classifier", {0: ("helpful", 1.0), 2: ("harmless", -1.0)})
    return folder


def lively(model: Any) -> Any:
    """Enlarge random weights so that scores of different texts differ clearly."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return model.eval()


def orient(
    folder: Path, layout: str, head: str, wanted: dict[int, tuple[str, float]], template: str | None = None
) -> None:
    """Fit a head's rows: on an objective's anchors, the better answer scores the given sign, the worse its negative.

    What the head reads is caught on its way in, one text at a time, so padding plays no part.
    """
    from peo_bench.scorers import open_scorer

    scorer = open_scorer(folder, layout, template=template)
    caught: list[torch.Tensor] = []
    module = scorer.model.get_submodule(head)
    module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].reshape(-1, HIDDEN)[-1].clone()))
    weights = load_file(folder / "model" / "model.safetensors")
    for label, (objective, sign) in wanted.items():
        caught.clear()
        for prompt, better, worse in ANCHORS[objective]:
            scorer.score([prompt], [better])
            scorer.score([prompt], [worse])
        target = torch.tensor([sign, -sign] * len(ANCHORS[objective]))
        weights[f"{head}.weight"][label] = torch.linalg.lstsq(torch.stack(caught), target[:, None]).solution[:, 0]
    save_file(weights, folder / "model" / "model.safetensors", metadata={"format": "pt"})
