"""Tables of judges, safety and abilities, and what a run would need to have them."""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.report.contents import Json, TaskView, over_seeds
from peo_bench.report.tables import Row, Table
from peo_bench.report.wording import ABSENT, balance, decimal, method_name
from peo_bench.results.folder import number

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
        card = found["card"]
        cells = (
            _count(card.get("n_calls")),
            _share(card.get("position_consistency")),
            _count(card.get("parse_failures")),
            _count(card.get("ties")),
            _share(card.get("agreement")),
            _plain(card.get("usd"), 2),
        )
        rows.append(Row("", judge, False, "", cells))
    return Table(titles, tuple(rows), head="Judge")


def rates_table(found: Json, names: tuple[str, str]) -> Table:
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
    for entry in found.get("win_rates") or []:
        label = f"{entry['objective']}: {method_name(entry['a'])} against {method_name(entry['b'])}"
        low, high = (decimal(entry.get(key), 1) for key in ("ci_low", "ci_high"))
        rate = ABSENT if number(entry["win_rate"]) is None else f"{decimal(entry['win_rate'], 1)} % [{low}, {high}]"
        counts = [_count(entry.get(key)) for key in ("n_wins", "n_ties", "n_losses", "unparsed")]
        asked = number(entry.get("preference"))
        rows.append(
            Row(
                entry["a"],
                label,
                False,
                "",
                ((balance(asked, *names), asked), (rate, number(entry["win_rate"])), *counts),
            )
        )
    return Table(titles, tuple(rows), head="Pair")


def elo_table(found: Json) -> Table:
    """List one judge's Elo ratings by objective, the reference policy at 1000."""
    ratings: Json = found.get("elo") or {}
    methods = sorted(
        {m for by in ratings.values() for m in by},
        key=lambda m: -max(number(by.get(m)) or 0.0 for by in ratings.values()),
    )
    rows = [Row(m, method_name(m), False, "", tuple(_plain(by.get(m), 0) for by in ratings.values())) for m in methods]
    return Table(tuple((f"Elo, {name}", "the reference policy has 1000") for name in ratings), tuple(rows))


def safety_table(view: TaskView) -> Table:
    """List refusals, safe rate and length of every policy; a column that nobody has is left out."""
    present = {key: head for key, head in SHARES.items() if any(number(e.get(key)) is not None for e in view.safety)}
    titles = (("Asked", "the preference asked for"), *present.values(), ("Length", "tokens per answer"))
    names = (view.axes[0].name, view.axes[1].name)
    rows = []
    for entry in over_seeds(view.safety):
        asked = number(entry.get("preference"))
        label = method_name(entry["method"])
        cells = [_asked(asked, names), *(_share(entry.get(key)) for key in present)]
        rows.append(Row(entry["method"], label, False, "", (*cells, _plain(entry.get("length_mean"), 1))))
    return Table(titles, tuple(rows))


def tax_table(view: TaskView) -> Table:
    """List the abilities measured on the same policies."""
    titles = (
        ("Asked", "the preference asked for"),
        ("Ability", "lm-eval task and metric"),
        ("Value", "± 1 standard error"),
    )
    names = (view.axes[0].name, view.axes[1].name)
    rows = []
    for entry in over_seeds(view.capabilities, ("method", "preference", "capability", "metric")):
        asked = number(entry.get("preference"))
        label = method_name(entry["method"])
        value = f"{decimal(entry.get('value'), 3)} ± {decimal(entry.get('se'), 3)}"
        ability = f"{entry['capability']} ({entry['metric']})"
        cells = (_asked(asked, names), (ability, None), (value, number(entry.get("value"))))
        rows.append(Row(entry["method"], label, False, "", cells))
    return Table(titles, tuple(rows))


def hints(view: TaskView, curves: bool, texts: str) -> tuple[str, ...]:
    """Say in one line each what this report lacks and how a run gets it; ``texts``: why there are none, or empty."""
    safety = view.safety
    lacking: Sequence[tuple[bool, str]] = (
        (
            bool(view.measured) and not any("steerability" in values for values in view.measured.values()),
            "No steerability: one preference was asked for; run with --preferences 2 or more.",
        ),
        (not view.judges, "No judge compared answers: run with --judge openai:MODEL@BASE_URL."),
        (
            not any(entry.get("categories") for entry in safety),
            "No costs by category of harm: use a task whose prompts have categories.",
        ),
        (
            not any(number(entry.get("over_refusal_rate")) is not None for entry in safety),
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


def _share(value: object) -> Cell:
    share = number(value)
    return (ABSENT, None) if share is None else (f"{100 * share:.1f} %", share)


def _count(value: object) -> Cell:
    return decimal(value, 0), number(value)


def _plain(value: object, digits: int) -> Cell:
    return decimal(value, digits), number(value)
