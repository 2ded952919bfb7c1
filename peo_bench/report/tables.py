"""The scoreboard and the table of points: every cell as text and, for sorting, as a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peo_bench.report.contents import Json, Point, TaskView
from peo_bench.report.headline import turned_up
from peo_bench.report.wording import ABSENT, at_most, decimal, interval, method_name
from peo_bench.results.folder import number


@dataclass(frozen=True)
class Column:
    """A heading, what it means, and where its text and its number come from."""

    title: str
    hint: str
    text: Callable[[Json], str]
    sort: Callable[[Json], float | None]


@dataclass(frozen=True)
class Row:
    """One line: ``label`` heads it, ``cells`` are (text, number to sort by) per column."""

    method: str
    label: str
    control: bool
    key: str
    cells: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class Table:
    """Headings with their hints, and rows; ``head`` is the heading of the rows' labels."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    head: str = "Method"


def scoreboard(view: TaskView) -> Table:
    """List every measured method, best steered utility first, with what it cost."""
    columns = [column for column in _SCORES if any(column.text(_record(view, m)) != ABSENT for m in view.measured)]
    rows = [
        Row(method, method_name(method), method in view.controls, "", _cells(columns, _record(view, method)))
        for method in sorted(view.measured, key=lambda m: -(_nested("steered_utility")(view.measured[m]) or -1e300))
    ]
    return Table(tuple((column.title, column.hint) for column in columns), tuple(rows))


def points_table(view: TaskView) -> Table:
    """List every operating point of the figure; ``key`` of a row opens its texts."""
    x, y = view.axes
    titles = (
        (f"asked: {x.name}", f"weight of {x.name} that was asked for; the rest is {y.name}"),
        (x.column, f"mean ± standard error, {'higher' if x.maximise else 'lower'} is better"),
        (y.column, f"mean ± standard error, {'higher' if y.maximise else 'lower'} is better"),
        ("KL", "nats per answer from the reference policy; ≤: an upper bound; for the oracle: its budget"),
        ("length", "tokens per answer"),
        ("front", "whether another policy of the same method dominates this one"),
    )
    free = set(view.controls) - {"reference"}
    rows = [Row(p.method, p.name, p.method in free, p.key, _point_cells(p)) for p in view.points]
    return Table(titles, tuple(rows))


def versus_table(view: TaskView) -> Table:
    """List every pair of methods with its paired difference in steered utility, the surest first.

    The method with the higher utility heads its pair, as in the headline.
    """
    titles = (
        ("Difference", "steered utility of the first minus the second, 95 % interval"),
        ("p (Holm)", "two-sided, corrected for all pairs"),
        ("Detectable", "true difference that these prompts reveal 4 times out of 5"),
        ("Larger hypervolume", "share of resamples in which the first has the larger hypervolume; no p-value"),
    )
    rows = []
    turned = [turned_up(entry) for entry in view.comparisons]
    for gap in sorted(turned, key=lambda entry: (entry["p_holm"], -entry["difference"])):
        label = f"{method_name(gap['a'])} − {method_name(gap['b'])}"
        cells = (
            (interval(gap, key="difference", signed=True), gap["difference"]),
            (decimal(gap["p_holm"], 3), gap["p_holm"]),
            (decimal(gap["detectable"], 3), gap["detectable"]),
            _percent(gap.get("hypervolume_share")),
        )
        rows.append(Row(gap["a"], label, False, "", cells))
    return Table(titles, tuple(rows))


def steering_table(view: TaskView) -> Table:
    """List how every method answers to the asked weight; nothing with one preference."""
    titles = [("Distinct", "share of different policies among the preferences asked for")]
    for axis in view.axes:
        titles += [
            (f"{axis.name}: rank ↑", f"Spearman correlation of asked weight and obtained {axis.column}, 1 is best"),
            (f"{axis.name}: violations ↓", "steps to more weight that made the score worse"),
            (f"{axis.name}: span ↑", "score at weight 1 minus score at weight 0, in reference units"),
        ]
    rows = []
    for method, values in view.measured.items():
        found = values.get("steerability")
        if found is None:
            continue
        cells: list[tuple[str, float | None]] = [_percent(found["distinct"])]
        for i in range(len(view.axes)):
            rank, bad, steps, span = (found[key][i] for key in ("rank_correlation", "violations", "steps", "span"))
            cells += [
                (decimal(rank), number(rank)),
                (f"{bad} of {steps}", bad / steps) if steps and bad is not None else (ABSENT, None),
            ]
            cells.append((decimal(span), number(span)))
        rows.append(Row(method, method_name(method), method in view.controls, "", tuple(cells)))
    return Table(tuple(titles), tuple(rows))


