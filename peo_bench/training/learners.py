"""Aspect learners: what phase 1 minimises on the pairs of one objective (`--set training.learner=NAME`).

r = beta log pi/pi_ref, log pi summed over answer tokens unless said otherwise; w is the preferred answer, l the other.
The first group are settings of TRL's DPOTrainer, under names that say what they really are; the second are losses of
ours. Only for `dpo` (and losses with its optimum) are soups and PEO's plane the KL-regularised optimum of mixed
rewards.

`simpo`, `cpo` and `orpo` know no reference policy: nothing holds them near it but their own likelihood terms, and a
beta of theirs is on another scale, so that they have defaults of their own (`training.learner_beta` sets another).
`kto` runs on TRL's KTOTrainer (`peo_bench.training.kto`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peo_bench.files.json_types import Json
from peo_bench.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class PairBatch:
    """What a loss of ours sees: log pi/pi_ref, log pi and the number of tokens of both answers, all (rows,).

    The rows are a micro-batch; `batch_pairs` and `batch_tokens_w` are the pairs and the preferred answers' tokens of
    the whole batch of an optimiser step, so that no loss need depend on how it is cut.
    """

    ratio_w: Tensor
    ratio_l: Tensor
    log_pi_w: Tensor
    log_pi_l: Tensor
    tokens_w: Tensor
    tokens_l: Tensor
    beta: float
    state: dict[str, float]
    batch_pairs: int
    batch_tokens_w: int


Loss = Callable[[PairBatch], "Tensor"]
"""Returns the loss per pair (rows,), of which the batch's mean is minimised; `state` lives as long as the training."""


@dataclass(frozen=True)
class Learner:
    """A learner: its source, what it is in a few words, and TRL's options or a loss of one's own.

    `beta` is its own default, where its scale is not that of DPO's. `implicit_reward` says that beta log pi/pi_ref is
    what the loss calls the reward; else (other divergences, no reference, per token) nobody may read an expert so.
    `version` is raised by hand when a loss changes, so that what it trained before is not taken for what it trains now.
    """

    reference: str
    note: str
    options: Mapping[str, Json] = field(default_factory=dict)
    loss: Loss | None = None
    beta: float | None = None
    implicit_reward: bool = True
    version: int = 1


def ipo(pairs: PairBatch) -> Tensor:
    """Return (log u_w - log u_l - 1 / (2 beta))^2 with sums over tokens (Azar et al. 2023, eq. 17)."""
    return (pairs.ratio_w - pairs.ratio_l - 0.5 / pairs.beta) ** 2


RPO_ETA = 0.005


def rpo(pairs: PairBatch) -> Tensor:
    """Return DPO - eta beta log pi(y_w), sums over tokens, eta 0.005 (Liu et al. 2024)."""
    from torch.nn.functional import logsigmoid

    dpo = -logsigmoid(pairs.beta * (pairs.ratio_w - pairs.ratio_l))
    return dpo - RPO_ETA * pairs.beta * pairs.log_pi_w


FLEX_REJECTED = 0.5


def flex(pairs: PairBatch) -> Tensor:
    """Return -log sigma(beta log u_w - beta_l log u_l) with beta_l = beta / 2, which slows the fall of log pi(y_l)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(pairs.beta * (pairs.ratio_w - FLEX_REJECTED * pairs.ratio_l))


BCO_MOMENTUM = 0.9


def bco(pairs: PairBatch) -> Tensor:
    """Return -log sigma(r_w - delta) - log sigma(-(r_l - delta)), delta the running mean of (E r_w + E r_l) / 2.

    Jung et al. 2024, arXiv 2404.04656. The mean is over the batches before: 0 at first, where the policy is the
    reference. The paper's weights for unlike prompts of good and bad answers are 1 here: on pairs both have the same
    prompts.
    """
    from torch.nn.functional import logsigmoid

    r_w, r_l, state = pairs.beta * pairs.ratio_w, pairs.beta * pairs.ratio_l, pairs.state
    delta = state.get("delta", 0.0)
    state["sum"] = state.get("sum", 0.0) + float((r_w + r_l).detach().sum() / 2)
    state["pairs"] = state.get("pairs", 0) + len(r_w)
    if state["pairs"] >= pairs.batch_pairs:
        mean = state.pop("sum") / state.pop("pairs")
        state["delta"] = BCO_MOMENTUM * delta + (1 - BCO_MOMENTUM) * mean
    return -logsigmoid(r_w - delta) - logsigmoid(delta - r_l)


SIMPO_GAMMA = 0.5


def simpo(pairs: PairBatch) -> Tensor:
    """Return -log sigma(beta [log pi(y_w)/|y_w| - log pi(y_l)/|y_l|] - gamma), gamma 0.5 (Meng et al. 2024, eq. 6)."""
    from torch.nn.functional import logsigmoid

    margin = pairs.log_pi_w / pairs.tokens_w - pairs.log_pi_l / pairs.tokens_l
    return -logsigmoid(pairs.beta * margin - SIMPO_GAMMA)


def _likelihood(pairs: PairBatch) -> Tensor:
    """Return per pair what makes the batch's mean the preferred answers' negative log-likelihood per token."""
    return -pairs.log_pi_w * pairs.batch_pairs / pairs.batch_tokens_w


def cpo(pairs: PairBatch) -> Tensor:
    """Return -log sigma(beta [log pi(y_w) - log pi(y_l)]) plus the likelihood term (Xu et al. 2024, eq. 6).

    Per token of the batch, as in the authors' code; the paper writes the mean over answers of their log-likelihood.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(pairs.beta * (pairs.log_pi_w - pairs.log_pi_l)) + _likelihood(pairs)


