"""The sandbox's jobs: SFT corpus and initial model, prompts, pairs labelled for both objectives, and the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from peo_bench.core.decoding import Decoding, decoding_of, sampling_params
from peo_bench.core.method import World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import policy
from peo_bench.evaluation.generation import charge, generate, make_engine, read_prompts
from peo_bench.files.json_types import JsonObject
from peo_bench.files.jsonl import write_jsonl
from peo_bench.jobs.job import Cost, Handle, Job, job_kind, outlined
from peo_bench.jobs.store import Store
from peo_bench.jobs.workspace import Workspace
from peo_bench.results.operating_points import Row
from peo_bench.sandbox.gold import gold_cost, gold_reward
from peo_bench.sandbox.oracle import oracle_front
from peo_bench.sandbox.small_world import Prompt, build_model, build_tokenizer, corpus, prompt_split, unfilled_model

Floats = npt.NDArray[np.float64]
GOLD: dict[str, Callable[[Prompt | str, str], float]] = {
    "helpful": gold_reward,
    "harmless": lambda prompt, answer: -gold_cost(prompt, answer),
}
"""Gold utilities by objective, higher is better: what the Bradley-Terry labels are drawn from."""
LABEL_SCALE = 2.0
"""Gold differences are multiplied by this before the logistic: labels are noisy, not arbitrary."""


@outlined(lambda job: unfilled_model(), lambda job: build_tokenizer())
@job_kind("sandbox-corpus", version=1, keeps="nothing", common=True)
def draw_corpus(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `corpus.jsonl` for SFT and `init/`, the untrained model with its tokenizer."""
    rows = [{"prompt": prompt, "answer": answer} for prompt, answer in corpus(job.params["n"], job.params["seed"])]
    write_jsonl(work.dir / "corpus.jsonl", rows)
    model = build_model(job.params["seed"])
    model.save_pretrained(work.dir / "init")
    build_tokenizer().save_pretrained(work.dir / "init")
    return {"rows": len(rows), "parameters": model.num_parameters()}


