"""The jobs that turn preference data into pairs for policies, pairs for scorers, and prompts to validate and test on.

Every prompt belongs to one of four splits, by a hash of its text: all pairs of a prompt, of every objective and source,
stay together, so no prompt that a policy or a scorer was trained on is ever tested on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from peo_bench.data.prompts import Prompt, read_task_prompts
from peo_bench.data.schema import FRACTIONS, Pair, PairSource, prompt_id, split_of
from peo_bench.data.sources import SHOWN, Loaded, read_first, read_source, source_identity
from peo_bench.errors import UsageError
from peo_bench.files.dialogue import opening, size
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.files.jsonl import write_jsonl
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace

TRAINING = ("policy", "scorer")
SHARED = ("sources", "max_prompt_chars", "fractions", "held_out")
"""What jobs on the same data have in common: they share prompts out alike."""


def pairs_job(
    sources: Sequence[PairSource],
    objectives: Sequence[str],
    *,
    max_chars: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    data_dir: Path | None = None,
    held_out: Sequence[Mapping[str, Json]] = (),
) -> Job:
    """Return the job that writes the training pairs of `objectives`.

    Prompts and answers in which more than `max_chars` characters are said are left out (the job can be told a
    `max_prompt_chars` of its own). At most `limit` pairs per objective are kept for policies and as many for scorers,
    chosen by `seed`. Prompts are shared out by `FRACTIONS` (the job can be told its own, also without any
    for scorers). Files are looked up under `data_dir`, by default under PEO_BENCH_DATA_DIR. Prompts of the sets
    `held_out` (see `prompts_identity`) are left out, and what begins with them. Raises `UsageError` if there are no
    files, or an objective has no source.
    """
    for objective in objectives:
        if not any(source.objective == objective for source in sources):
            known = ", ".join(sorted({source.objective for source in sources})) or "none"
            raise UsageError(f"no pairs for objective {objective!r} (sources for: {known}): add one to `data.sources`")
    params = {
        "sources": [source_identity(source, data_dir) for source in sources if source.objective in objectives],
        "max_chars": max_chars,
        "max_prompt_chars": max_chars,
        "limit": limit,
        "seed": seed,
        "fractions": dict(FRACTIONS),
    }
    return Job("pairs", params | {"held_out": list(held_out)})


@lru_cache(maxsize=8)
def first_rows(job: Job, n: int) -> dict[str, Loaded[Pair]]:
    """Return by objective what the first `n` rows of every file, and of every hub's data set, of a `pairs_job` become.

    Data sets that are out of reach are `unread`. Raises `UsageError` for a file of which nothing can be used.
    """
    found: dict[str, Loaded[Pair]] = {}
    for identity in job.params["sources"]:
        loaded, part = found.setdefault(identity["objective"], Loaded()), read_first(identity, PairSource, n)
        loaded.items += part.items
        loaded.dropped += part.dropped
        loaded.malformed += part.malformed
        loaded.unread += part.unread
    return found


def first_pairs(job: Job, n: int) -> dict[str, list[Pair]]:
    """Return by objective the pairs that the first `n` rows of every file give, as far as single rows tell."""
    limits = job.params["max_prompt_chars"], job.params["max_chars"]
    return {name: list(_short(loaded.items, *limits, Counter())) for name, loaded in first_rows(job, n).items()}


def prompts_job(
    pairs: Job | None,
    validation: int,
    test: int,
    *,
    own: Mapping[str, Json] | None = None,
    benign: Mapping[str, Json] | None = None,
) -> Job:
    """Return the job that draws prompts; they do not depend on the seed and limit of `pairs`, a `pairs_job`.

    They come from the prompt set `own` (see `prompts_identity`) in the splits that it has, else from the data of
    `pairs`; None where no others are wanted. `benign` adds a split "benign": {"source": an identity, "n": a number}.
    """
    shared = pairs.params if pairs else {"sources": [], "max_prompt_chars": None, "fractions": dict(FRACTIONS)}
    params = {name: shared[name] for name in SHARED if name in shared}
    return Job("prompts", params | {"validation": validation, "test": test, "own": own, "benign": benign})


@job_kind("pairs", version=2, defaults={"held_out": []}, keeps="nothing", common=True)
def build_pairs(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `<objective>-policy.jsonl` and `<objective>-scorer.jsonl`.

    The result counts, by objective, pairs kept, rows dropped by reason, and prompts by split.
    """
    params = job.params
    pairs, dropped, malformed = _read(params, params["max_chars"])
    kept: dict[str, dict[str, int]] = {}
    prompts: dict[str, dict[str, int]] = {}
    for objective, available in pairs.items():
        parts = _by_split(available, params["fractions"])
        prompts[objective] = {name: len({pair.prompt_id for pair in part}) for name, part in parts.items()}
        kept[objective] = {}
        for split in (split for split in TRAINING if split in params["fractions"]):
            chosen = _spread(parts[split], params["seed"])[: params["limit"]]
            if not chosen:
                raise UsageError(_too_few(objective, "pairs", split, 1, 0, dropped[objective]))
            write_jsonl(work.dir / f"{objective}-{split}.jsonl", map(_pair_row, chosen))
            kept[objective][split] = len(chosen)
    counts = {objective: dict(reasons) for objective, reasons in dropped.items()}
    return {"pairs": kept, "prompts": prompts, "dropped": counts, "malformed": malformed}


