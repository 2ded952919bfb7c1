"""Choose the sandbox experts' learning rate and beta, once, by each expert's own proxy on validation prompts.

python benchmarks/choose_experts.py

Sees the reference, the two experts and the proxy scorers; no gold score, no test prompt, no combination method. A
setting serves both experts. Each is rated by the sum of the experts' own-proxy improvements, in standard deviations
of the reference. Of those within one standard error of the best (sqrt(2 / n_prompts)), the gentlest is taken: the
largest beta, then the smallest learning rate.
"""

from __future__ import annotations

import json
from itertools import product
from math import sqrt
from pathlib import Path

from plane import sandbox_world

from peo_bench.core.spec import policy
from peo_bench.evaluation.validation import read_candidates
from peo_bench.suites.suite import load_suite

LEARNING_RATES, BETAS = (1e-4, 2e-4, 5e-4), (0.1, 0.3)
RESULT = Path(__file__).parent / "results" / "choose_experts.json"


def own_proxies(learning_rate: float, beta: float) -> dict[str, float]:
    settings = [f"training.learning_rate={learning_rate}", f"training.beta={beta}"]
    with sandbox_world("sandbox", 0, *settings) as (runner, world):
        specs = [policy(world.reference.id, [(job.id, 1.0)]).to_json() for job in world.aspects]
        job = world.validation_job("candidates", {"specs": specs}, world.aspects)
        scores = read_candidates(runner.run([job])[job.id]).utilities(world.objectives)
    return {objective.name: round(float(scores[i, i]), 4) for i, objective in enumerate(world.objectives)}


def main() -> None:
    rows = []
    for learning_rate, beta in product(LEARNING_RATES, BETAS):
        proxies = own_proxies(learning_rate, beta)
        rows.append({"learning_rate": learning_rate, "beta": beta, **proxies, "sum": sum(proxies.values())})
        print(rows[-1], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"rows": rows, "chosen": choose(rows, load_suite("sandbox").validation_prompts)}, indent=2)
    )


def choose(rows: list[dict[str, float]], n_prompts: int) -> dict[str, float]:
    """Return the gentlest setting within one standard error of the best."""
    enough = max(row["sum"] for row in rows) - sqrt(2 / n_prompts)
    return min((row for row in rows if row["sum"] >= enough), key=lambda row: (-row["beta"], row["learning_rate"]))


if __name__ == "__main__":
    main()
