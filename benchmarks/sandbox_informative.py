"""Is the sandbox informative? At equal KL the oracle must beat the reference and the soup by more than 3 standard
errors.

python benchmarks/sandbox_informative.py [SEED ...]      (default 0 1 2 3 4)

For every training seed and preference, the oracle gets the KL that the soup's policy spends on the same test prompts,
at most
`CAP` nats (beyond, too few of the reference's samples carry it; less KL makes it harder for the oracle). Compared is
the utility w . (reward, -cost) averaged over preferences, paired by prompt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plane import sandbox_world

from peo_bench.core.method import World
from peo_bench.core.rounds import build_families
from peo_bench.core.spec import policy
from peo_bench.evaluation.answering import read_answers
from peo_bench.jobs.runner import Runner
from peo_bench.methods import make_method
from peo_bench.runs.world import answers_job
from peo_bench.sandbox.kinds import oracle_job
from peo_bench.sandbox.oracle import oracle_point, solve_beta
from peo_bench.suites.suite import load_task

CAP = 1.0
PROMPTS, SAMPLES = 90, 320
RESULT = Path(__file__).parent / "results" / "sandbox_informative.json"


def policy_utilities(runner: Runner, world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return utilities (n_preferences, n_prompts) of the soup and the reference, and the soup's mean KLs."""
    task = load_task("peo_sandbox")
    built = build_families(runner, {"soup": make_method("soup")}, world, []).families["soup"]
    tables: dict[object, pd.DataFrame] = {}
    specs = [("reference", policy(world.reference.id)), *((w, built.family.resolve(w)) for w in world.preferences)]
    for name, spec in specs:
        job = answers_job(world, task, spec, built.jobs, "test", PROMPTS)
        tables[name] = read_answers(runner.run([job])[job.id])
    utility = lambda w, name: w["helpful"] * tables[name]["reward"] - w["harmless"] * tables[name]["cost"]  # noqa: E731
    soup = np.array([utility(w, w) for w in world.preferences])
    reference = np.array([utility(w, "reference") for w in world.preferences])
    return soup, reference, np.array([tables[w]["kl"].mean() for w in world.preferences])


def oracle_utilities(runner: Runner, world: World, budgets: np.ndarray) -> tuple[np.ndarray, float]:
    """Return utilities (n_preferences, n_prompts) at the KL budgets, and the smallest effective sample size."""
    job = oracle_job(world, PROMPTS, SAMPLES)
    with np.load(runner.run([job])[job.id].path / "gold.npz") as gold:
        reward, cost = gold["reward"], gold["cost"]
    rows, sizes = [], []
    for preference, budget in zip(world.preferences, budgets, strict=True):
        w = preference["helpful"], preference["harmless"]
        point = solve_beta(reward, cost, w, min(CAP, float(budget)))
        sizes.append(point.ess)
        alone = [(reward[i : i + 1], cost[i : i + 1]) for i in range(len(reward))]
        single = [oracle_point(r, c, w, point.beta) for r, c in alone]
        rows.append([w[0] * p.reward - w[1] * p.cost for p in single])
    return np.array(rows), min(sizes)


def paired(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Return the difference of mean utilities with its standard error over prompts."""
    difference = (a - b).mean(axis=0)
    error = float(difference.std(ddof=1) / np.sqrt(difference.size))
    mean = float(difference.mean())
    return {"difference": round(mean, 4), "standard_error": round(error, 4), "ratio": round(mean / error, 1)}


def one_seed(seed: int) -> dict[str, Any]:
    with sandbox_world("sandbox", seed) as (runner, world):
        soup, reference, kl = policy_utilities(runner, world)
        oracle, ess = oracle_utilities(runner, world, kl)
    return {
        "seed": seed,
        "soup_kl": [round(float(value), 3) for value in kl],
        "smallest_effective_sample_size": round(ess, 1),
        "oracle_over_reference": paired(oracle, reference),
        "oracle_over_soup": paired(oracle, soup),
    }


def main() -> None:
    seeds = [int(text) for text in sys.argv[1:]] or [0, 1, 2, 3, 4]
    rows = []
    for seed in seeds:
        rows.append(one_seed(seed))
        print(rows[-1], flush=True)
    passed = sum(min(row[k]["ratio"] for k in ("oracle_over_reference", "oracle_over_soup")) > 3 for row in rows)
    result = {"cap_nats": CAP, "prompts": PROMPTS, "seeds": rows, "seeds_above_3_standard_errors": passed}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
