"""MODPO, exact: DPO on the pairs of one objective with a margin for the other, as DPO with a shifted reference.

Zhou et al. 2023, arXiv 2310.03708, eq. 8, here for two objectives: 0, whose pairs are trained on, and the other, 1:

    L = -log sigma( (1/w_0) [ beta (dlogp_w - dlogp_l) - w_1 (R_1(y_w) - R_1(y_l)) ] ),   w_1 = 1 - w_0,

dlogp = log pi/pi_ref summed over answer tokens. The margin R_1, higher is better, is frozen: the implicit reward beta_m
(log pi_1 - log pi_ref) of the other objective's DPO policy (the authors' code), or an explicit reward model, read in
the training's precision. A cost model, higher is worse, enters as R_1 = -cost. The optimum is pi_ref exp((w_0 r_0 + w_1
R_1) / beta).

The same number is plain DPO's with beta' = beta / w_0 and log pi_ref' = log pi_ref + w_1 R_1 / beta, so that is what is
trained: the constants are absorbed, no term is approximated, and w_0 = 1 is DPO to the last bit. w_0 = 0 does not
exist; its end point is the other objective's DPO policy.

Published values: beta 0.1, w_0 in {0.1, 0.5, 0.9}, learning rate 5e-4 (one for all w_0, although the gradient grows as
1/w_0), LoRA rank 64, three epochs, cosine decay. The curves' margin and accuracy are those of the shifted problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from peo_bench.core import roles
from peo_bench.errors import UsageError
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Cost, Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.scorers import load_scorer
from peo_bench.training.aspect import Shift, pairs_bound, train_dpo
from peo_bench.training.pair_rows import REFERENCE, read_log_probs
from peo_bench.training.settings import PLAIN, dpo_settings

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor


class Answers(NamedTuple):
    """A number for each chosen and each rejected answer, both of shape (batch,)."""

    chosen: Tensor
    rejected: Tensor


def modpo_loss(policy: Answers, reference: Answers, margin: Answers, *, beta: float, weight: float) -> Tensor:
    """Return the loss per pair, shape (batch,).

    `policy` and `reference` are log-probabilities of whole answers in nats, `margin` the other objective's rewards
    (higher is better); `weight` is w_0 in (0, 1].
    """
    from torch.nn.functional import logsigmoid

    check_weight(weight)
    log_ratio = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
    return -logsigmoid((beta * log_ratio - (1 - weight) * (margin.chosen - margin.rejected)) / weight)


def check_weight(weight: float) -> float:
    """Return `weight`; raise `UsageError` outside (0, 1]."""
    if weight == 0:
        raise UsageError("modpo: weight 0 has no run of its own: its end point is the other objective's DPO policy")
    if not 0 < weight <= 1:
        raise UsageError(f"modpo: weight {weight} is outside (0, 1]")
    return weight


def _bound(job: Job) -> Cost:
    trained = pairs_bound(job)
    return trained + Cost(scorer_calls=2 * trained.pairs_trained)


@job_kind("modpo", version=3, bound=_bound, defaults=PLAIN, label=("objective", "weight"))
def train_modpo(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Train the policy that weighs `params["objective"]` by `params["weight"]`, the margin's objective by the rest."""
    from peo_bench.models.quiet import quiet

    weight = check_weight(job.params["weight"])
    with quiet():
        shift = None if weight == 1 else margin_shift(job.params, inputs, work, weight)
    return {"weight": weight} | train_dpo(job.params, inputs, work, weight, shift)


def margin_shift(params: Mapping[str, Any], inputs: Mapping[str, Handle], work: Workspace, weight: float) -> Shift:
    """Return the shift w_1 R_1(y) / beta of the reference log-probabilities of chosen and rejected answers."""
    explicit = not {"direction", "directions"}.isdisjoint(inputs["margin"].result)
    margin = _explicit_margin(params, inputs, work) if explicit else _implicit_margin(params, inputs)
    scale = (1 - weight) / params["beta"]

    def shift(dataset: Dataset) -> tuple[list[float], list[float]]:
        chosen, rejected = margin(dataset)
        return [scale * value for value in chosen], [scale * value for value in rejected]

    return shift


def _implicit_margin(params: Mapping[str, Any], inputs: Mapping[str, Handle]) -> Shift:
    """Return beta_m (log pi_1 - log pi_ref), with pi_1 the other objective's DPO policy.

    log pi_1 comes from a job of its own, so that two models are never in memory together.
    """
    other = read_log_probs(inputs, params["objective"], roles.MARGIN_LOG_PROBS)
    assert other is not None, "the job needs the log-probabilities under the margin's policy"
    beta = params["margin_beta"]

    def margin(dataset: Dataset) -> tuple[list[float], list[float]]:
        columns = [dataset[name] for name in REFERENCE]
        chosen, rejected = (
            [beta * (new - old) for new, old in zip(log_probs, column, strict=True)]
            for log_probs, column in zip(other, columns, strict=True)
        )
        return chosen, rejected

    return margin


def _explicit_margin(params: Mapping[str, Any], inputs: Mapping[str, Handle], work: Workspace) -> Shift:
    """Return the scores of the run's reward model, or of a checkpoint in its place; those of a cost model negated."""
    artefact = inputs["margin"]
    label, maximise = 0, artefact.result.get("direction") == "reward"
    for column, (objective, better_high) in artefact.result.get("directions", {}).items():
        if objective != params["objective"]:
            label, maximise = artefact.result["columns"][column], better_high

    def margin(dataset: Dataset) -> tuple[list[float], list[float]]:
        scorer = load_scorer(artefact.path, dpo_settings(params).precision)
        prompts = list(dataset["prompt"])
        scores = scorer.score_labels(
            prompts * 2, [*dataset["chosen"], *dataset["rejected"]], work.memo("margin")
        ).labels
        work.charge(Cost(scorer_calls=len(scores)))
        signed = [row[label] if maximise else -row[label] for row in scores]
        return signed[: len(prompts)], signed[len(prompts) :]

    return margin
