"""Everything the page says, as plain data. Figures, page, Markdown and JSON are made from this alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from peo_bench.report.headline import Verdict, make_verdict
from peo_bench.report.texts import policy_key
from peo_bench.report.wording import at_most, decimal, listing, method_name
from peo_bench.results.folder import RunFolder, number, truth
from peo_bench.results.records import RunRecord

Json = dict[str, Any]
SPECIAL = ("reference", "oracle")


@dataclass(frozen=True)
class Axis:
    """One objective as an axis: its column in points.csv and its direction."""

    name: str
    column: str
    maximise: bool


@dataclass(frozen=True)
class Point:
    """One operating point: mean scores on test prompts with standard errors, KL in nats per answer.

    ``x_proxy`` and ``y_proxy``: the same answers under the scorers that training and selection used, where others
    score.
    """

    key: str
    method: str
    name: str
    seed: int
    weight: float | None
    x: float
    x_se: float | None
    y: float
    y_se: float | None
    kl: float | None
    kl_bound: float | None
    length: float | None
    n: int | None
    nondominated: bool
    hollow: bool
    grid: str
    x_proxy: float | None = None
    y_proxy: float | None = None


@dataclass(frozen=True)
class TaskView:
    """One task: its points and metrics; ``bound`` is the hypervolume's reference point in raw units.

    ``in_units``: steered utility is in standard deviations of the reference policy. ``unmeasured``: methods whose
    values are no numbers; they are in ``points`` alone.
    """

    task: str
    axes: tuple[Axis, Axis]
    points: tuple[Point, ...]
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    measured: Json
    costs: Json
    kl_budgets: tuple[float, ...]
    comparisons: tuple[Json, ...]
    bound: tuple[float, float] | None
    in_units: bool
    verdict: Verdict
    judges: Json
    safety: tuple[Json, ...]
    capabilities: tuple[Json, ...]
    no_safe_rate: str
    unmeasured: tuple[str, ...] = ()

    def of(self, method: str) -> tuple[Point, ...]:
        """Return the points of ``method`` in file order."""
        return tuple(point for point in self.points if point.method == method)


def shown_methods(view: TaskView) -> list[str]:
    """Return every method that has a point or a measured front, in the order of their colours."""
    return list(dict.fromkeys([*view.methods, *(m for m in view.measured if m not in SPECIAL)]))


@dataclass(frozen=True)
class Badge:
    """A short fact about the run; ``tone`` is good, plain or warn."""

    text: str
    tone: str


def task_views(folder: RunFolder) -> tuple[TaskView, ...]:
    """Build one view per task of metrics.json, the run's own task first."""
    names = sorted(folder.metrics.tasks, key=lambda task: (task != folder.run.task, task))
    return tuple(_task_view(folder, name) for name in names)


def badges(run: RunRecord, views: Sequence[TaskView]) -> tuple[Badge, ...]:
    """Say whether the run is complete, what is missing, how many seeds it has and whether it is underpowered."""
    found = [Badge(run.status, "good" if run.status == "complete" else "warn")]
    found.append(Badge(f"{run.counts.ok} of {run.counts.expected} results", "plain"))
    if run.counts.missing:
        found.append(Badge(f"{run.counts.missing} missing", "warn"))
    if run.limited:
        found.append(Badge(f"limited to {run.limited}", "warn"))
    seeds = len(run.seeds)
    found.append(Badge(f"{seeds} training seed{'' if seeds == 1 else 's'}", "plain"))
    if run.underpowered:
        found.append(Badge("underpowered", "warn"))
    failures = sum(int(number(judge["card"].get("parse_failures")) or 0) for v in views for judge in v.judges.values())
    if failures:
        found.append(Badge(f"{failures} judge replies not understood", "warn"))
    if any(_beyond(view) for view in views):
        found.append(Badge("points beyond the reference point", "warn"))
    return tuple(found)


def warnings(run: RunRecord, views: Sequence[TaskView]) -> tuple[str, ...]:
    """List what a reader must know before believing the page: gaps, power, ignored points, notes verbatim."""
    found = [f"Missing: {entry.what}: {entry.reason}" for entry in run.missing]
    if run.underpowered:
        found.append(f"Underpowered: {run.underpowered}")
    found += [
        f"{view.task}: {count} points of {method_name(method)} lie beyond the reference point; hypervolume ignores them"
        for view in views
        for method, count in _beyond(view).items()
    ]
    found += [
        f"{view.task}: the indicators of {method_name(method)} are no numbers; it is left out of scores and comparisons"
        for view in views
        for method in view.unmeasured
    ]
    return (*found, *run.notes)


