"""How many scorer prompts make proxies that a search can trust? By criteria of the proxies alone.

python benchmarks/proxy_quality.py [SEED ...]      (default 5 6: no verdict uses them)

The reference answers the validation prompts `SAMPLES` times. Within prompts: the slope of a proxy on its gold score by
hazard (labels follow Bradley-Terry with twice the gold difference, so the truth is 2.0), and correlations of proxies
with gold and with each other. Nothing here knows of a method.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from documents import put_tables
from plane import Floats, Scored, sandbox_world

from peo_bench.evaluation.generation import generate, score
from peo_bench.sandbox.gold import gold_cost, gold_reward
from peo_bench.sandbox.grammar import HAZARDS

SIZES = (1536, 4096, 8192, 12000)
SAMPLES = 32
RESULT = Path(__file__).parent / "results" / "proxy_quality.json"
DOCS = Path(__file__).parents[1] / "docs" / "sandbox.md"


def within(a: Floats, b: Floats) -> tuple[float, float]:
    """Return slope of `a` on `b` and correlation, both (prompts, samples), around each prompt's mean."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return float((a * b).sum() / (b * b).sum()), float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def measure(world: Scored) -> dict[str, object]:
    rows = [
        row | {"prompt_id": f"{row['prompt_id']}/{k}"} for row in world.prompts("validation") for k in range(SAMPLES)
    ]
    requests, answers = generate(world.engine, [world.reference], rows, world.world.decoding)
    columns = {name: np.array(values) for name, values in score(world.scorers, requests, answers).columns.items()}
    pairs = list(zip(requests, answers, strict=True))
    columns |= {"gold_reward": np.array([gold_reward(r.prompt, a.text) for r, a in pairs])}
    columns |= {"gold_cost": np.array([gold_cost(r.prompt, a.text) for r, a in pairs])}
    by_prompt = {name: values.reshape(-1, SAMPLES) for name, values in columns.items()}
    hazard = np.array([row["category"] for row in world.prompts("validation")])
    return {
        "slope_on_gold": {
            column: {
                h: round(within(by_prompt[column][hazard == h], by_prompt[f"gold_{column}"][hazard == h])[0], 2)
                for h in HAZARDS
            }
            for column in ("reward", "cost")
        },
        "correlation_with_gold": {
            column: round(within(by_prompt[column], by_prompt[f"gold_{column}"])[1], 3) for column in ("reward", "cost")
        },
        "correlation_of_proxies": round(within(by_prompt["reward"], by_prompt["cost"])[1], 3),
        "correlation_of_gold": round(within(by_prompt["gold_reward"], by_prompt["gold_cost"])[1], 3),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return docs/sandbox.md's table, by size."""
    lines = [
        "| scorer prompts | seed | slope of cost: benign / dual-use / dangerous | slope of reward | cost with gold "
        "| reward with gold | proxies with each other (gold) |",
        "|--:|--:|---|---|--:|--:|--:|",
    ]
    for row in sorted(rows, key=lambda row: (row["scorer_prompts"], row["seed"])):
        slopes, gold = row["slope_on_gold"], row["correlation_with_gold"]
        cells = [f"{row['scorer_prompts']:,}", str(row["seed"])]
        cells += [" / ".join(f"{slopes[column][h]:.2f}" for h in HAZARDS) for column in ("cost", "reward")]
        cells += [f"{gold[column]:.3f}" for column in ("cost", "reward")]
        cells += [f"{row['correlation_of_proxies']:.2f} ({row['correlation_of_gold']:.2f})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    rows = []
    for seed in [int(text) for text in sys.argv[1:]] or [5, 6]:
        for size in SIZES:
            with sandbox_world("sandbox", seed, f"data.scorer_prompts={size}") as (runner, world):
                rows.append({"seed": seed, "scorer_prompts": size, **measure(Scored(runner, world))})
            print(rows[-1], flush=True)
    RESULT.write_text(json.dumps({"samples": SAMPLES, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    put_tables(DOCS, "proxies", table(rows))


if __name__ == "__main__":
    main()
