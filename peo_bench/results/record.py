"""What every record of the run folder shares: frozen, checked where it is read, documented where it is declared.

A field's docstring is its line in docs/run-folder.md. A field whose default is None is left out of the file where it
is None; every other field is always written. Keys that a reader does not know are passed over.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from peo_bench.errors import UsageError, one_line
from peo_bench.files.json_types import JsonObject
from peo_bench.files.plain import is_no_file
from peo_bench.registry import check_name

SCHEMA_VERSION = 1
"""Of every file of a run folder."""
DIGITS = 309
"""Whole numbers of as many digits are beyond every float."""


def _known(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_known)]
"""A number, None where it is not finite or could not be computed."""


def method_name(value: str) -> str:
    """Return the name of a method, in a comparison with `@` and the run's; `ValueError` for one that is not safe."""
    name, _, run = value.partition("@")
    try:
        check_name("method", name)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if run != one_line(run) or "/" in run:
        raise ValueError(f"method {one_line(value)!r} is of no run: its name is no folder's")
    return value


MethodName = Annotated[str, AfterValidator(method_name)]
"""The name of a method, safe as that of a file and on a terminal: a folder may come from somebody else."""
Count = Annotated[int | None, BeforeValidator(_known)]
"""A whole number, None where it could not be counted."""


class Record(BaseModel):
    """A part of a file of the run folder."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True, populate_by_name=True, serialize_by_alias=True
    )

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        content: dict[str, JsonValue] = handler(self)
        optional = {field.alias or name for name, field in type(self).model_fields.items() if not field.is_required()}
        return {key: value for key, value in content.items() if value is not None or key not in optional}

    def to_json(self) -> JsonObject:
        """Return plain JSON; `from_json` inverts it."""
        return self.model_dump(mode="json")


R = TypeVar("R", bound=Record)


def damaged(path: Path, what: str) -> UsageError:
    """Return the error of a file that cannot be used."""
    said = " ".join(what.split())[:200]
    return UsageError(
        f"{path}: is damaged or of another version ({said}): repeat the run that made it, or copy it again"
    )


def from_json(model: type[R], content: object, path: Path) -> R:
    """Return the record that JSON describes; the first key that is missing or of a wrong type is a `UsageError`.

    `path` names the file; only what `to_json` can have written is taken, a number in quotes is not one.
    """
    try:
        return model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = "missing" if first["type"] == "missing" else first["msg"].lower()
        raise damaged(path, f"key {key!r}: {reason}") from None


def check_file(path: Path) -> None:
    """Raise `UsageError` if what lies at `path` is no file, links followed: a pipe or a device is never opened."""
    if is_no_file(path):
        raise damaged(path, "it is no file")


def read_text(path: Path) -> str:
    """Return the text of a file; `UsageError` if it is damaged or no file."""
    check_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from None


def _whole(digits: str) -> int:
    """Return a whole number of a file; `ValueError` for one that no float can hold, which sums stumble over."""
    if len(digits) >= DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def read_json(path: Path) -> JsonObject:
    """Return the JSON object in a file; UsageError where there is none or it is another thing."""
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path.parent} is not a finished run folder: {path.name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON, {type(error).__name__}: {error}") from None
    if not isinstance(content, dict):
        raise damaged(path, "not a JSON object")
    return cast(JsonObject, content)


def read_record(path: Path, model: type[R]) -> R:
    """Return the record in a file; UsageError, naming file and key, for what this version cannot read."""
    content = read_json(path)
    version = content.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise UsageError(f"{path}: schema_version {version!r}, this version reads {SCHEMA_VERSION}")
    return from_json(model, content, path)
