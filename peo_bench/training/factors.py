"""Averaged LoRA factors: A = sum w_i A_i and B = sum w_i B_i, as the public rewarded-soups code merges adapters.

Not the soup: (sum w_i B_i)(sum w_i A_i) has the cross terms w_i w_j B_i A_j. It reproduces what others ran; the exact
mixture is sum w_i B_i A_i.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from peo_bench.core import roles
from peo_bench.errors import UsageError
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.files import ADAPTER_WEIGHTS, adapter_tensors


@job_kind("averaged-factors", version=1, label=("weights",))
def average_factors(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write the adapter with the experts' factors averaged by `params["weights"]`; UsageError unless all are LoRA."""
    from safetensors.torch import save_file

    experts = roles.deltas(inputs)
    for expert in experts:
        if expert.result["form"] != "lora":
            raise UsageError(f"soup.factors averages LoRA factors, {expert.id} is a {expert.result['form']} fine-tune")
    tables = [adapter_tensors(expert.path / "adapter") for expert in experts]
    if any(table.keys() != tables[0].keys() for table in tables):
        raise UsageError("soup.factors: the experts' adapters have different layers")
    weighted = list(zip(job.params["weights"], tables, strict=True))
    mean = {name: sum(w * table[name] for w, table in weighted) for name in tables[0]}
    shutil.copytree(experts[0].path / "adapter", work.dir / "adapter", dirs_exist_ok=True)
    save_file(mean, work.dir / "adapter" / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    return {"form": "lora"}
