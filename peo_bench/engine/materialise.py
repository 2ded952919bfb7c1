"""Models for policies: base checkpoints, deltas, and base + sum_i c_i delta_i computed in fp32 from pristine copies.

Where a policy merges its deltas by a rule (`peo_bench.engine.merging`), the merged delta is what is added.

Nothing is ever undone in place, so nothing drifts: every combination starts from the tensors that were read from disk.
After each combination one parameter is checked against the sum in float64. Finished models, deltas and checkpoints are
kept in a cache bounded by bytes, the least recently used ones go first.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn

from peo_bench.core.spec import Weights
from peo_bench.engine.merging import Tensors, merged_vectors
from peo_bench.engine.passes import allows_gaps
from peo_bench.engine.row_lora import Adapter, RowLora, load_adapter
from peo_bench.errors import Diverged, PeoBenchError, UsageError
from peo_bench.files.digest import digest
from peo_bench.jobs.job import Handle
from peo_bench.models.ends import generation_config, stop_ids
from peo_bench.models.kinship import other_buffer
from peo_bench.models.loading import context_length, load_causal, load_config, read_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CACHE_BYTES = 4 * 2**30
"""Memory for checkpoints, deltas and materialised models together."""

T = TypeVar("T", bound=Tensors | nn.Module)


class ByteCache:
    """Values by key, made on first use; the least recently used are dropped while the total exceeds `limit` bytes."""

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes, but always the newest value."""
        self.limit = limit
        self._values: OrderedDict[Hashable, tuple[Tensors | nn.Module, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of `key`, making it if it is not there."""
        if key not in self._values:
            value = make()
            self._values[key] = (value, _bytes(value))
            while len(self._values) > 1 and sum(size for _, size in self._values.values()) > self.limit:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return cast(T, self._values[key][0])


def _bytes(value: Tensors | nn.Module) -> int:
    tensors = value.values() if isinstance(value, dict) else value.parameters()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Models:
    """Everything the engine loads, by job id: tokenizers, checkpoints, deltas, adapters, combined models."""

    def __init__(
        self, artefact: Callable[[str], Handle], precision: str, device: str, limit: int = CACHE_BYTES
    ) -> None:
        """Find artefacts with `artefact`; run models in `precision` on `device`."""
        self.artefact = artefact
        self.dtype = getattr(torch, precision)
        self.device = torch.device(device)
        self._cache = ByteCache(limit)
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._stop: dict[str, tuple[int, ...]] = {}
        self._context: dict[str, int] = {}
        self._gaps: dict[str, bool] = {}
        self._adapters: dict[str, Adapter] = {}
        self._row_loras: dict[str, RowLora] = {}

    def form(self, job: str) -> str:
        """Return "base", "lora" or "full"."""
        return str(self.artefact(job).result["form"])

    def tokenizer(self, base: str) -> PreTrainedTokenizerBase:
        """Return the tokenizer of a base policy."""
        if base not in self._tokenizers:
            self._tokenizers[base] = read_tokenizer(self._model_folder(base))
        return self._tokenizers[base]

    def stop_ids(self, base: str) -> tuple[int, ...]:
        """Return the tokens that end an answer: the tokenizer's eos and those that the checkpoint declares."""
        if base not in self._stop:
            self._stop[base] = stop_ids(self.tokenizer(base), self._model_folder(base))
        return self._stop[base]

    def context_length(self, base: str) -> int:
        """Return how many tokens a base policy can read, 2048 where its configuration does not say."""
        if base not in self._context:
            self._context[base] = context_length(load_config(self._model_folder(base))) or 2048
        return self._context[base]

    def allows_gaps(self, base: str) -> bool:
        """Tell whether padding between a prompt's tokens changes nothing for a base policy."""
        if base not in self._gaps:
            self._gaps[base] = allows_gaps(load_config(self._model_folder(base)))
        return self._gaps[base]

    def vocabulary(self, base: str) -> tuple[int | None, dict[str, int]]:
        """Return how many tokens a base policy's model tells apart, and its tokenizer's by their text."""
        size = load_config(self._model_folder(base)).get_text_config().vocab_size
        return size, self.tokenizer(base).get_vocab()

    def row_lora(self, base: str) -> RowLora:
        """Return the base model with wrapped linear layers, in the engine's precision."""
        if base not in self._row_loras:
            self._row_loras[base] = RowLora(in_dtype(self._load(base), self.device, self.dtype))
        return self._row_loras[base]

    def adapter(self, base: str, job: str) -> Adapter:
        """Return a LoRA delta, checked against its base."""
        if job not in self._adapters:
            model = self._row_loras[base].model if base in self._row_loras else self._pristine(base)
            self._adapters[job] = load_adapter(job, self.artefact(job).path / "adapter", model)
        return self._adapters[job]

    def runnable(self, weights: Weights) -> nn.Module:
        """Return the combined model in the engine's precision, from the cache if possible."""
        return self._cache.get(("model", weights), lambda: in_dtype(self.merged(weights), self.device, self.dtype))

    def merged(self, weights: Weights) -> PreTrainedModel:
        """Return a fresh fp32 model on the CPU with base + sum_i c_i delta_i."""
        pristine = self._pristine(weights.base)
        model = copy.deepcopy(pristine)
        base = dict(pristine.named_parameters())
        deltas = self._addends(weights)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                for coefficient, delta in deltas:
                    if name in delta:
                        parameter.add_(delta[name], alpha=coefficient)
            if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
                raise Diverged(f"the weights {weights.to_json()} are not finite")
            _check(weights, base, deltas, dict(model.named_parameters()))
        return model

    def _addends(self, weights: Weights) -> list[tuple[float, Tensors]]:
        """Return what is added to the base, with coefficients: the deltas, or the one that a merge makes of them."""
        rule = weights.merge
        if rule is None:
            return [(coefficient, self.delta(weights.base, job)) for job, coefficient in weights.terms]
        shares = dict(weights.terms)

        def make() -> Tensors:
            return merged_vectors(rule, {job: self.delta(weights.base, job) for job in shares}, shares)

        whole = replace(weights, merge=replace(rule, strength=1.0))
        return [(rule.strength, self._cache.get(("merge", whole), make))]

    def exportable(self, weights: Weights) -> PreTrainedModel:
        """Return the merged model with the base checkpoint's own generation config and every end that counts here."""
        model = self.merged(weights)
        model.generation_config = generation_config(self._model_folder(weights.base))
        ends = self.stop_ids(weights.base)
        model.generation_config.eos_token_id = list(ends) if len(ends) > 1 else ends[0]
        return model

    def delta(self, base: str, job: str) -> Tensors:
        """Return theta_trained - theta_base, or the products scaling * B A of an adapter; fp32."""
        form = self.form(job)
        if form == "base":
            raise UsageError(f"{job} is a base policy and cannot be used as a delta on {base}")
        make = self._lora_delta if form == "lora" else self._full_delta
        delta: Tensors = self._cache.get(("delta", base, job), lambda: make(base, job))
        return delta

    def _lora_delta(self, base: str, job: str) -> Tensors:
        return {f"{module}.weight": b @ a for module, (a, b) in self.adapter(base, job).factors.items()}

    def _full_delta(self, base: str, job: str) -> Tensors:
        model, pristine = self._load(job), self._pristine(base)
        trained, start = dict(model.named_parameters()), dict(pristine.named_parameters())
        problem = other_buffer(model, pristine)
        if problem:
            raise UsageError(f"full fine-tune {job}: {problem}")
        if {n: p.shape for n, p in trained.items()} != {n: p.shape for n, p in start.items()}:
            raise UsageError(f"full fine-tune {job}: its parameters are not those of the base policy {base}")
        with torch.no_grad():
            return {name: trained[name] - start[name] for name in start}

    def _pristine(self, base: str) -> PreTrainedModel:
        return self._cache.get(("pristine", base), lambda: self._load(base))

    def _model_folder(self, job: str) -> Path:
        return self.artefact(job).path / "model"

    def _load(self, job: str) -> PreTrainedModel:
        """Read a checkpoint in fp32, in evaluation mode, without its sampling parameters."""
        from transformers import GenerationConfig

        folder = self._model_folder(job)
        with _without_progress_bars():
            model = load_causal(folder)
        model.eval().requires_grad_(False)
        model.generation_config = GenerationConfig()
        model.get_output_embeddings().register_forward_pre_hook(_contiguous)
        logger.debug("loaded %s", folder)
        return model


def in_dtype(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Move a model to `device` and its parameters to `dtype`, as loading it in that dtype does.

    Buffers keep theirs: in bfloat16 the frequencies of rotary positions would be off by radians at position 2,000.
    """
    model.to(device)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give the output layer its input in one piece: `logits_to_keep` makes a slice.

    Of a slice and weights that need no gradient, torch makes a batched product with the weights expanded by row; in
    bfloat16 on a CPU it copies them once per row.
    """
    return (inputs[0].contiguous(), *inputs[1:])


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _check(weights: Weights, base: Tensors, deltas: list[tuple[float, Tensors]], combined: Tensors) -> None:
    """Compare one parameter, chosen by the weights, with the sum in float64; raise if it is off."""
    names = sorted(set().union(*(delta for _, delta in deltas)))
    if not names:
        return
    name = names[int(digest(weights.to_json()), 16) % len(names)]
    terms = [base[name].double(), *(c * delta[name].double() for c, delta in deltas if name in delta)]
    exact, size = sum(terms), sum(term.abs() for term in terms)
    error = (combined[name].double() - exact).abs()
    if (error > len(terms) * torch.finfo(torch.float32).eps * size + torch.finfo(torch.float32).tiny).any():
        raise PeoBenchError(f"{name} of {weights.to_json()} is off the exact sum by {float(error.max()):.2e}")
