"""A policy written out as a model: what a later training starts from and refers to."""

from __future__ import annotations

from collections.abc import Mapping

from peo_bench.core.spec import spec_from_json
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace


@job_kind("merged", version=1, keeps="nothing")
def write_merged(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write the weights of `params["spec"]`, which mixes nothing at decoding time, as `model/` with its tokenizer."""
    from peo_bench.engine.engine import Engine

    by_id = {handle.id: handle for handle in inputs.values()}
    ((_, weights),) = spec_from_json(job.params["spec"]).mix
    model, tokenizer = Engine(by_id.__getitem__, noise_seed=0).materialised(weights)
    model.save_pretrained(work.dir / "model")
    tokenizer.save_pretrained(work.dir / "model")
    return {"form": "base"}
