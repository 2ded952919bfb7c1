"""Is PEO better than merging, and is it extrapolation? Seeds 0 to 4, both worlds of the sandbox, both regimes.

python benchmarks/peo_verdicts.py [SUITE ...]      (default all four; finished work is found in the user's cache)

One run per suite over five training seeds; every search has the same KL budget and number of evaluations. Read from
its folder: steered utility, hypervolume and KL of every method, paired differences to `peo` by seed, their crossed
intervals over prompts and seeds, and the share of offered policies whose KL on test prompts exceeds the budget by more
than two standard errors.

python benchmarks/peo_verdicts.py --matched [SUITE ...]      (default the two short regimes)

`peo` may spend more KL within its budget than `expo.modpo` does. So `peo` is also searched within smaller budgets of
its own, beside `expo.modpo` within the run's: where `peo` spends no more on average, the two are compared fairly.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from documents import put_tables

SUITES = ("sandbox", "sandbox-short", "sandbox-v2", "sandbox-v2-short")
METHODS = "peo,modpo,data-mix,slerp,ties"
SEEDS = "0,1,2,3,4"
SHORT = ("sandbox-short", "sandbox-v2-short")
TIGHTER = (0.75, 1.0)
"""KL budgets of `peo` in nats, below the default 1.5."""
ABSENT = "–"
DOCS = Path(__file__).parents[1] / "docs" / "peo.md"
RESULT = Path(__file__).parent / "results" / "peo_verdicts.json"
RESULT_MATCHED = RESULT.with_name("peo_matched_kl.json")


def run(suite: str, out: Path, methods: str = METHODS, *options: str) -> None:
    command = [sys.executable, "-m", "peo_bench", "run", "--methods", methods, "--suite", suite, "--seeds", SEEDS]
    subprocess.run([*command, *options, "--out", str(out)], check=True)


def read_answers(folder: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Return a run's metrics, its answers to test prompts at asked preferences, and `steered` of them."""
    (task,) = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["tasks"].values()
    answers = pd.read_parquet(folder / "answers.parquet")
    asked = answers[(answers["split"] == "test") & answers["preference"].notna()]
    return task, asked, steered(asked, task["units"])


