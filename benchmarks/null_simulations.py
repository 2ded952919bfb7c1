"""Do the intervals cover, and do the tests hold their level, where there is nothing to find?

Two methods whose true front quality is equal are simulated again and again and compared by the library's own functions.
Fronts: straight, curved (a quarter circle) and collapsed (all 11 policies in one place). Prompts differ in difficulty
(skewed), methods react to them differently, answers add noise; with common random numbers half of that noise's
variance is shared by the two methods at the same preference. Writes results/null_simulations.json and the tables of
docs/statistics.md.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from documents import put_tables

from peo_bench import pareto

HERE = Path(__file__).parent
RESULT = HERE / "results" / "null_simulations.json"
DOCS = HERE.parent / "docs" / "statistics.md"
MAXIMISE, REFERENCE = True, (-0.5, -0.5)
WEIGHTS = np.column_stack([np.linspace(0, 1, 11), np.linspace(1, 0, 11)])
PAIRS = (
    *(("straight", "straight"), ("curved", "curved"), ("collapsed", "collapsed")),
    *(("straight", "collapsed"), ("curved", "collapsed"), ("straight", "curved")),
)
PROMPT_SD, METHOD_SD, ANSWER_SD, SEED_SD = 0.8, 0.4, 1.0, 0.1
RESAMPLES, CHUNK = pareto.RESAMPLES, 25


def front(shape: str) -> np.ndarray:
    """Return true means (11, 2), both objectives maximised, over unit ranges."""
    if shape == "straight":
        return WEIGHTS.copy()
    if shape == "curved":
        return np.column_stack([np.sin(WEIGHTS[:, 0] * np.pi / 2), np.sin(WEIGHTS[:, 1] * np.pi / 2)])
    return np.full((11, 2), 0.5)


def aligned(a: np.ndarray, b: np.ndarray, quality: Any) -> np.ndarray:
    """Shift `b` along the diagonal until `quality(b) == quality(a)`, by bisection."""
    low, high = -0.4, 3.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if quality(b + middle) < quality(a) else (low, middle)
    return b + low


def simulate(random: np.random.Generator, means: tuple[np.ndarray, ...], n: int, common: bool, seeds: int) -> list:
    """Return scores (n_seeds, 11, n, 2) of each method."""
    prompts = PROMPT_SD * (random.exponential(size=(1, 1, n, 2)) - 1)
    shared = random.normal(size=(seeds, 11, n, 2))
    scores = []
    for mean in means:
        noise = random.normal(size=(seeds, 11, n, 2))
        if common:
            noise = np.sqrt(0.5) * (shared + noise)
        method = METHOD_SD * random.normal(size=(1, 1, n, 2))
        training = SEED_SD * random.normal(size=(seeds, 1, 1, 2)) if seeds > 1 else 0.0
        scores.append(mean[None, :, None] + prompts + method + training + ANSWER_SD * noise)
    return scores


def chunk(task: tuple[Any, ...]) -> dict[str, int]:
    """Count, over CHUNK simulated comparisons, how often intervals cover and tests reject."""
    what, pair, n, common, seeds, number = task
    random = np.random.default_rng([number, n, seeds, int(common), PAIRS.index(pair), what == "hypervolume"])
    a, b = (front(shape) for shape in pair)
    if what == "utility":
        b = aligned(a, b, lambda x: pareto.steered_utility(x, WEIGHTS, MAXIMISE))
    else:
        b = aligned(a, b, lambda x: pareto.hypervolume(x, REFERENCE, MAXIMISE))
    runs = [simulate(random, (a, b), n, common, seeds) for _ in range(CHUNK)]
    named = {f"{i}{side}": run[k] for i, run in enumerate(runs) for k, side in enumerate("ab")}
    resamples = pareto.resample(named, n_resamples=RESAMPLES, seed=number)
    if what == "hypervolume":
        estimates, truth = pareto.bootstrap_hypervolume(resamples, REFERENCE, MAXIMISE), None
    else:
        estimates = pareto.bootstrap_steered_utility(resamples, WEIGHTS, MAXIMISE)
        truth = pareto.steered_utility(a, WEIGHTS, MAXIMISE)
    count = dict.fromkeys(("runs", "covers", "rejects", "a_better", "b_better", "crossed_rejects"), 0)
    for i, run in enumerate(runs):
        difference = pareto.paired_difference(estimates[f"{i}a"], estimates[f"{i}b"])
        count["runs"] += 1
        count["a_better"] += difference.ci_low > 0
        count["b_better"] += difference.ci_high < 0
        count["rejects"] += not difference.ci_low <= 0 <= difference.ci_high
        if truth is not None:
            count["covers"] += estimates[f"{i}b"].ci_low <= truth <= estimates[f"{i}b"].ci_high
        if seeds > 1:
            by_prompt = [pareto.utility_by_prompt(scores, WEIGHTS, MAXIMISE) for scores in run]
            interval = pareto.crossed_interval(by_prompt[0] - by_prompt[1])
            count["crossed_rejects"] += not interval.ci_low <= 0 <= interval.ci_high
    return {key: int(value) for key, value in count.items()}


def simulations(pool: ProcessPoolExecutor, runs: int, what: str, cells: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return one row per cell (pair, n, common, seeds) with the shares of runs."""
    rows = []
    for cell in cells:
        parts = list(pool.map(chunk, [(what, *cell, number) for number in range(runs // CHUNK)]))
        total = {key: sum(part[key] for part in parts) for key in parts[0]}
        shares = {key: value / total["runs"] for key, value in total.items() if key != "runs"}
        pair, n, common, seeds = cell
        rows.append({"fronts": " / ".join(pair), "n": n, "common": common, "seeds": seeds, "runs": total["runs"]})
        rows[-1] |= shares
        print(what, rows[-1], flush=True)
    return rows


def tables(result: dict[str, Any]) -> str:
    """Return the three tables of docs/statistics.md."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f} %"

    def noise(row: dict[str, Any]) -> str:
        return "common" if row["common"] else "independent"

    lines = ["| fronts (equal steered utility) | prompts | noise | false positives | interval of one method covers |"]
    lines.append("|---|---|---|---|---|")
    for row in result["utility"]:
        cells = [row["fronts"], row["n"], noise(row), percent(row["rejects"]), percent(row["covers"])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| fronts (equal hypervolume) | prompts | noise | first called better | second called better |"]
    lines.append("|---|---|---|---|---|")
    for row in result["hypervolume"]:
        cells = [row["fronts"], row["n"], noise(row), percent(row["a_better"]), percent(row["b_better"])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| training seeds | prompts | fronts | false positives: bootstrap | crossed interval |"]
    lines.append("|---|---|---|---|---|")
    for row in result["seeds"]:
        cells = [row["seeds"], row["n"], row["fronts"], percent(row["rejects"]), percent(row["crossed_rejects"])]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10000, help="simulated comparisons per row of the first table")
    parser.add_argument("--hypervolume-runs", type=int, default=1000)
    parser.add_argument("--seed-runs", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", choices=["utility", "hypervolume", "seeds"], help="one table only")
    options = parser.parse_args()
    plain = [(pair, n, common, 1) for pair, n, common in product(PAIRS, (200, 700), (True, False))]
    seeded = [(pair, n, True, seeds) for pair, n, seeds in product((PAIRS[0], PAIRS[4]), (200, 700), (2, 3, 5))]
    tasks = {
        "utility": (options.runs, "utility", plain),
        "hypervolume": (options.hypervolume_runs, "hypervolume", plain),
        "seeds": (options.seed_runs, "utility", seeded),
    }
    result = json.loads(RESULT.read_text()) if options.part else {"resamples": RESAMPLES}
    with ProcessPoolExecutor(options.workers) as pool:
        for name in [options.part] if options.part else tasks:
            result[name] = simulations(pool, *tasks[name])
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    put_tables(DOCS, "simulations", tables(result))
    print(tables(result))


if __name__ == "__main__":
    main()
