"""What every method has cost, counted as if it had run alone: `costs.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path

from peo_bench.core.method import World
from peo_bench.core.rounds import BuiltFamily
from peo_bench.core.spec import PolicySpec
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.runner import Outcome
from peo_bench.models.files import shapes_in
from peo_bench.results.costs_records import Costs, KindCost, MethodCost
from peo_bench.runs.label_budget import labels_seen, trains_on

OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth", ".h5")
"""Endings of weight files whose parameters are not counted."""

Labels = Callable[[Iterable[Job], Mapping[str, Handle]], dict[str, int]]
SERVING = ("decode_factor", "scorer_calls_per_answer", "stored_parameters")
"""What serving one family takes, which is no sum over seeds."""


def run_costs(
    outcome: Outcome, seeds: Mapping[int, tuple[World, Mapping[str, BuiltFamily]]], labels: Labels = labels_seen
) -> Costs:
    """Return costs per method and per kind of job; `labels` counts the labelled pairs that jobs have seen.

    What a given policy has cost is not known: it has no entry.
    A training unit is one aspect run (DPO on one objective's pairs); an answer trained on alone is half a pair. Proxies
    are charged to every method that has a job which needs them.
    `shared_jobs` counts the jobs that another method of the run needed too, and that were therefore done once;
    `seconds` are those of the jobs when they were done, so a reused job still counts. At decoding time: `decode_factor`
    is the number of forward passes per token of the answer, the candidates of selections included;
    `scorer_calls_per_answer` is what they ask to choose one; `stored_parameters` see there.
    """
    handles = outcome.handles
    users = Counter(job_id for _, built in seeds.values() for item in built.values() for job_id in item.jobs)
    methods: dict[str, MethodCost] = {}
    for world, built in seeds.values():
        aspects = world.aspects if world.pairs else []
        unit = max((handles[j.id].cost.pairs_trained for j in aspects if j.id in handles), default=0)
        for name, item in built.items():
            if name in world.given:
                continue
            own = [job_id for job_id, job in item.jobs.items() if not JOB_KINDS.get(job.kind).common]
            total = sum((handles[job_id].cost for job_id in own), Cost())
            proxies = [job_id for job_id in own if trains_on(item.jobs[job_id]) == "scorer"]
            proxy_pairs = sum(handles[job_id].cost.pairs_trained for job_id in proxies)
            specs = [item.family.resolve(w) for w in world.preferences]
            passes = [sum(len(mixture.mix) for mixture in spec.mixtures) for spec in specs]
            asked = [len(spec.scorers) * len(spec.candidates) for spec in specs]
            entry = MethodCost(
                train_units=round((total.pairs_trained + total.examples_trained / 2) / unit, 3) if unit else None,
                proxy_units=round(proxy_pairs / unit, 3) if unit else None,
                labels=labels(item.jobs.values(), handles),
                pairs_trained=total.pairs_trained,
                examples_trained=total.examples_trained,
                tokens_generated=total.tokens_generated,
                scorer_calls=total.scorer_calls,
                kl_tokens=total.kl_tokens,
                validation_evaluations=total.evaluations,
                seconds=round(sum(handles[job_id].seconds for job_id in own), 2),
                decode_factor=sum(passes) / len(passes),
                scorer_calls_per_answer=sum(asked) / len(asked),
                stored_parameters=stored_parameters(specs, handles, world.reference.id),
                jobs=len(own),
                shared_jobs=sum(users[job_id] > 1 for job_id in own),
            )
            methods[name] = _add(methods[name], entry) if name in methods else entry
    return Costs(methods=methods, kinds=_by_kind(outcome))


def stored_parameters(specs: Iterable[PolicySpec], handles: Mapping[str, Handle], reference: str) -> int | None:
    """Return how many numbers must be kept, beside the reference policy, to serve all of `specs`.

    Adapters and full models count as they are stored, each once however many policies use it, and so do the scorers
    that selections ask. None where an artefact keeps its weights in another format than safetensors.
    """
    needed = dict.fromkeys(job_id for spec in specs for job_id in spec.ids if job_id != reference)
    counts = [_parameters(handles[job_id].path) for job_id in needed]
    return None if None in counts else sum(count for count in counts if count is not None)


def _parameters(artefact: Path) -> int | None:
    """Count the numbers in an artefact's safetensors files from their headers."""
    if any(path.suffix in OTHER_WEIGHTS for path in artefact.rglob("*")):
        return None
    return sum(prod(shape) for path in artefact.rglob("*.safetensors") for shape in shapes_in(path).values())


def _add(before: MethodCost, entry: MethodCost) -> MethodCost:
    """Sum over seeds what building took."""
    summed: dict[str, object] = {
        key: (getattr(before, key) or 0) + (getattr(entry, key) or 0)
        for key in MethodCost.model_fields
        if key not in (*SERVING, "labels")
    }
    labels = dict(Counter(before.labels) + Counter(entry.labels))  # of the seeds' pairs, which are others
    return entry.model_copy(update=summed | {"labels": labels})


def _by_kind(outcome: Outcome) -> dict[str, KindCost]:
    kinds: dict[str, list[str]] = {}
    handles, reused = outcome.handles, outcome.reused
    for job_id in handles:
        kinds.setdefault(job_id.rpartition("-")[0], []).append(job_id)
    return {
        kind: KindCost(
            jobs=len(ids),
            reused=sum(job_id in reused for job_id in ids),
            seconds=round(sum(handles[job_id].seconds for job_id in ids), 2),
            cost=sum((handles[job_id].cost for job_id in ids), Cost()).to_json(),
        )
        for kind, ids in sorted(kinds.items())
    }
