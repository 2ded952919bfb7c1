"""Control tokens by name inside a text: they are plain text there, as if the tokenizer did not know them.

In an answer these are the special tokens and those that end answers. Another added token (`<tool>`) is ordinary
vocabulary: a policy can say it, and its text must give the same token again. In a prompt they are also the added tokens
that the chat template writes itself, as with transformers' `sanitize_control_tokens`: who asks writes no turns.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.models.ends import declared_ends

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_NONCE = secrets.token_hex(8)
"""Part of the other names of control tokens, which no text holds."""


WHOLE_PIECES = ("Unigram", "WordLevel", "WordPiece")
"""Models that may find a control token's name among their pieces; BPE would have to merge it."""


@dataclass(frozen=True)
class Controls:
    """Patterns that find names of control tokens: `asked` in a prompt, `said`, some of them, in an answer."""

    asked: re.Pattern[str]
    said: re.Pattern[str]


@dataclass(frozen=True)
class _Renamed:
    """A tokenizer in which control tokens have other names; `ids` are the tokenizer's own by those it gives."""

    backend: Tokenizer
    names: Mapping[str, str]
    ids: Mapping[int, int]

    def own(self, ids: Sequence[int]) -> list[int]:
        """Return the tokenizer's own ids of those that the backend gives."""
        return [self.ids.get(i, i) for i in ids]


def controls(tokenizer: PreTrainedTokenizerBase) -> Controls:
    """Return what finds the names of control tokens."""
    return _controls(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=8)
