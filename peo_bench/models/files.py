"""The files of a checkpoint: its JSON objects, which of them hold its weights, and the tensors in those.

Nobody else opens a file of weights, but for transformers and PEFT where a whole model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.errors import UsageError
from peo_bench.files.inside import inside
from peo_bench.files.json_types import JsonObject
from peo_bench.files.plain import require_file
from peo_bench.models.convert import refuse_pickle

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_WEIGHTS = "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"

AGAIN = "copy it again, or save the checkpoint anew"
"""What to do about a damaged file of a checkpoint."""


def read_object(path: Path) -> JsonObject:
    """Return the JSON object in one of a checkpoint's files; `UsageError` naming the file where there is none."""
    require_file(path, AGAIN)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({reason(error)}): {AGAIN}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: not a JSON object: {AGAIN}")
    return content


def require_files(folder: Path) -> None:
    """Raise `UsageError` for a pipe or a device in a checkpoint's folder: what loads it opens whatever is there."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            require_file(path, AGAIN)


def reason(error: Exception) -> str:
    """Return what a library says of a file, in one line of bounded length."""
    return " ".join(str(error).split())[:300]


def shard_names(index: Path) -> set[str]:
    """Return the names of the files that an index of shards lists."""
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UsageError(f"{index}: its weight_map does not name a file by tensor: copy the whole checkpoint again")
    return set(names.values())


def weight_files(folder: Path) -> list[Path]:
    """Return the files whose tensors are the model's or the adapter's: what else lies there is not read.

    They are those of the usual names and those that the index names, whatever they are called.
    """
    index = folder / MODEL_INDEX
    names = shard_names(index) if index.is_file() else set()
    usual = [
        folder / MODEL_WEIGHTS,
        folder / ADAPTER_WEIGHTS,
        *folder.glob("model-*-of-*.safetensors"),
    ]
    return sorted(path for path in {*usual, *(inside(folder, name) for name in names)} if path.is_file())


def headers_in(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return number format and shape of every tensor in a file of weights; `UsageError` if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except SafetensorError as error:
        raise UsageError(f"{path}: damaged ({reason(error)}): copy or save it again") from None


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a file of weights; `UsageError` if it is damaged."""
    return {name: shape for name, (_, shape) in headers_in(path).items()}


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a checkpoint; missing or damaged shards are a `UsageError`."""
    for index in folder.glob("*.safetensors.index.json"):
        absent = sorted(shard_names(index) - {path.name for path in folder.iterdir()})
        if absent:
            raise UsageError(f"{folder}: {absent[0]} is missing, which {index.name} lists: copy the whole checkpoint")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        shapes |= shapes_in(path)
    return shapes


def stored_tensors(folder: Path, names: Collection[str]) -> dict[str, Tensor]:
    """Return those of the tensors `names` that the files of a checkpoint hold under these names."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118 - no dict
    return found


def adapter_file(folder: Path) -> Path:
    """Return the file of an adapter's weights; `UsageError` where there is none, or it is damaged."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        refuse_pickle((file.name for file in folder.glob("*")), folder)
        raise UsageError(f"{folder}: there is no {path.name}: save the adapter with save_pretrained()")
    shapes_in(path)
    return path


def adapter_tensors(folder: Path) -> dict[str, Tensor]:
    """Return what the weights of an adapter hold, by name."""
    from safetensors.torch import load_file

    return load_file(adapter_file(folder))