@job_kind("prompts", version=2, defaults={"held_out": [], "own": None, "benign": None}, keeps="nothing", common=True)
def build_prompts(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `prompts.jsonl`: validation and test prompts, an equal share from the data of every objective.

    A split that the task's own prompt set has comes from there, an equal share of every category. The length of answers
    does not matter here. A prompt without a category gets its objective as one.
    """
    params = job.params
    own = read_task_prompts(params["own"]) if params["own"] else {}
    rows = [row for split, prompts in own.items() for row in _own_rows(prompts, split, params[split])]
    if params["benign"]:
        rows += _own_rows(read_task_prompts(params["benign"]["source"])["test"], "benign", params["benign"]["n"])
    rows += _rows_from_pairs(params, [split for split in ("validation", "test") if split not in own])
    write_jsonl(work.dir / "prompts.jsonl", rows)
    return {"prompts": len(rows), "by_objective": dict(Counter(str(row["objective"]) for row in rows))}


def labelled_answers(params: Mapping[str, Any], split: str, limit: int) -> list[tuple[str, str, bool]]:
    """Return (prompt, answer, is it safe) of a split, each answer once, where the data has labels of single answers.

    `params` are those that jobs on the same data share (`SHARED`); at most `limit` answers, in a fixed random order.
    """
    pairs, _, _ = _read(params, None)
    found: dict[tuple[str, str], bool] = {}
    for pair in _spread((pair for some in pairs.values() for pair in some), 0):
        if pair.safe is not None and split_of(pair.prompt, params["fractions"]) == split:
            found |= zip(((pair.prompt, pair.chosen), (pair.prompt, pair.rejected)), pair.safe, strict=True)
    return [(prompt, answer, safe) for (prompt, answer), safe in found.items()][:limit]


def _own_rows(prompts: Sequence[Prompt], split: str, n: int) -> list[JsonObject]:
    if len(prompts) < n:
        raise UsageError(
            f"the task's own prompt set has {len(prompts)} {split} prompts, {n} needed: lower the number with "
            f"--set {'over_refusal' if split == 'benign' else split}_prompts={len(prompts)}"
        )
    return [_prompt_row(prompt, prompt.category or "all", "", split) for prompt in prompts[:n]]


def _rows_from_pairs(params: Mapping[str, Any], splits: Sequence[str]) -> list[JsonObject]:
    pairs, dropped, _ = _read(params, None) if splits else ({}, {}, [])
    parts = {objective: _by_split(available, params["fractions"]) for objective, available in pairs.items()}
    rows = []
    for split in splits:
        candidates = {objective: _prompts(part[split]) for objective, part in parts.items()}
        drawn = _balanced(candidates, params[split])
        if len(drawn) < params[split]:
            short = min(candidates, key=lambda objective: len(candidates[objective]))
            wanted = -(-params[split] // len(candidates))
            raise UsageError(_too_few(short, "prompts", split, wanted, len(candidates[short]), dropped[short]))
        rows += [_prompt_row(pair, pair.category or pair.objective, pair.objective, split) for pair in drawn]
    return rows


def _read(
    params: Mapping[str, Any], max_answer: int | None
) -> tuple[dict[str, list[Pair]], dict[str, Counter[str]], list[str]]:
    """Return pairs and dropped rows by objective, and the malformed rows that are named."""
    pairs: dict[str, list[Pair]] = {}
    dropped: dict[str, Counter[str]] = {}
    malformed: list[str] = []
    held_out = {
        prompt.prompt_id
        for identity in params["held_out"]
        for prompts in read_task_prompts(identity).values()
        for prompt in prompts
    }
    for identity in params["sources"]:
        objective = identity["objective"]
        loaded = read_source(identity)
        reasons = dropped.setdefault(objective, Counter())
        reasons.update(loaded.dropped)
        free = [pair for pair in loaded.items if held_out.isdisjoint((pair.prompt_id, prompt_id(opening(pair.prompt))))]
        reasons.update({"evaluation prompt": len(loaded.items) - len(free)} if len(free) < len(loaded.items) else {})
        pairs.setdefault(objective, []).extend(_short(free, params["max_prompt_chars"], max_answer, reasons))
        malformed += loaded.malformed
    return {name: _unique(some, dropped[name]) for name, some in pairs.items()}, dropped, malformed[:SHOWN]


def _short(
    pairs: Iterable[Pair], max_prompt: int | None, max_answer: int | None, dropped: Counter[str]
) -> Iterator[Pair]:
    for pair in pairs:
        if max_prompt is not None and size(pair.prompt) > max_prompt:
            dropped["prompt too long"] += 1
        elif max_answer is not None and max(len(pair.chosen), len(pair.rejected)) > max_answer:
            dropped["answer too long"] += 1
        else:
            yield pair


def _unique(pairs: Iterable[Pair], dropped: Counter[str]) -> list[Pair]:
    """Return the pairs without repetitions (same prompt, same two answers in the same order)."""
    seen: dict[tuple[str, str, str], Pair] = {}
    for pair in pairs:
        if seen.setdefault((pair.prompt_id, pair.chosen, pair.rejected), pair) is not pair:
            dropped["duplicate"] += 1
    return list(seen.values())


def _by_split(pairs: Iterable[Pair], fractions: Mapping[str, float]) -> dict[str, list[Pair]]:
    parts: dict[str, list[Pair]] = {name: [] for name in FRACTIONS}
    for pair in pairs:
        parts[split_of(pair.prompt, fractions)].append(pair)
    return parts


def _order(pair: Pair, seed: int) -> str:
    content = json.dumps([seed, pair.prompt_id, pair.chosen, pair.rejected])
    return hashlib.sha256(content.encode()).hexdigest()


def _spread(pairs: Iterable[Pair], seed: int) -> list[Pair]:
    """Return the pairs in a random order in which every prompt comes once before any comes twice."""
    shuffled = sorted(pairs, key=lambda pair: _order(pair, seed))
    turn: Counter[str] = Counter()
    keyed: list[tuple[int, Pair]] = []
    for pair in shuffled:
        keyed.append((turn[pair.prompt_id], pair))
        turn[pair.prompt_id] += 1
    return [pair for _, pair in sorted(keyed, key=lambda item: item[0])]


def _prompts(pairs: Iterable[Pair]) -> list[Pair]:
    """Return one pair of every prompt, in a fixed random order."""
    by_prompt: dict[str, Pair] = {}
    for pair in _spread(pairs, 0):
        by_prompt.setdefault(pair.prompt_id, pair)
    return list(by_prompt.values())


def _balanced(candidates: Mapping[str, Sequence[Pair]], n: int) -> list[Pair]:
    """Draw `n` prompts, objectives taking turns; a prompt that several offer is drawn once. Fewer if one runs out."""
    queues = {objective: iter(pairs) for objective, pairs in candidates.items()}
    drawn: dict[str, Pair] = {}
    while len(drawn) < n:
        for queue in queues.values():
            fresh = next((pair for pair in queue if pair.prompt_id not in drawn), None)
            if fresh is None:
                return list(drawn.values())
            drawn[fresh.prompt_id] = fresh
            if len(drawn) == n:
                break
    return list(drawn.values())


def _pair_row(pair: Pair) -> JsonObject:
    row: JsonObject = {"prompt_id": pair.prompt_id, "prompt": pair.prompt}
    row |= {"chosen": pair.chosen, "rejected": pair.rejected} if pair.chosen else {}
    return row | ({"labels": dict(pair.labels)} if pair.labels else {})


def _prompt_row(item: Pair | Prompt, category: str, objective: str, split: str) -> JsonObject:
    row: JsonObject = {"prompt_id": item.prompt_id, "prompt": item.prompt, "category": category}
    return row | {"objective": objective, "split": split}


def _too_few(objective: str, what: str, split: str, wanted: int, found: int, dropped: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
    return (
        f"objective {objective!r}: {found} {what} in split {split!r}, {wanted} needed (rows dropped: {reasons}): "
        "give more data, raise `max_chars`, or lower `--limit` or the suite's numbers of prompts"
    )