def lead(view: TaskView) -> str:
    """Explain the verdict's measure to someone who has never seen it."""
    unit = ", in standard deviations of the reference policy" if view.in_units else ""
    x, y = view.axes
    return (
        f"Steered utility{unit}: ask each method for a balance of {x.name} and {y.name}, score what it gives, "
        "average over all balances. Higher is better; brackets are 95 % intervals over prompts."
    )


def facts(view: TaskView) -> tuple[str, ...]:
    """Describe the run's sizes in a few words."""
    n = max((point.n or 0 for point in view.points), default=0)
    policies = sum(point.method not in SPECIAL for point in view.points)
    return (f"task {view.task}", f"{policies} policies", f"{n} test prompts each" if n else "prompts not counted")


def caption(view: TaskView, *, banded: Collection[str] = (), choices: int = 1) -> str:
    """Explain the marks of the hero figure that its legend does not.

    ``banded``: the methods with 95 % bands; ``choices``: how many kinds of scores it can show.
    """
    sentences = ["Mean scores on the same test prompts; light bars are one standard error."]
    if len({point.seed for point in view.points if point.method not in SPECIAL}) > 1:
        sentences.append("One line per training seed.")
    if banded:
        sentences.append(
            "Bands: where the line lies in 95 % of resamples of the prompts (and seeds); controls have none."
        )
        bare = [method_name(m) for m in view.methods if m not in view.controls and m not in banded]
        if bare:
            sentences.append(f"No band for {listing(bare)}: scores are missing.")
    if view.bound:
        sentences.append("The lines run on to the reference point of the hypervolume.")
    if choices > 1:
        sentences.append("The slider's cards, the table and everything below keep to the reported scores.")
    if any(point.x_proxy is not None or point.y_proxy is not None for point in view.points):
        sentences.append(
            "Training scorers are those that training and selection saw: they have no reference point, so their lines "
            "run to the edge, and no standard errors."
        )
    return " ".join(sentences)


def _beyond(view: TaskView) -> dict[str, int]:
    counts = {m: int(number(metrics.get("n_beyond_reference")) or 0) for m, metrics in view.measured.items()}
    return {method: count for method, count in counts.items() if count}


def _task_view(folder: RunFolder, task: str) -> TaskView:
    run, (metrics, unmeasured) = folder.run, _sound(cast(Json, folder.metrics.tasks[task].to_json()))
    first, second = (Axis(o.name, o.column, o.maximise) for o in run.objectives[:2])
    points = _points(folder.points, task, (first, second))
    present = {point.method for point in points} - set(SPECIAL)
    named = [m for m in (*run.methods, *run.controls) if m in present]
    methods = tuple(dict.fromkeys([*named, *sorted(present - set(named))]))
    scale = metrics.get("normalisation")
    return TaskView(
        task=task,
        axes=(first, second),
        points=points,
        methods=methods,
        controls=run.controls,
        measured=metrics.get("methods", {}),
        costs=cast(Json, folder.costs.to_json()["methods"]),
        kl_budgets=tuple(metrics.get("kl_budgets", ())),
        comparisons=tuple(metrics.get("comparisons", ())),
        bound=_bound(metrics.get("reference_point") or {}, scale, (first.column, second.column)),
        in_units=bool(scale or metrics.get("reference_units")),
        verdict=make_verdict(run.methods, run.controls, metrics, run.seeds),
        judges=metrics.get("judges") or {},
        safety=tuple(metrics.get("safety") or ()),
        capabilities=tuple(metrics.get("capabilities") or ()),
        no_safe_rate=_no_safe_rate(metrics.get("safety_zero") or {}),
        unmeasured=unmeasured,
    )


def _sound(metrics: Json) -> tuple[Json, tuple[str, ...]]:
    """Return a task's metrics without methods and comparisons that are no numbers, and the names of those methods."""
    methods = metrics.get("methods", {})
    ends = ("value", "ci_low", "ci_high")
    sound = {
        method: values
        for method, values in methods.items()
        if all(_numbers(values.get(key) or {}, ends) for key in ("steered_utility", "hypervolume"))
    }
    comparisons = [
        gap
        for gap in metrics.get("comparisons", ())
        if gap["a"] in sound and gap["b"] in sound and _numbers(gap, ("difference", "ci_low", "ci_high", "p_holm"))
    ]
    return {**metrics, "methods": sound, "comparisons": comparisons}, tuple(m for m in methods if m not in sound)


def _numbers(entry: Json, keys: Sequence[str]) -> bool:
    return all(number(entry.get(key)) is not None for key in keys)


