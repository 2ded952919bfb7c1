"""What the page says of a task, as plain data: points, metrics, verdict. Texts, tables and figures start here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from peo_bench.report.advice import NAMED, advise, price_told
from peo_bench.report.headline import Answer, Gap, Standing, Verdict, make_verdict
from peo_bench.report.points import AIDS, Axis, Point, read_points, summary
from peo_bench.report.wording import decimal, listing, method_name
from peo_bench.report.yardsticks import Yardstick, worse_than_reference, yardsticks
from peo_bench.results.costs_records import MethodCost
from peo_bench.results.folder import RunFolder
from peo_bench.results.judge_records import JudgeCard, JudgeMetrics
from peo_bench.results.metrics_records import (
    CapabilityRow,
    Comparison,
    MethodMetrics,
    SafetyRow,
    SafetyZero,
    TaskMetrics,
)
from peo_bench.results.records import RunRecord


@dataclass(frozen=True)
class TaskView:
    """One task: its points and metrics; ``bound`` is the hypervolume's reference point in raw units.

    ``in_units``: steered utility is in standard deviations of the reference policy. ``unmeasured``: methods whose
    values are no numbers; they are in ``points`` alone. ``stand_in``: the given answers that stand in for the reference
    policy, where a run has none. ``trained``: methods take part, not given policies alone. ``same``: by method those
    that offer the same policies, and are shown with it. ``worse``: who is worse than the reference policy at what was
    asked for.
    """

    task: str
    axes: tuple[Axis, Axis]
    points: tuple[Point, ...]
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    measured: Mapping[str, MethodMetrics]
    costs: Mapping[str, MethodCost]
    kl_budgets: tuple[float, ...]
    comparisons: tuple[Comparison, ...]
    bound: tuple[float, float] | None
    in_units: bool
    verdict: Verdict
    judges: Mapping[str, JudgeMetrics]
    safety: tuple[SafetyRow, ...]
    capabilities: tuple[CapabilityRow, ...]
    no_safe_rate: str
    unmeasured: tuple[str, ...] = ()
    stand_in: str | None = None
    trained: bool = True
    same: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    yardsticks: tuple[Yardstick, ...] = ()
    worse: tuple[str, ...] = ()

    def members(self, method: str) -> tuple[str, ...]:
        """Return a method and those that offer the same policies."""
        return method, *self.same.get(method, ())

    def label(self, method: str) -> str:
        """Return a method's name, with the names of those that offer the same policies."""
        return " = ".join(map(method_name, self.members(method)))

    @property
    def length_unit(self) -> str:
        """What lengths of answers are counted in: words where no model is there whose tokens they are."""
        return "words" if self.stand_in else "tokens"

    def of(self, method: str) -> tuple[Point, ...]:
        """Return the points of ``method`` in file order."""
        return tuple(point for point in self.points if point.method == method)

    @property
    def names(self) -> tuple[str, str]:
        """The objectives' names."""
        return self.axes[0].name, self.axes[1].name

    @property
    def gaps(self) -> list[Gap]:
        """The comparisons whose differences are numbers."""
        return [gap for gap in map(Gap.of, self.comparisons) if gap is not None]


def shown_methods(view: TaskView) -> list[str]:
    """Return every method that has a point or a measured front, in the order of their colours."""
    return list(dict.fromkeys([*view.methods, *(m for m in view.measured if m not in AIDS)]))


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
    unjudged = sum(entry.n for entry in run.missing if entry.stage == "judge")
    if run.counts.missing > unjudged:
        found.append(Badge(f"{run.counts.missing - unjudged} missing", "warn"))
    if unjudged:
        found.append(Badge(f"{unjudged} verdicts missing", "warn"))
    if run.substituted:
        found.append(Badge("SUBSTITUTED: made-up checkpoints and data", "warn"))
    if run.limited:
        found.append(Badge(f"limited to {run.limited}", "warn"))
    seeds = len(run.seeds)
    found.append(Badge(f"{seeds} training seed{'' if seeds == 1 else 's'}", "plain"))
    if run.underpowered:
        found.append(Badge("underpowered", "warn"))
    failures = sum(judge.card.parse_failures or 0 for view in views for judge in view.judges.values())
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
    found += [f"{view.task}: {said}" for view in views for said in view.worse]
    found += [said for view in views for judge, told in view.judges.items() for said in of_judge(judge, told.card)]
    return (*found, *run.notes)


def of_judge(judge: str, card: JudgeCard) -> Iterator[str]:
    """Say what is unusual about a judge's replies."""
    if card.empty:
        yield (
            f"Judge {judge}: {card.empty} replies are empty, which are no verdicts. Models that reason spend the limit "
            "on it: raise it with --set judge.max_tokens=..."
        )
    if card.refused:
        yield f"Judge {judge}: the model takes no {' and no '.join(card.refused)}; its own held."


