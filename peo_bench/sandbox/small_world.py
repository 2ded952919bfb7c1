"""The sandbox's prompts, their splits, the SFT corpus, and the tokenizer and tiny Llama that read them.

A prompt is `<frame> <topic> for my <person> <when> ?`, and its hazard belongs to the topic. `grammar.py` has
the words, `gold.py` scores answers, `docs/sandbox.md` describes the world.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Literal

from peo_bench.errors import UsageError
from peo_bench.sandbox.grammar import FRAMES, HAZARDS, PERSONS, TIMES, TOPICS, Hazard, draw_answer, vocabulary

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

PAD, EOS, SEPARATOR, UNKNOWN = SPECIAL_TOKENS = ("<pad>", "<eos>", "<sep>", "<unk>")
MAX_POSITIONS = 64  # a prompt has at most 12 tokens and an answer 22 in the corpus; the rest is for rambling


@dataclass(frozen=True)
class Prompt:
    """A question of the sandbox.

    Attributes:
        id: stable name, such as "sb-00042"; numbers follow the order of `prompts()`.
        text: the question as words, without the separator that `render_prompt` adds.
        topic: what it asks about, a key of `TOPICS[hazard]`.
        hazard: class of the topic; the policy never sees it.
    """

    id: str
    text: str
    topic: str
    hazard: Hazard


@cache
def prompts() -> tuple[Prompt, ...]:
    """Return all 16,800 prompts in a fixed order; texts are distinct."""
    topics = [(hazard, topic) for hazard in HAZARDS for topic in TOPICS[hazard]]
    combinations = product(topics, FRAMES, PERSONS, TIMES)
    return tuple(
        Prompt(f"sb-{number:05d}", f"{frame} {topic} for my {person} {time} ?", topic, hazard)
        for number, ((hazard, topic), frame, person, time) in enumerate(combinations)
    )


def split_of(prompt: Prompt) -> Split:
    """Return the prompt's split by a hash of its text: about 90 % train, 5 % validation, 5 % test."""
    percentile = int.from_bytes(hashlib.sha256(prompt.text.encode()).digest()[:8], "big") % 100
    return "train" if percentile < 90 else "validation" if percentile < 95 else "test"


@cache
def prompts_of(split: Split) -> tuple[Prompt, ...]:
    """Return every prompt of a split, in the order of `prompts()`."""
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    return tuple(prompt for prompt in prompts() if split_of(prompt) == split)


def prompt_split(split: Split, n: int, seed: int) -> list[Prompt]:
    """Draw `n` distinct prompts of a split without replacement, a third of each hazard class.

    Classes alternate, so a smaller `n` gives the beginning of a larger one, and counts differ by at most one.
    Raises `UsageError` when the split has fewer than `n` prompts in equal parts.
    """
    rng = random.Random(f"prompts-{split}-{seed}")
    shuffled = []
    for hazard in HAZARDS:
        members = [prompt for prompt in prompts_of(split) if prompt.hazard == hazard]
        shuffled.append(rng.sample(members, len(members)))
    balanced = [prompt for group in zip(*shuffled, strict=False) for prompt in group]
    if not 0 <= n <= len(balanced):
        raise UsageError(f"the sandbox's {split} split has {len(balanced)} balanced prompts: cannot draw {n}")
    return balanced[:n]


def corpus(n: int, seed: int) -> list[tuple[str, str]]:
    """Draw `n` texts for supervised fine-tuning of the reference policy from the grammar.

    Returns pairs (prompt text, answer text), prompts from the train split with replacement; a smaller `n` gives the
    beginning of a larger one.
    """
    rng = random.Random(f"corpus-{seed}")
    texts = []
    for _ in range(n):
        prompt = rng.choice(prompts_of("train"))
        texts.append((prompt.text, draw_answer(prompt.hazard, prompt.topic, rng)))
    return texts


def render_prompt(text: str) -> str:
    """Return the string a policy is given for a prompt; the only place where the template is written.

    It ends in a special token, so tokenising prompt and answer apart or joined gives the same tokens.

    >>> render_prompt("how do i bake bread for my aunt today ?")
    'how do i bake bread for my aunt today ? <sep>'
    """
    return f"{text} {SEPARATOR}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the word-level tokenizer: closed vocabulary, case ignored, no BOS; TRL appends the EOS itself.

    `<unk>` stands only for words outside the world, which a user may type; the grammar never needs it.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate([*SPECIAL_TOKENS, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        sep_token=SEPARATOR,
        unk_token=UNKNOWN,
        chat_template=render_prompt("{{ messages[0]['content'] }}"),
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
    )


def build_model(seed: int) -> LlamaForCausalLM:
    """Build the untrained Llama (fp32, CPU), its weights drawn from `seed`; the global generator is left alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(SPECIAL_TOKENS) + len(vocabulary()),
        hidden_size=112,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=SPECIAL_TOKENS.index(PAD),
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index(EOS),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def unfilled_model() -> LlamaForCausalLM:
    """Return the same Llama without weights, on the meta device."""
    import torch

    with torch.device("meta"):
        return build_model(seed=0)
