"""The scoreboard and the table of points: every cell as text and, for sorting, as a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from peo_bench.report.contents import TaskView
from peo_bench.report.points import AIDS, REFERENCE, Point
from peo_bench.report.wording import ABSENT, at_most, decimal, interval, method_name
from peo_bench.report.yardsticks import Yardstick
from peo_bench.results.costs_records import MethodCost
from peo_bench.results.metrics_records import EstimateRecord, MethodMetrics

Cell = tuple[str, float | None]
"""A cell's text and the number to sort by."""
UTILITY = "Steered utility ↑"


@dataclass(frozen=True)
class Scored:
    """A method's metrics, what it and those with the same policies cost where known, and how many are ranked."""

    metrics: MethodMetrics
    costs: tuple[tuple[str, MethodCost], ...]
    n: int

    @property
    def cheapest(self) -> tuple[str, MethodCost] | None:
        """The method that costs least of those that offer these policies, by trainings."""
        return min(self.costs, key=lambda item: item[1].train_units or 0.0, default=None)


@dataclass(frozen=True)
class Column:
    """A heading, what it means, and where its text and its number come from."""

    title: str
    hint: str
    text: Callable[[Scored], str]
    sort: Callable[[Scored], float | None]


@dataclass(frozen=True)
class Row:
    """One line: ``label`` heads it, ``cells`` are (text, number to sort by) per column.

    ``kind``: "control" or "yardstick" for what was not asked for, else empty.
    """

    method: str
    label: str
    kind: str
    key: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Headings with their hints, and rows; ``head`` is the heading of the rows' labels."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    head: str = "Method"


def scoreboard(view: TaskView) -> Table:
    """List every measured method, best steered utility first, with what it cost, then the yardsticks."""
    n = len(view.measured)
    scored = {
        method: Scored(metrics, tuple((m, view.costs[m]) for m in view.members(method) if m in view.costs), n)
        for method, metrics in view.measured.items()
    }
    columns = [column for column in _SCORES if any(column.text(record) != ABSENT for record in scored.values())]
    rows = [
        Row(method, view.label(method), kind(view, method), "", _cells(columns, record))
        for method, record in sorted(scored.items(), key=lambda item: -(item[1].metrics.steered_utility.value or 0.0))
    ]
    aids = [Row(one.method, one.label, "yardstick", "", _yardstick(columns, one)) for one in view.yardsticks]
    return Table(tuple((column.title, column.hint) for column in columns), tuple(rows + aids) if rows else ())


def kind(view: TaskView, method: str) -> str:
    """Say what a method is that nobody asked for."""
    return "yardstick" if method in AIDS else "control" if method in view.controls else ""


def _yardstick(columns: Sequence[Column], one: Yardstick) -> tuple[Cell, ...]:
    """Return the cells of a yardstick: its utility, and what is known by definition."""
    utility = (f"{'≥ ' if one.at_least else ''}{decimal(one.utility)}", one.utility)
    known = {UTILITY: utility} | ({"Mean KL": (decimal(0.0, 1), 0.0)} if one.method == REFERENCE else {})
    return tuple(known.get(column.title, (ABSENT, None)) for column in columns)


def points_table(view: TaskView) -> Table:
    """List every operating point of the figure; ``key`` of a row opens its texts."""
    x, y = view.axes
    titles = (
        (f"asked: {x.name}", f"weight of {x.name} that was asked for; the rest is {y.name}"),
        (x.column, f"mean ± standard error, {'higher' if x.maximise else 'lower'} is better"),
        (y.column, f"mean ± standard error, {'higher' if y.maximise else 'lower'} is better"),
        ("KL", "nats per answer from the reference policy; ≤: an upper bound; for the oracle: its budget"),
        ("length", f"{view.length_unit} per answer"),
        ("front", "whether another policy of the same method dominates this one"),
    )
    free = set(view.controls) - {REFERENCE}
    rows = [
        Row(p.method, view.label(p.method), "control" if p.method in free else "", p.key, _point_cells(p))
        for p in view.points
    ]
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
    for gap in sorted((gap.upwards for gap in view.gaps), key=lambda gap: (gap.p_holm or 0.0, -gap.difference)):
        label = f"{method_name(gap.a)} − {method_name(gap.b)}"
        cells = (
            (str(gap), gap.difference),
            (decimal(gap.p_holm, 3), gap.p_holm),
            (decimal(gap.detectable, 3), gap.detectable),
            _percent(gap.hypervolume_share),
        )
        rows.append(Row(gap.a, label, "", "", cells))
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
        found = values.steerability
        if found is None:
            continue
        cells: list[tuple[str, float | None]] = [_percent(found.distinct)]
        for i in range(len(view.axes)):
            rank, span, bad, steps = found.rank_correlation[i], found.span[i], found.violations[i], found.steps[i]
            cells += [
                (decimal(rank), rank),
                (f"{bad} of {steps}", bad / steps) if steps and bad is not None else (ABSENT, None),
                (decimal(span), span),
            ]
        rows.append(Row(method, view.label(method), kind(view, method), "", tuple(cells)))
    return Table(tuple(titles), tuple(rows))


def published_table(view: TaskView) -> Table:
    """List every method's hypervolume and mean inner product, in raw scores and in reference units."""
    titles = (
        ("HV (raw) ↑", "hypervolume in raw scores"),
        ("MIP (raw) ↑", "mean inner product of asked weights and raw scores, minimised ones with a minus"),
        ("HV (sd²) ↑", "hypervolume in standard deviations of the reference policy"),
        ("MIP (sd) ↑", "the same in standard deviations of the reference policy: the steered utility"),
    )
    rows = []
    for method, values in view.measured.items():
        if values.as_published is not None:
            found = values.as_published
            numbers = (
                *(found.hypervolume_raw, found.inner_product_raw),
                *(found.hypervolume_reference, found.inner_product_reference),
            )
            cells = tuple((decimal(number, 3), number) for number in numbers)
            rows.append(Row(method, view.label(method), kind(view, method), "", cells))
    return Table(titles, tuple(rows))


