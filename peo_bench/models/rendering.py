"""From raw texts to token ids: the prompt that a policy continues, the answer it is trained to give and what ends it.

Training, scoring and generation share these functions. A prompt or an answer is text, whatever stands in it: the name
of a special token inside it (`<|im_end|>`) is encoded letter by letter; only a template writes special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.models.ends import stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_DATE = "2024-07-26"
"""The day on which every prompt is rendered, for templates that write the date (the fall-back of Llama 3.2's): the same
prompt is the same text tomorrow. Part of the identity of every reference policy."""

_TODAY = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_PROMPT, _ANSWER = "peobenchprompt", "peobenchanswer"
"""Stand for texts where what the template writes around them is wanted."""


# --- templates --------------------------------------------------------------------------------------------------------


def chat_text(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str | None = None) -> str:
    """Return what the chat template makes of a prompt on `PROMPT_DATE`: up to where an answer begins, or with `answer`.

    Raises `UsageError` for a template that cannot be rendered on a fixed day, or not at all.
    """
    messages = [{"role": "user", "content": prompt}]
    messages += [] if answer is None else [{"role": "assistant", "content": answer}]
    template = _TODAY.sub(_fixed, tokenizer.chat_template)
    if "strftime_now(" in template:
        raise UsageError(
            f"{tokenizer.name_or_path}: its chat template writes today's date in a form of its own: "
            "use strftime_now('...') in it, or write a fixed date"
        )
    return str(
        tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=answer is None
        )
    )


def _fixed(call: re.Match[str]) -> str:
    """Return the jinja text of a date in place of a call for today's."""
    text = date.fromisoformat(PROMPT_DATE).strftime(call[2])
    return f"'{text}'"


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the chat template writes the date into prompts."""
    return "strftime_now(" in (tokenizer.chat_template or "")


def remarks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what a reader should know of how this tokenizer's prompts and answers are written, if it is unusual."""
    found = []
    end = answer_end(tokenizer)
    if end != (tokenizer.eos_token_id,):
        found.append(f"answers are trained to end with {tokenizer.decode(end)!r}, as its chat template writes them")
    render(tokenizer, _PROMPT)
    return found + date_remarks(tokenizer)


def date_remarks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return that the chat template writes the date, and which one, where it does."""
    if not writes_date(tokenizer):
        return []
    return [f"its chat template writes the date, which is {PROMPT_DATE} here whatever the day"]


def render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return the text a policy continues: the chat template with one user message, or the prompt and a line break."""
    return f"{prompt}\n" if tokenizer.chat_template is None else chat_text(tokenizer, prompt)


# --- token ids --------------------------------------------------------------------------------------------------------


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the token ids of the rendered prompt.

    A chat template writes its special tokens itself. Without one the tokenizer adds its own; an end-of-sequence token
    that it would put after the prompt is dropped.
    """
    templated = tokenizer.chat_template is not None
    ids = filled_ids(tokenizer, lambda text: render(tokenizer, text), [prompt], add_special_tokens=not templated)
    if not templated and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of raw prompts, exactly those that generation continues."""
    known = {prompt: prompt_ids(tokenizer, prompt) for prompt in dict.fromkeys(prompts)}
    return [known[prompt] for prompt in prompts]


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> list[list[int]]:
    """Return the token ids of answers, each with its end (see `answer_end`)."""
    end = answer_end(tokenizer)
    ids = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    for i, answer in enumerate(answers):
        if names_special(tokenizer, answer):
            ids[i] = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [[*row, *end] for row in ids]


def answer_texts(
    tokenizer: PreTrainedTokenizerBase, answers: Sequence[Sequence[int]], stop: Collection[int]
) -> list[str]:
    """Return the texts of generated answers, without the `stop` token that ended them, special or not."""
    said = [list(ids[:-1] if ids and ids[-1] in stop else ids) for ids in answers]
    return [str(text) for text in tokenizer.batch_decode(said, skip_special_tokens=True)]


def answer_end(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the tokens that end an answer: what the chat template writes behind it up to the first stop token.

    That is where generation ends (see `models.ends.stop_ids`). Where the template writes no stop token there, and
    without a template, it is the tokenizer's end-of-sequence token.
    """
    return _answer_end(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=8)
def _answer_end(tokenizer: PreTrainedTokenizerBase, template: str | None) -> tuple[int, ...]:
    stop = stop_ids(tokenizer, Path(tokenizer.name_or_path) if tokenizer.name_or_path else None)
    own = stop[:1] if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    if template is None:
        return own
    _, found, behind = _dialogue(tokenizer).rpartition(_ANSWER)
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"] if found else []
    first = next((i for i, token in enumerate(ids) if token in stop), None)
    return own if first is None else tuple(ids[: first + 1])


def _dialogue(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template with a stand-in for an answer, nothing where it takes none."""
    from jinja2 import TemplateError

    try:
        return chat_text(tokenizer, _PROMPT, _ANSWER)
    except TemplateError:  # a template for single prompts
        return ""


def filled_ids(
    tokenizer: PreTrainedTokenizerBase,
    form: Callable[..., str],
    texts: Sequence[str],
    *,
    add_special_tokens: bool,
) -> list[int]:
    """Return the token ids of `form(*texts)`, where only what `form` itself writes can be a special token.

    Where no text holds the name of one, this is the tokenizer's own encoding.
    """
    special, whole = _specials(tokenizer), form(*texts)
    if not names_special(tokenizer, *texts):
        return list(tokenizer(whole, add_special_tokens=add_special_tokens)["input_ids"])
    pieces = _pieces(form, texts, whole)
    if pieces is None:
        raise UsageError(
            f"a text holds the name of a special token and the chat template of {tokenizer.name_or_path} rewrites it: "
            f"leave it out of the data ({texts[0][:60]!r})"
        )
    runs = [""]
    for piece, own in pieces:
        parts = [piece] if own else re.split(f"({special.pattern})", piece)
        for i, part in enumerate(parts):
            runs += [part, ""] if i % 2 else []
            runs[-1] += "" if i % 2 else part
    ids: list[int] = list(tokenizer("")["input_ids"]) if add_special_tokens else []
    for i, run in enumerate(runs):
        if run:
            ids += tokenizer(run, add_special_tokens=False, split_special_tokens=not i % 2)["input_ids"]
    return ids


def names_special(tokenizer: PreTrainedTokenizerBase, *texts: str) -> bool:
    """Tell whether a text holds the name of a special token."""
    special = _specials(tokenizer)
    return any(special.search(text) for text in texts)


def _pieces(form: Callable[..., str], texts: Sequence[str], whole: str) -> list[tuple[str, bool]] | None:
    """Return `whole` in pieces, each with whether it is one of `texts`; None where the form rewrites them."""
    marks = (_PROMPT, _ANSWER)[: len(texts)]
    frame = re.split("|".join(marks), form(*marks))
    for shown in (texts, [text.strip() for text in texts]):
        pieces = [(frame[0], False)]
        for text, behind in zip(shown, frame[1:], strict=False):
            pieces += [(text, True), (behind, False)]
        if "".join(piece for piece, _ in pieces) == whole:
            return pieces
    return None


@lru_cache(maxsize=8)
def _specials(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return a pattern that finds the names of special tokens, longer ones first."""
    names = sorted((token.content for token in tokenizer.added_tokens_decoder.values() if token.special), key=len)
    return re.compile("|".join(map(re.escape, reversed(names))) or r"(?!)")