@job_kind("sandbox-prompts", version=1, keeps="nothing", common=True)
def draw_prompts(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `prompts.jsonl`: validation and test prompts, balanced over hazards, the same for every training seed."""
    rows = [
        {"prompt_id": prompt.id, "prompt": prompt.text, "category": prompt.hazard, "split": split}
        for split in ("validation", "test")
        for prompt in prompt_split(split, job.params[split], seed=0)
    ]
    write_jsonl(work.dir / "prompts.jsonl", rows)
    return {"prompts": len(rows)}


@dataclass(frozen=True)
class LabelledPair:
    """Two answers to a prompt and by objective which is preferred: +1 the first, -1 the second."""

    prompt: Prompt
    answers: tuple[str, str]
    labels: dict[str, int]


def _pairs_bound(job: Job) -> Cost:
    answers = 2 * (job.params["policy"] + job.params["scorer"])
    return Cost(answers=answers, tokens_generated=answers * _DECODING.max_new_tokens)


_DECODING = Decoding(max_new_tokens=24, temperature=1.0, top_p=1.0)


@job_kind("sandbox-pairs", version=1, bound=_pairs_bound, keeps="nothing", common=True)
def label_pairs(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Sample two answers per training prompt from the reference and label the pair for both objectives.

    P(first preferred) = sigma(LABEL_SCALE x difference of gold utilities), Bradley and Terry (1952). Prompts for
    policies and for scorers are disjoint. Writes `<objective>-policy.jsonl` and `<objective>-scorer.jsonl`.
    """
    seed = job.params["seed"]
    by_id = {handle.id: handle for handle in inputs.values()}
    n_policy, n_scorer = job.params["policy"], job.params["scorer"]
    drawn = list(prompt_split("train", n_policy + n_scorer, seed=seed))
    prompts = [drawn[i] for i in np.random.default_rng(seed).permutation(len(drawn))]
    engine = make_engine(by_id.__getitem__, inputs["reference"].id, "float32", seed)
    rows = [
        {"prompt_id": f"{prompt.id}-{sample}", "prompt": prompt.text} for prompt in prompts for sample in ("a", "b")
    ]
    spec, memo = policy(inputs["reference"].id), work.memo("kept")
    requests, answered = generate(engine, [spec], rows, _DECODING, [memo], work.progress)
    work.charge(charge(requests, answered, 0, 0))
    answers = [answer.text for answer in answered]
    pairs = [_labelled(p, answers[2 * i], answers[2 * i + 1], seed) for i, p in enumerate(prompts)]
    used = 0
    for part, chunk in (("policy", pairs[:n_policy]), ("scorer", pairs[n_policy:])):
        kept = [pair for pair in chunk if pair.answers[0] != pair.answers[1]]
        used += len(kept)
        for objective in GOLD:
            write_jsonl(work.dir / f"{objective}-{part}.jsonl", [_pair_row(pair, objective) for pair in kept])
    return {"pairs": used, "dropped": {"equal answers": len(pairs) - used}}


def _labelled(prompt: Prompt, first: str, second: str, seed: int) -> LabelledPair:
    """Return the pair with its label by objective: +1 if the first answer is preferred, else -1."""
    rng = np.random.default_rng([seed, int(prompt.id.rpartition("-")[2])])
    labels = {}
    for objective, utility in GOLD.items():
        margin = LABEL_SCALE * (utility(prompt, first) - utility(prompt, second))
        labels[objective] = 1 if rng.random() < 1 / (1 + np.exp(-margin)) else -1
    return LabelledPair(prompt, (first, second), labels)


def _pair_row(pair: LabelledPair, objective: str) -> JsonObject:
    sign = pair.labels[objective]
    chosen, rejected = pair.answers if sign > 0 else reversed(pair.answers)
    labels = {name: sign * label for name, label in pair.labels.items()}
    return {
        "prompt_id": pair.prompt.id,
        "prompt": pair.prompt.text,
        "chosen": chosen,
        "rejected": rejected,
        "labels": labels,
    }


def oracle_job(world: World, n_prompts: int, samples: int) -> Job:
    """Return the job that samples the reference on test prompts for the oracle."""
    sizes = {"n_prompts": n_prompts, "samples": samples}
    params = {**sizes, **sampling_params(world.decoding), "seed": world.seed}
    return Job("sandbox-oracle", params, {"reference": world.reference, "prompts": world.prompts})


def _oracle_bound(job: Job) -> Cost:
    answers = job.params["n_prompts"] * job.params["samples"]
    return Cost(answers=answers, tokens_generated=answers * decoding_of(job.params).max_new_tokens)


@job_kind("sandbox-oracle", version=1, bound=_oracle_bound, defaults=sampling_params(), keeps="nothing", common=True)
def sample_reference(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `gold.npz`: gold reward and cost of the reference's samples, each (n_prompts, n_samples)."""
    by_id = {handle.id: handle for handle in inputs.values()}
    engine = make_engine(by_id.__getitem__, inputs["reference"].id, "float32", job.params["seed"])
    prompts = read_prompts(inputs["prompts"], "test", job.params["n_prompts"])
    n = job.params["samples"]
    rows = [row | {"prompt_id": f"{row['prompt_id']}/{k}"} for row in prompts for k in range(n)]
    spec, memo = policy(inputs["reference"].id), work.memo("kept")
    requests, answered = generate(engine, [spec], rows, decoding_of(job.params), [memo], work.progress, "oracle")
    work.charge(charge(requests, answered, 0, 0))
    texts = [answer.text for answer in answered]
    scores = {
        name: np.array([gold(row["prompt"], text) for row, text in zip(rows, texts, strict=True)]).reshape(-1, n)
        for name, gold in (("reward", gold_reward), ("cost", gold_cost))
    }
    np.savez(work.dir / "gold.npz", **scores)  # type: ignore[arg-type]
    return {"samples": n, "reward": float(scores["reward"].mean()), "cost": float(scores["cost"].mean())}


def oracle_rows(
    store: Store, world: World, job: Job, kl_budgets: Iterable[float], preferences: Iterable[Preference], task: str
) -> list[Row]:
    """Return the oracle's rows of `points.csv`, one per preference and KL budget (column `kl`, nats per answer)."""
    with np.load(store[job.id].path / "gold.npz") as gold:
        reward, cost = gold["reward"], gold["cost"]
    budgets, weights = list(kl_budgets), [(w["helpful"], w["harmless"]) for w in preferences]
    points = oracle_front(reward, cost, weights, budgets)
    return [
        {
            "task": task,
            "split": "test",
            "method": "oracle",
            "seed": world.seed,
            "grid": f"kl={budget:g}",
            "preference_helpful": weight[0],
            "preference_harmless": weight[1],
            "reward": point.reward,
            "reward_se": point.reward_se,
            "cost": point.cost,
            "cost_se": point.cost_se,
            "kl": point.kl,
            "n": len(reward),
            "ess": point.ess,
            "hollow": point.hollow,
        }
        for (budget, weight), point in zip(product(budgets, weights), points, strict=True)
    ]
