"""peo-bench in a notebook: the runs, folders and policies of the command line, as objects.

Options are those of `peo-bench run`, by the same names; see `peo-bench run --help`:

>>> import peo_bench as pb
>>> stages = pb.plan(methods=["peo", "modpo"], suite="sandbox", preferences=3)
>>> list(stages.columns[:3])
['stage', 'jobs', 'cached']
>>> run = pb.run(methods=["peo", "modpo"], seeds=[0, 1], set={"peo.budget": 24})  # doctest: +SKIP
>>> run.policy("peo", helpful=0.7).generate(["How do I sharpen a knife?"])  # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from peo_bench.errors import UsageError, unknown
from peo_bench.process import repeats_itself
from peo_bench.runs.request import RunRequest
from peo_bench.settings import reason_of

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from peo_bench.results.folder import RunFolder
    from peo_bench.results.metrics_records import TaskMetrics
    from peo_bench.runs.config import RunConfig
    from peo_bench.steering.families import SteeredPolicy

Option: TypeAlias = "str | float | os.PathLike[str] | Iterable[object] | Mapping[str, object] | None"
BY_COMMAS = ("methods", "seeds", "preferences", "capabilities")
REPEATED = ("set", "expert", "policy", "answers", "judge")


def run(
    *, out: str | os.PathLike[str] | None = None, workers: int = 1, max_usd: float | None = None, **options: Option
) -> Run:
    """Train, evaluate and compare methods as `peo-bench run` does; the same call again reuses everything.

    `out` is the run folder, by default runs/<derived name>. More `workers` are more processes: in a script call this
    under `if __name__ == "__main__":` then. Judges may spend at most `max_usd` now. Raises `UsageError` for what cannot
    be run; what fails on the way is in `Run.missing`.
    """
    from peo_bench.cli import console, writable_cache
    from peo_bench.cli.bars import RunProgress
    from peo_bench.report.build import build_report
    from peo_bench.runs.execute import execute

    if type(workers) is not int or workers < 1:
        raise UsageError(f"workers={workers!r}: give a number of processes, at least 1")
    if workers > 1 and repeats_itself():
        raise UsageError(
            f"workers={workers}: the processes import this script, and would call run again: put the call under "
            '`if __name__ == "__main__":`'
        )
    if max_usd is not None and not _is_amount(max_usd):
        raise UsageError(f"max_usd={max_usd!r}: give an amount of US dollars, at least 0")
    config = _config(options)
    folder = Path(out) if out is not None else Path("runs") / config.name
    words = ", ".join(f"{name}={value!r}" for name, value in options.items())
    with RunProgress(console()) as progress:
        execute(
            config, folder, writable_cache(), workers=workers, command=f"peo_bench.run({words})", observe=progress,
            max_usd=max_usd,
        )  # fmt: skip
    build_report(folder)
    return Run(folder)


def plan(**options: Option) -> pd.DataFrame:
    """Return the stages of a run, one row each, with upper bounds of their cost; nothing is executed."""
    import pandas as pd

    from peo_bench.cli import cache_dir
    from peo_bench.runs.plan import plan_run

    stages = plan_run(_config(options), cache_dir())
    rows = [{**stage, **stage["cost"], "notes": "; ".join(stage.get("notes", ()))} for stage in stages]
    return pd.DataFrame(rows).drop(columns="cost").fillna(0).convert_dtypes()


def load(folder: str | os.PathLike[str]) -> Run:
    """Return a finished run; raises `UsageError` for a folder that is none or is damaged."""
    if not isinstance(folder, str | os.PathLike):
        raise UsageError(f"{folder!r} is no path: give the folder of a finished run")
    return Run(Path(folder))


class Run:
    """A finished run folder: its tables, metrics, figures and policies."""

    def __init__(self, folder: Path) -> None:
        """Read the tables of `folder`."""
        self.folder = folder
        _ = self.files

    def __repr__(self) -> str:
        """Name the folder and what was compared."""
        return f"Run({str(self.folder)!r}: {', '.join(self.metrics.methods)}; {self.files.run.status})"

    @cached_property
    def files(self) -> RunFolder:
        """Everything in the folder, parsed."""
        from peo_bench.results.folder import read_run_folder

        return read_run_folder(self.folder)

    @property
    def points(self) -> pd.DataFrame:
        """points.csv: a row per asked preference, split, seed and method."""
        return self.files.points

    @property
    def metrics(self) -> TaskMetrics:
        """metrics.json of the run's task, as in `run.metrics.methods["peo"].steered_utility.value`."""
        return self.files.metrics.tasks[self.files.run.task]

    @property
    def missing(self) -> list[str]:
        """What could not be made, with the reason; empty for a complete run."""
        return [f"{item.what}: {item.reason}" for item in self.files.run.missing]

    @property
    def report(self) -> Path:
        """The report for people, report.html."""
        return self.folder / "report.html"

    def front(self, method: str) -> pd.DataFrame:
        """Return a method's operating points on test prompts by seed and preference; `nondominated` marks its front."""
        table = self.points[(self.points["split"] == "test") & (self.points["grid"] == "asked")]
        _known(f"method in {self.folder}", method, table["method"])
        preferences = [name for name in map(str, table) if name.startswith("preference_")]
        own = table[table["method"] == method].sort_values(["seed", *preferences])
        return own.dropna(axis="columns", how="all").reset_index(drop=True)

    def figure(self, name: str = "front") -> go.Figure:
        """Return one of the run's figures, those that `peo-bench figures` writes; an unknown name lists them."""
        from peo_bench.report.paper import run_pictures

        pictures, _ = run_pictures(self.folder)
        return pictures[_known("figure", name, pictures)]

    def policy(self, method: str, helpful: float, seed: int | None = None) -> SteeredPolicy:
        """Return the policy that a method offers at a weight of helpfulness, to `generate` with and to `export`."""
        from peo_bench.steering.families import SteeredPolicy

        if not isinstance(helpful, Real) or isinstance(helpful, bool):
            raise UsageError(f"helpful={helpful!r}: give a number between 0 and 1")
        offered = (*self.files.run.asked, *self.files.run.controls)
        return SteeredPolicy(self.folder, _known(f"method in {self.folder}", method, offered), float(helpful), seed)


