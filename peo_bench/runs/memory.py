"""What a stage of a run needs of a device's memory, by what it is for, in bytes: the formulas of docs/fit.md.

They count what the code holds at its peak: weights, what training adds to them, what a forward pass keeps for the
backward pass, one layer's intermediate results, logits, keys and values. `benchmarks/memory.py` compares them with
measured peaks. h, i, q, k are the widths of the hidden state, the MLP, the queries and the keys; e is the bytes of a
number in which a model computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from peo_bench.engine.likelihood import FORWARD_TOKENS, LOGITS_BYTES
from peo_bench.models.sizes import Sizes
from peo_bench.process import DeviceKind, Precision, settled
from peo_bench.scorers.model import BATCH_TOKENS
from peo_bench.training.settings import DPOSettings, RewardModelSettings, settled_of

TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""Of the logits that TRL's fused output layer makes at a time (trl.kernels.chunked_logprob)."""
FLOAT = 4


@dataclass(frozen=True)
class Memory:
    """Bytes by what they are for; their sum is the peak."""

    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts.values())


def bytes_of(precision: Precision | Literal["auto"], device: DeviceKind) -> int:
    """Return the bytes of a number of a precision, which may be `auto`."""
    return FLOAT if settled(precision, device) == "float32" else 2


QUANTISED = {"4bit": 0.516, "8bit": 1.0}
"""Bytes of a linear layer's weight: 4-bit NormalFloat, its constants quantised in turn (QLoRA, section 3); LLM.int8."""


def kept_per_token(sizes: Sizes, settings: DPOSettings | RewardModelSettings, device: DeviceKind) -> float:
    """Return the bytes that one layer keeps of one token for the backward pass.

    Counted with `torch.autograd.graph.saved_tensors_hooks` on Llama and Gemma. LoRA in fp32: 16h + 16i + 8q + 8k; under
    bf16 autocast 18h + 8i + 6q + 4k; where every weight is trained 24h + 16i + 8q + 8k and 28h + 8i + 4q + 4k. Seven
    adapters add their inner results, e times the rank each.
    """
    h, i, q, k = sizes.hidden, sizes.intermediate, sizes.queries, sizes.keys
    e = bytes_of(settings.precision, device)
    wide = e == FLOAT
    if settings.form == "full":
        return 24 * h + 16 * i + 8 * q + 8 * k if wide else 28 * h + 8 * i + 4 * q + 4 * k
    adapters = 7 * e * settings.lora_rank
    return adapters + (16 * h + 16 * i + 8 * q + 8 * k if wide else 18 * h + 8 * i + 6 * q + 4 * k)


def passing(sizes: Sizes, tokens: float, e: int) -> float:
    """Return the bytes of what one layer makes on the way, and does not keep, of so many tokens."""
    return tokens * (3 * sizes.intermediate + 4 * sizes.hidden) * e


def tile(sizes: Sizes, tokens: float, e: int, device: DeviceKind, backward: bool) -> float:
    """Return the bytes of the logits that exist at a time: a tile of them in place on a GPU, on a CPU fp32 copies."""
    rows, columns = min(tokens, TILE_TOKENS), min(sizes.vocabulary, TILE_VOCABULARY)
    in_place = rows * e * (TILE_VOCABULARY if device == "cuda" else columns)
    copies = (6 if backward else 3) if device == "cpu" else 0
    return in_place + copies * FLOAT * rows * columns


def trunk(sizes: Sizes, settings: DPOSettings | RewardModelSettings, e: int) -> float:
    """Return the bytes of the weights that a training starts from: fp32 where all are trained; quantised for QLoRA."""
    if settings.form == "full":
        return float(FLOAT * sizes.parameters)
    quantization = getattr(settings, "quantization", None)
    if quantization is None:
        return float(e * sizes.parameters)
    return sizes.matrices * QUANTISED[quantization] + (sizes.parameters - sizes.matrices) * e


def training_memory(sizes: Sizes, settings: DPOSettings | RewardModelSettings, device: DeviceKind) -> Memory:
    """Return what a training on pairs needs: its micro-batch has two texts of up to `max_length` tokens per pair.

    Adam holds, of each weight that is trained, a gradient and two moments in fp32, of an adapter the weight as well.
    """
    micro = min(settings.batch_size, settings.micro_batch_size)
    tokens = 2.0 * micro * settings.max_length
    lora, e = settings.form == "lora", bytes_of(settings.precision, device)
    trained = 16 * settings.lora_rank * sizes.linear if lora else 12 * sizes.parameters
    casts = 2 * sizes.parameters if not lora and e < FLOAT else 0
    layer = kept_per_token(sizes, settings, device) * tokens
    again = settled_of(settings, device)["gradient_checkpointing"]
    kept = sizes.layers * sizes.hidden * e * tokens + layer if again else sizes.layers * layer
    on_the_way = max(tile(sizes, tokens, e, device, backward=True), passing(sizes, tokens, e))
    parts = {"weights": trunk(sizes, settings, e), "gradients and optimiser": trained + casts, "activations": kept}
    return Memory(parts | {"logits and intermediate": on_the_way})


def reading_memory(sizes: Sizes, settings: DPOSettings, device: DeviceKind) -> Memory:
    """Return what the log-probabilities of pairs need: forward passes alone."""
    tokens = 2.0 * min(settings.batch_size, settings.micro_batch_size) * settings.max_length
    e = bytes_of(settings.precision, device)
    on_the_way = max(tile(sizes, tokens, e, device, backward=False), passing(sizes, tokens, e))
    return Memory({"weights": trunk(sizes, settings, e), "logits and intermediate": on_the_way})


@dataclass(frozen=True)
class Answering:
    """How answers are generated: `rows` at a time, of so many `prompt` and `new` tokens, `rank` of adapters in all.

    `e` are the bytes of a number.
    """

    e: int
    rows: int
    prompt: int
    new: int
    rank: int


def generating_memory(sizes: Sizes, how: Answering, sources: int = 1) -> Memory:
    """Return what generating needs: keys and values of every token of every row, in every layer, of every source."""
    e = how.e
    cache = how.rows * (how.prompt + how.new) * sizes.layers * 2 * sizes.keys * e * sources
    adapters = how.rank * sizes.linear * e
    logits = how.rows * sizes.vocabulary * (e + 4 * FLOAT)
    on_the_way = max(logits, passing(sizes, how.rows * how.prompt, e))
    parts = {"weights": sizes.parameters * e + adapters, "keys and values": cache}
    return Memory(parts | {"logits and intermediate": on_the_way})


def likelihood_memory(sizes: Sizes, how: Answering, device: DeviceKind) -> Memory:
    """Return what KL and log-probabilities of answers need beside the weights."""
    e = how.e
    tokens = min(max(FORWARD_TOKENS[device], how.prompt + how.new), how.rows * (how.prompt + how.new))
    logits = max(2 * LOGITS_BYTES / FLOAT * e, 2 * how.new * sizes.vocabulary * e)
    return Memory({"logits and intermediate": logits + passing(sizes, tokens, e)})


def scoring_memory(sizes: Sizes, e: int, tokens: float = BATCH_TOKENS) -> Memory:
    """Return what a scorer needs for a batch of so many tokens."""
    parts = {"weights": float(sizes.parameters * e)}
    return Memory(parts | {"logits and intermediate": passing(sizes, min(tokens, BATCH_TOKENS), e)})
