"""What could a search of the plane gain over the soup at most?

python benchmarks/gold_bound.py [SUITE:SEED ...]      (default seed 5, which no verdict uses, of all four suites
of the sandbox; what is recorded of other cells is kept)

A dense grid of `peo`'s region and the line of soups are evaluated on the *test* prompts, by gold scores. For every
preference the best place within the KL budget is taken and compared with the preference's own soup. Chosen on the
prompts that it is judged by, and by the scores that no search sees, no policy of the grid gains more on them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from documents import put_tables
from plane import Plane, point, sandbox_world
from search_efficiency import GRID, WEIGHTS, Cell

from peo_bench.evaluation.kl_budget import keeps

CELLS = [f"{suite}:5" for suite in ("sandbox", "sandbox-short", "sandbox-v2", "sandbox-v2-short")]
DOCS = Path(__file__).parents[1] / "docs" / "sandbox.md"
RESULT = Path(__file__).parent / "results" / "gold_bound.json"

Row = dict[str, float | list[float]]


def measure(cell: Cell) -> Row:
    """Return the budget in nats, the soup's steered gold utility and the most that is gained over it."""
    places = list(dict.fromkeys([*cell.phis, *cell.dense]))
    specs = [cell.plane.spec(place) for place in places]
    scores = np.concatenate([cell.plane.scores(specs[i : i + 8], "test") for i in range(0, len(specs), 8)])
    means = cell.plane.utilities(scores, "test", "gold").mean(axis=1)
    within = keeps(cell.max_kl, [point(row) for row in scores], GRID)
    steered = np.array([means @ (w, 1 - w) for w in WEIGHTS])
    soup = np.array([row[cell.phis.index((w, 1 - w))] for row, w in zip(steered, WEIGHTS, strict=True)])
    gains = np.where(within, steered, -np.inf).max(axis=1) - soup
    return {
        "max_kl": round(cell.max_kl, 3),
        "soup": round(float(soup.mean()), 4),
        "gain_at_most": round(float(gains.mean()), 4),
        "by_weight": [round(float(gain), 4) for gain in gains],
    }


def table(cells: dict[str, Row]) -> str:
    """Return docs/sandbox.md's table."""
    weights = ", ".join(f"{w:g}" for w in WEIGHTS)
    lines = [
        f"| suite and seed | KL budget, nats | soup | gain at most | at weight {weights} |",
        "|---|--:|--:|--:|---|",
    ]
    for name, row in cells.items():
        by_weight = row["by_weight"]
        assert isinstance(by_weight, list)
        gains = ", ".join(f"{gain:+.3f}" for gain in by_weight)
        lines.append(f"| `{name}` | {row['max_kl']:.2f} | {row['soup']:.3f} | {row['gain_at_most']:+.3f} | {gains} |")
    return "\n".join(lines)


def main() -> None:
    cells: dict[str, Row] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in sys.argv[1:] or CELLS:
        suite, seed = name.split(":")
        with sandbox_world(suite, int(seed)) as (runner, world):
            cells[name] = measure(Cell(Plane(runner, world)))
        print(name, cells[name], flush=True)
        RESULT.write_text(json.dumps(cells, indent=2) + "\n", encoding="utf-8")
        put_tables(DOCS, "bound", table(cells))


if __name__ == "__main__":
    main()
