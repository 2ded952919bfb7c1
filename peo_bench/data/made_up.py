"""Made-up rows in the layouts of the data sets that suites name, so that their path can be tried without the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from peo_bench.data.prompts import PromptSource
from peo_bench.data.schema import ASSISTANT, HUMAN, LABEL_COLUMNS, DataSource, PairSource
from peo_bench.files.json_types import Json, JsonObject

VERBS = (
    "clean", "mend", "store", "open", "paint", "carry", "sell", "build", "copy", "lift", "wash", "close", "move",
    "find", "hide", "count", "draw", "test", "warm", "dry",
)  # fmt: skip
THINGS = (
    "an old lamp", "a red box", "the garden gate", "a wet coat", "my bicycle", "a small boat", "the kitchen clock",
    "a heavy door", "some green tea", "a paper map", "the stone wall", "a broken cup", "her piano", "a warm blanket",
    "the letter box", "a tin roof", "his guitar", "a glass jar", "the wooden stairs", "an apple tree",
)  # fmt: skip
BEGINNINGS = {"pairs": "How do I", "prompts": "Please tell me how to", "benign": "Is it all right to"}
"""Of prompts, by what they are for: those that are tested on are others than those that are trained on."""
CATEGORIES = ("home", "garden", "music")


def texts() -> list[str]:
    """Return all texts that rows are made of, for tokenizers to learn from."""
    prompts = [prompt for beginning in BEGINNINGS for prompt in _prompts(beginning)]
    return [*prompts, *(answer for prompt in prompts for answer in _answers(prompt))]


def rows(source: DataSource, use: str) -> Iterator[JsonObject]:
    """Yield rows as `source` reads them: pairs of its objective, or prompts; `use` is one of `BEGINNINGS`."""
    for prompt in _prompts(use):
        for row in _pairs(source, prompt) if isinstance(source, PairSource) else [_prompt(source, prompt)]:
            if isinstance(source, PromptSource):
                row |= source.where
            if source.category:
                row[source.category] = CATEGORIES[_draw(prompt, "category") % len(CATEGORIES)]
            yield row


def _prompts(use: str) -> list[str]:
    return [f"{BEGINNINGS[use]} {verb} {thing}?" for verb in VERBS for thing in THINGS]


def _draw(prompt: str, what: str) -> int:
    return int(hashlib.sha256(f"{what}: {prompt}".encode()).hexdigest()[:8], 16)


def _answers(prompt: str) -> tuple[str, str]:
    """Return two answers to a prompt."""
    verb, thing = (some[_draw(prompt, what) % len(some)] for what, some in (("verb", VERBS), ("thing", THINGS)))
    return f"First {verb} it with care, then rest and look at {thing}.", f"No idea, {verb} {thing} instead."


def _prompt(source: DataSource, prompt: str) -> JsonObject:
    (column,) = source.named.values()
    return {column: _transcript(prompt, _answers(prompt)[0]) if source.layout == "transcripts" else prompt}


def _pairs(source: PairSource, prompt: str) -> list[JsonObject]:
    """Return the rows that hold one pair: two where every row is one rated answer."""
    names, answers = source.named, _answers(prompt)
    if source.layout == "prompts":
        return [{names["prompt"]: prompt}]
    better = _draw(prompt, source.objective) % 2
    if source.layout == "pku":
        values: dict[str, Json] = {"prompt": prompt, "response_0": answers[0], "response_1": answers[1]}
        values |= {column: _draw(prompt, objective) % 2 for objective, column in LABEL_COLUMNS.items()}
        safe: JsonObject = {f"is_response_{i}_safe": values["safer_response_id"] == i for i in range(2)}
        return [{names[field]: value for field, value in values.items()} | safe]
    if source.layout == "rated":
        rated = [
            _nested({names["answer"]: answer, names["rating"]: (i == better) + 1}) for i, answer in enumerate(answers)
        ]
        asked: JsonObject = {names["prompt"]: prompt}
        return [asked | {source.answers: [*rated]}] if source.answers else [asked | each for each in rated]
    chosen, rejected = answers[better], answers[1 - better]
    if source.layout == "hh":
        return [{names["chosen"]: _transcript(prompt, chosen), names["rejected"]: _transcript(prompt, rejected)}]
    return [{names["prompt"]: prompt, names["chosen"]: chosen, names["rejected"]: rejected}]


def _transcript(prompt: str, answer: str) -> str:
    return f"{HUMAN} {prompt}{ASSISTANT} {answer}"


def _nested(values: JsonObject) -> JsonObject:
    """Return values whose keys with dots lead into objects."""
    found: JsonObject = {}
    for path, value in values.items():
        *parents, last = path.split(".")
        place = found
        for parent in parents:
            inner = place.setdefault(parent, {})
            assert isinstance(inner, dict)
            place = inner
        place[last] = value
    return found
