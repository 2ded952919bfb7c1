"""Log-probabilities of the answers in preference pairs under a policy: computed once for all trainings that need them.

Every DPO-like training compares with the reference policy, and MODPO also with the other objective's expert.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from peo_bench.core import roles
from peo_bench.core.method import READ
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.loading import load_causal, load_policy, load_tokenizer
from peo_bench.models.quiet import quiet
from peo_bench.training.pair_rows import tokenised_pairs
from peo_bench.training.settings import PLAIN, dpo_settings

FILE = "log-probs.npz"
LogProbs = tuple[list[float], list[float]]
"""Of chosen and of rejected answers, in nats, summed over tokens, in the order of `tokenised_pairs`."""


@job_kind(
    "log-probs",
    version=1,
    defaults={name: PLAIN[name] for name in READ},
    keeps="nothing",
    label=("objective",),
)
def compute_log_probs(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write the log-probabilities of `params["objective"]`'s pairs under the reference policy, or under `policy`."""
    from peo_bench.training.trainers import pair_log_probs

    settings, reference = dpo_settings(job.params), inputs["reference"].path / "model"
    with quiet():
        tokenizer = load_tokenizer(reference)
        dataset = tokenised_pairs(inputs, job.params["objective"], tokenizer, settings.max_length)
        if "policy" in inputs:
            model = load_policy(reference, inputs["policy"], settings.precision)
        else:
            model = load_causal(reference, settings.trunk_precision)
        chosen, rejected = pair_log_probs(model, tokenizer, dataset, settings, work.memo("kept"))
    np.savez(work.dir / FILE, chosen=chosen, rejected=rejected)
    return {"objective": job.params["objective"], "of": _of(inputs)}


def read_log_probs(inputs: Mapping[str, Handle], objective: str, role: str = roles.LOG_PROBS) -> LogProbs | None:
    """Return what the job under `role` computed; None for a training that has none and computes them itself."""
    if role not in inputs:
        return None
    said = inputs[role].result
    assert (said["objective"], said["of"]) == (objective, _of(inputs)), "they are of another training"
    with np.load(inputs[role].path / FILE) as found:
        return found["chosen"].tolist(), found["rejected"].tolist()


def _of(inputs: Mapping[str, Handle]) -> list[str]:
    return [inputs[role].id for role in ("reference", "pairs")]