def _controls(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Controls:
    added = tokenizer.added_tokens_decoder
    ends = declared_ends(Path(tokenizer.name_or_path)) if tokenizer.name_or_path else ()
    said = {token.content for i, token in added.items() if token.special or i in ends}
    listed = getattr(tokenizer, "chat_control_tokens", None)
    written = "\0".join(_literals(template)) if listed is None and template is not None else ""
    asked = {token.content for token in added.values() if token.content in (written if listed is None else listed)}
    return Controls(_pattern(said | {name for name in asked if not name.isspace()}), _pattern(said))


def _literals(template: str) -> Iterable[str]:
    """Yield the texts and the string constants of a chat template."""
    from jinja2 import Environment, TemplateError

    try:
        yield from (value for _, kind, value in Environment().lex(template) if kind in ("data", "string"))
    except TemplateError:  # said where it is rendered
        return


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Return what matches any of the names, longer ones first."""
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")


def holds(tokenizer: PreTrainedTokenizerBase, names: re.Pattern[str], texts: Sequence[str]) -> list[bool]:
    """Tell which texts hold a control token's name, or what the tokenizer's normaliser makes one of."""
    found = [names.search(text) is not None for text in texts]
    tokens = _normalised(tokenizer, names)
    if tokens and texts:
        batch = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        found = [named or not tokens.isdisjoint(ids) for named, ids in zip(found, batch, strict=True)]
    return found


@lru_cache(maxsize=16)
def _normalised(tokenizer: PreTrainedTokenizerBase, names: re.Pattern[str]) -> frozenset[int]:
    """Return the control tokens that are looked for in the normalised text: of another case or width, say.

    Those are the added tokens that say so, and whatever the tokenizer's model has among its own pieces.
    """
    if not tokenizer.is_fast or tokenizer.backend_tokenizer.normalizer is None:
        return frozenset()
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    pieces = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False) if model["type"] in WHOLE_PIECES else {}
    return frozenset(
        i
        for i, token in tokenizer.added_tokens_decoder.items()
        if names.fullmatch(token.content) and (token.normalized or token.content in pieces)
    )


@lru_cache(maxsize=8)
def _renamed(tokenizer: PreTrainedTokenizerBase, pattern: re.Pattern[str]) -> _Renamed:
    from tokenizers import Tokenizer

    if not tokenizer.is_fast:
        raise UsageError(
            f"a text holds the name of a special token, and the tokenizer of {tokenizer.name_or_path} has no "
            "tokenizer.json: leave the text out of the data, or save the tokenizer again with its fast version"
        )
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {"truncation": None, "padding": None}
    names, own = {}, {}
    for token in content["added_tokens"]:
        if pattern.fullmatch(token["content"]):
            names[token["content"]] = f"{_NONCE}.{token['id']}."
            token["content"] = names[token["content"]]
        own[token["content"]] = token["id"]
    model = content["model"]
    if model["type"] == "Unigram":  # its pieces are looked for in the text by themselves, control tokens among them
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    backend = Tokenizer.from_str(json.dumps(content))
    return _Renamed(backend, names, {i: own[token.content] for i, token in backend.get_added_tokens_decoder().items()})


def encode(
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[tuple[str, re.Pattern[str] | None]],
    *,
    add_special_tokens: bool,
    limit: int | None = None,
) -> list[int]:
    """Return the token ids of the joined pieces, in which the names that a piece's own pattern finds are text.

    They are those of the same tokenizer without these tokens, cut to `limit` as it cuts: what it adds behind a text
    stays. Raises `UsageError` where its model has them by itself.
    """
    renamed = _renamed(tokenizer, controls(tokenizer).asked)
    whole = "".join(_hidden(tokenizer, renamed, piece, plain) for piece, plain in pieces)
    _truncate(tokenizer, renamed, limit)
    return renamed.own(renamed.backend.encode(whole, add_special_tokens=add_special_tokens).ids)


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, limit: int | None = None
) -> tuple[list[int], list[int]]:
    """Return token and type ids of the pair (prompt, answer) as the tokenizer joins two texts, controls as text.

    The longer text is cut first, as by `truncation=True`. Raises `UsageError` as `encode` does.
    """
    found = controls(tokenizer)
    renamed = _renamed(tokenizer, found.asked)
    texts = _hidden(tokenizer, renamed, prompt, found.asked), _hidden(tokenizer, renamed, answer, found.said)
    _truncate(tokenizer, renamed, limit)
    encoding = renamed.backend.encode(*texts)
    return renamed.own(encoding.ids), list(encoding.type_ids)


def _hidden(tokenizer: PreTrainedTokenizerBase, renamed: _Renamed, piece: str, plain: re.Pattern[str] | None) -> str:
    """Return a piece in which the names that `plain` does not find are those of the renamed tokens."""
    hidden = ""
    for i, part in enumerate(re.split(f"({controls(tokenizer).asked.pattern})", piece)):
        text = i % 2 == 0 or (plain is not None and plain.fullmatch(part))
        hidden += part if text else renamed.names[part]
        if text and plain is not None and part and (i % 2 or _normalised(tokenizer, plain)):
            _check_text(tokenizer, renamed, part, plain)
    return hidden


def _truncate(tokenizer: PreTrainedTokenizerBase, renamed: _Renamed, limit: int | None) -> None:
    """Cut what is encoded next to `limit` tokens."""
    if limit is None:
        renamed.backend.no_truncation()
    else:
        renamed.backend.enable_truncation(limit, direction=tokenizer.truncation_side)


def _check_text(tokenizer: PreTrainedTokenizerBase, renamed: _Renamed, text: str, names: re.Pattern[str]) -> None:
    """Raise `UsageError` if the tokenizer's model reads a control token in the text, known as added or not."""
    renamed.backend.no_truncation()
    found = {*renamed.own(renamed.backend.encode(text, add_special_tokens=False).ids)} - {tokenizer.unk_token_id}
    read = [token for token in tokenizer.convert_ids_to_tokens(sorted(found)) if names.fullmatch(token)]
    if read:
        raise UsageError(
            f"a text holds {read[0]!r}, which the tokenizer of {tokenizer.name_or_path} cannot spell: "
            "leave it out of the data"
        )