def over_seeds(entries: Sequence[Json], by: Sequence[str] = ("method", "preference")) -> list[Json]:
    """Return one entry per policy asked for: the mean over training seeds of whatever is a number, also by category.

    >>> over_seeds([{"method": "a", "preference": 1.0, "seed": s, "safe_rate": s / 4} for s in (1, 2)])
    [{'method': 'a', 'preference': 1.0, 'safe_rate': 0.375}]
    """
    groups: dict[tuple[Any, ...], list[Json]] = {}
    for entry in entries:
        groups.setdefault(tuple(entry.get(key) for key in by), []).append(entry)
    found = []
    for key, own in groups.items():
        row: Json = dict(zip(by, key, strict=True))
        names = dict.fromkeys(name for entry in own for name in entry if name not in (*by, "seed", "categories"))
        row |= {name: mean for name in names if (mean := _mean([entry.get(name) for entry in own])) is not None}
        categories = dict.fromkeys(c for entry in own for c in entry.get("categories") or {})
        if categories:
            row["categories"] = {c: _mean([(e.get("categories") or {}).get(c) for e in own]) for c in categories}
        found.append(row)
    return found


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in map(number, values) if value is not None]
    return sum(known) / len(known) if known else None


def _no_safe_rate(zero: Json) -> str:
    """Say why the border between safe and unsafe costs is not known; empty where it is, or where nothing is said."""
    reasons = [zero.get("reason"), *(fit.get("reason") for fit in zero.get("by_seed", {}).values())]
    return next((str(reason) for reason in reasons if reason), "")


def _bound(reference: Json, scale: Json | None, columns: tuple[str, str]) -> tuple[float, float] | None:
    """Return the reference point in the units of points.csv: mean + z * sd where ``scale[column]`` is (mean, sd)."""
    raw = []
    for column in columns:
        value = number(reference.get(column))
        if scale:
            mean, sd = (number(part) for part in scale.get(column, (None, None)))
            value = None if value is None or mean is None or sd is None else mean + value * sd
        if value is None:
            return None
        raw.append(value)
    return raw[0], raw[1]


def _points(table: pd.DataFrame, task: str, axes: tuple[Axis, Axis]) -> tuple[Point, ...]:
    """Read the test points of one task; rows without finite scores are no points (the run lists them as missing)."""
    own = table[table["task"].astype(str) == task]
    test = own[own["split"] == "test"] if "split" in own else own
    read = (_point(row, axes) for row in test.to_dict("records"))
    return tuple(point for point in read if point is not None)


def _point(row: dict[Any, Any], axes: tuple[Axis, Axis]) -> Point | None:
    first, second = axes
    x, y = number(row.get(first.column)), number(row.get(second.column))
    if x is None or y is None:
        return None
    method, weight, n = str(row["method"]), number(row.get(f"preference_{first.name}")), number(row.get("n"))
    return Point(
        key="" if method == "oracle" else policy_key(method, row.get("seed"), weight),
        method=method,
        name=method_name(method),
        seed=int(number(row.get("seed")) or 0),
        weight=weight,
        x=x,
        x_se=number(row.get(f"{first.column}_se")),
        y=y,
        y_se=number(row.get(f"{second.column}_se")),
        kl=number(row.get("kl")),
        kl_bound=number(row.get("kl_bound")),
        length=number(row.get("length")),
        n=None if n is None else int(n),
        nondominated=truth(row.get("nondominated")),
        hollow=truth(row.get("hollow")),
        grid=str(row.get("grid", "asked")),
        x_proxy=number(row.get(f"{first.column}_proxy")),
        y_proxy=number(row.get(f"{second.column}_proxy")),
    )


def summary(point: Point, axes: tuple[Axis, Axis]) -> str:
    """Describe a point's scores in one line, for tooltips and the texts panel."""
    x, y = axes
    parts = [f"{x.column} {decimal(point.x)}", f"{y.column} {decimal(point.y)}"]
    if point.kl is not None or point.kl_bound is not None:
        name = "KL budget" if point.method == "oracle" else "KL"
        parts.append(f"{name} {at_most(point.kl, point.kl_bound)} nats")
    return " · ".join(parts)


def describe(view: TaskView) -> str:
    """Say in words what the hero figure shows, for readers who cannot see it."""
    x, y = view.axes
    parts = []
    for point in view.points:
        if point.method not in ("oracle", "reference"):
            weight = "" if point.weight is None else f" at weight {decimal(point.weight)}"
            parts.append(f"{point.name}{weight}: {summary(point, view.axes)}")
    return f"Scatter plot of {x.column} and {y.column}. " + "; ".join(parts[:40]) + "."
