"""Is a run killed at every named point and typed again the undisturbed one? Some 25 CPU minutes.

Runs tests/test_kill_points.py in full and writes by point what was found again and what was asked again. Exit code 1
where a point fails.
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
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
TEST = "test_killed_and_typed_again_equals_undisturbed"


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        where = ("tests/test_kill_points.py", f"--junitxml={report}", f"--basetemp={folder}/runs", "-k", TEST)
        environment = os.environ | {"PEO_BENCH_ALL_KILL_POINTS": "1"}
        subprocess.run([sys.executable, "-m", "pytest", "-q", *where], cwd=ROOT, env=environment, check=False)
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    points = {}
    for case in cases:
        counts = {str(each.get("name")): int(each.get("value") or 0) for each in case.iter("property")}
        passed = not any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
        point = str(case.get("name")).removeprefix(f"{TEST}[").removesuffix("]")
        points[point] = {"equal": passed, **counts}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "points": len(points),
        "equal": sum(point["equal"] for point in points.values()),
        "by_point": points,
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
        "wall_seconds": round(time.monotonic() - started),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    (ROOT / "benchmarks" / "results" / "kill_points.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['equal']} of {result['points']} points")
    sys.exit(result["equal"] != result["points"])


if __name__ == "__main__":
    main()
