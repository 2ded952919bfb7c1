"""Time the default run with empty and with full caches, beside the same run of an earlier commit.

python benchmarks/default_run.py [COMMIT]

Seconds on the clock and CPU seconds of all its processes, one thread each; the stage times, and which kinds of jobs
took them. With a commit both runs from empty caches are made one after the other, and their CPU seconds divided.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "peo_bench", "run", "--methods", "peo,modpo", "--out"]
ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "default_run.json"


def cpu_seconds() -> float:
    """Return the CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(folder: Path, code: Path = ROOT) -> dict[str, Any]:
    """Make the default run of `code` with the caches of `folder`."""
    environment = os.environ | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": str(code),
        "OMP_NUM_THREADS": "1",
    }
    started, used = time.monotonic(), cpu_seconds()
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        out = Path(parent) / "run"
        subprocess.run([*COMMAND, str(out)], cwd=parent, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds, used = time.monotonic() - started, cpu_seconds() - used
        run = json.loads((out / "run.json").read_text())
        costs = json.loads((out / "costs.json").read_text())
    kinds = {kind: {"jobs": row["jobs"], "seconds": row["seconds"]} for kind, row in costs["kinds"].items()}
    times = {"seconds": round(seconds, 1), "cpu_seconds": round(used, 1)}
    return times | {"stages": run["stages"], "job_seconds_by_kind": kinds}


def of_commit(commit: str, folder: Path) -> dict[str, Any]:
    """Make the default run of an earlier commit from empty caches."""
    code = folder / "code"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(code)], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=code, check=True)
    return timed(folder, code)


def main() -> None:
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as other:
        cold = timed(Path(own))
        warm = timed(Path(own))
        result = {"cpus": os.cpu_count(), "machine": platform.machine(), "empty_caches": cold, "full_caches": warm}
        for commit in sys.argv[1:]:
            before = of_commit(commit, Path(other))
            ratio = round(cold["cpu_seconds"] / before["cpu_seconds"], 2)
            result["earlier"] = {"commit": commit, "cpu_seconds": before["cpu_seconds"], "ratio": ratio}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