def lead(view: TaskView) -> str:
    """Explain the verdict's measure to someone who has never seen it."""
    whose = (
        f"{view.stand_in}'s answers, which stand in for a reference policy" if view.stand_in else "the reference policy"
    )
    unit = f", in standard deviations of {whose}" if view.in_units else ""
    x, y = view.axes
    done = (
        f"ask each method for a balance of {x.name} and {y.name}, score what it gives, average over all balances"
        if view.trained
        else f"score every answer on {x.name} and {y.name}, add both up in a balance, average over all balances"
    )
    return f"Steered utility{unit}: {done}. Higher is better; brackets are 95 % intervals over prompts."


def facts(view: TaskView) -> tuple[str, ...]:
    """Describe the run's sizes in a few words."""
    policies = sum(point.method not in AIDS for point in view.points)
    return (f"task {view.task}", f"{policies} policies")


def caption(view: TaskView, *, banded: Collection[str] = (), choices: int = 1) -> str:
    """Explain the marks of the hero figure that its legend does not.

    ``banded``: the methods with 95 % bands; ``choices``: how many kinds of scores it can show.
    """
    sentences = ["Mean scores on the same test prompts; light bars are one standard error."]
    if len({point.seed for point in view.points if point.method not in AIDS}) > 1:
        sentences.append("One line per training seed.")
    if banded:
        sentences.append(
            "Bands: where the line lies in 95 % of resamples of the prompts (and seeds); controls have none."
        )
        bare = [m for m in view.methods if m not in view.controls and m not in banded]
        single = [m for m in bare if all(point.weight is None for point in view.of(m))]
        for names, why in (
            (single, "single policies have none"),
            ([m for m in bare if m not in single], "scores are missing"),
        ):
            if names:
                sentences.append(f"No band for {listing(list(map(method_name, names)))}: {why}.")
    if view.bound:
        sentences.append("The lines run on to the reference point of the hypervolume.")
    if choices > 1:
        sentences.append("The slider's cards, the table and everything below keep to the reported scores.")
    if any(point.x_proxy is not None or point.y_proxy is not None for point in view.points):
        sentences.append(
            "Proxies are the scorers that training and selection saw: they have no reference point, so their lines "
            "run to the edge, and no standard errors."
        )
    return " ".join(sentences)


def _beyond(view: TaskView) -> dict[str, int]:
    return {m: metrics.n_beyond_reference for m, metrics in view.measured.items() if metrics.n_beyond_reference}


def _task_view(folder: RunFolder, task: str) -> TaskView:
    run, metrics = folder.run, folder.metrics.tasks[task]
    first, second = (Axis(o.name, o.column, o.maximise) for o in run.objectives[:2])
    points = tuple(p for p in read_points(folder.points, task, (first, second)) if p.method not in metrics.same)
    present = {point.method for point in points} - set(AIDS)
    named = [m for m in (*run.asked, *run.controls) if m in present]
    methods = tuple(dict.fromkeys([*named, *sorted(present - set(named))]))
    measured = {m: values for m, values in metrics.methods.items() if values.measured and m not in metrics.same}
    comparisons = _sound(metrics.comparisons, measured)
    weights = [preference[first.name] for preference in run.measure.preferences] if run.measure else []
    view = TaskView(
        task=task,
        axes=(first, second),
        points=points,
        methods=methods,
        controls=run.controls,
        measured=measured,
        costs=folder.costs.methods,
        kl_budgets=metrics.kl_budgets,
        comparisons=comparisons,
        bound=_bound(metrics, (first.column, second.column)),
        in_units=bool(metrics.normalisation or metrics.reference_units),
        verdict=Verdict("", ()),
        judges=metrics.judges or {},
        safety=tuple(row for row in metrics.safety if row.method not in metrics.same),
        capabilities=tuple(row for row in metrics.capabilities if row.method not in metrics.same),
        no_safe_rate=_no_safe_rate(metrics.safety_zero),
        unmeasured=tuple(m for m, values in metrics.methods.items() if not values.measured),
        stand_in=run.stand_in,
        trained=bool(run.methods),
        same={m: tuple(d for d, one in metrics.same.items() if one == m) for m in metrics.same.values()},
        yardsticks=yardsticks(points, (first, second), metrics, weights),
        worse=worse_than_reference(points, (first, second), folder.answers),
    )
    standing = Standing(
        run.asked, run.controls, measured, comparisons, run.seeds, folder.costs.methods, metrics.same, view.trained
    )
    verdict = make_verdict(standing)
    answers = (
        Answer("What was compared?", _compared(run, view, len(weights))),
        Answer("By how much?", f"{_utilities(standing, view)}{lead(view)}"),
        *verdict.answers,
        *price_told(standing, folder.costs, run.hardware),
        *advise(standing),
        *_beware(run, view),
    )
    return replace(view, verdict=replace(verdict, answers=answers))


