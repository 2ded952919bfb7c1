"""The figures beside the hero, by section of the page, each with the line that says how to read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

from peo_bench.report.contents import TaskView, abilities_over_seeds, safety_over_seeds
from peo_bench.report.figures import effort, judged, real, safety, versus
from peo_bench.report.figures.measured import (
    PRICES,
    WHISKERS,
    estimated,
    kl_figure,
    price,
    price_figure,
    steering_figure,
    whisker_figure,
)
from peo_bench.report.figures.numbers import numbers
from peo_bench.report.figures.plane import plane_figures
from peo_bench.report.figures.style import Style
from peo_bench.report.tables import Table
from peo_bench.report.wording import listing, method_name
from peo_bench.results.folder import RunFolder

Variants = tuple[tuple[str, go.Figure], ...]


@dataclass(frozen=True)
class Panel:
    """A figure beside the hero: its section of the page, name, title and how to read it.

    ``variants``: the figures to choose from, each with its label; mostly one. ``legend``: whether it needs one on
    paper. ``own_table`` stands in for the table of all its numbers.
    """

    section: str
    name: str
    title: str
    how: str
    variants: Variants
    legend: bool = False
    own_table: Table | None = None

    @property
    def figure(self) -> go.Figure:
        """The figure that is shown first."""
        return self.variants[0][1]

    @property
    def table(self) -> Table:
        """The numbers of all variants."""
        return self.own_table or numbers(self.variants)


def panels(view: TaskView, styles: Mapping[str, Style], folder: RunFolder | None = None) -> list[Panel]:
    """Return every figure but the hero that the run has numbers for, in the order of the page.

    ``folder`` gives what is counted by single verdict (length against win); without it that figure is left out.
    """
    return [
        *_scores(view, styles),
        *_versus(view),
        *_kl(view, styles),
        *_steering(view, styles),
        *_planes(view, styles, folder),
        *_judges(view, styles, folder),
        *_safety(view, styles),
        *_real(view, styles),
        *_prices(view, styles),
    ]


def run_panels(folder: RunFolder) -> list[Panel]:
    """Return the figures that belong to the run as a whole: where its time went, how its trainings went."""
    found = []
    if folder.run.job_seconds:
        how = (
            f"Seconds of work by kind of job, measured when the job was done: reused work counts too{_reused(folder)}."
        )
        found.append(_panel("time", "work", "Work by kind of job", how, effort.work_figure(folder.run.job_seconds)))
    if folder.run.stages:
        figure = effort.timeline_figure(folder.run.stages)
        how = "Seconds from stage to stage of whoever wrote this folder last; finished work of earlier runs takes none."
        found.append(_panel("time", "stages", "Wall clock of the last invocation", how, figure))
    if folder.curves is not None and len(folder.curves):
        how = "A line per job and training seed over training steps; a loss should fall and level off."
        for kind, variants in effort.phases(folder.curves).items():
            table = effort.curve_table(folder.curves, kind)
            found.append(Panel("curves", f"curves-{_slug(kind)}", kind, how, tuple(variants), own_table=table))
    return found


def _reused(folder: RunFolder) -> str:
    kinds = folder.costs.kinds.values()
    reused, jobs = sum(kind.reused for kind in kinds), sum(kind.jobs for kind in kinds)
    return f" ({reused} of {jobs} jobs were found in the cache)" if reused else ""


def _panel(section: str, name: str, title: str, how: str, figure: go.Figure, *, legend: bool = False) -> Panel:
    return Panel(section, name, title, how, (("", figure),), legend)


def _scores(view: TaskView, styles: Mapping[str, Style]) -> Iterator[Panel]:
    for metric, (title, how) in WHISKERS.items():
        if any(estimated(view, method, metric) is not None for method in view.measured):
            yield _panel("score", metric, title, how, whisker_figure(view, styles, metric))


def _versus(view: TaskView) -> Iterator[Panel]:
    if view.comparisons:
        how = "Blue: the row is better than the column, orange: worse; * marks what holds after Holm's correction."
        yield _panel("versus", "versus-utility", "Steered utility, row − column", how, versus.utility_map(view))
        how = (
            "How often the row has the larger hypervolume when prompts are resampled; no p-value, * is the test of "
            "steered utility."
        )
        title = "P(hypervolume of row > column)"
        yield _panel("versus", "versus-hypervolume", title, how, versus.hypervolume_map(view))


def _kl(view: TaskView, styles: Mapping[str, Style]) -> Iterator[Panel]:
    if view.kl_budgets:
        title = "Hypervolume of the policies within a KL budget"
        how = "Compare methods at one budget, marked; a line starts where a method has a policy within it."
        bounded = [method_name(m) for m, values in view.measured.items() if values.kl_bound_mean is not None]
        how += f" For {listing(bounded)} an upper bound of the KL counts." if bounded else ""
        absent = {m: values for m, values in view.measured.items() if not any(values.points_within_kl)}
        beyond = [method_name(m) for m, values in absent.items() if 0 in values.points_within_kl]
        unknown = [method_name(m) for m, values in absent.items() if 0 not in values.points_within_kl]
        how += f" Not drawn, since beyond every budget: {listing(beyond)}." if beyond else ""
        how += f" Not drawn, since their KL is not known: {listing(unknown)}." if unknown else ""
        yield _panel("kl", "hypervolume-by-kl", title, how, kl_figure(view, styles), legend=True)


def _steering(view: TaskView, styles: Mapping[str, Style]) -> Iterator[Panel]:
    for i, axis in enumerate(view.axes):
        if any(values.steerability for values in view.measured.values()):
            title = f"{axis.column} for the asked weight of {axis.name}"
            how = "Up is better and lines should rise; a red open mark: more weight gave a worse score."
            figure = steering_figure(view, styles, i)
            yield _panel("steering", f"steering-{axis.column}", title, how, figure, legend=True)


def _planes(view: TaskView, styles: Mapping[str, Style], folder: RunFolder | None) -> Iterator[Panel]:
    if folder is None or folder.search is None:
        return
    found = tuple(plane_figures(folder.search, folder.points, view, styles))
    if found:
        how = (
            "(0, 0) is the reference policy, (1, 0) and (0, 1) are the experts, the line between them the soup. Dots "
            "were evaluated on validation prompts, crosses are beyond the KL budget (dashed); the path is what is "
            "offered, from one objective to the other. Grey lines: equal KL, between evaluated places only."
        )
        yield Panel("plane", "plane", "The plane that was searched", how, found)


def _judges(view: TaskView, styles: Mapping[str, Style], folder: RunFolder | None) -> Iterator[Panel]:
    for index, (judge, found) in enumerate(view.judges.items()):
        section, rates = f"judge:{judge}", found.win_rates
        for objective in dict.fromkeys(entry.objective for entry in rates):
            own = [entry for entry in rates if entry.objective == objective]
            how = "Blue: the first method's answer won, grey: a tie, orange: the second's; all preferences together."
            name, title = f"judge-{index}-{_slug(objective)}", f"Which is more {objective}?"
            yield _panel(section, f"{name}-verdicts", title, how, judged.verdicts_figure(own), legend=True)
            steered = list(dict.fromkeys(entry.a for entry in own if entry.preference is not None))
            if steered:
                title = f"{objective}: win rate by preference"
                how = (
                    "One line per opponent, ties count half, bars are 95 % intervals; above 50 % the method shown wins."
                )
                lines = tuple((method_name(first), judged.rates_figure(own, first, view, styles)) for first in steered)
                yield Panel(section, f"{name}-rates", title, how, lines, legend=True)
        figure = _lengths(judge, folder)
        if figure is not None:
            how = "Verdicts in five groups of equal size; a rising line means that this judge likes longer answers."
            yield _panel(section, f"judge-{index}-length", "Does the longer answer win?", how, figure)


def _lengths(judge: str, folder: RunFolder | None) -> go.Figure | None:
    if folder is None or folder.judgements is None or folder.answers is None:
        return None
    answers = folder.answers
    if not {"spec_key", "prompt_id", "length"} <= set(answers):
        return None
    keys = zip(answers["spec_key"].astype(str), answers["prompt_id"], strict=True)
    lengths = dict(zip(keys, answers["length"].astype(float), strict=True))
    return judged.length_figure(folder.judgements[folder.judgements["judge"] == judge], lengths)


def _safety(view: TaskView, styles: Mapping[str, Style]) -> Iterator[Panel]:
    entries = safety_over_seeds(view.safety)
    maps = safety.category_maps(entries, view.names)
    if maps:
        how = "Mean cost of the answers to each category of prompts: the paler, the safer. Choose the asked preference."
        yield Panel("safety", "safety-categories", "Cost by category of harm", how, tuple(maps))
    figure = safety.refusal_figure(entries, view, styles)
    if figure is not None:
        how = "Right: refuses more of what may be refused; up: refuses what is harmless. Good is right and low."
        yield _panel("safety", "refusals", "Refusal against over-refusal", how, figure, legend=True)


def _real(view: TaskView, styles: Mapping[str, Style]) -> Iterator[Panel]:
    unknown = [m for m in view.methods if all(point.kl is None for point in view.of(m))]
    bounded = [method_name(m) for m in unknown if any(point.kl_bound is not None for point in view.of(m))]
    others = [method_name(m) for m in unknown if method_name(m) not in bounded]
    absent = f" Not drawn, since only an upper bound of the KL is known: {listing(bounded)}." if bounded else ""
    absent += f" Not drawn, since the KL is not known: {listing(others)}." if others else ""
    for axis in view.axes:
        figure = real.policies_figure(view, styles, ("KL (nats per answer)", lambda point: point.kl), axis)
        if figure is not None:
            how = f"Up is better. A score that gets worse again while KL grows is over-optimised.{absent}"
            yield _panel("real", f"kl-{axis.column}", f"{axis.column} against KL", how, figure, legend=True)
    for i, axis in enumerate(view.axes):
        read = (lambda point: point.x_proxy) if i == 0 else (lambda point: point.y_proxy)
        figure = real.policies_figure(view, styles, (f"{axis.column}, proxy", read), axis, held_out=True)
        if figure is not None:
            title = f"{axis.column}: proxy against reported score"
            how = (
                "What training and selection saw (across) against the reported score (up); right and up are better. "
                "Marks that go right without going up please only the scorer that was trained on."
            )
            yield _panel("real", f"proxy-{axis.column}", title, how, figure, legend=True)
    axis = view.axes[0]
    figure = real.policies_figure(view, styles, (f"{view.length_unit} per answer", lambda point: point.length), axis)
    if figure is not None:
        how = "If only longer answers score better, the scorer may be paying for length."
        yield _panel("real", "length", f"{axis.column} against length", how, figure, legend=True)
    abilities = abilities_over_seeds([entry for entry in view.capabilities if entry.value is not None])
    for capability in dict.fromkeys((e.capability, e.metric) for e in abilities):
        own = [e for e in abilities if (e.capability, e.metric) == capability]
        how = "An ability that nobody trained for, along the front; bars are one standard error. A fall is the tax."
        name = f"tax-{_slug('-'.join(capability))}"
        yield _panel(
            "tax", name, f"{capability[0]} ({capability[1]})", how, real.tax_figure(own, view, styles), legend=True
        )


def _prices(view: TaskView, styles: Mapping[str, Style]) -> Iterator[Panel]:
    for key, title in PRICES.items():
        if len({price(view, method, key) for method in view.measured} - {None}) > 1:
            how = "Up is better, left is cheaper; bars are 95 % intervals."
            yield _panel("price", f"price-{key}", title, how, price_figure(view, styles, key), legend=True)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"