def _is_amount(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and float(value) >= 0


def _known(what: str, name: object, known: Iterable[str]) -> str:
    """Return a name that is known; `UsageError`, with the nearest ones, for any other thing."""
    names = list(dict.fromkeys(known))
    if not isinstance(name, str) or name not in names:
        raise unknown(what, str(name), names)
    return name


def _config(options: Mapping[str, Option]) -> RunConfig:
    """Return the configuration that the same options give on the command line."""
    from pydantic import TypeAdapter, ValidationError

    from peo_bench.runs.config import resolve_config

    known = [option.name for option in fields(RunRequest)]
    for name in options:
        if name not in known:
            raise unknown("option", name, known)
    typed = {name: _typed(name, value) for name, value in options.items() if value is not None}
    try:
        request = TypeAdapter(RunRequest).validate_python(typed)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UsageError(f"{name}={options[name]!r}: {reason_of(first['msg'])}") from None
    return resolve_config(request)


def _typed(name: str, value: object) -> object:
    """Return the value as it would be typed; what is of no fitting type stays as it is."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return [f"{key}={_as_json(f'{name} {key}', item) if name == 'set' else item}" for key, item in value.items()]
    many = isinstance(value, Iterable) and not isinstance(value, str)
    if name in REPEATED:
        return list(value) if many else [value]  # type: ignore[call-overload]
    if name == "preferences" and many:  # one whole number alone would be a number of points
        value = [float(item) if isinstance(item, Real) else item for item in value]  # type: ignore[attr-defined]
    if name in BY_COMMAS:
        return ",".join(map(str, value)) if many else str(value)  # type: ignore[call-overload]
    return value


def _as_json(name: str, value: object) -> str:
    """Return a setting's value as it would be typed; numpy's numbers and arrays are those of Python."""

    def plain(item: object) -> object:
        if isinstance(item, os.PathLike):
            return os.fspath(item)
        if hasattr(item, "tolist"):
            return item.tolist()
        raise UsageError(f"{name}: is a {type(item).__name__}: give a number, a text, a path, a list or a mapping")

    return json.dumps(value, default=plain)
