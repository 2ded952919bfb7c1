"""From raw texts to token ids: the prompt that a policy continues, the answer it is trained to give and what ends it.

Training, scoring and generation share these functions. A prompt or an answer is text, whatever stands in it: the name
of a special token inside it (`<|im_end|>`) is encoded as any other text (`models.controls`); only a template writes
special tokens.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.files.dialogue import ASSISTANT, SYSTEM, USER, Turn, folded, shown, turns_of
from peo_bench.files.rows import is_whole
from peo_bench.models.controls import controls, encode, holds
from peo_bench.models.ends import stop_ids
from peo_bench.process import MANY_LINES, bounded_templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT_DATE = "2024-07-26"
"""The day on which every prompt is rendered, for templates that write the date (the fall-back of Llama 3.2's): the same
prompt is the same text tomorrow. Part of the identity of every reference policy."""

MOST_DIGITS = 6
"""Of a number in a chat template."""

_PERCENT = "\ue000"
"""Stands for `%%` in a date's format."""

_WORDS = ("I", "The", "Yes", "hello", "a", "to")
"""Beginnings of answers, some of which every tokenizer has as tokens."""

_PROMPT, _ANSWER, _TOLD = "peobenchprompt", "peobenchanswer", "peobenchtold"
"""Stand for texts where what the template writes around them is wanted."""

_QUESTION: Turn = (USER, _PROMPT)


# --- templates --------------------------------------------------------------------------------------------------------


def chat_text(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """Return what the chat template makes of turns on `PROMPT_DATE`: up to an answer's beginning, or with an answer.

    A system turn that the template has no place for begins the first question. Raises `UsageError` for a template that
    does not take the turns.
    """
    if turns[0][0] == SYSTEM and not _takes_system(tokenizer, tokenizer.chat_template):
        turns = folded(turns)
    try:
        return _rendered(tokenizer, turns)
    except _unrenderable() as error:
        reason = " ".join(str(error).split())[:200]
        asked = f"a dialogue of {len(turns)} turns" if len(turns) > 2 else "a user's message"
        raise UsageError(
            f"{tokenizer.name_or_path}: its chat template does not take {asked} "
            f"{'and an answer' if turns[-1][0] == ASSISTANT else 'alone'} ({reason}): "
            "set tokenizer.chat_template to one that does and save the tokenizer again"
        ) from None


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], moment: str | None = None) -> str:
    """Return the rendered template, at `moment` (ISO 8601) instead of `PROMPT_DATE` where one is given."""
    text = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        chat_template=_at(moment or PROMPT_DATE, tokenizer.chat_template),
        tokenize=False,
        add_generation_prompt=turns[-1][0] != ASSISTANT,
    )
    return str(text)


