"""Every key of suite and task files: as a JSON schema for editors, and as the tables of docs/suite-keys.md."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from pydantic import BaseModel

from peo_bench.core.decoding import Decoding
from peo_bench.data.prompts import PromptSource
from peo_bench.data.schema import PairSource
from peo_bench.judges.settings import JudgeSettings, Price
from peo_bench.scorers.settings import ScorerConfig
from peo_bench.suites.suite import (
    CapabilitySettings,
    EngineSettings,
    ObjectiveConfig,
    PairsData,
    SandboxData,
    SuiteConfig,
    TaskConfig,
)
from peo_bench.training.settings import DPOSettings, RewardModelSettings, SFTSettings

FILES: dict[str, dict[str, type[BaseModel]]] = {
    "suite": {
        "": SuiteConfig,
        "data (`kind: sandbox`)": SandboxData,
        "data (`kind: pairs`)": PairsData,
        "data.sources, each": PairSource,
        "sft": SFTSettings,
        "training": DPOSettings,
        "reward_model": RewardModelSettings,
        "decoding": Decoding,
        "judge": JudgeSettings,
        "judge.prices, each": Price,
        "scorers and proxies, each": ScorerConfig,
        "engine": EngineSettings,
        "capabilities": CapabilitySettings,
    },
    "task": {
        "metadata": TaskConfig,
        "metadata.objectives, each": ObjectiveConfig,
        "metadata.prompts and metadata.benign": PromptSource,
    },
}
"""The settings classes of each file by the key that they stand under."""

Schema: TypeAlias = dict[str, Any]
"""A JSON schema, as pydantic makes it."""
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(file: str) -> Schema:
    """Return the JSON schema of suite files, or of task files, of which our part is the key `metadata`."""
    head = {"$schema": DIALECT}
    if file == "suite":
        return head | SuiteConfig.model_json_schema()
    ours = TaskConfig.model_json_schema()
    shared = ours.pop("$defs")
    described = "An lm-eval task with peo-bench's part under metadata."
    whole = {"title": "Task", "description": described, "type": "object", "required": ["metadata"]}
    return head | whole | {"properties": {"metadata": ours}, "$defs": shared}


def key_tables() -> str:
    """Return the tables of docs/suite-keys.md."""
    parts = []
    for file, sections in FILES.items():
        parts.append(f"## Keys of a {file} file")
        parts += [_table(name, model) for name, model in sections.items()]
    return "\n\n".join(parts)


def _table(name: str, model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    lines = [f"### {name}", ""] if name else []
    lines += [" ".join((model.__doc__ or "").split()), "", "| key | takes | default | meaning |", "|---|---|---|---|"]
    for key, field in schema["properties"].items():
        meaning = " ".join(field.get("description", "").split())
        lines.append(f"| `{key}` | {_takes(field)} | {_default(key, field, schema)} | {meaning} |")
    return "\n".join(lines)


def _takes(field: Schema) -> str:
    """Return what a key takes, in words."""
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_takes(part) for part in field["anyOf"] if part.get("type") != "null")
    kind = str(field.get("type", "keys"))
    if kind in ("integer", "number"):
        bounds = " and ".join(f"{sign} {field[name]:g}" for name, sign in BOUNDS.items() if name in field)
        return " ".join(part for part in ("whole number" if kind == "integer" else "number", bounds) if part)
    return {"string": "text", "boolean": "true or false", "array": "list", "object": "keys"}.get(kind, kind)


def _default(key: str, field: Schema, schema: Schema) -> str:
    """Return a key's default as YAML has it; nothing where it is an object of keys with defaults of their own."""
    if key in schema.get("required", ()):
        return "needed"
    value = field.get("default")
    return "" if value is None or isinstance(value, dict) else f"`{json.dumps(value)}`"
