"""Task vectors made one by a rule, tensor by tensor, in the tensors' own precision: what `core.spec.Merge` names.

tau_i are the experts' task vectors (of LoRA experts the products B A, which is what merging tools see once an adapter
is merged, not the factors) and w_i the shares, those of a preference. Definitions are mergekit's, whose parameter
"weight" is w_i:

- `slerp`: [sin(w_1 Omega) tau_1 + sin(w_2 Omega) tau_2] / sin Omega, w_2 = 1 - w_1, Omega the angle between both (WARP,
  Ramé et al. 2024, arXiv 2406.16768, its second stage; mergekit's `nuslerp` with a base model).
- `ties`: keep the largest `density` of every tau_i, elect at every position the sign of sum_i w_i tau_i, and take there
  the mean, by w_i, of those that agree (Yadav et al. 2023, arXiv 2306.01708, algorithm 1).
- `dare`: drop each number of tau_i with probability 1 - density, divide the others by density, and add w_i tau_i (Yu et
  al. 2023, arXiv 2311.03099, section 3.2, with task arithmetic; mergekit's `dare_linear`).
- `della`: as `dare`, where the probability to stay rises with the rank by magnitude within the row, from density -
  epsilon to density + epsilon, then sign election and mean as `ties` (Deep et al. 2024, arXiv 2406.11617, section 3).
- `model-stock`: t sum_i w_i tau_i with t = cos / (sum_i w_i^2 + (1 - sum_i w_i^2) cos), cos that of the angle between
  the task vectors. At equal shares t = k cos / (1 + (k - 1) cos) (Jang et al. 2024, arXiv 2403.19522, equation 5): the
  point nearest to the centre around which fine-tuned models are taken to lie. For unequal shares it is the nearest
  point to it on the line through theta_ref and the weighted mean; that is ours, and so is t = 0 where cos < 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from peo_bench.core.spec import Merge
from peo_bench.files.digest import digest

Tensors = dict[str, Tensor]
COLINEAR = 1e-8
"""Sine below which a slerp is linear."""


def merged_vectors(rule: Merge, vectors: Mapping[str, Tensors], shares: Mapping[str, float]) -> Tensors:
    """Return the task vector that `rule`, at strength 1, makes of `vectors` by their `shares`, both by job id.

    A tensor that a vector lacks is 0 there.
    """
    shapes = {name: tensor for vector in vectors.values() for name, tensor in vector.items()}
    weights = [shares[job] for job in vectors]

    def merged(name: str, like: Tensor) -> Tensor:
        parts = {job: vector.get(name, torch.zeros_like(like)) for job, vector in vectors.items()}
        kept = [_kept(rule, part, f"{job}/{name}") for job, part in parts.items()]
        return _combined(rule, kept, weights)

    return {name: merged(name, like) for name, like in shapes.items()}


def _kept(rule: Merge, tensor: Tensor, name: str) -> Tensor:
    """Return what `rule` leaves of one tensor of one task vector, named for what is random."""
    if rule.density >= 1 or rule.kind not in ("ties", "dare", "della"):
        return tensor
    if rule.kind == "ties":
        return largest(tensor, rule.density)
    dense = torch.full_like(tensor, rule.density)
    stays = dense if rule.kind == "dare" else stay_probabilities(tensor, rule.density, rule.epsilon)
    generator = torch.Generator().manual_seed(int(digest([rule.seed, name]), 16) % 2**63)
    return tensor * torch.bernoulli(stays, generator=generator) / stays


def _combined(rule: Merge, tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    if rule.kind == "slerp":
        (first, second), (_, share) = tensors, weights
        return slerp(first, second, share)
    if rule.kind == "model-stock":
        return model_stock(tensors, weights)
    if rule.kind == "dare":
        return _weighted(tensors, weights)
    return agreeing_mean(tensors, weights)


def _weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return torch.stack([w * tensor for w, tensor in zip(weights, tensors, strict=True)]).sum(dim=0)


def largest(tensor: Tensor, density: float) -> Tensor:
    """Return the tensor with all but its largest `density` (rounded down, at least one) numbers set to 0."""
    flat = tensor.flatten()
    kept = torch.zeros_like(flat)
    kept[flat.abs().topk(max(1, int(density * flat.numel()))).indices] = 1
    return tensor * kept.reshape(tensor.shape)


def stay_probabilities(tensor: Tensor, density: float, epsilon: float) -> Tensor:
    """Return for every number the probability that it stays: evenly spaced by rank within its row, the smallest first.

    >>> stay_probabilities(torch.tensor([[3.0, -1.0, 2.0]]), 0.5, 0.25)
    tensor([[0.7500, 0.2500, 0.5000]])
    """
    rows = tensor.abs().reshape(-1, tensor.shape[-1]) if tensor.dim() > 1 else tensor.abs()[None]
    ranks = rows.argsort(dim=1, stable=True).argsort(dim=1).to(tensor.dtype)
    share = ranks / (rows.shape[1] - 1) if rows.shape[1] > 1 else torch.full_like(ranks, 0.5)
    return (density - epsilon + 2 * epsilon * share).reshape(tensor.shape)


def agreeing_mean(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return at every position the mean, by `weights`, of the numbers whose sign is that of the weighted sum.

    >>> agreeing_mean([torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 2.0])], [0.5, 0.5])
    tensor([3.0000, 1.5000])
    """
    weighted = torch.stack([w * tensor for w, tensor in zip(weights, tensors, strict=True)])
    elected = torch.where(weighted.sum(dim=0) >= 0, 1.0, -1.0)
    agree = (weighted.sign() == elected).to(weighted.dtype)
    total = torch.tensor(weights, dtype=weighted.dtype).reshape(-1, *[1] * (weighted.dim() - 1))
    total = (total * agree).sum(dim=0)
    return (weighted * agree).sum(dim=0) / torch.where(total == 0, 1.0, total)


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return the spherical interpolation of two tensors, `share` the second's; linear where they are colinear."""
    angle = math.acos(_cosine(first, second))
    sine = math.sin(angle)
    if sine < COLINEAR:
        return (1 - share) * first + share * second
    return math.sin((1 - share) * angle) / sine * first + math.sin(share * angle) / sine * second


def model_stock(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted mean, as much nearer to 0 as the mean angle between the tensors says."""
    pairs = [_cosine(a, b) for a, b in combinations(tensors, 2)]
    cosine = max(0.0, sum(pairs) / len(pairs)) if pairs else 1.0
    alone = sum(w * w for w in weights)
    ratio = cosine / (alone + (1 - alone) * cosine) if cosine else 0.0
    return ratio * _weighted(tensors, weights)


def _cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of the angle between two tensors; 1 where one of them is 0, which has no direction."""
    norms = float(a.norm() * b.norm())
    return min(1.0, max(-1.0, float((a.double() * b.double()).sum()) / norms)) if norms else 1.0
