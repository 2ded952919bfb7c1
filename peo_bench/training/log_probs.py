"""Log-probabilities of the answers in preference pairs under a policy: computed once for all trainings that need them.

Every DPO-like training compares with the reference policy, and MODPO also with the other objective's expert.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from peo_bench.core.method import READ
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.loading import load_causal, load_policy, load_tokenizer
from peo_bench.models.quiet import quiet
from peo_bench.training.pair_rows import LOG_PROBS_FILE, made_of, tokenised_pairs
from peo_bench.training.settings import PLAIN, dpo_settings


@job_kind(
    "log-probs",
    version=1,
    defaults={name: PLAIN[name] for name in READ},
    keeps="nothing",
    label=("objective",),
)
def compute_log_probs(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write the log-probabilities of `params["objective"]`'s pairs under the reference policy, or under `policy`."""
    from peo_bench.training.trainers import pair_log_probs, trunk_options

    settings, reference = dpo_settings(job.params), inputs["reference"].path / "model"
    with quiet():
        tokenizer = load_tokenizer(reference)
        dataset = tokenised_pairs(inputs, job.params["objective"], tokenizer, settings.max_length)
        if "policy" in inputs:
            model = load_policy(reference, inputs["policy"], settings.precision, **trunk_options(settings))
        else:
            model = load_causal(reference, settings.trunk_precision, **trunk_options(settings))
        chosen, rejected = pair_log_probs(model, tokenizer, dataset, settings, work.memo("kept"))
    np.savez(work.dir / LOG_PROBS_FILE, chosen=chosen, rejected=rejected)
    return {"objective": job.params["objective"], "of": made_of(inputs)}