@lru_cache(maxsize=8)
def _takes_system(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Tell whether the chat template writes what a system turn says."""
    try:
        return _TOLD in _rendered(tokenizer, [(SYSTEM, _TOLD), _QUESTION])
    except _unrenderable():
        return False


def _at(moment: str, template: str) -> str:
    """Return the template with a macro in place of `strftime_now`, however it calls that.

    A format that holds what strftime does not know here (a width, say) is refused by the template itself.
    """
    if "strftime_now" not in template:
        return template
    macro = (
        f"{{% macro strftime_now(format) %}}{{% set ns = namespace(text=format|replace('%%', {_PERCENT!r})) %}}"
        f"{{% for form, text in {_written(moment)!r} %}}{{% set ns.text = ns.text|replace(form, text) %}}{{% endfor %}}"
        "{% if '%' in ns.text %}{{ raise_exception('its date format ' ~ format ~ ' is not known here') }}{% endif %}"
        f"{{{{ ns.text|replace({_PERCENT!r}, '%') }}}}{{% endmacro %}}"
    )
    # The line break belongs to the tag before it, so the template begins a line as it did.
    return f"{macro}\n{template}"


@lru_cache(maxsize=4)
def _written(moment: str) -> tuple[tuple[str, str], ...]:
    """Return what strftime makes of every directive that it knows, with flags, at a moment."""
    now = datetime.fromisoformat(moment)
    letters = [letter for letter in string.ascii_letters if letter != "s"]
    forms = [f"%{flag}{letter}" for letter in letters for flag in ("", *"-_0^#EO")]
    known = {form: now.strftime(form) for form in forms}
    seconds = str(int(now.replace(tzinfo=UTC).timestamp()))  # strftime's depend on the machine's time zone
    return (*((form, text) for form, text in known.items() if "%" not in text), ("%s", seconds))


def _unrenderable() -> tuple[type[Exception], ...]:
    """Return the errors of a template that does not take what it is given."""
    from jinja2 import TemplateError

    return TemplateError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError


def try_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `UsageError` for a chat template that would not end: one may come from somebody else.

    What runs many lines is ended; no template of a chat has powers, or numbers of more than `MOST_DIGITS`, of which one
    alone can take for ever.
    """
    for kind, word in _words(tokenizer.chat_template):
        if (kind, word) == ("operator", "**") or (kind == "integer" and len(word.replace("_", "")) > MOST_DIGITS):
            raise UsageError(
                f"{tokenizer.name_or_path}: its chat template is no template of a chat (it has {word[:40]})"
            )
    for turns in ([_QUESTION], [_QUESTION, (ASSISTANT, _ANSWER)]):
        try:
            with bounded_templates():
                _rendered(tokenizer, turns)
        except _unrenderable() as error:  # others are told where the text is needed
            if MANY_LINES in str(error):
                raise UsageError(
                    f"{tokenizer.name_or_path}: its chat template is no template of a chat ({error})"
                ) from None


def _words(template: str | None) -> list[tuple[str, str]]:
    """Return the kinds and texts of a template's words, none for one that is malformed, which is told elsewhere."""
    from jinja2 import Environment, TemplateError

    try:
        return [(kind, word) for _, kind, word in Environment().lex(template or "")]
    except TemplateError:
        return []


def check_dialogue(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `UsageError` for a chat template that does not write a prompt and its answer, as scorers read them."""
    written = chat_text(tokenizer, [_QUESTION, (ASSISTANT, _ANSWER)])
    for mark, what in ((_PROMPT, "prompt"), (_ANSWER, "answer")):
        if mark not in written:
            raise UsageError(
                f"{tokenizer.name_or_path}: its chat template leaves out the {what}: set tokenizer.chat_template to "
                "one that writes every message's content and save the tokenizer again"
            )


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the chat template writes the date into prompts."""
    if "strftime_now" not in (tokenizer.chat_template or ""):
        return False
    return _rendered(tokenizer, [_QUESTION]) != _rendered(tokenizer, [_QUESTION], "1999-12-31T15:59:58.765432")


def remarks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what a reader should know of how this tokenizer's prompts and answers are written, if it is unusual.

    Raises `UsageError` for a chat template that does not write prompts.
    """
    if _PROMPT not in render(tokenizer, _PROMPT):
        raise UsageError(
            f"{tokenizer.name_or_path}: its chat template leaves out a prompt that is plain text: "
            "set tokenizer.chat_template to one that writes messages[0]['content'] and save the tokenizer again"
        )
    found = []
    end = answer_end(tokenizer)
    if end != (tokenizer.eos_token_id,):
        found.append(f"answers are trained to end with {tokenizer.decode(end)!r}, as its chat template writes them")
    elif tokenizer.chat_template is not None and _written_end(tokenizer, _stops(tokenizer)) is None:
        found.append(
            f"its chat template writes no end behind an answer at which generation ends: answers are trained to end "
            f"with {tokenizer.decode(end)!r}, the tokenizer's own"
        )
    return found + _lead_remarks(tokenizer) + date_remarks(tokenizer)


def _lead_remarks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return how answers are trained otherwise than in the whole dialogue of stock transformers, if they are."""
    lead = _answer_lead(tokenizer, tokenizer.chat_template)
    if lead.dialogue not in (None, lead.generated + lead.blank):
        return [
            f"its chat template writes {lead.dialogue!r} before an answer in a dialogue and {lead.generated!r} before "
            "one that is generated: answers are trained behind the latter"
        ]
    if None in _continuing(tokenizer, lead.generated, [lead.blank + word for word in _WORDS]):
        return [
            f"its prompts end inside a token ({lead.generated[-20:]!r}): answers are trained to continue them as text"
        ]
    return []


def date_remarks(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return that the chat template writes the date, and which one, where it does, be it into some prompts only."""
    if ("name", "strftime_now") not in _words(tokenizer.chat_template):
        return []
    into = "" if writes_date(tokenizer) else " into some prompts"
    return [f"its chat template writes the date{into}, which is {PROMPT_DATE} here whatever the day"]


def render(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return the text a policy continues: the chat template with the prompt's turns.

    Without a template they are the turns as people read them, a question alone as it is, and a line break.
    """
    return _continued(tokenizer, turns_of(prompt))


def _continued(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    return f"{shown(turns)}\n" if tokenizer.chat_template is None else chat_text(tokenizer, turns)


# --- token ids --------------------------------------------------------------------------------------------------------


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Return the token ids of the rendered prompt.

    A chat template writes its special tokens itself. Without one the tokenizer adds its own; an end-of-sequence token
    that it would put after the prompt is dropped.
    """
    return list(_prompt_ids(tokenizer, tokenizer.chat_template, prompt))


@lru_cache(maxsize=8192)
def _prompt_ids(tokenizer: PreTrainedTokenizerBase, template: str | None, prompt: str) -> tuple[int, ...]:
    """Return them, once for all policies and scorers that read the prompt."""
    if not is_whole(prompt):
        raise UsageError(f"the prompt {prompt[:60]!a} holds half a character (a lone surrogate): write it anew")
    templated = template is not None
    form = partial(_continued, tokenizer)
    ids = filled_ids(tokenizer, form, turns_of(prompt), add_special_tokens=not templated)
    if not templated and len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return tuple(ids)


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of raw prompts, exactly those that generation continues."""
    known = {prompt: prompt_ids(tokenizer, prompt) for prompt in dict.fromkeys(prompts)}
    return [known[prompt] for prompt in prompts]


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> list[list[int]]:
    """Return the token ids of answers as they stand behind a prompt, each with its end (see `answer_end`).

    Alone an answer may be other tokens: SentencePiece and its kin begin every text with a blank. Where the prompt's own
    tokens would be others before an answer, it is encoded as behind a line break.
    """
    lead = _answer_lead(tokenizer, tokenizer.chat_template)
    texts = [lead.blank + text if text and not text[0].isspace() else text for text in answers]
    found: dict[int, list[int]] = {}
    for before in (lead.generated, "\n", ""):
        waiting = [i for i in range(len(texts)) if i not in found]
        rows = zip(waiting, _continuing(tokenizer, before, [texts[i] for i in waiting]), strict=True)
        found |= {i: ids for i, ids in rows if ids is not None}
    end = answer_end(tokenizer)
    return [[*found[i], *end] for i in range(len(texts))]


def _continuing(tokenizer: PreTrainedTokenizerBase, before: str, texts: Sequence[str]) -> Iterator[list[int] | None]:
    """Yield the token ids of texts behind another; None where the other's own tokens would not be what they are."""
    if not texts:
        return
    said = controls(tokenizer).said
    head = list(tokenizer(before, add_special_tokens=False)["input_ids"]) if before else []
    batch = tokenizer([before + text for text in texts], add_special_tokens=False)["input_ids"]
    for text, plain, named in zip(texts, batch, holds(tokenizer, said, texts), strict=True):
        ids = encode(tokenizer, ((before, None), (text, said)), add_special_tokens=False) if named else plain
        yield ids[len(head) :] if ids[: len(head)] == head else None


@dataclass(frozen=True)
class _Lead:
    """What a template writes before an answer: one that is `generated`, and one in a whole dialogue (None: unknown).

    `blank` is the white space that only the dialogue has.
    """

    generated: str
    dialogue: str | None

    @property
    def blank(self) -> str:
        """The white space that the dialogue writes and the generation prompt leaves to the answer."""
        more = (self.dialogue or "").removeprefix(self.generated)
        return more if self.dialogue == self.generated + more and more.isspace() else ""


@lru_cache(maxsize=8)
def _answer_lead(tokenizer: PreTrainedTokenizerBase, template: str | None) -> _Lead:
    generated = render(tokenizer, _PROMPT).rpartition(_PROMPT)[2]
    before, found, _ = ("", "", "") if template is None else _dialogue(tokenizer).rpartition(_ANSWER)
    return _Lead(generated, before.rpartition(_PROMPT)[2] if found else None)


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
    stop = _stops(tokenizer)
    own = stop[:1] if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    return own if template is None else _written_end(tokenizer, stop) or own


def _stops(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    return stop_ids(tokenizer, Path(tokenizer.name_or_path) if tokenizer.name_or_path else None)


def _written_end(tokenizer: PreTrainedTokenizerBase, stop: Sequence[int]) -> tuple[int, ...] | None:
    """Return what the template writes behind an answer up to the first stop token; None where it writes none."""
    ids = _behind_answer(tokenizer)
    first = next((i for i, token in enumerate(ids) if token in stop), None)
    return None if first is None else tuple(ids[: first + 1])


def _behind_answer(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that the template writes behind an answer, as they are there: alone they may be others.

    Tokenizers that begin every text with a blank (Llama 2's) split it otherwise.
    """
    dialogue = _dialogue(tokenizer)
    before, found, behind = dialogue.rpartition(_ANSWER)
    if not found:
        return []
    whole, lead, alone = (
        list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (dialogue, before + found, behind)
    )
    return whole[len(lead) :] if whole[: len(lead)] == lead else alone


def _dialogue(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template with a stand-in for an answer, nothing where it takes none."""
    try:
        return _rendered(tokenizer, [_QUESTION, (ASSISTANT, _ANSWER)])
    except _unrenderable():  # a template for single prompts
        return ""


Form = Callable[[Sequence[Turn]], str]
"""Makes a text of turns, the last of which may be an answer."""


def filled_ids(
    tokenizer: PreTrainedTokenizerBase,
    form: Form,
    turns: Sequence[Turn],
    *,
    add_special_tokens: bool,
    limit: int | None = None,
) -> list[int]:
    """Return the token ids of `form(turns)`, cut to `limit`.

    Only what `form` itself writes can be a control token. Where no turn holds the name of one, this is the tokenizer's
    own encoding.
    """
    whole = form(turns)
    if not names_special(tokenizer, turns):
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        return list(tokenizer(whole, add_special_tokens=add_special_tokens, **cut)["input_ids"])
    pieces = _pieces(form, turns, whole)
    if pieces is None:
        raise UsageError(
            f"a text holds the name of a special token and the chat template of {tokenizer.name_or_path} rewrites it: "
            f"leave it out of the data ({turns[0][1][:60]!r})"
        )
    found = controls(tokenizer)
    parts: list[tuple[str, re.Pattern[str] | None]] = [(pieces[0], None)]
    for (role, _), said, behind in zip(turns, pieces[1::2], pieces[2::2], strict=True):
        parts += [(said, found.said if role == ASSISTANT else found.asked), (behind, None)]
    return encode(tokenizer, parts, add_special_tokens=add_special_tokens, limit=limit)


def names_special(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> bool:
    """Tell whether a turn holds the name of a control token."""
    found = controls(tokenizer)
    said = [text for role, text in turns if role == ASSISTANT]
    asked = [text for role, text in turns if role != ASSISTANT]
    return any(holds(tokenizer, found.asked, asked) + holds(tokenizer, found.said, said))


def _pieces(form: Form, turns: Sequence[Turn], whole: str) -> list[str] | None:
    """Return `whole` in pieces, every second one of the turns' texts; None where the form rewrites them."""
    marks = [f"peobench{i}mark" for i in range(len(turns))]
    frame = re.split("|".join(marks), form([(role, mark) for (role, _), mark in zip(turns, marks, strict=True)]))
    texts = [text for _, text in turns]
    if len(frame) != len(turns) + 1:
        return None
    for shorn in (texts, [text.strip() for text in texts]):
        pieces = [frame[0]]
        for text, behind in zip(shorn, frame[1:], strict=True):
            pieces += [text, behind]
        if "".join(pieces) == whole:
            return pieces
    return None
