"""Offline multi-objective DPO: one gradient per objective on the same pairs, combined by what their Gram matrix says.

Every pair carries the label s_i = +1 or -1 of every objective i; the losses are L_i = -log sigma(beta s_i Delta) with
Delta = [log pi/pi_ref](chosen) - [log pi/pi_ref](rejected), log pi summed over answer tokens. With gradients g_i and
preference w the step is sum_i a_i g_i, where a depends on w and the Gram matrix G_ij = g_i . g_j alone, so that a
combiner is a function of numbers and is tested without a model. Gradients are accumulated over the whole batch and
combined once per optimiser step (the official RACO code combines per micro-batch).

- `weighted`: a = w, the weighted loss (DPO-LW), in one backward pass. A mixture of labels is not a mixture of rewards:
  its optimum differs from the linear one.
- `mgda`: a = argmin_{p in simplex} |sum p_i g_i|, the min-norm point (Desideri 2012; Sener & Koltun 2018, arXiv
  1810.04650). Takes no preference.
- `cagrad`: g_0 = sum w_i g_i, p* = argmin_p G_p . g_0 + c |g_0| |G_p| with G_p = sum p_i g_i, step
  g_0 + c |g_0| G_p*/|G_p*| (Liu et al. 2021, arXiv 2110.14048, with weights instead of the mean).
- `raco`: the same with p* clipped to min(p*, w), element by element, so that no objective gets more than asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.quiet import quiet
from peo_bench.training import aspect
from peo_bench.training.saving import save_trained
from peo_bench.training.settings import PLAIN, dpo_settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, Trainer

Floats = npt.NDArray[np.float64]
Combiner = Callable[..., Floats]
Batch = dict[str, "Tensor"]


def mgda(gram: Floats, preference: Floats) -> Floats:
    """Return the simplex point p (m,) of least norm p' G p; the preference is ignored."""
    return _on_simplex(lambda p: float(p @ gram @ p), lambda p: 2 * gram @ p, len(gram))


def cagrad(gram: Floats, preference: Floats, c: float) -> Floats:
    """Return the conflict-averse coefficients (m,) within radius c |g_0|."""
    return _conflict_averse(gram, preference, c, clip=False)


def raco(gram: Floats, preference: Floats, c: float, clip: bool = True) -> Floats:
    """Return the conflict-averse coefficients (m,), the correction clipped to what was asked for."""
    return _conflict_averse(gram, preference, c, clip=clip)


COMBINERS: Mapping[str, Combiner] = {"mgda": mgda, "cagrad": cagrad, "raco": raco}


def _conflict_averse(gram: Floats, preference: Floats, c: float, *, clip: bool) -> Floats:
    asked = math.sqrt(max(float(preference @ gram @ preference), 0.0))
    if c == 0 or asked == 0:
        return preference
    against = gram @ preference

    def value(p: Floats) -> float:
        return float(p @ against) + c * asked * math.sqrt(max(float(p @ gram @ p), 0.0))

    def slope(p: Floats) -> Floats:
        norm = math.sqrt(max(float(p @ gram @ p), 0.0))
        return against + (c * asked / norm) * (gram @ p) if norm > 0 else against

    p = _on_simplex(value, slope, len(gram))
    if clip:
        p = np.minimum(p, preference)
    norm = math.sqrt(max(float(p @ gram @ p), 0.0))
    return preference + (c * asked / norm) * p if norm > 1e-12 * asked else preference


def _on_simplex(value: Callable[[Floats], float], slope: Callable[[Floats], Floats], m: int) -> Floats:
    """Minimise a convex function over the simplex of dimension m, from its centre and compared with its vertices."""
    scale = max(abs(value(np.full(m, 1.0 / m))), *(abs(value(vertex)) for vertex in np.eye(m)), 1e-300)
    found = minimize(
        lambda p: value(p) / scale,
        np.full(m, 1.0 / m),
        jac=lambda p: slope(p) / scale,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * m,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1.0, "jac": lambda p: np.ones(m)},
        options={"ftol": 1e-14, "maxiter": 200},
    )
    inner = np.clip(found.x, 0.0, None)
    candidates = [inner / inner.sum(), *np.eye(m)]
    return min(candidates, key=value)


def _bound(job: Job) -> Cost:
    return Cost(pairs_trained=_charged(aspect.pairs_bound(job).pairs_trained, job.params))


def _charged(pairs: int, params: Mapping[str, Any]) -> int:
    """Return what a training costs in pairs of plain DPO, a backward pass being two forward passes.

    The weighted loss needs one backward pass, other combiners one per objective.
    """
    passes = 1 if params["combiner"] == "weighted" else len(params["objectives"])
    return round(pairs * (1 + 2 * passes) / 3)


