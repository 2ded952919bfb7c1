"""How long does the uncertainty of a large comparison take?

python benchmarks/front_statistics.py [METHODS ...]      (default 10, 40, 100; each in a process of its own)

2,000 resamples x 21 preferences x 805 prompts x 2 objectives: the bootstrap alone, the indicators that verdicts and
the scoreboard rest on, and the whole of a run's `metrics.json`, in CPU seconds of one thread, and the peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peo_bench import pareto
from peo_bench.core.method import Objective
from peo_bench.core.preference import Preference
from peo_bench.results.measure import Measure, identity_of
from peo_bench.results.metrics import run_metrics
from peo_bench.results.operating_points import Row, Scores, point_row, point_table

RESULT = Path(__file__).parent / "results" / "front_statistics.json"
PREFERENCES, PROMPTS = 21, 805
MAXIMISE = [True, False]
WEIGHTS = [(i / 20, 1 - i / 20) for i in range(PREFERENCES)]
OBJECTIVES = (Objective("helpful", "reward", True), Objective("harmless", "cost", False))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    result = work()
    return round(time.process_time() - started, 2), result


def answers(random: np.random.Generator, methods: int) -> pd.DataFrame:
    """Return made-up scores by prompt, in the layout of answers.parquet."""
    parts = []
    for m in range(methods):
        for w, _ in WEIGHTS:
            noise = random.normal(size=(2, PROMPTS))
            parts.append(
                pd.DataFrame(
                    {
                        **{"method": f"m{m}", "seed": 0, "split": "test", "preference": w},
                        "prompt_id": [f"p{j:03d}" for j in range(PROMPTS)],
                        **{"reward": w + noise[0], "cost": w + noise[1], "kl": 1.0 + w, "length": 20},
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def measured(methods: int) -> dict[str, Any]:
    """Return CPU seconds by part, and this process's peak memory."""
    random = np.random.default_rng(0)
    scores = {f"m{i}": random.normal(size=(PREFERENCES, PROMPTS, 2)) for i in range(methods)}
    seconds = {}
    seconds["resample"], drawn = timed(lambda: pareto.resample(scores))
    seconds["steered utility"], _ = timed(lambda: pareto.bootstrap_steered_utility(drawn, WEIGHTS, MAXIMISE))
    seconds["hypervolume"], _ = timed(lambda: pareto.bootstrap_hypervolume(drawn, [-3, 3], MAXIMISE))
    table = answers(random, methods)
    rows = []
    for (method, w), part in table.groupby(["method", "preference"]):
        weight = float(str(w))
        identity: Row = {"task": "t", "split": "test", "method": str(method), "seed": 0, "grid": "asked"}
        identity |= {
            f"{kind}_{name}": v
            for kind in ("preference", "projected")
            for name, v in (("helpful", weight), ("harmless", 1 - weight))
        }
        rows.append(point_row(identity | {"spec_key": f"{method}{w}"}, part, OBJECTIVES))
    points = point_table(rows, OBJECTIVES).assign(hollow=np.nan)
    bound, ids = {"reward": -3.0, "cost": 3.0}, identity_of(table["prompt_id"])
    measure = Measure(
        task="t",
        version=1,
        objectives=OBJECTIVES,
        reference_point=bound,
        units="raw",
        scorers={},
        judges={},
        decoding={},
        precision="float32",
        preferences=tuple(Preference.of(["helpful", "harmless"], helpful=float(w)) for w, _ in WEIGHTS),
        prompts=ids,
    )
    units = {0: {"reward": (0.0, 1.0), "cost": (0.0, 1.0)}}
    sorted_out = Scores.of(table, measure.names)
    seconds["all of metrics.json"], metrics = timed(lambda: run_metrics(points, sorted_out, measure, units))
    assert len(metrics.methods) == methods, "every method is measured"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"cpu_seconds": seconds, "peak_rss_mb": peak}


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measured(int(sys.argv[2]))))
        return
    found = {}
    for methods in sys.argv[1:] or ["10", "40", "100"]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--one", methods]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found[methods] = json.loads(done.stdout)
    sizes = {"preferences": PREFERENCES, "prompts": PROMPTS, "resamples": pareto.RESAMPLES}
    RESULT.write_text(json.dumps({**sizes, "methods": found}, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
