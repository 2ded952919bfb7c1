"""What a planned run needs of a device, as a table and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from peo_bench.runs.devices import GIB

if TYPE_CHECKING:
    from rich.console import Console

    from peo_bench.runs.fit import Need, Resources


def print_fit(screen: Console, needed: Resources) -> None:
    """Print what every stage needs, then what the whole run does."""
    gpu = needed.asked.gpu
    table = Table("stage", "memory at its peak (GiB)", "at the least", "what takes it (GiB)", "hours (at most)", "by")
    for need in needed.needs:
        table.add_row(*map(escape, _row(need)))
    screen.print(table)
    lines = [
        f"{gpu.name}: {gpu.usable / GIB:.1f} GiB for a job; every stage fits."
        + (" Each of --workers processes needs it." if gpu.kind == "cpu" else ""),
        f"Main memory: {needed.host / GIB:.1f} GiB, to load the largest checkpoint (policies in fp32).",
        f"To download: {_download(needed)}. Kept of what is trained: about {needed.kept / 1e9:.1f} GB.",
        _money(needed),
    ]
    for line in lines:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)


def _row(need: Need) -> list[str]:
    hours = "?" if need.hours is None else f"{need.hours:.2f}" if need.by else ""
    if not need.memory.total:
        return [need.stage, "", "", "", hours, need.by]
    parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in need.memory.parts.items())
    return [need.stage, f"{need.memory.total / GIB:.1f}", f"{need.least.total / GIB:.1f}", parts, hours, need.by]


def _download(needed: Resources) -> str:
    if not needed.download:
        return "nothing"
    known = sum(size for size in needed.download.values() if size is not None)
    parts = ", ".join(f"{name} {'?' if n is None else f'{n / 1e9:.1f}'}" for name, n in needed.download.items())
    return f"about {known / 1e9:.1f} GB ({parts})"


def _money(needed: Resources) -> str:
    if needed.hours is None:
        rates = "=N,".join(dict.fromkeys(name for need in needed.needs for name in need.missing))
        give = [f"give --tokens-per-second {rates}=N"] if rates else []
        why = dict.fromkeys([*give, *(need.by for need in needed.needs if need.hours is None and need.by)])
        return (
            f"How long it takes is not known: {'; '.join(why)}; or type this on the device after a run with "
            "--limit 64, which measures it."
        )
    if needed.usd is None:
        return f"At most {needed.hours:.1f} hours."
    price = f"{needed.asked.price:.2f} USD an hour: {needed.price_source}"
    return f"At most {needed.hours:.1f} hours, {needed.usd:.0f} USD ({price})."
