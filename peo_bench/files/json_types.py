"""JSON as types, for code that carries it from file to file without knowing every key.

`Json` is what the `json` module can write. Its containers are read-only here, so that a `dict[str, float]` or a
`list[str]` is one without a cast; a JSON object that is filled key by key is a `JsonObject`.

>>> row: JsonObject = {"prompt": "Hello", "scores": [0.5, None]}
>>> row["samples"] = 2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]
