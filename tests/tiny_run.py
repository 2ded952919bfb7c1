"""A run that takes seconds: the sandbox with few prompts and a barely trained reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""What a shell has put into the background ignores Ctrl-C, and so do its children: a child that must not says this."""
TINY = [
    *("--limit", "36", "--preferences", "3", "--workers", "1"),
    *("--set", "sft.steps=30", "--set", "data.corpus=512", "--set", "data.oracle_samples=16"),
    *("--set", "training.batch_size=8"),
    *("--set", "peo.budget=13", "--set", "peo.grid=3"),
]


def start(folder: Path, *args: str, before: str = "") -> subprocess.Popen[str]:
    """Start the command line in a child process in `folder`, a group of its own, after the Python text `before`."""
    program = f"import sys; sys.argv[0] = 'peo-bench'\n{before}\nfrom peo_bench.cli import main; main()"
    environment = os.environ | {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",  # sums of another number of threads differ in their last bits
    }
    return subprocess.Popen(
        [sys.executable, "-c", program, *args],
        cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def peo_bench(folder: Path, *args: str, before: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in a child process in `folder`, after executing the Python text `before`."""
    with start(folder, *args, before=before) as process:
        out, err = process.communicate()
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done
