"""Time the default run with empty and with full caches; print the stage times.

python benchmarks/default_run.py
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "peo_bench", "run", "--methods", "peo,modpo", "--out", "run"]
RESULT = Path(__file__).parent / "results" / "default_run.json"


def timed(folder: str) -> dict[str, object]:
    started = time.monotonic()
    environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
    subprocess.run(COMMAND, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = round(time.monotonic() - started, 1)
    run = json.loads((Path(folder) / "run" / "run.json").read_text())
    costs = json.loads((Path(folder) / "run" / "costs.json").read_text())
    kinds = {kind: {"jobs": row["jobs"], "seconds": row["seconds"]} for kind, row in costs["kinds"].items()}
    return {"seconds": seconds, "stages": run["stages"], "job_seconds_by_kind": kinds}


def main() -> None:
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = timed(folder), timed(folder)
    result = {"cpus": os.cpu_count(), "machine": platform.machine(), "empty_caches": cold, "full_caches": warm}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
