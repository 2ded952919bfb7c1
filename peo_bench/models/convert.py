"""Make safetensors of the pickles that older checkpoints hold: the one place that opens a pickle, and only when asked.

torch's restricted unpickler (`weights_only`) is used, which makes tensors and plain containers and calls nothing else.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from peo_bench.errors import UsageError
from peo_bench.files.atomic import follow_umask
from peo_bench.files.inside import inside
from peo_bench.files.room import room_for

WEIGHTS = {"pytorch_model": "model", "adapter_model": "adapter_model"}
"""Beginnings of the names that PyTorch's checkpoints give to weights, and those of safetensors."""

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
"""Endings of files that are pickles: opening one can run code."""


def convert(folder: Path, to: Path) -> None:
    """Write the checkpoint in `folder` to the new folder `to`, its weights as safetensors, other pickles left out.

    Raises `UsageError` where there are no such weights, where a file is no plain table of tensors, and if `to` exists.
    """
    files = [path for path in sorted(folder.glob("*")) if path.is_file()]
    found = {path: safe_name(path.name) for path in files if safe_name(path.name)}
    if not found:
        raise UsageError(f"{folder}: no pytorch_model*.bin or adapter_model.bin there: nothing to convert")
    if to.exists():
        raise UsageError(f"{to} exists already: give --to a new folder")
    to.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        with room_for(to, "the converted checkpoint", lambda: sum(path.stat().st_size for path in files)):
            for path in files:
                if path.name.endswith(".bin.index.json"):
                    _write_index(path, scratch)
                elif path.suffix not in PICKLES:
                    shutil.copyfile(path, scratch / path.name)
            for path, name in found.items():
                _write_weights(path, scratch / str(name))
            follow_umask(scratch)
        scratch.rename(to)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def refuse_pickle(names: Iterable[str], where: object) -> None:
    """Raise `UsageError`, naming the converter, if one of the files at `where` is weights that it can read."""
    pickle = next((name for name in sorted(names) if safe_name(name)), None)
    if pickle:
        raise UsageError(
            f"{where}: {pickle} is a pickle, which can run code when opened: download it, if it is not here, and make "
            "safetensors of it with `peo-bench convert FOLDER --to DIR`"
        )


def safe_name(name: str) -> str | None:
    """Return the name that the weights in a PyTorch file get as safetensors; None for other files.

    >>> safe_name("pytorch_model-00001-of-00002.bin"), safe_name("training_args.bin")
    ('model-00001-of-00002.safetensors', None)
    """
    stem = name.removesuffix(".bin")
    known = next((old for old in WEIGHTS if stem == old or stem.startswith(f"{old}-")), None)
    return None if known is None or stem == name else f"{WEIGHTS[known]}{stem.removeprefix(known)}.safetensors"


def _write_weights(path: Path, to: Path) -> None:
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UsageError(
            f"{path}: is no plain table of tensors, and nothing else in it is opened ({reason}): ask who made it for "
            "safetensors"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UsageError(f"{path}: is no plain table of tensors: save the model's state_dict() alone")
    # Tied tensors share memory, which safetensors refuses: each gets its own.
    save_file({str(name): value.clone().contiguous() for name, value in content.items()}, to, {"format": "pt"})


def _write_index(path: Path, to: Path) -> None:
    """Write the index of weights in several files, with the new names."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        index["weight_map"] = {key: safe_name(name) or name for key, name in index["weight_map"].items()}
        target = inside(to, f"{safe_name(path.name.removesuffix('.index.json'))}.index.json")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: is no index of weights ({type(error).__name__}): copy the folder again") from None
    target.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