def within_kl_table(view: TaskView) -> Table:
    """List every method's hypervolume from the policies within each KL budget."""
    titles = tuple(
        (f"≤ {budget:g}", f"policies whose mean KL (or its bound) is at most {budget:g} nats")
        for budget in view.kl_budgets
    )
    rows = []
    for method, values in view.measured.items() if titles else ():
        pairs = zip(values["hypervolume_within_kl"], values["points_within_kl"], strict=True)
        cells = tuple((decimal(volume), volume) if n else (ABSENT, None) for volume, n in pairs)
        rows.append(Row(method, method_name(method), method in view.controls, "", cells))
    return Table(titles, tuple(rows))


def _point_cells(point: Point) -> tuple[tuple[str, float | None], ...]:
    status = "effective sample too small" if point.hollow else "on the front" if point.nondominated else "dominated"
    return (
        (decimal(point.weight), point.weight),
        (_with_error(point.x, point.x_se), point.x),
        (_with_error(point.y, point.y_se), point.y),
        (at_most(point.kl, point.kl_bound), point.kl if point.kl_bound is None else point.kl_bound),
        (decimal(point.length, 1), point.length),
        (ABSENT if point.method == "reference" else status, float(point.nondominated and not point.hollow)),
    )


def _percent(value: Any) -> tuple[str, float | None]:
    share = number(value)
    return (ABSENT, None) if share is None else (f"{100 * share:.0f} %", share)


def _with_error(value: float, error: float | None) -> str:
    return decimal(value) if error is None else f"{decimal(value)} ± {decimal(error)}"


def _record(view: TaskView, method: str) -> Json:
    return {**view.costs.get(method, {}), **view.measured[method]}


def _cells(columns: list[Column], record: Json) -> tuple[tuple[str, float | None], ...]:
    return tuple((column.text(record), column.sort(record)) for column in columns)


def _nested(key: str) -> Callable[[Json], float | None]:
    return lambda record: number((record.get(key) or {}).get("value"))


def _plain(title: str, hint: str, key: str, digits: int) -> Column:
    def sort(record: Json) -> float | None:
        return number(record.get(key))

    return Column(title, hint, lambda record: decimal(record.get(key), digits), sort)


def _estimated(title: str, hint: str, key: str) -> Column:
    return Column(title, hint, lambda record: interval(record.get(key)), _nested(key))


def _cost(record: Json) -> str:
    shown: list[Any] = [record.get(key) for key in ("train_units", "scorer_calls", "decode_factor")]
    if all(number(value) is None for value in shown):
        return ABSENT
    asked = number(record.get("scorer_calls_per_answer"))
    more = f" + {decimal(asked, 1)} per answer" if asked else ""
    return f"{decimal(shown[0], 1)} · {decimal(shown[1], 0)}{more} · ×{decimal(shown[2], 1)}"


def _rank(record: Json) -> str:
    rank = record.get("rank") or {}
    if None in (rank.get("best"), rank.get("worst")):
        return ABSENT
    return str(rank["best"]) if rank["best"] == rank["worst"] else f"{rank['best']} to {rank['worst']}"


_SCORES = (
    Column(
        "Rank",
        "range of the ranks by steered utility in 95 % of resamples",
        _rank,
        lambda r: number((r.get("rank") or {}).get("best")),
    ),
    _estimated("Steered utility ↑", "mean over asked balances of weight · score, 95 % interval", "steered_utility"),
    _estimated("Hypervolume ↑", "area the front dominates up to the reference point, 95 % interval", "hypervolume"),
    Column(
        "Bias",
        "mean hypervolume over resamples minus the hypervolume: what noise adds to it",
        lambda record: decimal((record.get("hypervolume") or {}).get("bias"), 3, signed=True),
        lambda record: number((record.get("hypervolume") or {}).get("bias")),
    ),
    _plain("On front", "policies that no other policy of the method dominates", "n_nondominated", 0),
    Column(
        "Mean KL",
        "nats per answer from the reference policy; compare methods at similar values; ≤: an upper bound",
        lambda record: at_most(record.get("kl_mean"), record.get("kl_bound_mean")),
        lambda record: number(record.get("kl_bound_mean", record.get("kl_mean"))),
    ),
    _plain("Mean length", "tokens per answer", "length_mean", 1),
    _plain("To oracle ↓", "mean shortfall from the best reachable front (IGD+)", "oracle_distance", 2),
    Column(
        "Cost ↓",
        "training units · scorer calls · decoding factor; a unit is one expert's training",
        _cost,
        lambda record: number(record.get("train_units")),
    ),
)
