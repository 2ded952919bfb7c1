"""Named points at which a process kills itself when asked, to see that nothing is lost: for tests and for the curious.

`PEO_BENCH_KILL_AT=search peo-bench run ...` ends there as by `kill -9`; the same command without the variable goes on.
With several workers only the worker dies, which the run survives, so ask for `--workers 1`.
"""

from __future__ import annotations

import os
import signal

from peo_bench.errors import unknown

VARIABLE = "PEO_BENCH_KILL_AT"

KILL_POINTS = {
    "sft": "half way through the reference policy's training, after a checkpoint",
    "aspect-helpful": "half way through the helpful expert's training, after a checkpoint",
    "aspect-harmless": "half way through the harmless expert's training, after a checkpoint",
    "modpo": "half way through a MODPO training, after a checkpoint",
    "gradients": "half way through a training on combined losses or gradients, after a checkpoint",
    "online": "half way through an online training, after a checkpoint",
    "reward-model": "half way through a reward or cost model's training, after a checkpoint",
    "oracle": "after the first answers of the reference policy for the sandbox's oracle",
    "candidates": "after the first answers of candidates on validation prompts",
    "search": "after the fifth evaluation of a search",
    "generation": "after the first batch of answers to test prompts",
    "scoring": "after the answers to test prompts are scored, before they are kept",
    "rename": "between an artefact's last file and its name in the store",
    "judging": "after the second reply of a judge",
    "metrics": "after all numbers are computed, before the first table is written",
    "tables": "after all tables are written, before run.json",
    "report": "before report.html is written, after report.json",
}
"""By name, when the process is killed."""


def is_due(*names: str) -> bool:
    """Say whether the process was asked to kill itself at a point of one of these names."""
    return os.environ.get(VARIABLE) in {*names} - {""}


def kill_point(*names: str) -> None:
    """Kill this process, as `kill -9` does, if it was asked to at a point of one of these names."""
    if is_due(*names):
        os.kill(os.getpid(), signal.SIGKILL)


def check_kill_point() -> None:
    """Raise `UsageError` if the variable names no point."""
    name = os.environ.get(VARIABLE)
    if name and name not in KILL_POINTS:
        raise unknown(f"kill point in {VARIABLE}", name, KILL_POINTS, see="peo-bench doctor --kill-points")
