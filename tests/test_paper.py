"""Figures and tables for papers."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from run_folder_fixture import write_run_folder

from peo_bench.report import paper

FIGURES = {
    *("front", "steered_utility", "hypervolume", "igd_plus", "expected_utility", "hypervolume-by-kl"),
    *("steering-reward", "steering-cost", "price-train_units", "price-seconds", "price-scorer_calls"),
    *("versus-utility", "versus-hypervolume", "kl-reward", "kl-cost", "proxy-reward", "proxy-cost", "length"),
}
TABLES = {"points", "scoreboard", "as-published", "versus", "steering"}


def test_every_figure_and_table(peo_bench, tmp_path: Path) -> None:
    write_run_folder(tmp_path / "run")
    code, out, err = peo_bench("figures", "run", "--formats", "html,csv,md,tex")
    assert (code, err) == (0, "")
    names = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert names == {f"{f}.html" for f in FIGURES} | {f"{t}.{s}" for t in TABLES for s in ("csv", "md", "tex")}
    assert len(out.splitlines()) == len(names)


AIDS = ("reference policy", "oracle, KL ≤ 2", "oracle, KL ≤ 8")


def test_tables_hold_the_scoreboards_numbers(tmp_path: Path) -> None:
    run = write_run_folder(tmp_path / "run")
    paper.write_run_figures(run, tmp_path / "out", ["csv", "md", "tex"])
    rows = list(csv.DictReader((tmp_path / "out" / "scoreboard.csv").open(encoding="utf-8")))
    assert {row["Method"] for row in rows} == {"PEO", "MODPO", "soup", "PEO-ExPO", *AIDS}
    first = rows[0]["Steered utility ↑"]
    assert first.replace("-", "−") in (tmp_path / "out" / "scoreboard.md").read_text()
    latex = (tmp_path / "out" / "scoreboard.tex").read_text()
    assert r"\toprule" in latex
    assert first.replace("-", "$-$") in latex
    assert latex.isascii(), "pdflatex has no glyph for what is left"
    assert (tmp_path / "out" / "versus.tex").read_text().isascii()
    assert (tmp_path / "out" / "points.tex").read_text().isascii()


def test_figures_on_paper_name_every_method_once(tmp_path: Path) -> None:
    pictures, _ = paper.run_pictures(write_run_folder(tmp_path / "run"))
    named = [trace.name for trace in pictures["front"].data if trace.showlegend]
    assert sorted(named) == sorted(["MODPO", "PEO", "PEO-ExPO", "soup", *AIDS])
    lines = pictures["hypervolume-by-kl"]
    assert sorted(trace.name for trace in lines.data if trace.showlegend) == ["MODPO", "PEO", "PEO-ExPO", "soup"]


def test_unknown_formats_and_a_missing_browser(peo_bench, tmp_path: Path, monkeypatch) -> None:
    write_run_folder(tmp_path / "run")
    assert "known are html" in peo_bench("figures", "run", "--formats", "gif")[2]
    assert "known are html" in peo_bench("figures", "run", "--formats", ",")[2]
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = peo_bench("figures", "run", "--formats", "html,pdf", "--out", "figs")
    assert code == 2
    assert "is needed to draw pdf files" in err
    assert not (tmp_path / "figs").exists()


def test_a_browser_that_does_not_start_is_no_browser(peo_bench, tmp_path: Path, monkeypatch) -> None:
    write_run_folder(tmp_path / "run")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "chromium").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    assert "that starts is needed" in peo_bench("figures", "run", "--formats", "svg")[2]
    (tmp_path / "file").touch()
    assert "cannot be made" in peo_bench("figures", "run", "--formats", "csv", "--out", "file")[2]


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium: apt-get install -y chromium")
def test_pictures(tmp_path: Path) -> None:
    written = paper.write_run_figures(write_run_folder(tmp_path / "run"), tmp_path / "out", ["svg", "pdf", "png"])
    assert {path.stem for path in written} == FIGURES
    for path in written:
        magic = {".svg": b"<svg", ".pdf": b"%PDF", ".png": b"\x89PNG"}[path.suffix]
        assert path.read_bytes().startswith(magic)