def steered(answers: pd.DataFrame, units: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Return steered utility in the reference's units by method (rows) and seed (columns)."""
    asked = answers[answers["method"] != "reference"].copy()
    parts = []
    for seed, own in asked.groupby("seed"):
        (mean_r, sd_r), (mean_c, sd_c) = (units[str(seed)][column] for column in ("reward", "cost"))
        w = own["preference"]
        parts.append(w * (own["reward"] - mean_r) / sd_r - (1 - w) * (own["cost"] - mean_c) / sd_c)
    asked["utility"] = pd.concat(parts)
    return asked.groupby(["method", "seed"])["utility"].mean().unstack("seed")


def budgets(methods: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Return the KL budget by seed, in nats, of every method that has one."""
    found = {
        name: {int(seed): said.get("max_kl") for seed, said in row["chosen"].items()} for name, row in methods.items()
    }
    return {name: by_seed for name, by_seed in found.items() if by_seed and None not in by_seed.values()}


def beyond_budget(points: pd.DataFrame, budgets: dict[str, dict[int, float]]) -> dict[str, float]:
    """Return by method the share of policies more than two standard errors beyond its budget on test prompts."""
    shares = {}
    for method, budget in budgets.items():
        own = points[(points["split"] == "test") & (points["grid"] == "asked") & (points["method"] == method)]
        over = own["kl"] - 2 * own["kl_se"] > own["seed"].map(budget)
        shares[method] = round(float(over.mean()), 4)
    return shares


def read(folder: Path) -> dict[str, Any]:
    task, asked, by_seed = read_answers(folder)
    points, own = pd.read_csv(folder / "points.csv"), budgets(task["methods"])
    kl = asked.groupby("method")["kl"].mean()
    rows = {}
    for method, values in task["methods"].items():
        rows[method] = {
            "steered_utility": round(values["steered_utility"]["value"], 4),
            "by_seed": by_seed.loc[method].round(4).tolist(),
            "hypervolume": round(values["hypervolume"]["value"], 3),
            "kl": round(float(kl[method]), 3),
            "evaluations": (values["validation_evaluations"] or 0) / by_seed.shape[1],
        }
    versus = {}
    for found in task["comparisons"]:
        if "peo" in (found["a"], found["b"]):
            sign = 1 if found["a"] == "peo" else -1
            other = found["b"] if sign > 0 else found["a"]
            ends = sorted((sign * found["ci_low"], sign * found["ci_high"]))
            versus[other] = [round(value, 4) for value in (sign * found["difference"], *ends)]
    return {
        "methods": rows,
        "peo_minus": versus,
        "peo_minus_by_seed": (by_seed.loc["peo"] - by_seed.drop("peo")).round(4).T.to_dict("list"),
        "max_kl": {name: [round(by_seed[seed], 3) for seed in sorted(by_seed)] for name, by_seed in own.items()},
        "share_beyond_budget": beyond_budget(points, own),
    }


def _budgets(by_method: dict[str, list[float]]) -> str:
    """Say each budget once, with the methods that have it."""
    methods: dict[str, list[str]] = {}
    for method, values in by_method.items():
        methods.setdefault(", ".join(f"{value:.2f}" for value in values), []).append(f"`{method}`")
    return "; ".join(f"{values} ({', '.join(names)})" for values, names in methods.items())


def tables(found: dict[str, Any]) -> str:
    """Return docs/peo.md's tables, best steered utility first."""
    lines = []
    for suite, result in found.items():
        lines += [
            "",
            f"**`{suite}`**, KL budgets in nats by seed: {_budgets(result['max_kl'])}",
            "",
            "| method | steered utility | `peo` minus it [95 %, seeds and prompts] | by seed | hypervolume | KL "
            "| evaluations |",
            "|---|--:|---|---|--:|--:|--:|",
        ]
        for method, row in sorted(result["methods"].items(), key=lambda item: -item[1]["steered_utility"]):
            difference, by_seed = ABSENT, ABSENT
            if method in result["peo_minus"]:
                value, low, high = result["peo_minus"][method]
                difference = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
                by_seed = " ".join(f"{value:+.3f}" for value in result["peo_minus_by_seed"][method])
            cells = (f"`{method}`", f"{row['steered_utility']:.3f}", difference, by_seed)
            evaluations = f"{row['evaluations']:g}" if "evaluations" in row else ABSENT
            numbers = (f"{row['hypervolume']:.2f}", f"{row['kl']:.2f}", evaluations)
            lines.append(f"| {' | '.join((*cells, *numbers))} |")
    return "\n".join(lines[1:])


def matched(suite: str) -> dict[str, Any]:
    """Return by `peo`'s KL budget the steered utility and mean KL of `peo` and `expo.modpo` by seed."""
    found = {}
    for budget in TIGHTER:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "run"
            run(suite, folder, "peo,modpo", "--set", f"peo.max_kl={budget}")
            _, asked, utility = read_answers(folder)
        kl = asked.groupby(["method", "seed"])["kl"].mean().unstack("seed")
        found[str(budget)] = {
            method: {"by_seed": utility.loc[method].round(4).tolist(), "kl_by_seed": kl.loc[method].round(4).tolist()}
            for method in ("peo", "expo.modpo")
        }
    return found


def matched_table(found: dict[str, Any]) -> str:
    """Return docs/peo.md's table of `peo` within smaller KL budgets beside `expo.modpo`."""
    lines = [
        "| suite | `peo`'s KL budget | KL of `peo` | KL of `expo.modpo` | `peo` minus `expo.modpo` | by seed |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for suite, budgets in found.items():
        for budget, methods in budgets.items():
            mine, other = methods["peo"], methods["expo.modpo"]
            by_seed = [a - b for a, b in zip(mine["by_seed"], other["by_seed"], strict=True)]
            kls = [f"{sum(row['kl_by_seed']) / len(row['kl_by_seed']):.2f}" for row in (mine, other)]
            told = (f"`{suite}`", budget, *kls, f"{sum(by_seed) / len(by_seed):+.3f}")
            lines.append(f"| {' | '.join(told)} | {' '.join(f'{value:+.3f}' for value in by_seed)} |")
    return "\n".join(lines)


def verdict(suite: str) -> dict[str, Any]:
    """Return what `read` finds in the suite's run."""
    with tempfile.TemporaryDirectory() as folder:
        run(suite, Path(folder) / "run")
        return read(Path(folder) / "run")


def record(
    suites: Sequence[str],
    measure: Callable[[str], dict[str, Any]],
    result: Path,
    marker: str,
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Measure the suites; keep what is recorded of others; put the table between the page's markers."""
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    for suite in suites:
        found[suite] = measure(suite)
        result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        put_tables(DOCS, marker, table(found))
    print(table(found))


def main() -> None:
    if sys.argv[1:2] == ["--matched"]:
        record(sys.argv[2:] or SHORT, matched, RESULT_MATCHED, "matched", matched_table)
    else:
        record(sys.argv[1:] or SUITES, verdict, RESULT, "verdicts", tables)


if __name__ == "__main__":
    main()
