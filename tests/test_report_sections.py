"""What the report's sections say: heat maps, attainment, judges, safety, curves, gallery, slider, redaction."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from run_folder_fixture import JUDGE, comparison, write_run_folder

from peo_bench import pareto
from peo_bench.report import build_report, contents, figures, findings, texts
from peo_bench.report.figures import effort, judged, numbers, safety, versus
from peo_bench.report.headline import find_comparison
from peo_bench.report.slider import steer_data
from peo_bench.report.tables import scoreboard, versus_table
from peo_bench.report.uncertainty import uncertainty
from peo_bench.results.folder import RunFolder, read_run_folder

SCORERS = {"reward": True, "cost": False}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("run"), rich=True)


@pytest.fixture(scope="module")
def folder(run_dir: Path) -> RunFolder:
    return read_run_folder(run_dir)


@pytest.fixture(scope="module")
def view(folder: RunFolder) -> contents.TaskView:
    return contents.task_views(folder)[0]


def panels(view: contents.TaskView, folder: RunFolder) -> dict[str, figures.Panel]:
    styles = figures.method_styles(contents.shown_methods(view))
    return {p.name: p for p in (*figures.panels(view, styles, folder), *figures.run_panels(folder))}


def test_the_three_formats_hold_every_section(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, rich=True)
    page, markdown = build_report(run_dir).read_text(), (run_dir / "report.md").read_text()
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert headings == [
        *("The trade-offs on offer", "Scoreboard", "Who beats whom", "At equal distance from the reference policy"),
        *("Does it give what is asked for?", "Where was searched, and what was chosen?", "The judge room"),
        *("Safety map", "Is it real?"),
        *(
            "What did alignment cost other abilities?",
            "At what price?",
            "Where did the time go?",
            "How did training go?",
        ),
        *("Gallery", "Where this comes from", ""),
    ]
    stored = json.loads((run_dir / "report.json").read_text())["tasks"]["sandbox"]
    measured = json.loads((run_dir / "metrics.json").read_text())["tasks"]["sandbox"]
    for key in ("judges", "safety", "capabilities", "comparisons"):
        assert stored[key] == measured[key], key
    view = contents.task_views(read_run_folder(run_dir))[0]
    for table in (findings.judge_cards(view), findings.safety_table(view), findings.tax_table(view)):
        for row in table.rows:
            assert "| " + " | ".join(text for text, _ in row.cells) + " |" in markdown
            assert all(f">{text}</td>" in page for text, _ in row.cells)


def test_the_ids_of_kept_artefacts_are_listed(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path)
    (run_dir / "artefacts" / "aspect" / "aspect-82fb04d4").mkdir(parents=True)
    (run_dir / "artefacts" / "aspect" / "aspect-82fb04d4" / "meta.json").write_text("{}")
    assert read_run_folder(run_dir).job_ids == ("aspect-82fb04d4",)
    assert "aspect-82fb04d4" in build_report(run_dir).read_text()


def test_what_a_run_lacks_is_absent_and_told_in_one_line(tmp_path: Path) -> None:
    page = build_report(write_run_folder(tmp_path)).read_text()
    for absent in ("The judge room", "Safety map", "other abilities?", "How did training go?"):
        assert absent not in page
    for told in ("--judge openai:MODEL@BASE_URL", "--capabilities arc_easy", "XSTest", "recorded none"):
        assert told in page


def test_every_figure_has_a_way_to_read_it_and_its_numbers_as_a_table(
    view: contents.TaskView, folder: RunFolder
) -> None:
    found = panels(view, folder)
    assert len(found) > 20
    for panel in found.values():
        assert panel.how.endswith("."), panel.name
        assert panel.table.rows, panel.name
        assert all(len(row.cells) == len(panel.table.columns) for row in panel.table.rows), panel.name


def test_the_numbers_of_a_figure_are_its_marks(view: contents.TaskView, folder: RunFolder) -> None:
    found = panels(view, folder)
    table = numbers.numbers(found["steering-reward"].variants)
    assert [title for title, _ in table.columns] == ["asked weight of helpful", "reward"]
    marks = sorted((p.weight, p.x) for m in view.methods for p in view.of(m) if p.weight is not None)
    shown = sorted((row.cells[0][1], row.cells[1][1]) for row in table.rows)
    assert np.allclose(np.array(shown, dtype=float), np.array(marks))
    whiskers = found["steered_utility"].table
    value = view.measured["peo"].steered_utility.ends
    cells = next(row.cells for row in whiskers.rows if row.label == "PEO")
    assert [cell[1] for cell in cells] == pytest.approx(value)


def test_who_beats_whom_is_antisymmetric_and_marks_what_holm_leaves(view: contents.TaskView) -> None:
    (cells,) = versus.utility_map(view).data
    (shares,) = versus.hypervolume_map(view).data
    z, p = np.array(cells.z, dtype=float), np.array(shares.z, dtype=float)
    assert np.allclose(z, -z.T, equal_nan=True)
    assert np.allclose(p + p.T, np.where(np.eye(len(p)), np.nan, 1), equal_nan=True)
    names = list(cells.x)
    for gap in view.gaps:
        row, column = names.index(contents.method_name(gap.a)), names.index(contents.method_name(gap.b))
        assert cells.z[row][column] == gap.difference
        assert cells.text[row][column].endswith("*") == gap.real == cells.text[column][row].endswith("*")


def test_pairs_are_listed_as_the_headline_reads(run_dir: Path) -> None:
    view = contents.task_views(read_run_folder(run_dir))[0]
    turned = [
        row.model_copy(update={
            "a": row.b, "b": row.a, "difference": -row.difference, "ci_low": -row.ci_high, "ci_high": -row.ci_low,
            "hypervolume_share": 1 - row.hypervolume_share,
        })
        for row in view.comparisons
    ]  # fmt: skip
    table = versus_table(view)
    assert [row.cells for row in versus_table(replace(view, comparisons=tuple(turned))).rows] == [
        row.cells for row in table.rows
    ]
    assert all((row.cells[0][1] or 0.0) >= 0 for row in table.rows)
    assert "PEO − MODPO" in [row.label for row in table.rows]


def test_two_equal_methods_share_the_resamples(run_dir: Path) -> None:
    """Methods with the same policies: neither has the larger hypervolume, in either direction."""
    entry = comparison("x", "y", 0.0, 0.0, p_holm=1.0, hypervolume_share=0.5)
    turned = find_comparison([entry], "y", "x")
    assert turned is not None
    assert turned.hypervolume_share == 0.5


# ---- resampled fronts ----


def test_the_attainment_map_is_the_share_of_resampled_fronts(view: contents.TaskView, folder: RunFolder) -> None:
    spread = uncertainty(folder, view, figures.front_geometry(view))
    assert spread is not None
    table = folder.answers
    assert table is not None
    own = table[(table["method"] == "peo")]
    scores = np.stack(
        [own[own["preference"] == w][["reward", "cost"]].to_numpy() for w in sorted(own["preference"].unique())]
    )
    drawn = pareto.resample({"peo": scores}, n_resamples=200).drawn["peo"]
    for i, j in ((5, 40), (30, 20), (50, 10)):
        reached = [any(x >= spread.x[j] and y <= spread.y[i] for x, y in front) for front in drawn]
        assert spread.shares["peo"][i, j] == round(100 * float(np.mean(reached)))


def test_without_noise_bands_have_no_width_and_maps_are_the_front(view: contents.TaskView, folder: RunFolder) -> None:
    table = folder.answers
    assert table is not None
    means = table.groupby(["method", "seed", "preference"], dropna=False)[["reward", "cost"]].transform("mean")
    still = RunFolder(**{**vars(folder), "answers": table.assign(reward=means["reward"], cost=means["cost"])})
    geometry = figures.front_geometry(view)
    spread = uncertainty(still, view, geometry)
    assert spread is not None
    for method, polygon in spread.bands.items():
        assert area(polygon) == pytest.approx(0, abs=1e-9)
        own = [(p.x, p.y) for p in view.of(method)]
        hit = [[any(a >= x and b <= y for a, b in own) for x in spread.x] for y in spread.y]
        assert np.array_equal(spread.shares[method], 100 * np.array(hit))
    noisy = uncertainty(folder, view, geometry)
    assert noisy is not None
    assert all(area(polygon) > 0.1 for polygon in noisy.bands.values())


def area(polygon: np.ndarray[Any, Any]) -> float:
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def test_no_bands_without_scores_by_prompt(view: contents.TaskView, folder: RunFolder) -> None:
    assert uncertainty(RunFolder(**{**vars(folder), "answers": None}), view, figures.front_geometry(view)) is None


# ---- judges and safety ----


def test_the_verdict_bars_count_every_readable_verdict(view: contents.TaskView, folder: RunFolder) -> None:
    judgements = folder.judgements
    assert judgements is not None
    helpful = judgements[(judgements["objective"] == "helpful") & judgements["verdict"].notna()]
    wins, ties, losses = panels(view, folder)["judge-0-helpful-verdicts"].figure.data
    expected = [100 * (helpful["verdict"] == verdict).mean() for verdict in (1.0, 0.5, 0.0)]
    assert [bar.x[0] for bar in (wins, ties, losses)] == pytest.approx(expected)


def test_win_rates_stand_at_their_preference_with_their_interval(view: contents.TaskView, folder: RunFolder) -> None:
    (line,) = panels(view, folder)["judge-0-harmless-rates"].figure.data
    rates = [e for e in view.judges[JUDGE].win_rates if e.objective == "harmless"]
    assert dict(zip(line.x, line.y, strict=True)) == {e.preference: e.win_rate for e in rates}
    low = {x: y - e for x, y, e in zip(line.x, line.y, line.error_y.arrayminus, strict=True)}
    assert low == pytest.approx({e.preference: e.ci_low for e in rates})


def test_the_win_rates_legend_names_the_opponents_that_are_drawn(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, rich=True, n_prompts=12)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    judge = metrics["tasks"]["sandbox"]["judges"][JUDGE]
    judge["win_rates"] += [entry | {"b": "reference"} for entry in judge["win_rates"]]
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    page = build_report(run_dir).read_text()
    room = page.split("The judge room</h2>")[1].split("</section>")[0]
    (key,) = re.findall(r'<ul class="key-line".*?</ul>', room)
    assert re.findall(r"</svg>(.*?)</li>", key) == ["MODPO", "reference policy"]


def test_a_judge_that_likes_length_is_seen() -> None:
    judged_table = pd.DataFrame({
        "spec_key_a": "a", "spec_key_b": "b", "prompt_id": [f"p{i}" for i in range(50)],
        "verdict": [float(i >= 25) for i in range(50)],
    })  # fmt: skip
    lengths = {("a", f"p{i}"): 10.0 + i - 25 for i in range(50)} | {("b", f"p{i}"): 10.0 for i in range(50)}
    figure = judged.length_figure(judged_table, lengths)
    assert figure is not None
    assert list(figure.data[0].y) == [0, 0, 50, 100, 100]
    assert list(figure.data[0].x) == pytest.approx([-20.5, -10.5, -0.5, 9.5, 19.5])
    assert judged.length_figure(judged_table, dict.fromkeys(lengths, 10.0)) is None


def test_the_safety_map_has_a_map_per_preference_with_the_reference_beside(
    folder: RunFolder, view: contents.TaskView
) -> None:
    maps = dict(safety.category_maps(view.safety, ("helpful", "harmless")))
    assert next(iter(maps)) == "100 % helpful, 0 % harmless"
    assert len(maps) == 5
    (cells,) = maps["25 % helpful, 75 % harmless"].data
    table = folder.answers
    assert table is not None
    own = table[(table["method"] == "modpo") & (table["preference"] == 0.25) & (table["category"] == "dangerous")]
    assert cells.z[list(cells.y).index("dangerous")][list(cells.x).index("MODPO")] == pytest.approx(own["cost"].mean())
    assert "reference policy" in cells.x
    assert safety.category_maps([view.safety[0].model_copy(update={"categories": None})], ("a", "b")) == []


def test_safety_and_abilities_are_means_over_training_seeds(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, rich=True)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    task = metrics["tasks"]["sandbox"]
    for key, shift in (("safety", "refusal_rate"), ("capabilities", "value")):
        task[key] = [row | {"seed": s, shift: row[shift] + 0.1 * s} for s in (0, 1) for row in task[key]]
    task["safety_zero"] = {"from": None, "reason": "the cost has no calibrated zero"}
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    folder = read_run_folder(run_dir)
    view = contents.task_views(folder)[0]
    row = next(r for r in findings.tax_table(view).rows if r.method == "peo")
    assert row.cells[2][1] == pytest.approx(0.37 + 0.05)
    found = panels(view, folder)
    (marks,) = (trace for trace in found["refusals"].figure.data if trace.meta["method"] == "peo")
    assert (len(marks.x), marks.mode) == (5, "markers")
    assert max(marks.x) == pytest.approx(65)
    assert "No safe rate: the cost has no calibrated zero." in findings.hints(view, True, "")


def test_refusals_without_harmless_prompts_are_no_figure(view: contents.TaskView) -> None:
    assert safety.refusal_figure(view.safety, view, {}) is not None
    half = [entry.model_copy(update={"over_refusal_rate": None}) for entry in view.safety]
    assert safety.refusal_figure(half, view, {}) is None


def test_a_cost_runs_the_same_way_on_both_axes_and_says_whose_it_is(view: contents.TaskView, folder: RunFolder) -> None:
    found = panels(view, folder)
    layout = found["proxy-cost"].figure.layout
    assert (layout.xaxis.autorange, layout.yaxis.autorange) == ("reversed", "reversed")
    assert layout.yaxis.title.text == "cost, reported"
    assert found["proxy-reward"].figure.layout.xaxis.autorange is True
    assert found["kl-cost"].figure.layout.xaxis.autorange is True


def test_controls_lie_below_what_they_copy_and_budgets_are_steps(view: contents.TaskView, folder: RunFolder) -> None:
    found = panels(view, folder)
    assert {trace.line.shape for trace in found["hypervolume-by-kl"].figure.data} == {"hv"}
    for name in (
        "hypervolume-by-kl",
        "steering-reward",
        "kl-reward",
        "length",
        "price-train_units",
        "tax-arc-easy-acc",
    ):
        order = [trace.meta["method"] for trace in found[name].figure.data if trace.meta["method"] != "reference"]
        assert order == ["soup", "peo-expo", "peo", "modpo"], name
    assert not any(trace.cliponaxis for trace in found["price-train_units"].figure.data)


def test_the_attainment_map_stands_with_the_pairs_and_calls_its_table_a_summary(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, n_prompts=12)
    page = build_report(run_dir).read_text()
    label = re.search(r'id="attainment-0" role="img" aria-label="([^"]*)"', page)
    assert label
    assert label[1].endswith("A summary is in the table below it.")
    assert "Summary of this figure" in page
    metrics = json.loads((run_dir / "metrics.json").read_text())
    metrics["tasks"]["sandbox"]["comparisons"] = []
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    page = build_report(run_dir).read_text()
    assert '"attainment-0":' not in page
    assert 'id="attainment-0"' not in page


@pytest.mark.parametrize("bad", [None, float("nan")])
def test_values_that_are_no_numbers_leave_a_method_or_a_cell_out(tmp_path: Path, bad: float | None) -> None:
    run_dir = write_run_folder(tmp_path, rich=True, n_prompts=12)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    task = metrics["tasks"]["sandbox"]
    task["methods"]["modpo"]["steered_utility"] |= {"value": bad}
    peo = task["methods"]["peo"]
    peo |= {
        "rank": {"best": bad, "worst": bad},
        "kl_mean": bad,
        "igd_plus": {"value": 0.1, "ci_low": bad, "ci_high": 0.2, "bias": bad},
    }
    peo["steerability"] |= {"span": [bad, 1.0], "violations": [bad, 0], "distinct": bad}
    peo["hypervolume_within_kl"] = [bad] * len(task["kl_budgets"])
    task["comparisons"][-1] |= {"p_holm": bad, "hypervolume_share": bad}
    task["judges"][JUDGE]["win_rates"][0]["win_rate"] = bad
    task["judges"][JUDGE]["elo"]["helpful"]["peo"] = bad
    task["safety"][0] |= {"refusal_rate": bad, "categories": {"benign": bad}}
    task["capabilities"][0]["value"] = bad
    (run_dir / "metrics.json").write_text(json.dumps(metrics))
    costs = json.loads((run_dir / "costs.json").read_text())
    costs["methods"]["peo"]["seconds"] = bad
    (run_dir / "costs.json").write_text(json.dumps(costs))
    table = pd.read_parquet(run_dir / "answers.parquet")
    table.loc[(table["method"] == "peo") & (table["prompt_id"] == "p0001"), "reward"] = np.nan
    table.to_parquet(run_dir / "answers.parquet")
    page = build_report(run_dir).read_text()
    assert "the indicators of MODPO are no numbers; it is left out of scores and comparisons" in page
    assert "No band for PEO and MODPO: scores are missing." in page
    view = contents.task_views(read_run_folder(run_dir))[0]
    assert "MODPO" not in [row.label for row in scoreboard(view).rows]
    assert page.split("<h1>")[1].startswith("PEO")


def test_a_method_that_a_kl_figure_lacks_is_named_with_the_reason(view: contents.TaskView) -> None:
    points = tuple(
        replace(p, kl=None, kl_bound=0.6 if p.method == "soup" else None) if p.method in ("soup", "modpo") else p
        for p in view.points
    )
    measured = {
        m: v.model_copy(update={"points_within_kl": (0,) * len(view.kl_budgets)}) if m == "peo" else v
        for m, v in view.measured.items()
    }
    styles = figures.method_styles(view.methods)
    found = {p.name: p for p in figures.panels(replace(view, points=points, measured=measured), styles)}
    how = found["kl-reward"].how
    assert "only an upper bound of the KL is known: soup." in how
    assert "the KL is not known: MODPO." in how
    assert "beyond every budget: PEO and PEO-ExPO." in found["hypervolume-by-kl"].how
    assert "Not drawn" not in next(p.how for p in figures.panels(view, styles) if p.name == "kl-reward")


def test_parse_failures_are_a_badge(folder: RunFolder, view: contents.TaskView) -> None:
    failures = view.judges[JUDGE].card.parse_failures
    assert failures > 0
    assert f"{failures} judge replies not understood" in [b.text for b in contents.badges(folder.run, [view])]


# ---- training and time ----


def test_curves_are_split_by_phase_and_thinned_with_both_ends(folder: RunFolder) -> None:
    assert folder.curves is not None
    found = effort.phases(folder.curves)
    assert {kind: [name for name, _ in variants] for kind, variants in found.items()} == {
        "aspect": ["loss", "margin"], "modpo": ["loss", "margin"]
    }  # fmt: skip
    line = found["aspect"][0][1].data[0]
    assert len(line.x) == effort.CURVE_POINTS < 150
    assert (line.x[0], line.x[-1]) == (0, 298)
    ends = {row.label: row.cells for row in effort.curve_table(folder.curves, "modpo").rows}
    assert [value for _, value in ends["modpo helpful 0.5: loss"]] == pytest.approx(
        [1, 298, 0.89, 0.69 * 0.98**298 + 0.2]
    )


def test_the_timeline_lays_stages_end_to_end(folder: RunFolder) -> None:
    (bars,) = effort.timeline_figure(folder.run.stages).data
    for (start, length), (after, _) in pairwise(zip(bars.base, bars.x, strict=True)):
        assert start + length == pytest.approx(after)


def test_one_preference_leaves_steering_out_and_says_so(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, weights=(0.5,), n_prompts=12)
    methods = json.loads((run_dir / "metrics.json").read_text())["tasks"]["sandbox"]["methods"]
    assert set(methods) == {"peo", "modpo", "soup", "peo-expo"}
    assert not any("steerability" in values for values in methods.values())
    page = build_report(run_dir).read_text()
    assert "Does it give what is asked for?" not in page
    assert "No steerability: one preference was asked for" in page
    assert "No steerability" in (run_dir / "report.md").read_text()


# ---- slider, gallery, texts ----


def test_the_slider_runs_from_helpful_to_harmless_with_a_policy_of_everybody(view: contents.TaskView) -> None:
    steer = steer_data(view)
    assert steer is not None
    assert steer.steps[0] == "100 % helpful, 0 % harmless"
    assert steer.weights == [1.0, 0.75, 0.5, 0.25, 0.0]
    keys = {m.method: m.keys for m in steer.methods}
    assert keys["modpo"] == [f"modpo|1|{w:.6f}" for w in steer.weights]
    assert set(keys["reference"]) == {"reference|1|"}
    assert set(keys) == {"reference", "peo", "modpo", "soup", "peo-expo"}


def test_disagreement_is_the_largest_gap_at_one_preference(folder: RunFolder) -> None:
    found = texts.embed_texts(folder.answers, SCORERS)
    assert found is not None
    assert folder.answers is not None
    table = folder.answers[folder.answers["split"] == "test"]
    prompt = found.prompts[3]
    own = table[(table["prompt"] == prompt.text) & table["preference"].notna()]
    gaps = [
        (rows[column].max() - rows[column].min()) / table[column].std(ddof=0)
        for column in ("reward", "cost")
        for _, rows in own.groupby("preference")
    ]
    assert prompt.spread == pytest.approx(max(gaps), abs=1e-3)
    assert prompt.worst == pytest.approx(table[table["prompt"] == prompt.text]["cost"].max(), abs=1e-3)


def test_a_judge_flip_is_a_verdict_that_changed_with_the_order() -> None:
    row = {"judge": "j", "objective": "helpful", "seed": 1, "preference": 0.5, "method_a": "peo", "method_b": "modpo"}
    verdicts = {"p1": (1.0, 1.0), "p2": (1.0, 0.0), "p3": (0.5, 0.0), "p4": (1.0, np.nan), "p5": (0.9, 0.7)}
    table = pd.DataFrame([
        row | {"prompt_id": prompt, "order": order, "verdict": verdict}
        for prompt, both in verdicts.items()
        for order, verdict in zip(("ab", "ba"), both, strict=True)
    ])  # fmt: skip
    flips = texts._flips(table, ("helpful", "harmless"))
    assert set(flips) == {"p2", "p3"}
    assert flips["p2"] == [
        "helpful, PEO and MODPO at 50 % helpful, 50 % harmless: PEO when shown in this order, MODPO in the other"
    ]


def test_long_texts_make_the_sample_smaller_for_everybody(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = texts.embed_texts(folder.answers, SCORERS)
    monkeypatch.setattr(texts, "MAX_BYTES", 40_000)
    small = texts.embed_texts(folder.answers, SCORERS)
    assert whole is not None
    assert small is not None
    n = len(small.prompts)
    assert 0 < n < len(whole.prompts)
    assert small.prompts == whole.prompts[:n] or [p.text for p in small.prompts] == [p.text for p in whole.prompts[:n]]
    assert {len(answers) for answers in small.policies.values()} == {n}
    assert sum(texts._size(text) for text in small.texts) <= 40_000


def test_redacted_reports_hold_no_text_at_all(tmp_path: Path) -> None:
    run_dir = write_run_folder(tmp_path, rich=True, hostile=True)
    build_report(run_dir, redact=True)
    table = pd.read_parquet(run_dir / "answers.parquet")
    for name in ("report.html", "report.md", "report.json"):
        text = (run_dir / name).read_text()
        assert not any(prompt in text for prompt in table["prompt"].unique())
        assert "First get everything ready" not in text
    assert "left out (--redact)" in (run_dir / "report.html").read_text()
    assert "Gallery" not in (run_dir / "report.html").read_text()


def test_the_report_command(peo_bench: Any, tmp_path: Path) -> None:
    write_run_folder(tmp_path / "run")
    assert peo_bench("report", "run") == (0, "run/report.html\n", "")
    code, _, err = peo_bench("report", "nothing")
    assert (code, err) == (2, "error: nothing is not a finished run folder: run.json is missing\n")
