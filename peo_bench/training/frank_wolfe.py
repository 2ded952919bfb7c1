"""Frank-Wolfe over the experts' hull: gradients of the weighted loss choose which expert to move towards.

At theta_t = theta_ref + sum_i c_i tau_i the gradient of L_w = sum_k w_k L_k, L_k the DPO loss on objective k's pairs,
gives d L_w / d c_i = <grad, tau_i>; the expert with the least of them is the linear minimiser over the hull, and
c <- c + 2 / (t + 2) (e_i - c). The first step therefore goes to an expert, and c never leaves their simplex.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from peo_bench.core import roles
from peo_bench.core.spec import Weights
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.loading import load_tokenizer
from peo_bench.models.quiet import quiet
from peo_bench.training.pair_rows import pairs_file, pairs_lengths, tokenised_pairs
from peo_bench.training.settings import PLAIN, DPOSettings, FrankWolfeSettings, dpo_settings

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Floats = npt.NDArray[np.float64]


def frank_wolfe(slope: Callable[[Floats], Floats], m: int, iterations: int) -> list[Floats]:
    """Return the iterates c_0 = 0, c_1, ... over the simplex of dimension m; `slope(c)` (m,) is the gradient in c.

    Converges at rate O(1 / t) for a convex loss (Frank & Wolfe 1956; Jaggi 2013).
    """
    iterates = [np.zeros(m)]
    for t in range(iterations):
        towards = np.eye(m)[int(np.argmin(slope(iterates[-1])))]
        iterates.append(iterates[-1] + 2 / (t + 2) * (towards - iterates[-1]))
    return iterates


def _bound(job: Job) -> Cost:
    params = job.params
    return Cost(pairs_trained=params["iterations"] * params["pairs"] * len(params["objectives"]))


@job_kind(
    "frank-wolfe",
    version=2,
    bound=_bound,
    defaults=PLAIN | FrankWolfeSettings().model_dump(),
    keeps="result",
    label=("weights",),
)
def merge_by_gradients(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Find the coefficients for `params["weights"]` with `params["iterations"]` gradients on `params["pairs"]` pairs.

    The pairs are spread over every objective's training pairs, ordered by length; the result holds `coefficients` and,
    of all training pairs, `lengths`.
    """
    from peo_bench.engine.engine import Engine

    params, settings = job.params, dpo_settings(job.params)
    by_id = {handle.id: handle for handle in inputs.values()}
    models = Engine(by_id.__getitem__, noise_seed=0).models
    base = inputs["reference"].id
    experts = [expert.id for expert in roles.deltas(inputs)]
    tokenizer = load_tokenizer(inputs["reference"].path / "model")
    data, lengths = [], []
    for name in params["objectives"]:
        with quiet():
            dataset = tokenised_pairs(inputs, name, tokenizer, settings.max_length)
        lengths.append(pairs_lengths(dataset, pairs_file(inputs, name), settings.max_length))
        spread = np.linspace(0, len(dataset) - 1, min(params["pairs"], len(dataset)))
        data.append(dataset.select(spread.round().astype(int)))
    kept = work.memo("kept")

    def reference(i: int) -> list[float]:
        return log_ratios(models.merged(Weights(base)), tokenizer, data[i], settings)

    def gradient(c: Floats) -> list[float]:
        model = models.merged(Weights(base, tuple(zip(experts, c.tolist(), strict=True))))
        for weight, part, known in zip(params["weights"], data, references, strict=True):
            if weight:
                add_gradient(model, tokenizer, part, known, settings, weight)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        deltas = (models.delta(base, expert) for expert in experts)
        return [sum(float((gradients[n] * d[n]).sum()) for n in d.keys() & gradients.keys()) for d in deltas]

    def slope(c: Floats) -> Floats:
        used = (len(part) for weight, part in zip(params["weights"], data, strict=True) if weight)
        work.charge(Cost(pairs_trained=sum(used)))
        return np.array(kept.value(["slope", c.tolist()], functools.partial(gradient, c)))

    references = [kept.value(["reference", i], functools.partial(reference, i)) for i in range(len(data))]
    iterates = frank_wolfe(slope, len(experts), params["iterations"])
    return {
        "coefficients": iterates[-1].tolist(),
        "path": [c.tolist() for c in iterates],
        "lengths": functools.reduce(operator.add, lengths).to_json(),
    }


def log_ratios(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Dataset, settings: DPOSettings
) -> list[float]:
    """Return log pi(chosen) - log pi(rejected) of every pair, in nats, without gradients."""
    from peo_bench.training.trainers import pair_log_probs

    return [a - b for a, b in zip(*pair_log_probs(model, tokenizer, pairs, settings), strict=True)]


def add_gradient(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset,
    reference: list[float],
    settings: DPOSettings,
    weight: float,
) -> None:
    """Add to `.grad` the gradient of `weight` times the mean DPO loss; `reference` are the reference's log ratios."""
    import torch
    from torch.nn.functional import logsigmoid

    model.requires_grad_(True)
    known = torch.tensor(reference)
    start = 0
    for part in _batches(pairs, settings):
        gaps = _gaps(model, tokenizer, part, settings)
        margin = settings.beta * (gaps - known[start : start + len(part)])
        (-weight * logsigmoid(margin).sum() / len(reference)).backward()
        start += len(part)


def _batches(pairs: Dataset, settings: DPOSettings) -> list[list[dict[str, object]]]:
    rows, size = pairs.to_list(), settings.micro_batch_size
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _gaps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, object]], settings: DPOSettings
) -> Tensor:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    collate = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id, max_length=settings.max_length)
    batch = collate(rows)
    table = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1)
    picked = table.gather(2, batch["input_ids"][:, 1:, None])[..., 0] * batch["completion_mask"][:, 1:]
    chosen, rejected = picked.sum(dim=1).chunk(2)
    return chosen - rejected
