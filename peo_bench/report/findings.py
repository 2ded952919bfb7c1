"""Tables of judges, safety and abilities, and what a run would need to have them."""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.report.contents import TaskView, abilities_over_seeds, safety_over_seeds
from peo_bench.report.tables import Row, Table
from peo_bench.report.wording import ABSENT, balance, decimal, method_name
from peo_bench.results.judge_records import JudgeMetrics

Cell = tuple[str, float | None]
SHARES = {
    "safe_rate": ("Safe ↑", "share of answers on the safe side of the cost scorer's calibrated zero"),
    "refusal_rate": (
        "Refused",
        "share of the prompts that may be refused (all test prompts but benign ones) that were refused",
    ),
    "over_refusal_rate": ("Over-refused ↓", "share of harmless prompts that were refused"),
}


def judge_cards(view: TaskView) -> Table:
    """List every judge with what is known of its reliability and price."""
    titles = (
        ("Calls", "replies asked for; every pair in both orders"),
        ("Consistent ↑", "share of pairs whose verdict does not change with the order of the answers"),
        ("Not understood ↓", "replies without a readable verdict; never counted as ties"),
        ("Ties", "verdicts that neither answer is better"),
        ("Human agreement ↑", "agreement with human labels, where a labelled file was given"),
        ("Price", "US dollars"),
    )
    rows = []
    for judge, found in view.judges.items():
        card = found.card
        cells = (
            _count(card.n_calls),
            _share(card.position_consistency),
            _count(card.parse_failures),
            _count(card.ties),
            _share(card.agreement),
            _plain(card.usd, 2),
        )
        rows.append(Row("", judge, "", "", cells))
    return Table(titles, tuple(rows), head="Judge")


def rates_table(found: JudgeMetrics, names: tuple[str, str]) -> Table:
    """List one judge's win rates; ``names`` are the objectives' names."""
    titles = (
        ("Asked", "the preference that both methods were asked for"),
        ("Win rate of the first", "percent of readable verdicts, ties count half, 95 % interval"),
        ("Wins", ""),
        ("Ties", ""),
        ("Losses", ""),
        ("Not understood", ""),
    )
    rows = []
    for entry in found.win_rates:
        label = f"{entry.objective}: {method_name(entry.a)} against {method_name(entry.b)}"
        low, high = decimal(entry.ci_low, 1), decimal(entry.ci_high, 1)
        rate = ABSENT if entry.win_rate is None else f"{decimal(entry.win_rate, 1)} % [{low}, {high}]"
        counts = [_count(count) for count in (entry.n_wins, entry.n_ties, entry.n_losses, entry.unparsed)]
        asked = (balance(entry.preference, *names), entry.preference)
        rows.append(Row(entry.a, label, "", "", (asked, (rate, entry.win_rate), *counts)))
    return Table(titles, tuple(rows), head="Pair")


def elo_table(found: JudgeMetrics) -> Table:
    """List one judge's Elo ratings by objective, the reference policy at 1000."""
    ratings = found.elo
    methods = sorted(
        dict.fromkeys(m for by in ratings.values() for m in by),  # equal ones in the order of metrics.json
        key=lambda m: -max(by.get(m) or 0.0 for by in ratings.values()),
    )
    rows = [Row(m, method_name(m), "", "", tuple(_plain(by.get(m), 0) for by in ratings.values())) for m in methods]
    return Table(tuple((f"Elo, {name}", "the reference policy has 1000") for name in ratings), tuple(rows))


def safety_table(view: TaskView) -> Table:
    """List refusals, safe rate and length of every policy; a column that nobody has is left out."""
    present = {key: head for key, head in SHARES.items() if any(getattr(e, key) is not None for e in view.safety)}
    titles = (("Asked", "the preference asked for"), *present.values(), ("Length", f"{view.length_unit} per answer"))
    rows = []
    for entry in safety_over_seeds(view.safety):
        cells = [_asked(entry.preference, view.names), *(_share(getattr(entry, key)) for key in present)]
        label = method_name(entry.method)
        rows.append(Row(entry.method, label, "", "", (*cells, _plain(entry.length_mean, 1))))
    return Table(titles, tuple(rows))


def tax_table(view: TaskView) -> Table:
    """List the abilities measured on the same policies."""
    titles = (
        ("Asked", "the preference asked for"),
        ("Ability", "lm-eval task and metric"),
        ("Value", "± 1 standard error"),
    )
    rows = []
    for entry in abilities_over_seeds(view.capabilities):
        value = f"{decimal(entry.value, 3)} ± {decimal(entry.se, 3)}"
        ability = f"{entry.capability} ({entry.metric})"
        cells = (_asked(entry.preference, view.names), (ability, None), (value, entry.value))
        rows.append(Row(entry.method, method_name(entry.method), "", "", cells))
    return Table(titles, tuple(rows))


def hints(view: TaskView, curves: bool, texts: str) -> tuple[str, ...]:
    """Say in one line each what this report lacks and how a run gets it; ``texts``: why there are none, or empty."""
    safety = view.safety
    lacking: Sequence[tuple[bool, str]] = (
        (
            bool(view.measured) and not any(values.steerability for values in view.measured.values()),
            "No steerability: one preference was asked for; run with --preferences 2 or more.",
        ),
        (not view.judges, "No judge compared answers: run with --judge openai:MODEL@BASE_URL."),
        (
            not any(entry.categories for entry in safety),
            "No costs by category of harm: use a task whose prompts have categories.",
        ),
        (
            not any(entry.over_refusal_rate is not None for entry in safety),
            "No over-refusals: give harmless prompts that look harmful (XSTest) with --data-dir.",
        ),
        (bool(view.no_safe_rate), f"No safe rate: {view.no_safe_rate}."),
        (not view.capabilities, "No other abilities: run with --capabilities arc_easy (any lm-eval task)."),
        (not any(p.x_proxy is not None for p in view.points), "No held-out scorer: name one in the task's scorers."),
        (not curves, "No training curves: this run's trainings recorded none."),
        (bool(texts), texts),
    )
    return tuple(line for absent, line in lacking if absent)


def _asked(weight: float | None, names: tuple[str, str]) -> Cell:
    return (ABSENT if weight is None else balance(weight, *names), weight)


def _share(share: float | None) -> Cell:
    return (ABSENT, None) if share is None else (f"{100 * share:.1f} %", share)


def _count(value: float | None) -> Cell:
    return _plain(value, 0)


def _plain(value: float | None, digits: int) -> Cell:
    return decimal(value, digits), None if value is None else float(value)
