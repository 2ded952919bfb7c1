"""Row-scaled LoRA: every row of a batch has its own coefficients over several adapters.

Per target layer the adapters are stacked, A (total_rank, in) and B (out, total_rank), each B times its scaling:

    y = W x + B diag(c_row) A x        c_row: the row's coefficient of the adapter that each rank belongs to

This is exact for any real coefficients (negative, above 1), since sum_i c_i B_i A_i is what merging would add to W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from peo_bench.core.spec import Weights
from peo_bench.errors import UsageError
from peo_bench.models.adapters import adapter_problem, factors, lora_config, scaling
from peo_bench.models.files import adapter_tensors


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
    tensors = adapter_tensors(folder)
    layers = {key: _linear(layer) for key, layer in model.named_modules() if not key.endswith(".inner")}
    problem = adapter_problem(folder, tensors, layers)
    if problem:
        raise UsageError(f"adapter {name}: {problem}")
    config = lora_config(folder)
    return Adapter(
        name,
        {
            layer: (sides["A"].float(), sides["B"].float() * scaling(config, layer))
            for layer, sides in sorted(factors(tensors).items())
        },
    )


def _linear(module: nn.Module) -> nn.Module:
    return module.inner if isinstance(module, RowLinear) else module


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
