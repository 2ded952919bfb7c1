"""Versions of the packages that decide the last digits of what is computed; an artefact remembers its own.

They are no part of a job's identity: a package that is renewed does not make finished work worthless. What was reused
from another version is said instead.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from peo_bench import __version__
from peo_bench.files.digest import digest
from peo_bench.jobs.job import Handle
from peo_bench.process import device

NUMERIC = ("torch", "transformers", "trl", "peft", "tokenizers", "numpy")


@cache
def current_versions() -> dict[str, str]:
    """Return the versions of peo-bench and of the packages that compute, those that are installed."""
    found = {"peo-bench": __version__}
    for package in NUMERIC:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def strict_name() -> str:
    """Return the name of a cache for what is computed strictly with these versions on a processor like this one."""
    import torch

    kernels = [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()]
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"strict-{digest([current_versions(), device(), *kernels, *gpus])}"


def version_notes(handles: Iterable[Handle]) -> list[str]:
    """Return a remark on every version, not that of now, with which finished work was done."""
    handles, now = list(handles), current_versions()
    drifted = Counter(
        (name, made) for handle in handles for name, made in handle.versions.items() if now.get(name) != made
    )
    return [
        f"{count} of {len(handles)} jobs were done with {name} {made} (now {now.get(name, 'absent')}): last digits may "
        "differ from a run of one version; with an empty cache all are done again."
        for (name, made), count in sorted(drifted.items())
    ]
