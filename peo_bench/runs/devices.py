"""The devices that `plan --gpu` knows: their memory, and what an hour of one costs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from peo_bench.errors import unknown
from peo_bench.process import DeviceKind

GIB = 2**30
CONTEXT = 1.0 * GIB
"""What CUDA, its libraries and their workspaces take of a GPU."""
FRAGMENTS = 0.05
"""Share of a device that an allocator cannot use."""


@dataclass(frozen=True)
class Gpu:
    """A device: its memory in bytes, and USD per hour with where and when that was said; None: nothing more."""

    name: str
    memory: float
    usd_per_hour: float | None
    source: str
    kind: DeviceKind = "cuda"

    @property
    def usable(self) -> float:
        """What a job can have of it."""
        return (self.memory - CONTEXT) * (1 - FRAGMENTS)


_MAY_2026 = "upper end of specialised clouds, on demand, May 2026 (mercatus-ai.com/blog/cloud-gpu-pricing)"
GPUS = {
    "h100": Gpu("h100", 81559 * 2**20, 3.50, _MAY_2026),
    "a100-80": Gpu("a100-80", 81920 * 2**20, 1.50, _MAY_2026),
    "rtx4090": Gpu("rtx4090", 24564 * 2**20, 0.69, "RunPod's rate card, 2026 (usagepricing.com, GPU-hour pricing)"),
}


def gpu_called(name: str) -> Gpu:
    """Return the device called `name`; `cpu` is this machine. Raises `UsageError` for another name."""
    if name == "cpu":
        return Gpu("cpu", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), None, "this machine", "cpu")
    if name not in GPUS:
        raise unknown("--gpu", name, [*GPUS, "cpu"])
    return GPUS[name]


def is_here(gpu: Gpu) -> bool:
    """Say whether this machine computes on that device, so that what was measured here tells of it."""
    import torch

    if not torch.cuda.is_available():
        return gpu.kind == "cpu"
    found = torch.cuda.get_device_name(0).lower().replace(" ", "").replace("-", "")
    return gpu.name.replace("-80", "").replace("-", "") in found
