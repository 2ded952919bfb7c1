"""From a raw prompt to the token ids that a policy continues."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return the text a policy continues: the chat template with one user message, or the prompt and a line break."""
    if tokenizer.chat_template is None:
        return f"{prompt}\n"
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the token ids of the rendered prompt.

    A chat template writes its special tokens itself. Without one the tokenizer adds its own; an end-of-sequence token
    that it would put after the prompt is dropped.
    """
    templated = tokenizer.chat_template is not None
    ids = list(tokenizer(render(tokenizer, prompt), add_special_tokens=not templated)["input_ids"])
    if not templated and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> list[list[int]]:
    """Return the token ids of raw prompts, exactly those that generation continues."""
    known = {prompt: prompt_ids(tokenizer, prompt) for prompt in dict.fromkeys(prompts)}
    return [known[prompt] for prompt in prompts]


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answers: list[str]) -> list[list[int]]:
    """Return the token ids of answers, EOS appended."""
    ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in ids]