def orpo(pairs: PairBatch) -> Tensor:
    """Return the likelihood term - beta log sigma(log odds ratio), odds p / (1 - p), p = exp(log pi / |y|).

    Hong et al. 2024, eqs. 6 and 7; their lambda is beta. The likelihood is that of the answer, as in the paper (the
    authors' code takes prompt and answer), per token of the batch.
    """
    import torch
    from torch.nn.functional import logsigmoid

    w, v = pairs.log_pi_w / pairs.tokens_w, pairs.log_pi_l / pairs.tokens_l
    log_odds = w - v - (torch.log1p(-torch.exp(w)) - torch.log1p(-torch.exp(v)))
    return _likelihood(pairs) - pairs.beta * logsigmoid(log_odds)


BUILTIN: Mapping[str, Learner] = {
    "dpo": Learner("Rafailov et al. 2023, arXiv 2305.18290", "-log sigma(r_w - r_l)"),
    "hinge": Learner("SLiC, Zhao et al. 2023, arXiv 2305.10425", "max(0, 1 - (r_w - r_l))", {"loss_type": "hinge"}),
    "ipo-mean": Learner(
        "IPO as its authors ran it, arXiv 2310.12036",
        "TRL's `ipo`: ratios averaged over tokens",
        {"loss_type": "ipo"},
        implicit_reward=False,
    ),
    "ln-dpo": Learner(
        "length-normalised DPO, Tulu 3, arXiv 2411.15124",
        "DPO on ratios averaged over tokens; beta 5",
        {"loss_type": "sigmoid_norm"},
        beta=5.0,
        implicit_reward=False,
        version=2,
    ),
    "robust": Learner(
        "Chowdhury et al. 2024, arXiv 2403.00409",
        "unbiased for 10 % flipped labels",
        {"loss_type": "robust", "label_smoothing": 0.1},
    ),
    "exo": Learner(
        "Ji et al. 2024, arXiv 2402.00856",
        "reverse KL on two answers",
        {"loss_type": "exo_pair", "label_smoothing": 1e-3},
    ),
    "nca": Learner("Chen et al. 2024, arXiv 2402.05369", "noise-contrastive, pairwise", {"loss_type": "nca_pair"}),
    "sppo": Learner("Wu et al. 2024, arXiv 2405.00675", "squared, hard labels", {"loss_type": "sppo_hard"}),
    "aot": Learner("Melnyk et al. 2024, arXiv 2406.05882", "sorts ratios within the micro-batch", {"loss_type": "aot"}),
    "apo-zero": Learner(
        "D'Oosterlinck et al. 2024, arXiv 2408.06266", "raises y_w, lowers y_l", {"loss_type": "apo_zero"}
    ),
    "apo-down": Learner("D'Oosterlinck et al. 2024, arXiv 2408.06266", "lowers both", {"loss_type": "apo_down"}),
    "discopop": Learner("Lu et al. 2024, arXiv 2406.08414", "log-ratio modulated", {"loss_type": "discopop"}),
    "bco-unshifted": Learner("TRL's `bco_pair`", "BCO without its shift delta", {"loss_type": "bco_pair"}),
    "f-forward-kl": Learner(
        "Wang et al. 2023, arXiv 2309.16240", "forward KL", {"f_divergence_type": "forward_kl"}, implicit_reward=False
    ),
    "f-js": Learner(
        "Wang et al. 2023, arXiv 2309.16240",
        "Jensen-Shannon",
        {"f_divergence_type": "js_divergence"},
        implicit_reward=False,
    ),
    "f-alpha": Learner(
        "Wang et al. 2023, arXiv 2309.16240",
        "alpha-divergence, alpha 0.5",
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
        implicit_reward=False,
    ),
    "ipo": Learner("Azar et al. 2023, arXiv 2310.12036", "with sums over tokens, as the paper writes it", loss=ipo),
    "rpo": Learner("Liu et al. 2024, arXiv 2405.16436", "DPO and a likelihood term of weight eta beta", loss=rpo),
    "flex-dpo": Learner(
        "3D-properties, arXiv 2406.07327", "half of beta on the rejected answer", loss=flex, implicit_reward=False
    ),
    "kto": Learner("Ethayarajh et al. 2024, arXiv 2402.01306", "good and bad answers on their own; TRL's KTOTrainer"),
    "simpo": Learner(
        "Meng et al. 2024, arXiv 2405.14734",
        "per token, no reference; beta 2",
        loss=simpo,
        beta=2.0,
        implicit_reward=False,
        version=2,
    ),
    "cpo": Learner(
        "Xu et al. 2024, arXiv 2401.08417",
        "no reference; likelihood of y_w per token; beta 0.1",
        loss=cpo,
        beta=0.1,
        implicit_reward=False,
        version=2,
    ),
    "orpo": Learner(
        "Hong et al. 2024, arXiv 2403.07691",
        "odds ratio (lambda, here beta, 0.1), no reference; likelihood of y_w",
        loss=orpo,
        beta=0.1,
        implicit_reward=False,
        version=2,
    ),
    "bco": Learner("Jung et al. 2024, arXiv 2404.04656", "binary classifier with the shift delta", loss=bco, version=2),
}


def _is_learner(thing: object) -> bool:
    return isinstance(thing, Learner)


LEARNERS: Registry[Learner] = Registry(
    "learner",
    "peo_bench.learners",
    BUILTIN,
    expected="a peo_bench.training.learners.Learner",
    valid=_is_learner,
)
