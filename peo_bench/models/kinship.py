"""Is a full fine-tune a change of its base? Its configuration and tokenizer say so as much as its tensors' shapes.

An expert is used as a difference of weights on top of the base: what its own configuration would make of those weights
is lost. So every key that is not known to leave the function alone must be the same.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.files.json_types import JsonObject
from peo_bench.models.ends import known_ends, stop_ids
from peo_bench.models.loading import TEMPLATE, TEMPLATES, has_tokenizer, read_tokenizer, stored_buffers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

HARMLESS = re.compile(
    r"_name_or_path|architectures|transformers_version|(torch_)?dtype|use_cache|initializer_range|auto_map"
    r"|output_(hidden_states|attentions)|id2label|label2id|problem_type|task_specific_params|torchscript"
    r"|gradient_checkpointing|tokenizer_class|unsloth_\w+|_?attn_implementation\w*|summary_\w+"
    r"|(attention|hidden|classifier|embd|resid|attn|activation)_?p?drop(out)?(_prob)?|dropout"
)
"""Keys that say nothing of what a model computes when it is not trained."""

ATTENTION = "attn_implementation"
"""How attention is computed, which configurations know and leave out of what they save."""

EXCEPT = {"falcon": {"output_attentions", ATTENTION}}
"""Keys among these that matter to an architecture: Falcon's attention is another where its weights are told."""

TOLD = {"eos_token_id", "bos_token_id", "pad_token_id"}
"""Keys that matter for texts, which the base's decides: told, not refused."""

PROBE = (
    "The quick brown fox, 1234567 of them, doesn't stop.\n\n  - Ünïcödé: 你好, naïve café\t=> f(x) = x**2;\n",
    "how do i make  a  CAKE? ",
    "DOESN'T it's\r\n        eight blanks!!!! नमस्ते مرحبا __init__ 3.14e-10\n",
    "e\u0301 \uff21\uff22\uff23 \ufb01 \U0001f469\u200d\U0001f4bb",
)
"""Texts that two tokenizers of one family must encode alike."""


OTHER_TEMPLATE = "its chat template is not that of the base, which is used"


@dataclass
class Kinship:
    """What speaks against a checkpoint as a change of a base, and what a reader should know."""

    problem: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Base:
    """What a checkpoint is to be a change of: a model, which may be without weights, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def compare(folder: Path, model: PreTrainedModel, base: Base) -> Kinship:
    """Compare the folder of a full fine-tune, and its `model`, with its base; a missing tokenizer is the base's."""
    found = compare_configs(model.config, base.model.config)
    found.problem = found.problem or other_buffer(model, base.model)
    if found.problem is None:
        texts = compare_tokenizers(folder, base.tokenizer)
        found = Kinship(texts.problem, found.warnings + texts.warnings)
    return found


def other_buffer(mine: PreTrainedModel, base: PreTrainedModel) -> str | None:
    """Name a stored buffer in which a fine-tune is not its base; on the meta device none shows."""
    import torch

    theirs = stored_buffers(base)
    for name, tensor in stored_buffers(mine).items():
        known = theirs.get(name)
        if known is None or not (tensor.is_meta or known.is_meta or torch.equal(tensor, known.to(tensor.dtype))):
            return f"its buffer {name} is not the base's, and differences are of parameters alone: keep it as it was"
    return None


def _other_ends(folder: Path, theirs: PreTrainedTokenizerBase) -> list[str]:
    """Say which tokens end an answer for the fine-tune and not for the base, whose ends are used."""
    reader = read_tokenizer(folder) if _has_tokenizer(folder) else theirs
    base = Path(theirs.name_or_path) if theirs.name_or_path else None
    surplus = {reader.eos_token_id, *known_ends(folder)} - {None, *stop_ids(theirs, base)}
    known = range(len(reader))
    named = ", ".join(
        repr(reader.convert_ids_to_tokens(end)) if end in known else f"token {end}" for end in sorted(surplus)
    )
    return [f"its answers end with {named} too: only the base's ends are used"] if surplus else []


