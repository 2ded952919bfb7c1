"""A prompt that is a dialogue, as one text.

A prompt is a text in every file, table and request. The question of one user is its own text; a dialogue of several
turns, or with a system turn, is the JSON list of its messages (`{"role": ..., "content": ...}`), of which whoever
renders it makes turns again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from peo_bench.files.rows import RowError, whole_text

Turn = tuple[str, str]
"""A message's role and its text."""

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"

BEGINNING = '[{"role": "'
"""How the text of a dialogue begins."""


def messages_in(value: object, field: str) -> list[Turn] | None:
    """Return the turns of a list of messages, or of the JSON text of one; None for any other text.

    Raises `RowError` for what is neither a text nor a list of messages.
    """
    if isinstance(value, str):
        value = _listed(value)
        if value is None:
            return None
    if not isinstance(value, list | tuple):
        raise RowError(f"{field} is {type(value).__name__}, expected text or a list of messages")
    turns = [_turn(message) for message in value]
    if None in turns:
        raise RowError(f"a message in {field} has no text for 'role' and 'content'")
    return [(role, whole_text(content, field).strip()) for role, content in filter(None, turns)]


def _turn(message: object) -> Turn | None:
    """Return the role and the text of a message, whose content may be a list of parts; None where there is no text."""
    if not isinstance(message, Mapping):
        return None
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list | tuple):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if texts and len(texts) == len(parts) else None
    return (role, content) if isinstance(role, str) and isinstance(content, str) else None


def _listed(text: str) -> list[Mapping[str, object]] | None:
    """Return the list of messages that a text is, as in a CSV file; None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) and value and None not in map(_turn, value) else None


def problem_of(turns: Sequence[Turn]) -> str | None:
    """Say why turns are no prompt: one is a user's turn, or turns that take turns up to one, after a system's or none.

    >>> problem_of([("system", "be brief"), ("user", "hello")]), problem_of([("user", "a"), ("user", "b")])
    (None, 'turns do not alternate')
    """
    spoken = turns[1:] if turns and turns[0][0] == SYSTEM else turns
    if not spoken:
        return "no question"
    strange = [role for role, _ in spoken if role not in (USER, ASSISTANT)]
    if strange:
        return "a system turn within" if SYSTEM in strange else f"a turn of role {strange[0][:20]}"
    if any(role != (USER, ASSISTANT)[i % 2] for i, (role, _) in enumerate(spoken)):
        return "turns do not alternate"
    return None if spoken[-1][0] == USER else "no question at the end"


def to_prompt(turns: Sequence[Turn]) -> str:
    """Return the text that stands for turns of which `problem_of` knows no problem.

    >>> to_prompt([("user", "hello")])
    'hello'
    """
    if [role for role, _ in turns] == [USER]:
        return turns[0][1]
    return json.dumps([{"role": role, "content": content} for role, content in turns], ensure_ascii=False)


def turns_of(prompt: str) -> list[Turn]:
    """Return the turns that a prompt stands for.

    >>> turns_of("hello")
    [('user', 'hello')]
    """
    listed = _listed(prompt) if prompt.startswith(BEGINNING) else None
    turns = [turn for turn in map(_turn, listed or ()) if turn]
    return turns if len(turns) > 1 and problem_of(turns) is None else [(USER, prompt)]


def opening(prompt: str) -> str:
    """Return the first question of a prompt: dialogues that go on from one another have it in common."""
    return next(content for role, content in turns_of(prompt) if role == USER)


def size(prompt: str) -> int:
    """Return the characters that were said."""
    return sum(len(content) for _, content in turns_of(prompt))


def folded(turns: Sequence[Turn]) -> list[Turn]:
    r"""Return turns without a system's: its text begins the first question.

    >>> folded([("system", "be brief"), ("user", "hello")])
    [('user', 'be brief\n\nhello')]
    """
    if turns[0][0] != SYSTEM:
        return list(turns)
    (_, told), (role, asked), *others = turns
    return [(role, f"{told}\n\n{asked}"), *others]


def shown(turns: Sequence[Turn]) -> str:
    r"""Return turns as people, and models without a chat template, read them; a question alone is its own text.

    >>> shown([("user", "hello"), ("assistant", "yes ?"), ("user", "a cake")])
    'User: hello\n\nAssistant: yes ?\n\nUser: a cake'
    """
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in turns)


def readable(prompt: str) -> str:
    """Return a prompt as people read it: a dialogue turn by turn."""
    return shown(turns_of(prompt))