def within_kl_table(view: TaskView) -> Table:
    """List every method's hypervolume from the policies within each KL budget."""
    titles = tuple(
        (f"≤ {budget:g}", f"policies whose mean KL (or its bound) is at most {budget:g} nats")
        for budget in view.kl_budgets
    )
    rows = []
    for method, values in view.measured.items() if titles else ():
        pairs = zip(values.hypervolume_within_kl, values.points_within_kl, strict=True)
        cells = tuple((decimal(volume), volume) if n else (ABSENT, None) for volume, n in pairs)
        rows.append(Row(method, view.label(method), kind(view, method), "", cells))
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


def _percent(share: float | None) -> tuple[str, float | None]:
    return (ABSENT, None) if share is None else (f"{100 * share:.0f} %", share)


def _with_error(value: float, error: float | None) -> str:
    return decimal(value) if error is None else f"{decimal(value)} ± {decimal(error)}"


def _cells(columns: list[Column], record: Scored) -> tuple[tuple[str, float | None], ...]:
    sorts = [column.sort(record) for column in columns]
    return tuple(
        (column.text(record), None if sort is None else float(sort))
        for column, sort in zip(columns, sorts, strict=True)
    )


def _plain(title: str, hint: str, read: Callable[[MethodMetrics], float | None], digits: int) -> Column:
    return Column(title, hint, lambda record: decimal(read(record.metrics), digits), lambda r: read(r.metrics))


def _estimated(title: str, hint: str, read: Callable[[MethodMetrics], EstimateRecord]) -> Column:
    def text(record: Scored) -> str:
        found = read(record.metrics)
        return interval((found.value, found.ci_low, found.ci_high))

    return Column(title, hint, text, lambda record: read(record.metrics).value)


def _cost(record: Scored) -> str:
    name, cost = record.cheapest or ("", None)
    if cost is None or (cost.train_units, cost.scorer_calls, cost.decode_factor) == (None, None, None):
        return ABSENT
    asked = cost.scorer_calls_per_answer
    more = f" + {decimal(asked, 1)} per answer" if asked else ""
    whose = f" ({method_name(name)})" if name != record.costs[0][0] else ""
    return (
        f"{decimal(cost.train_units, 1)} · {decimal(cost.scorer_calls, 0)}{more} · "
        f"×{decimal(cost.decode_factor, 1)}{whose}"
    )


def _labels(record: Scored) -> str:
    seen = dict(sorted(_cheapest_labels(record).items()))
    if len(seen) > 1 and len(set(seen.values())) == 1:
        return f"{decimal(next(iter(seen.values())), 0)} each"
    return " · ".join(f"{name} {decimal(count, 0)}" for name, count in seen.items()) or ABSENT


def _cheapest_labels(record: Scored) -> Mapping[str, int]:
    return (record.cheapest[1].labels or {}) if record.cheapest else {}


def _rank(record: Scored) -> str:
    rank = record.metrics.rank
    if rank.best is None or rank.worst is None:
        return ABSENT
    return f"{rank.best} of {record.n}" if rank.best == rank.worst else f"{rank.best}–{rank.worst} of {record.n}"


def _kl(record: Scored) -> float | None:
    metrics = record.metrics
    return metrics.kl_mean if metrics.kl_bound_mean is None else metrics.kl_bound_mean


_SCORES = (
    Column(
        "Rank",
        "from the best to the worst place by steered utility in 95 % of resamples",
        _rank,
        lambda record: record.metrics.rank.best,
    ),
    _estimated(
        UTILITY,
        "mean over asked balances of weight · score, 95 % interval",
        lambda metrics: metrics.steered_utility,
    ),
    Column(
        "Cost ↓",
        "training units, proxies included · scorer calls · decoding factor; a unit is one expert's training",
        _cost,
        lambda record: record.cheapest[1].train_units if record.cheapest else None,
    ),
    _estimated(
        "Hypervolume ↑",
        "area the front dominates up to the reference point, 95 % interval",
        lambda metrics: metrics.hypervolume,
    ),
    Column(
        "Bias",
        "mean hypervolume over resamples minus the hypervolume: what noise adds to it",
        lambda record: decimal(record.metrics.hypervolume.bias, 3, signed=True),
        lambda record: record.metrics.hypervolume.bias,
    ),
    _plain(
        "On front", "policies that no other policy of the method dominates", lambda metrics: metrics.n_nondominated, 0
    ),
    Column(
        "Mean KL",
        "nats per answer from the reference policy; compare methods at similar values; ≤: an upper bound",
        lambda record: at_most(record.metrics.kl_mean, record.metrics.kl_bound_mean),
        _kl,
    ),
    _plain("Mean length", "tokens per answer; words where no model takes part", lambda metrics: metrics.length_mean, 1),
    _plain(
        "To oracle ↓", "mean shortfall from the best reachable front (IGD+)", lambda metrics: metrics.oracle_distance, 2
    ),
    Column(
        "Labels ↓",
        "labelled pairs seen by objective, each once, those of the proxies included",
        _labels,
        lambda record: float(sum(labels.values())) if (labels := _cheapest_labels(record)) else None,
    ),
)
