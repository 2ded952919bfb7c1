"""Does any reader of files break on damaged or hostile ones? `fuzz.py [INPUTS [SEED]]`, by default 10,000 inputs.

Every input is a whole file or folder with something changed (tests/fuzzing.py); a reader may read it or refuse it with
one line. Tracebacks, hangs and files written elsewhere are counted by target and shown, with the seed that repeats it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from fuzz_targets import TARGETS  # noqa: E402
from fuzzing import attempt, damaged  # noqa: E402

HANG_CPU_SECONDS, HANG_SECONDS = 60, 900
"""What no reader of a few kilobytes may take: of computing, or of waiting on a machine that may be busy."""
MEMORY = 8 * 2**30
"""Bytes of address space, so that what reads without end fails instead of filling the machine."""
SHARES = {"run folder": 3, "board": 2, "store": 2}
"""Parts of the inputs by target, where not one."""
WHOLE = 6
"""How often each reader is shown what is whole, which it must read: it may choose what it does."""


class Hang(BaseException):
    """A reader has taken too long."""


def stop(*_: object) -> None:
    raise Hang


def one(name: str, whole: Path, where: Path, seed: int, damage: bool = True) -> str:
    """Return what became of one input: "read", "refused", or a failure."""
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir()
    rng = Random(f"{name} {seed}")
    if damage:
        damaged(TARGETS[name], whole, where / "copy", rng)
    else:
        shutil.copytree(whole, where / "copy")
    signal.alarm(HANG_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, HANG_CPU_SECONDS)
    try:
        return attempt(TARGETS[name], where / "copy", rng)
    except Hang:
        return "hang"
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    logging.disable(logging.CRITICAL)
    for each in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(each, stop)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    started, shares = time.monotonic(), sum(SHARES.get(name, 1) for name in TARGETS)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, target in TARGETS.items():
            whole = Path(folder) / "whole"
            whole.mkdir()
            target.write(whole)
            for seed in range(WHOLE):
                found = one(name, whole, Path(folder) / "attempt", seed, damage=False)
                assert found == "read", f"{name}: what is whole is {found}"
            seen = counts[name] = Counter()
            for seed in range(first, first + -(-inputs * SHARES.get(name, 1) // shares)):
                found = one(name, whole, Path(folder) / "attempt", seed)
                seen[found] += 1
                if found not in ("read", "refused") and seen[found] <= 3:
                    print(f"{name}, seed {seed}: {found}", flush=True)
            shutil.rmtree(whole)
            print(f"{name}: {dict(seen)}", flush=True)
    failures = sum(n for seen in counts.values() for found, n in seen.items() if found not in ("read", "refused"))
    result = {
        "inputs": sum(seen.total() for seen in counts.values()),
        "first_seed": first,
        "failures": failures,
        "by_target": {name: dict(seen.most_common()) for name, seen in counts.items()},
        "cpu_seconds": round(time.process_time()),
        "wall_seconds": round(time.monotonic() - started),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    (ROOT / "benchmarks" / "results" / "fuzz.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
