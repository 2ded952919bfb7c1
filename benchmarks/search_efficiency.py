"""Which search strategy finds the plane's front with the fewest evaluations, and what gold utility does it reach?

python benchmarks/search_efficiency.py [SUITE:SEED ...]      (default seeds 5, 6, 7 of sandbox and sandbox-v2;
what is recorded of other cells is kept)

Per world and seed the region of `peo` is evaluated on a dense grid of validation prompts. A strategy starts from phase
2's line of soups and gets `BUDGET` further evaluations. Reported: the share of the dense grid's hypervolume (proxies,
policies within the KL budget, reference point at the worst of its front) after every evaluation, the evaluations until
90, 95 and 99 %, and the steered gold utility on test prompts of the policies that `peo` then offers; "gold" chooses
among every evaluated place by gold scores on the same validation prompts, as cautiously: no upper bound.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from documents import put_tables
from plane import Floats, Plane, point, sandbox_world

from peo_bench.evaluation.kl_budget import keeps, kl_budget
from peo_bench.evaluation.validation import Candidates, Point
from peo_bench.pareto import hypervolume, nondominated
from peo_bench.training.extrapolation import Region, beyond_the_soup
from peo_bench.training.interpolation import simplex_grid
from peo_bench.training.search import STRATEGIES, drive
from peo_bench.training.steering_map import Evaluated, cautious_map, evaluated_line

SUITES = ("sandbox", "sandbox-v2")
CELLS = [f"{suite}:{seed}" for suite in SUITES for seed in (5, 6, 7)]
DENSE = (17, 9)
BUDGET, GRID = 27, 9
SHARES = (0.90, 0.95, 0.99)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
ABSENT = "–"
DOCS = Path(__file__).parents[1] / "docs" / "peo.md"
RESULT = Path(__file__).parent / "results" / "search_efficiency.json"


class Cell:
    """One world and seed: what phase 2 knows, the region, and a cache of evaluated places."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.known: dict[tuple[float, ...], Floats] = {}
        self.phis = [tuple(map(float, phi)) for phi in simplex_grid(GRID)]
        self.line = [point(self.at(phi)) for phi in self.phis]
        self.max_kl = kl_budget(None, [self.line[0], self.line[-1]])
        self.reference = {
            column: plane.units["validation"][:, i].tolist() for i, column in enumerate(("reward", "cost"))
        }
        line = Candidates(self.reference, tuple(self.line))
        self.region: Region = beyond_the_soup(
            np.array(self.phis), line, line.utilities(plane.world.objectives), self.max_kl
        )
        x, y = (np.linspace(0, 1, n) for n in DENSE)
        self.dense = self.places(np.array([(a, b) for a in x for b in y]))

    def places(self, unit: Floats) -> list[tuple[float, ...]]:
        """Return the coefficients of points (n, 2) of the unit square."""
        return [tuple(map(float, place)) for place in self.region.coefficients(unit)]

    def at(self, place: tuple[float, ...]) -> Floats:
        """Return the scores (prompts, 5) of one policy on validation prompts."""
        self.evaluate([place])
        return self.known[place]

    def evaluate(self, places: list[tuple[float, ...]]) -> None:
        """Score those policies that are not known yet."""
        new = list(dict.fromkeys(place for place in places if place not in self.known))
        for i in range(0, len(new), 8):
            part = new[i : i + 8]
            scores = self.plane.scores([self.plane.spec(place) for place in part], "validation")
            self.known |= dict(zip(part, scores, strict=True))

    def utilities(self, places: list[tuple[float, ...]], by: Literal["proxy", "gold"] = "proxy") -> Floats:
        """Return (n, prompts, 2) utilities on validation prompts."""
        return self.plane.utilities(np.array([self.at(place) for place in places]), "validation", by)

    def volume(self, places: list[tuple[float, ...]], reference: Floats) -> float:
        """Return the hypervolume of those within the KL budget; phase 2's places come first."""
        points: list[Point] = [point(self.at(place)) for place in places]
        values = self.utilities(places).mean(axis=1)[keeps(self.max_kl, points, GRID)]
        return float(hypervolume(values, reference, maximise=(True, True)))

    def corner(self) -> Floats:
        """Return the worst value per objective on the front of what is known."""
        places = [*self.phis, *self.dense]
        values = self.utilities(places).mean(axis=1)
        values = values[keeps(self.max_kl, [point(self.at(place)) for place in places], GRID)]
        return np.asarray(values[nondominated(values, maximise=(True, True))].min(axis=0))

    def search(self, strategy: str, seed: int) -> list[tuple[float, ...]]:
        """Return the places that a strategy evaluates, in order."""
        found: list[tuple[float, ...]] = []

        def values(done: int, batch: Floats) -> Floats:
            places = self.places(batch)
            found.extend(places)
            self.evaluate(places)
            excess = [point(self.at(place)).kl_upper - self.max_kl for place in places]
            return np.column_stack([self.utilities(places).mean(axis=1), excess])

        drive(STRATEGIES[strategy](BUDGET, seed, self.region.known), values)
        return found

    def gold(self, places: list[tuple[float, ...]], by: Literal["proxy", "gold"] = "proxy") -> Floats:
        """Return per prompt the steered gold utility on test prompts of what `peo` offers of `places`, chosen `by`."""
        others = [Evaluated(place, point(self.at(place))) for place in places]
        line = evaluated_line(self.phis, self.line)
        steer = cautious_map(line, others, self.utilities([*self.phis, *places], by), self.max_kl)
        scores = self.plane.scores([self.plane.spec(steer(w)) for w in WEIGHTS], "test")
        values = self.plane.utilities(scores, "test", "gold")
        return np.mean([value @ (w, 1 - w) for value, w in zip(values, WEIGHTS, strict=True)], axis=0)


