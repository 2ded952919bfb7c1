"""The sandbox's reference policy of training seed 0, trained once and shipped: it took a quarter of the default run.

`shipped/reference.json` says which job gave the file and its digest. A world whose reference policy would be the result
of that very job takes the file instead; every other, and all with `--from-scratch`, trains its own.
`benchmarks/ship_reference.py` makes both files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from peo_bench.errors import PeoBenchError
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Handle, Job, job_kind, outlined
from peo_bench.jobs.workspace import Workspace
from peo_bench.sandbox.small_world import build_model, build_tokenizer, unfilled_model

SHIPPED = files("peo_bench.sandbox") / "shipped"
WEIGHTS, RECORD = SHIPPED / "reference.safetensors", SHIPPED / "reference.json"


@cache
def record() -> dict[str, str]:
    """Return the id of the `job` that gave the shipped weights, and their `sha256`."""
    found: dict[str, str] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def shipped(trained: Job, sha256: str | None) -> Job:
    """Return the job that takes the shipped weights of this digest where `trained` would give them; else `trained`."""
    if sha256 is None or record()["job"] != trained.id:
        return trained
    return Job("sandbox-reference", {"sha256": sha256})


@outlined(lambda job: unfilled_model(), lambda job: build_tokenizer())
@job_kind("sandbox-reference", version=1, common=True)
def unpack(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `model/` with the shipped weights; raise `PeoBenchError` unless they are those that the job names."""
    from safetensors.torch import load

    content = WEIGHTS.read_bytes()
    if hashlib.sha256(content).hexdigest() != job.params["sha256"]:
        raise PeoBenchError(
            f"{WEIGHTS} is not the shipped file {job.params['sha256'][:12]}: install peo-bench again, or train the "
            "reference policy with --from-scratch"
        )
    model = build_model(seed=0)
    model.load_state_dict(load(content))
    model.save_pretrained(work.dir / "model")
    build_tokenizer().save_pretrained(work.dir / "model")
    return {"form": "base"}
