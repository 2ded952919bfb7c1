"""How large is the report of 10 methods x 21 policies x 805 prompts, and how long does it take to build and to show?"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from browser import CHROMEDRIVER, CHROMIUM, Browser  # noqa: E402
from run_folder_fixture import write_run_folder  # noqa: E402

from peo_bench.report import build_report  # noqa: E402

METHODS = ("peo", "modpo", *(f"method-{i}" for i in range(8)))
WEIGHTS = tuple(round(1 - i / 20, 2) for i in range(21))
PROMPTS, WORDS = 805, 150
WORD = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        run = write_run_folder(
            Path(name) / "run", methods=METHODS, controls=(), n_prompts=PROMPTS, weights=WEIGHTS, rich=True
        )
        lengthen(run / "answers.parquet")
        started = time.monotonic()
        page = build_report(run)
        found = {
            "methods": len(METHODS), "policies_each": len(WEIGHTS), "prompts": PROMPTS, "words_per_answer": WORDS,
            "build_seconds": round(time.monotonic() - started, 1), "megabytes": round(page.stat().st_size / 1e6, 2),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }  # fmt: skip
        if CHROMIUM and CHROMEDRIVER:
            found |= shown(page, Path(name))
    print(json.dumps(found, indent=1))
    (ROOT / "benchmarks" / "results" / "report_size.json").write_text(json.dumps(found, indent=1) + "\n")


def lengthen(path: Path) -> None:
    """Give every answer as many words as instruction-following benchmarks have, all different."""
    table = pd.read_parquet(path)
    words = np.random.default_rng(0).choice(WORD, (len(table), WORDS))
    table["answer"] = [" ".join(row) for row in words]
    table.to_parquet(path)


def shown(page: Path, profile: Path) -> dict[str, float]:
    """Return milliseconds until the first paint and per slider step, in headless Chromium, and the prompts embedded."""
    browser = Browser(profile / "profile")
    try:
        browser.open(page)
        time.sleep(2)
        paint = browser.js("return performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)[0]")
        step = browser.js(
            """
            const slider = document.querySelector('.dial input'), started = performance.now();
            for (let i = 0; i < 21; i++) {
              slider.value = i;
              slider.dispatchEvent(new Event('input'));
              document.body.offsetHeight;  // lay the page out
            }
            return (performance.now() - started) / 21;
            """
        )
        embedded = browser.js("return Report.page.texts.prompts.length")
    finally:
        browser.close()
    return {"first_paint_ms": round(paint), "slider_step_ms": round(step, 1), "prompts_embedded": embedded}


if __name__ == "__main__":
    main()
