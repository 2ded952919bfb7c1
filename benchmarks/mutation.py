"""Collect what mutmut 3 found in a copy of the repository into results/mutation.json.

In a clone: write `SETUP` to setup.cfg, `pip install mutmut` (it is no dependency of peo-bench), `mutmut run`; then
`python benchmarks/mutation.py CLONE`. Every survivor is tried once more on the quick tests of this checkout, those
written since among them. One whose difference is a message, an explicit default, or a quotient by a sign in place of a
product changes no number.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import moocore  # noqa: F401 - loaded once, before the forks
import pytest
import scipy.stats  # noqa: F401

SETUP = """[mutmut]
source_paths=
    peo_bench
only_mutate=
    peo_bench/pareto/*.py
    peo_bench/core/spec.py
also_copy=
    tasks
    leaderboards
    reports
pytest_add_cli_args_test_selection=
    tests/test_pareto.py
    tests/test_pareto_bootstrap.py
    tests/test_core.py
"""
RESULT = Path(__file__).parent / "results" / "mutation.json"
TESTS = ("tests/test_pareto.py", "tests/test_pareto_bootstrap.py", "tests/test_core.py")
QUICK = "by_hand or named or peo_bench or preferences or nobody or contributions or r2 or json"


def mutmut(copy: Path, *words: str) -> list[str]:
    """Return the lines that mutmut prints in the copy."""
    done = subprocess.run(["mutmut", *words], cwd=copy, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def difference(copy: Path, name: str) -> list[str]:
    """Return the lines that the mutant takes away and adds."""
    lines = mutmut(copy, "show", name)
    return [line for line in lines if line[:1] in "+-" and not line.startswith(("---", "+++"))]


def killed_now(name: str) -> bool:
    """Whether quick tests and doctests fail on the mutant; in a fork, which has the packages loaded already."""
    child = os.fork()
    if not child:
        os.environ["MUTANT_UNDER_TEST"] = name
        tests = [str(Path(__file__).resolve().parents[1] / test) for test in TESTS]
        with redirect_stdout(StringIO()):
            failed = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", QUICK, "peo_bench/pareto", *tests])
        os._exit(int(failed))
    return os.waitpid(child, 0)[1] != 0


def main() -> None:
    """Write the counts, and every survivor with what it changes."""
    copy = Path(sys.argv[1])
    status = dict(line.strip().split(": ", 1) for line in mutmut(copy, "results", "--all", "true") if ": " in line)
    counts = {kind: list(status.values()).count(kind) for kind in sorted(set(status.values()))}
    survivors = {name: difference(copy, name) for name, kind in status.items() if kind == "survived"}
    os.chdir(copy / "mutants")
    sys.path.insert(0, str(Path.cwd()))
    if killed_now(""):
        sys.exit("the quick tests fail without a mutant")
    now = {name: killed_now(name) for name in survivors}
    result = {
        "tool": "mutmut 3.8.1",
        "counts": counts,
        "survivors": [
            {"mutant": name, "difference": lines, "killed_by_later_tests": now[name]}
            for name, lines in survivors.items()
        ],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(counts, "survivors killed since:", sum(now.values()))


if __name__ == "__main__":
    main()