def measure(cell: Cell, seed: int) -> dict[str, Any]:
    cell.evaluate(cell.dense)
    corner = cell.corner()
    whole = cell.volume([*cell.phis, *cell.dense], corner)
    soup = cell.gold([])
    rows: dict[str, Any] = {"max_kl": round(cell.max_kl, 3), "gold_soup": round(float(soup.mean()), 4)}
    found = {name: cell.search(name, seed) for name in STRATEGIES}
    for name, places in (found | {"dense": cell.dense, "gold": list(cell.known)}).items():
        gain = cell.gold(places, "gold" if name == "gold" else "proxy") - soup
        row: dict[str, Any] = {
            "gold_over_soup": round(float(gain.mean()), 4),
            "standard_error": round(float(gain.std(ddof=1) / np.sqrt(len(gain))), 4),
        }
        if name in STRATEGIES:
            steps = range(len(places) + 1)
            shares = [cell.volume([*cell.phis, *places[:n]], corner) / whole for n in steps]
            row["shares"] = [round(share, 4) for share in shares]
            row["evaluations_until"] = {
                f"{share:.0%}": next((n for n, reached in enumerate(shares) if reached >= share), None)
                for share in SHARES
            }
        rows[name] = row
    return rows


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return per strategy the mean share after 9, 18 and `BUDGET` evaluations, and the mean gold gain."""
    columns: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells.values():
        for name in STRATEGIES:
            row = cell[name]
            for n in (9, 18, BUDGET):
                columns[name][f"share_{n}"].append(row["shares"][min(n, len(row["shares"]) - 1)])
            columns[name]["gold_over_soup"].append(row["gold_over_soup"])
    return {name: {key: round(float(np.mean(v)), 4) for key, v in row.items()} for name, row in columns.items()}


def table(of_suites: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return docs/peo.md's table."""
    head = " | ".join(f"`{suite}`: share after 9, 18, {BUDGET} | gold over soup" for suite in of_suites)
    lines = [f"| strategy | {head} |", f"|---|{'---|--:|' * len(of_suites)}"]
    for name in STRATEGIES:
        cells = []
        for rows in of_suites.values():
            shares = [rows[name][f"share_{n}"] for n in (9, 18, BUDGET)]
            cells += [", ".join(f"{share:.3f}" for share in shares), f"{rows[name]['gold_over_soup']:+.3f}"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def until_table(cells: dict[str, dict[str, Any]]) -> str:
    """Return docs/peo.md's table of evaluations until 90, 95 and 99 %, and of what a gold search gained."""
    lines = [
        f"| cell | {' | '.join(f'`{name}`' for name in STRATEGIES)} | gold search over soup |",
        f"|---|{'---|' * len(STRATEGIES)}--:|",
    ]
    for cell, row in cells.items():
        reached = [", ".join(str(n or ABSENT) for n in row[name]["evaluations_until"].values()) for name in STRATEGIES]
        lines.append(f"| `{cell}` | {' | '.join(reached)} | {row['gold']['gold_over_soup']:+.3f} |")
    return "\n".join(lines)


def main() -> None:
    cells = json.loads(RESULT.read_text(encoding="utf-8"))["cells"] if RESULT.exists() else {}
    for cell in sys.argv[1:] or CELLS:
        suite, seed = cell.split(":")
        with sandbox_world(suite, int(seed)) as (runner, world):
            cells[cell] = measure(Cell(Plane(runner, world)), int(seed))
        print(cell, cells[cell], flush=True)
        record(cells)


def record(cells: dict[str, dict[str, Any]]) -> None:
    """Write the result and docs/peo.md's tables."""
    suites = dict.fromkeys(cell.split(":")[0] for cell in cells)
    of_suites = {s: summary({cell: row for cell, row in cells.items() if cell.startswith(f"{s}:")}) for s in suites}
    result = {"dense": DENSE, "budget": BUDGET, "cells": cells, "summary": of_suites}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    put_tables(DOCS, "search", table(of_suites))
    put_tables(DOCS, "until", until_table(cells))


if __name__ == "__main__":
    main()