def compare_tokenizers(folder: Path, theirs: PreTrainedTokenizerBase) -> Kinship:
    """Compare the tokenizer beside a fine-tune or an adapter, if there is one, and its ends with those of its base."""
    found = Kinship()
    if _has_tokenizer(folder):
        _compare_tokenizers(found, read_tokenizer(folder), theirs)
    else:
        alone = [*folder.glob(TEMPLATE), *folder.glob(f"{TEMPLATES}/*.jinja")]
        if any(path.read_text(encoding="utf-8", errors="replace") != theirs.chat_template for path in alone):
            found.warnings.append(OTHER_TEMPLATE)
    found.warnings += [] if found.problem else _other_ends(folder, theirs)
    return found


def _has_tokenizer(folder: Path) -> bool:
    return has_tokenizer(path.name for path in folder.iterdir())


def compare_configs(mine: PretrainedConfig, base: PretrainedConfig) -> Kinship:
    """Compare the configurations of a full fine-tune and of its base, defaults filled in on both sides."""
    found = Kinship()
    own, known = (_flat(config.to_dict() | {ATTENTION: config._attn_implementation}) for config in (mine, base))
    counts = EXCEPT.get(base.model_type, set())
    for path in sorted(own.keys() | known.keys(), key=lambda path: (path != ("model_type",), path)):
        harmless = any(HARMLESS.fullmatch(key) and key not in counts for key in path)
        if _same(own.get(path), known.get(path)) or harmless:
            continue
        text = f"{'.'.join(path)} is {own.get(path)} in its config.json, not {known.get(path)}"
        *part, key = path
        more = key == "max_position_embeddings" and _plain_rope(own, part) and _plain_rope(known, part)
        if key in TOLD or more:
            found.warnings.append(f"{text}: the base's is used")
        else:
            found.problem = found.problem or text
    return found


def _flat(config: Mapping[str, object], part: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return the values of a configuration and of its parts, by path."""
    found: dict[tuple[str, ...], object] = {}
    for key, value in config.items():
        path = (*part, str(key))
        found |= _flat(value, path) if isinstance(value, Mapping) and value else {path: value}
    return found


def _same(mine: object, theirs: object) -> bool:
    """Tell whether two values of a key are one in single precision, in which a GGUF file keeps them and models run."""
    if isinstance(mine, float) and isinstance(theirs, float):
        return struct.pack("f", mine) == struct.pack("f", theirs)
    return mine == theirs


def _plain_rope(config: Mapping[tuple[str, ...], object], part: Sequence[str]) -> bool:
    """Tell whether positions are rotary and not scaled in a part, so that their number changes nothing."""
    return config.get((*part, "rope_parameters", "rope_type")) == "default"


def _parts(tokenizer: PreTrainedTokenizerBase) -> JsonObject:
    """Return what a fast tokenizer splits texts by, beside its tokens' ids; nothing of a slow one."""
    if not tokenizer.is_fast:
        return {}
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    rules = model.get("merges") or (model["vocab"] if isinstance(model["vocab"], list) else None)
    return {"normalizer": content["normalizer"], "pre_tokenizer": content["pre_tokenizer"], "list of merges": rules}


def _compare_tokenizers(found: Kinship, own: PreTrainedTokenizerBase, base: PreTrainedTokenizerBase) -> None:
    """Note tokens with another id, texts that are split otherwise, added tokens and another chat template."""
    mine, theirs = own.get_vocab(), base.get_vocab()
    moved = sorted(token for token in mine.keys() & theirs.keys() if mine[token] != theirs[token])
    if moved:
        token = moved[0]
        found.problem = (
            f"its tokenizer is another: {len(moved)} tokens have other ids, {token!r} is {mine[token]}, "
            f"not {theirs[token]}"
        )
        return
    for text in PROBE:
        if own(text)["input_ids"] != base(text)["input_ids"]:
            found.problem = f"its tokenizer is another: it splits {text[:20]!r} otherwise"
            return
    for what, surplus in (("has", mine.keys() - theirs.keys()), ("lacks", theirs.keys() - mine.keys())):
        if surplus:
            shown = ", ".join(map(repr, sorted(surplus)[:3]))
            found.warnings.append(f"its tokenizer {what} {len(surplus)} tokens ({shown}): the base's is used")
    own_parts, known_parts = _parts(own), _parts(base)
    found.warnings += [
        f"its tokenizer's {name} differs: the base's is used"
        for name, part in known_parts.items()
        if name in own_parts and own_parts[name] != part
    ]
    if own.chat_template != base.chat_template:
        found.warnings.append(OTHER_TEMPLATE)
