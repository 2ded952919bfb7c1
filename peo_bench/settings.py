"""Settings shared by suites, training jobs and the engine: frozen pydantic models, unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from peo_bench.errors import UsageError, unknown
from peo_bench.files.plain import require_file
from peo_bench.files.rows import is_whole


class Frozen(BaseModel):
    """Immutable settings; an unknown key is an error. A field's docstring is its line in docs/suite-keys.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


M = TypeVar("M", bound=BaseModel)


TOP = "the top level"


MOST_VALUES = 100_000
"""Of a YAML text, with every alias written out: ten lines of aliases can stand for more than any memory holds."""


def yaml_text(path: Path) -> str:
    """Return the text of a YAML file; `UsageError` for what cannot be read or is no file, which is not opened."""
    require_file(path, "give the path of a YAML file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): give the path of a YAML file") from None


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the top level of a YAML file, lm-eval's `!function` tags as their text."""
    text = yaml_text(path)
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise UsageError(f"{path}{line}: malformed YAML: {problem}; see `peo-bench list suites` for examples") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected `key: value` lines at the top level, found {type(value).__name__}")
    return value


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text; raise `yaml.YAMLError`, and nothing else, for what is none."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        check_size(node)
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.MarkedYAMLError(problem="nested too deeply") from None
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
        # PyYAML's own: the 45th of May, numbers of 5,000 digits, tags on values that they do not fit
        problem = f"a value is not of its type ({error})"
        raise yaml.MarkedYAMLError(problem=" ".join(problem.split())[:200]) from None
    finally:
        loader.dispose()


def check_size(node: yaml.Node | None) -> None:
    """Raise `yaml.YAMLError` for a document of more than `MOST_VALUES`, aliases written out, or one within itself.

    Also for half a character (a lone surrogate), which no file can hold.
    """
    sizes: dict[int, int] = {}

    def size(part: yaml.Node) -> int:
        if isinstance(part, yaml.ScalarNode) and not is_whole(part.value):
            raise yaml.MarkedYAMLError(
                problem="half a character (a lone surrogate): write the text anew", problem_mark=part.start_mark
            )
        if id(part) not in sizes:
            sizes[id(part)] = MOST_VALUES  # until it is known: who asks now is inside
            inner = [node for pair in part.value for node in pair] if isinstance(part, yaml.MappingNode) else part.value
            sizes[id(part)] = 1 if isinstance(part, yaml.ScalarNode) else 1 + sum(map(size, inner))
        return sizes[id(part)]

    if node is not None and size(node) > MOST_VALUES:
        raise yaml.MarkedYAMLError(problem=f"it stands for more than {MOST_VALUES:,} values")


def read_yaml(path: Path, model: type[M], section: str = "") -> M:
    """Return the checked content of a YAML file (or of its key `section`); errors name the file and the key."""
    value = load_yaml(path)
    return check(value.get(section, {}) if section else value, model, f"{path}")


def check(value: Mapping[str, Any], model: type[M], where: str) -> M:
    """Validate `value`; one problem of it becomes a one-line `UsageError` that names its key."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = error.errors()  # a key that is unknown before one that is missing: it may be the same, misspelt
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
        if first["type"] == "extra_forbidden":
            *parents, last = [str(part) for part in first["loc"]]
            shown, known = _accepted(model, parents)
            raise UsageError(f"{where}: {unknown(f'key in {shown or TOP}', last, known)}") from None
        key, _ = _accepted(model, [str(part) for part in first["loc"]])
        plain = first["type"] != "missing" and not isinstance(first["input"], dict | list | tuple | BaseModel)
        found = f" (found {first['input']!r})" if plain else ""
        raise UsageError(f"{where}: {f'key {key!r}: ' if key else ''}{reason_of(first['msg'])}{found}") from None


def reason_of(message: str) -> str:
    """Return what pydantic says, to be put after a colon.

    >>> reason_of("Value error, Ann is no number"), reason_of("Input should be a valid integer")
    ('Ann is no number', 'input should be a valid integer')
    """
    own = message.removeprefix("Value error, ")
    return own if own != message else message[:1].lower() + message[1:]


def _accepted(kind: Any, path: list[str]) -> tuple[str, list[str]]:
    """Return pydantic's `path` in settings of this `kind` as a user writes it, and the keys that are accepted there.

    In unions of settings pydantic's paths hold the value that says which of them is meant, which is no key.
    """
    written: list[str] = []
    for part in path:
        kinds = [each for each in get_args(kind) if each is not type(None)] if _is_union(kind) else [kind]
        kind = kinds[0]
        if len(kinds) > 1:
            kind = next((each for each in kinds if part in _tags(each)), None)
        elif _is_settings(kind):
            field = kind.model_fields.get(part)
            kind = field.annotation if field else None
            written.append(part)
        else:  # a list's positions and a table's keys are free
            kind = (get_args(kind) or (None,))[-1 if get_origin(kind) is dict else 0]
            written.append(part)
    return ".".join(written), list(kind.model_fields) if _is_settings(kind) else []


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _tags(kind: Any) -> set[str]:
    """Return the texts that tell settings of this kind from others of a union."""
    literals = (field.annotation for field in kind.model_fields.values()) if _is_settings(kind) else ()
    return {str(value) for annotation in literals for value in get_args(annotation)}


class _Loader(yaml.SafeLoader):
    """Safe YAML in which lm-eval's `!function module.name` is read as its text."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))