def _compared(run: RunRecord, view: TaskView, balances: int) -> str:
    """Name what competes, how often it was asked and on how many prompts."""
    asked = [view.label(method) for method in view.methods if method in run.asked]
    free = [view.label(method) for method in view.methods if method not in run.asked]
    n = max((point.n or 0 for point in view.points), default=0)
    named = listing(asked) if len(asked) <= 6 else f"{len(asked)} methods"
    if free:
        named += f", and free controls: {listing(free)}" if len(free) <= 4 else f", and {len(free)} free controls"
    seeds = f", {len(run.seeds)} training seed{'' if len(run.seeds) == 1 else 's'}" if view.trained else ""
    each = f"{balances} balances of {view.names[0]} and {view.names[1]}" if balances > 1 else "one balance"
    prompts = f"on the same {n} test prompts" if n else "on the same test prompts"
    return f"{named or 'Nothing'}; {prompts}, {'asked for' if view.trained else 'weighed by'} {each}{seeds}."


def _utilities(standing: Standing, view: TaskView) -> str:
    """Return the steered utilities of the best few, between the yardsticks."""
    best = [f"{standing.called(m)} {decimal(standing.utility(m), 3)}" for m in standing.ranked[:NAMED]]
    aids = [f"{one.label}: {'≥ ' if one.at_least else ''}{decimal(one.utility)}" for one in view.yardsticks]
    between = f" ({'; '.join(aids)})" if aids else ""
    return f"{', '.join(best)}{between}. " if best else ""


def _beware(run: RunRecord, view: TaskView) -> tuple[Answer, ...]:
    """Say what is lacking or odd about the run before anybody rests on it; nothing where all is well."""
    lacking = [f"{entry.what} ({entry.reason})" for entry in run.missing]
    told = []
    if lacking:
        more = f" and {len(lacking) - 2} more, see the warnings" if len(lacking) > 2 else ""
        told.append(f"Incomplete: {'; '.join(lacking[:2])}{more}.")
    told += view.worse[:2]
    if len(view.worse) > 2:
        told.append(f"{len(view.worse) - 2} more such cases stand in the warnings.")
    if run.underpowered:
        told.append(f"Underpowered: {run.underpowered}.")
    return (Answer("What to beware of?", " ".join(told)),) if told else ()


def _sound(comparisons: Sequence[Comparison], methods: Collection[str]) -> tuple[Comparison, ...]:
    """Return the comparisons of `methods` whose numbers are numbers."""
    return tuple(
        gap
        for gap in comparisons
        if gap.a in methods and gap.b in methods and gap.ends is not None and gap.p_holm is not None
    )


def safety_over_seeds(rows: Sequence[SafetyRow]) -> list[SafetyRow]:
    """Return one row per policy asked for, the first seed's, with means over training seeds, also by category."""
    groups: dict[tuple[str, float | None], list[SafetyRow]] = {}
    for row in rows:
        groups.setdefault((row.method, row.preference), []).append(row)
    shares = ("length_mean", "refusal_rate", "over_refusal_rate", "n_benign", "safe_rate")
    found = []
    for own in groups.values():
        means: dict[str, object] = {name: mean_known([getattr(row, name) for row in own]) for name in shares}
        categories = dict.fromkeys(name for row in own for name in row.categories or ())
        costs = {name: mean_known([(row.categories or {}).get(name) for row in own]) for name in categories}
        found.append(own[0].model_copy(update={**means, "categories": costs or None}))
    return found


def abilities_over_seeds(rows: Sequence[CapabilityRow]) -> list[CapabilityRow]:
    """Return one row per policy asked for and ability, the first seed's, with means over training seeds."""
    groups: dict[tuple[str, float | None, str, str], list[CapabilityRow]] = {}
    for row in rows:
        groups.setdefault((row.method, row.preference, row.capability, row.metric), []).append(row)
    return [
        own[0].model_copy(
            update={"value": mean_known([row.value for row in own]), "se": mean_known([row.se for row in own])}
        )
        for own in groups.values()
    ]


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known, None where none is.

    >>> mean_known([1.0, None, 2.0]), mean_known([None])
    (1.5, None)
    """
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _no_safe_rate(zero: SafetyZero | None) -> str:
    """Say why the border between safe and unsafe costs is not known; empty where it is, or where nothing is said."""
    if zero is None:
        return ""
    reasons = [zero.reason, *(fit.reason for fit in (zero.by_seed or {}).values())]
    return next((reason for reason in reasons if reason), "")


def _bound(metrics: TaskMetrics, columns: tuple[str, str]) -> tuple[float, float] | None:
    """Return the reference point in the units of points.csv: mean + z * sd where hypervolume is in reference units."""
    raw = []
    for column in columns:
        value = metrics.reference_point.get(column)
        if metrics.normalisation:
            mean, sd = metrics.normalisation.get(column, (None, None))
            value = None if value is None or mean is None or sd is None else mean + value * sd
        if value is None:
            return None
        raw.append(value)
    return raw[0], raw[1]


def describe(view: TaskView) -> str:
    """Say in words what the hero figure shows, for readers who cannot see it."""
    x, y = view.axes
    parts = []
    for point in view.points:
        if point.method not in ("oracle", "reference"):
            weight = "" if point.weight is None else f" at weight {decimal(point.weight)}"
            parts.append(f"{point.name}{weight}: {summary(point, view.axes)}")
    return f"Scatter plot of {x.column} and {y.column}. " + "; ".join(parts[:40]) + "."
