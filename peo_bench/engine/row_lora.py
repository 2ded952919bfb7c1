"""Row-scaled LoRA: every row of a batch has its own coefficients over several adapters.

Per target layer the adapters are stacked, A (total_rank, in) and B (out, total_rank), each B times its scaling:

    y = W x + B diag(c_row) A x        c_row: the row's coefficient of the adapter that each rank belongs to

This is exact for any real coefficients (negative, above 1), since sum_i c_i B_i A_i is what merging would add to W.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from peo_bench.core.spec import Weights
from peo_bench.errors import UsageError
from peo_bench.models.adapters import RUN, lora_problem, unsupported

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    """A LoRA delta: per target module, fp32 A (rank, in) and B (out, rank), B times its scaling."""

    name: str
    factors: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def rank(self) -> int:
        """The largest rank of any module."""
        return max(int(a.shape[0]) for a, _ in self.factors.values())


def load_adapter(name: str, folder: Path, model: nn.Module) -> Adapter:
    """Read a PEFT folder; raise `UsageError` naming it if it is not plain LoRA on linear layers of `model`."""
    if not (folder / "adapter_model.safetensors").is_file():
        raise _refuse(name, f"there is no adapter_model.safetensors in {folder}")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    why = unsupported(config)
    if why:
        raise UsageError(f"adapter {name}: {why}")
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = dict(model.named_modules())
    embeddings = {id(layer.weight) for layer in modules.values() if isinstance(layer, nn.Embedding)}
    linear = [key for key, module in modules.items() if isinstance(_linear(module), nn.Linear)]
    problem = lora_problem(folder, tensors, [key for key in linear if not key.endswith(".inner")])
    if problem:
        raise UsageError(f"adapter {name}: {problem}: save the whole adapter again")
    factors = {}
    targets = {_module(name, key) for key, tensor in tensors.items() if not _is_copy(key, tensor, modules)}
    for module in sorted(targets):
        a, b = (tensors[f"{_PREFIX}{module}.lora_{side}.weight"].float() for side in "AB")
        _check_target(name, module, _linear(modules.get(module)), (b.shape[0], a.shape[1]), embeddings)
        factors[module] = (a, b * _scaling(config, module, a.shape[0]))
    return Adapter(name, factors)


def _refuse(name: str, why: str) -> UsageError:
    return UsageError(f"adapter {name}: {why}; {RUN}")


def _is_copy(key: str, tensor: Tensor, modules: Mapping[str, nn.Module]) -> bool:
    """Tell whether this is an unchanged base weight, which PEFT saves along with adapters on the output layer."""
    module, _, leaf = key.removeprefix(_PREFIX).replace(".base_layer.", ".").rpartition(".")
    original = getattr(_linear(modules.get(module)), leaf, None)
    return isinstance(original, Tensor) and torch.equal(original.to("cpu", tensor.dtype), tensor)


def _module(name: str, key: str) -> str:
    """Return the target module of a tensor's key."""
    module, _, side = key.removeprefix(_PREFIX).rpartition(".lora_")
    if not module or not key.startswith(_PREFIX) or side not in ("A.weight", "B.weight"):
        raise _refuse(name, f"it holds {key!r}, which is no LoRA factor of a linear layer")
    return module


def _linear(module: nn.Module | None) -> nn.Module | None:
    return module.inner if isinstance(module, RowLinear) else module


def _check_target(name: str, module: str, target: nn.Module | None, shape: tuple[int, int], embedded: set[int]) -> None:
    if not isinstance(target, nn.Linear):
        raise _refuse(name, f"its target {module} is {type(target).__name__}, not Linear, in the base policy")
    if target.weight.shape != shape:
        raise _refuse(name, f"its target {module} is {shape}, but {tuple(target.weight.shape)} in the base policy")
    if id(target.weight) in embedded:
        raise _refuse(name, f"its target {module} is tied to the input embeddings")


def _scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023), with PEFT's patterns applied."""
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), module), config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


STACKS = 16
"""How many sets of adapters stay stacked on the device; policies evaluated one after another need few at a time."""

State = Mapping[str, tuple[Tensor, Tensor, Tensor]]
"""Per module: A^T (in, total_rank), B^T (total_rank, out) and the coefficients (rows, 1, total_rank)."""


def narrowed(state: State, rows: Tensor) -> State:
    """Return the state of some rows (k,)."""
    return {module: (a, b, coefficients[rows]) for module, (a, b, coefficients) in state.items()}


class Context:
    """Shared by all layers of one model: which adapters and coefficients the next forward uses."""

    def __init__(self) -> None:
        """Start with the base weights alone."""
        self.state: State = {}


class RowLinear(nn.Module):  # type: ignore[misc]
    """A linear layer plus the row-scaled adapters of the context. Input (rows, positions, in)."""

    def __init__(self, name: str, inner: nn.Linear, context: Context) -> None:
        """Wrap `inner`, called `name` in the model."""
        super().__init__()
        self.name, self.inner, self.context = name, inner, context

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + B diag(c_row) A x."""
        y = self.inner(x)
        factors = self.context.state.get(self.name)
        if factors is None:
            return y
        a, b, c = factors
        low = (torch.matmul(x, a) * c).to(x.dtype)
        y.view(-1, y.shape[-1]).addmm_(low.flatten(0, -2), b)
        return y


class RowLora:
    """A base model whose linear layers are wrapped, and stacks of adapters for it."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap the linear layers of `model` in place."""
        self.model = model
        self.context = Context()
        self._stacks: dict[tuple[str, ...], dict[str, tuple[Tensor, Tensor, Tensor]]] = {}
        linears = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        for name, module in linears:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, RowLinear(name, module, self.context))

    def state(self, rows: Sequence[Weights], adapters: Sequence[Adapter]) -> State:
        """Return what `use` needs to run `rows`, each in terms of `adapters` (the others' coefficients are zero)."""
        if not adapters:
            return {}
        coefficients = _coefficients(rows, [adapter.name for adapter in adapters], next(self.model.parameters()).device)
        return {
            module: (a, b, coefficients[:, owner].unsqueeze(1))
            for module, (a, b, owner) in self._stack(adapters).items()
        }

    def use(self, state: State) -> None:
        """Make the next forward use `state`."""
        self.context.state = state

    def _stack(self, adapters: Sequence[Adapter]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """Return per module A^T, B^T (the model's precision) and the adapter (total_rank,) each rank belongs to."""
        key = tuple(adapter.name for adapter in adapters)
        if key not in self._stacks:
            if len(self._stacks) == STACKS:
                del self._stacks[next(iter(self._stacks))]
            like = next(self.model.parameters())
            modules = sorted({module for adapter in adapters for module in adapter.factors})
            self._stacks[key] = {module: _stacked(module, adapters, like) for module in modules}
        return self._stacks[key]


def _stacked(module: str, adapters: Sequence[Adapter], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    parts = [(i, *adapter.factors[module]) for i, adapter in enumerate(adapters) if module in adapter.factors]
    a = torch.cat([a for _, a, _ in parts]).T.contiguous()
    b = torch.cat([b for _, _, b in parts], dim=1).T.contiguous()
    owner = torch.cat([torch.full((a.shape[0],), i, dtype=torch.int64) for i, a, _ in parts])
    return a.to(like), b.to(like), owner.to(like.device)


def _coefficients(rows: Sequence[Weights], names: Sequence[str], device: torch.device) -> Tensor:
    """Return the (rows, adapters) fp32 coefficient matrix."""
    terms = [dict(weights.terms) for weights in rows]
    return torch.tensor([[row.get(name, 0.0) for name in names] for row in terms], device=device)
