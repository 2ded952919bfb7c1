"""The pairs of all objectives in one file, for a training that does not tell objectives apart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from peo_bench.core import roles
from peo_bench.core.method import World
from peo_bench.files.json_types import JsonObject
from peo_bench.files.jsonl import read_jsonl, write_jsonl
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace

MIXTURE = "mixture"
"""What takes an objective's place in the name of the file."""


def mixed_pairs_job(world: World) -> Job:
    """Return the job that puts the pairs of a world's objectives into one file."""
    needs = {roles.pairs(name): world.pairs[name] for name in world.names}
    return Job("mixed-pairs", {"objectives": world.names}, needs)


@job_kind("mixed-pairs", version=1, keeps="nothing", common=True)
def mix_pairs(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write the policy pairs of `params["objectives"]`, one objective after the other, as those of the mixture."""
    names = job.params["objectives"]
    rows = {name: read_jsonl(inputs[roles.pairs(name)].path / f"{name}-policy.jsonl") for name in names}
    write_jsonl(work.dir / f"{MIXTURE}-policy.jsonl", chain.from_iterable(rows.values()))
    return {"pairs": {name: len(own) for name, own in rows.items()}}
