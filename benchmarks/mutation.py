"""Collect what mutmut 3 found in a clone of the repository into results/mutation.json.

In the clone: write `SETUP` to setup.cfg, `pip install mutmut` (it is no dependency of peo-bench), `mutmut run`; then
`python benchmarks/mutation.py CLONE`. The run may be stopped: what was not reached is counted as "not checked".
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

SETUP = """[mutmut]
source_paths=
    peo_bench
only_mutate=
    peo_bench/pareto/*.py
    peo_bench/core/*.py
    peo_bench/results/metrics.py
    peo_bench/results/operating_points.py
    peo_bench/results/measure.py
    peo_bench/results/tables.py
also_copy=
    tasks
    leaderboards
    reports
    benchmarks
    docs
    pyproject.toml
pytest_add_cli_args_test_selection=
    tests/test_pareto.py
    tests/test_pareto_bootstrap.py
    tests/test_core.py
    tests/test_metrics.py
    tests/test_operating_points.py
    tests/test_world.py
    tests/test_records.py
"""
RESULT = Path(__file__).resolve().parent / "results" / "mutation.json"
HARMLESS = {
    "a message": r"raise ValueError|require_finite|_validate_scores\(|XX.*XX",
    "an explicit default": r"dtype=|kind=|strict=|astype|\"NAN\"",
    "a quotient by a sign, which is the product": r"/ -?signs|/ directions",
}
"""Survivors that change no number, by what they change in the line."""


def difference(name: str) -> list[str]:
    """Return the lines that the mutant takes away and adds; in the clone, as mutmut wants it."""
    from mutmut.__main__ import get_diff_for_mutant  # type: ignore[import-not-found]

    lines = get_diff_for_mutant(name).splitlines()
    return [line for line in lines if line[:1] in "+-" and not line.startswith(("---", "+++"))]


def changes(lines: list[str]) -> str:
    """Return what a survivor changes: something of `HARMLESS`, or a number."""
    text = "\n".join(lines)
    return next((what for what, pattern in HARMLESS.items() if re.search(pattern, text)), "a number")


def main() -> None:
    """Write the counts, and every survivor with what it changes."""
    os.chdir(sys.argv[1])
    printed = subprocess.run(["mutmut", "results", "--all", "true"], capture_output=True, text=True, check=True).stdout
    status = dict(line.strip().split(": ", 1) for line in printed.splitlines() if ": " in line)
    survivors = {name: difference(name) for name, kind in status.items() if kind == "survived"}
    result = {
        "tool": "mutmut 3.8.1",
        "counts": dict(sorted(Counter(status.values()).items())),
        "survivors_by_change": dict(Counter(map(changes, survivors.values())).most_common()),
        "survivors": [{"mutant": name, "changes": changes(d), "difference": d} for name, d in survivors.items()],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print({key: result[key] for key in ("counts", "survivors_by_change")})


if __name__ == "__main__":
    main()