@job_kind("gradients", version=4, bound=_bound, defaults=PLAIN, label=("combiner", "weights"))
def train_combined(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Train one policy at `params["weights"]` (in the order of `params["objectives"]`) with `params["combiner"]`.

    The first objective's pairs file gives the pairs; their `labels` the other objectives' signs. The result's curves
    hold the loss of every objective and, where gradients are combined, the cosine of the first two and the coefficients
    that were applied.
    """
    from peo_bench.training import trainers

    params = job.params
    settings = dpo_settings(params)
    with quiet():
        trainer = build_trainer(params, inputs, work)
        names = params["objectives"]
        combines = params["combiner"] != "weighted"
        curve = {"loss": "loss"} | ({"cosine": "cosine"} if combines else {})
        logged = ("loss", "coefficient") if combines else ("loss",)
        curve |= {f"{what}_{name}": f"{what}/{name}" for what in logged for name in names}
        curves = trainers.train(trainer, work, curve)
        norm = save_trained(trainer, settings, inputs["reference"].path / "model", work.dir)
    trained = len(trainer.train_dataset)
    work.charge(Cost(pairs_trained=_charged(trained, params)))
    return {
        "form": settings.form,
        "weights": params["weights"],
        "task_vector_norm": norm,
        "lengths": trainer.lengths.to_json(),
        "curves": curves,
    }


def build_trainer(params: Mapping[str, Any], inputs: Mapping[str, Handle], work: Workspace) -> Trainer:
    """Return a DPOTrainer whose step combines the objectives' gradients, or has that of the weighted loss."""
    names = params["objectives"]
    options = {name: params[name] for name in ("c", "clip") if name in params}
    preference = np.asarray(params["weights"], dtype=np.float64)

    def coefficients(gram: Floats) -> Floats:
        return COMBINERS[params["combiner"]](gram, preference, **options)

    def make_class(order: list[int]) -> type:
        several = _several(aspect.trainer_class(None, order), names, params.get("gamma"))
        weighs = params["combiner"] == "weighted"
        return _weighted(several, params["weights"]) if weighs else _combined(several, names, coefficients)

    return aspect.build_trainer({**params, "objective": names[0]}, inputs, work, make_class, signs=names)


def _several(base: type, names: list[str], gamma: float | None = None) -> type:
    """Return `base`, a DPOTrainer, with one loss per objective.

    With `gamma` the losses are reference-free: log-probabilities per token, and a margin.
    """
    import torch
    from torch.nn.functional import logsigmoid

    class LossesTrainer(base):  # type: ignore[misc]
        """Knows every objective's sign on every pair."""

        data_collator: Callable[..., Batch]

        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            collate = self.data_collator
            self.data_collator = lambda rows: collate(rows) | {"signs": torch.tensor([row["signs"] for row in rows])}

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            if "signs" not in self._signature_columns:
                self._signature_columns.append("signs")

        def losses(self, model: PreTrainedModel, inputs: Batch) -> Tensor:
            """Return a micro-batch's share of every objective's mean loss over the batch, shape (m,); log them."""
            margin = _margin(self.log_ratios(model, inputs), inputs["completion_mask"], per_token=gamma is not None)
            own = -logsigmoid(self.beta * inputs["signs"].T * margin - (gamma or 0.0))
            for name, loss in zip(names, own.detach().mean(dim=1).tolist(), strict=True):
                self._metrics["train"][f"loss/{name}"].append(loss)
            return self.batch_mean(own, inputs)

    return LossesTrainer


def _weighted(base: type, weights: Sequence[float]) -> type:
    """Return `base` with the weighted sum of its losses as its loss: one backward pass."""
    import torch

    class WeightedTrainer(base):  # type: ignore[misc]
        """Replaces DPO's loss."""

        def _compute_loss(self, model: PreTrainedModel, inputs: Batch, return_outputs: bool) -> Tensor:
            losses = self.losses(model, inputs)
            return torch.dot(torch.tensor(weights, dtype=losses.dtype, device=losses.device), losses)

    return WeightedTrainer


def _combined(base: type, names: list[str], coefficients: Callable[[Floats], Floats]) -> type:
    """Return `base` with a step that combines one gradient per loss."""
    import torch

    class CombinedTrainer(base):  # type: ignore[misc]
        """Keeps one gradient per objective over the accumulation window and writes their combination to `.grad`."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self._sums: list[list[Tensor] | None] = [None] * len(names)

        def training_step(self, model: PreTrainedModel, inputs: Batch, *args: object, **kwargs: object) -> Tensor:
            """Do one micro-batch; at the end of the window set `.grad`. Returns the mean loss over objectives."""
            model.train()
            inputs = self._prepare_inputs(inputs)
            with self.compute_loss_context_manager():
                losses = self.losses(model, inputs)
            parameters = [p for p in model.parameters() if p.requires_grad]
            share = losses / self.current_gradient_accumulation_steps
            for i, sums in enumerate(self._sums):
                new = torch.autograd.grad(share[i], parameters, retain_graph=i + 1 < len(names))
                self._sums[i] = list(new) if sums is None else [a + b for a, b in zip(sums, new, strict=True)]
            if self.accelerator.sync_gradients:
                self._write(parameters)
            return self.checked(share.mean().detach())

        def _write(self, parameters: list[Tensor]) -> None:
            sums = [gradients for gradients in self._sums if gradients is not None]
            self._sums = [None] * len(names)
            gram = np.asarray([[_dot(a, b) for b in sums] for a in sums])
            applied = coefficients(gram).tolist()
            for k, parameter in enumerate(parameters):
                parameter.grad = sum(a * gradient[k] for a, gradient in zip(applied, sums, strict=True))
            self._metrics["train"]["cosine"].append(_cosine(gram))
            for name, value in zip(names, applied, strict=True):
                self._metrics["train"][f"coefficient/{name}"].append(value)

    return CombinedTrainer


def _margin(log_probs: Sequence[Tensor], mask: Tensor, *, per_token: bool) -> Tensor:
    """Return what chosen answers have more than rejected ones (pairs,): log pi/pi_ref, or log pi `per_token`.

    `log_probs` are those of `log_ratios`, `mask` marks the answers' tokens, chosen answers first.
    """
    ratio_w, ratio_l, log_pi_w, log_pi_l = log_probs
    if not per_token:
        return ratio_w - ratio_l
    tokens_w, tokens_l = mask.sum(dim=1).chunk(2)
    return log_pi_w / tokens_w - log_pi_l / tokens_l


def _cosine(gram: Floats) -> float:
    """Return the cosine of the first two gradients, 0 where one of them is."""
    norm = math.sqrt(gram[0, 0] * gram[1, 1])
    return float(gram[0, 1] / norm) if norm > 0 else 0.0


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))
