"""Leaderboards: rows follow from scores, changes are caught, what was measured otherwise stays apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_folder_fixture import write_run_folder

from peo_bench.boards.leaderboard import _row_sha256, _sha256, boards, verify
from peo_bench.errors import UsageError
from peo_bench.report.board import published
from peo_bench.resources import resource_dir
from peo_bench.results.measure import Measure
from peo_bench.results.record import from_json

ENDS = ("value", "ci_low", "ci_high")


@pytest.fixture
def board(peo_bench, tmp_path: Path) -> Path:
    """A leaderboard with PEO, MODPO (both of one run) and the MODPO of another run."""
    for name, seed in (("a", None), ("b", 8)):
        write_run_folder(tmp_path / name, noise_seed=seed)
    (tmp_path / "b" / "config.yaml").write_text("schema_version: 1\nother: yes\n")
    assert peo_bench("leaderboard", "add", "a")[0] == 0
    assert peo_bench("leaderboard", "add", "b", "--method", "modpo")[0] == 0
    (found,) = boards(tmp_path / "leaderboards")
    return found.folder


def content(board: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((board / "board.json").read_text())
    return found


def test_rows_carry_their_numbers_and_where_they_come_from(peo_bench, board, tmp_path):
    rows = content(board)["rows"]
    assert [row["method"] for row in rows] == ["modpo", "modpo", "peo"]
    row = rows[-1]
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())["tasks"]["sandbox"]["methods"]["peo"]
    for name in ("hypervolume", "steered_utility", "expected_utility"):
        assert row["values"][name] == pytest.approx(metrics[name], rel=1e-9)
    assert row["values"]["n_nondominated"] == metrics["n_nondominated"]
    assert row["values"]["steerability"] == metrics["steerability"]
    assert row["n_prompts"] == 60
    assert row["seeds"] == [1]
    assert len(row["provenance"]["config_sha256"]) == 64
    assert row["provenance"]["scorers"] == {"reward": ["sandbox-reward v1"], "cost": ["sandbox-cost v1"]}
    assert row["provenance"]["packages"]["torch"] == "2.13.0"
    assert row["provenance"]["judges"] == {}
    code, out, err = peo_bench("leaderboard", "verify")
    assert (code, err) == (0, "")
    assert "3 rows in 1 leaderboards, 0 problems" in out


def test_adding_again_changes_nothing(peo_bench, board):
    before = content(board)
    assert peo_bench("leaderboard", "add", "a")[0] == 0
    assert content(board) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("values", "hypervolume", "value"), 99.0),
        (("values", "hypervolume", "ci_low"), 0.0),
        (("values", "steered_utility", "value"), 0.51),
        (("values", "n_nondominated"), 4000),
        (("values", "kl_mean"), 0.0),
        (("values", "steerability", "violations"), [0, 9]),
        (("method",), "soup"),
        (("seeds",), [1, 2, 3]),
        (("provenance", "config_sha256"), "0" * 64),
        (("scores_sha256",), "0" * 64),
        (("row_sha256",), "0" * 64),
        (("n_prompts",), 100_000),
        (("costs", "train_units"), 0.1),
        (("model",), "another"),
        (("provenance", "judges"), {"helpful": "gpt"}),
        (("provenance", "command"), "peo-bench run"),
        (("values",), {}),
        (("id",), "peo-00000000"),
    ],
)
def test_a_tampered_row_is_caught(peo_bench, board, path, value):
    table = content(board)
    item = table["rows"][-1]
    for key in path[:-1]:
        item = item[key]
    assert item[path[-1]] != value
    item[path[-1]] = value
    (board / "board.json").write_text(json.dumps(table))
    code, out, err = peo_bench("leaderboard", "verify")
    assert code == 3
    assert table["rows"][-1]["id"] in err
    assert "0 problems" not in out


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ((), ": approved is no key of this file"),
        (("measure",), ": measure.approved is no key of this file"),
        (("units",), ": units.approved is no key of this file"),
        (("rows", 0), ": row mod-"),
        (("rows", 0, "values"), ": values.approved is no key of this file"),
        (("rows", 0, "values", "hypervolume"), ": values.hypervolume.approved is no key of this file"),
        (("rows", 0, "costs"), ": costs.approved is no key of this file"),
        (("rows", 0, "provenance"), ": provenance.approved is no key of this file"),
    ],
)
def test_a_key_that_no_record_has_is_named(peo_bench, sealed, place, named) -> None:
    """All digests of rows renewed: readers pass it over, nobody may take it for something that was checked."""
    table = content(sealed)
    item = table
    for key in place:
        item = item[key]
    item["approved"] = True
    for row in table["rows"]:
        row["row_sha256"] = _row_sha256(row)
    (sealed / "board.json").write_text(json.dumps(table))
    code, _, err = peo_bench("leaderboard", "verify")
    assert code == 3
    assert err.count("\n") == 1
    assert named in err
    assert "approved is no key of this file" in err


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("temperature", "hot", "valid number"),
        ("top_p", {"of": 1}, "valid number"),
        ("max_new_tokens", 0, "greater than 0"),
        ("top_k", 5, "not permitted"),
        ("temperature", None, "temperature is missing"),
    ],
)
def test_decoding_settings_are_those_there_are(sealed: Path, key: str, value: object, said: str) -> None:
    """A board whose rows were decoded who knows how is damaged: nothing is filled in."""
    table = content(sealed)
    table["measure"]["decoding"] |= {key: value}
    if value is None:
        del table["measure"]["decoding"][key]
    (sealed / "board.json").write_text(json.dumps(table))
    with pytest.raises(UsageError, match=rf"board\.json: .*measure\.decoding.*{said}"):
        boards(sealed.parent)


@pytest.mark.parametrize("digits", [309, 401, 4000, 5000])
def test_a_number_beyond_every_float_names_its_file(sealed: Path, digits: int) -> None:
    text = (sealed / "board.json").read_text()
    (sealed / "board.json").write_text(text.replace('"n": ', f'"n": {"9" * digits}', 1))
    with pytest.raises(UsageError, match=r"board\.json: is damaged or of another version \(not JSON, ValueError"):
        boards(sealed.parent)


def test_precision_is_a_setting_of_its_own_and_boards_keep_their_names(sealed: Path) -> None:
    """The first boards were named while precision stood among the decoding settings, where their files have it."""
    table = content(sealed)
    table["measure"]["decoding"]["precision"] = table["measure"].pop("precision")
    (sealed / "board.json").write_text(json.dumps(table))
    (shipped,) = boards(sealed.parent)
    assert content(sealed)["measure"]["decoding"]["precision"] == shipped.measure.precision == "float32"
    assert "precision" not in shipped.measure.to_json()["decoding"]
    assert shipped.measure.name == shipped.folder.name
    assert from_json(Measure, shipped.measure.to_json(), sealed) == shipped.measure
    half = shipped.measure.model_copy(update={"precision": "bfloat16"})
    assert half.name != shipped.measure.name
    assert half.differences(shipped.measure) == ["precision: bfloat16 against float32"]


def resealed(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"row_sha256": _row_sha256(row)}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """The shipped leaderboard with its first row alone."""
    (shipped,) = boards(resource_dir("leaderboards"))
    folder = tmp_path / "leaderboards" / shipped.folder.name
    (folder / "scores").mkdir(parents=True)
    table = content(shipped.folder)
    table["rows"] = table["rows"][:1]
    name = f"scores/{table['rows'][0]['id']}.parquet"
    for file in (name, "reference.parquet"):
        (folder / file).write_bytes((shipped.folder / file).read_bytes())
    (folder / "board.json").write_text(json.dumps(table))
    return folder


def test_numbers_that_do_not_follow_from_the_scores_are_caught_although_the_row_is_sealed_anew(sealed: Path) -> None:
    """Changes of one part in a million, in the same direction and sign: only the recomputation can see them."""
    table = content(sealed)
    values = table["rows"][0]["values"]
    for name in ("hypervolume", "steered_utility", "expected_utility"):
        for key in ("value", "ci_low", "ci_high"):
            values[name][key] *= 1 + 1e-6
    for name in ("kl_mean", "length_mean", "spacing"):
        values[name] *= 1 + 1e-6
    values["steerability"]["span"][0] *= 1 + 1e-6
    table["rows"] = [resealed(table["rows"][0])]
    (sealed / "board.json").write_text(json.dumps(table))
    problems = verify(sealed.parent)
    assert {problem.split(": ")[2].split(" is ")[0] for problem in problems} == {
        *(f"values.{n}.{k}" for n in ("hypervolume", "steered_utility", "expected_utility") for k in ENDS),
        *("values.kl_mean", "values.length_mean", "values.spacing", "values.steerability.span[0]"),
    }
    assert all("the scores give" in problem for problem in problems)


def test_a_sealed_row_whose_numbers_follow_is_no_problem(sealed: Path) -> None:
    table = content(sealed)
    table["rows"] = [resealed(table["rows"][0] | {"model": "another"})]
    (sealed / "board.json").write_text(json.dumps(table))
    assert verify(sealed.parent) == []


STANDS = {"model", "settings", "costs", "peo_bench", "command", "suite", "packages", "licence", "finished"}
"""What no score can prove: there, `row_sha256` and the repository's history are all that tells."""


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all values; of a list the last."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from leaves(value[-1], (*path, len(value) - 1))
    elif value is not None and value != []:
        yield path


def test_every_field_of_a_sealed_row_follows_from_scores_or_is_known_not_to(board: Path) -> None:
    """Each is changed alone, with the digest of the row made anew."""
    table = content(board)
    for row in table["rows"][:-1]:
        (board / "scores" / f"{row['id']}.parquet").unlink()
    places = [path for path in leaves(table["rows"][-1]) if path[0] != "row_sha256"]
    for path in places:
        row = json.loads(json.dumps(table["rows"][-1]))
        *inner, last = path
        item = row
        for key in inner:
            item = item[key]
        item[last] = f"{item[last]}x" if isinstance(item[last], str) else item[last] + 1
        (board / "board.json").write_text(json.dumps(table | {"rows": [resealed(row)]}))
        assert bool(verify(board.parent)) != bool(STANDS & {*path}), path
    assert len(places) > 30


@pytest.mark.parametrize("what", ["units", "reference_units"])
def test_units_follow_from_the_reference_policys_scores(board: Path, what: str) -> None:
    """Rows are in these units: whoever changes them changes every row."""
    table = content(board)
    units = table["units"][what]
    (units["1"] if what == "units" else units)["reward"][1] *= 1.001
    (board / "board.json").write_text(json.dumps(table))
    problems = verify(board.parent)
    assert any(f": {what}" in line and "the scores of the reference policy give" in line for line in problems)


def test_the_reference_policys_scores_are_in_every_rows_digest(board: Path) -> None:
    path = board / "reference.parquet"
    scores = pd.read_parquet(path)
    scores.assign(reward=scores["reward"] * 2).to_parquet(path)
    assert sum("units_sha256" in line for line in verify(board.parent)) == 3
    path.write_bytes(b"PAR1")
    assert any("reference.parquet is damaged" in line for line in verify(board.parent))
    path.unlink()
    assert any("reference.parquet is missing" in line for line in verify(board.parent))
    os.mkfifo(path)
    assert verify(board.parent), "a pipe is not waited for"


def test_scores_that_are_no_file_are_not_waited_for(peo_bench, board: Path) -> None:
    for path in [*(board / "scores").iterdir(), board / "reference.parquet"]:
        path.unlink()
        os.mkfifo(path)
    assert peo_bench("leaderboard", "verify")[0] == 3
    code, _, err = peo_bench("leaderboard", "show")
    assert (code, err.count("\n")) == (2, 1)
    assert "it is no file" in err


def test_exchanged_and_repeated_rows_are_caught(peo_bench, board):
    """Even with the digest of the row made anew."""
    table = content(board)
    modpo, peo = table["rows"][0], table["rows"][-1]
    swapped = {key: peo[key] for key in ("values", "scores_sha256")}
    peo |= {key: modpo[key] for key in swapped}
    modpo |= swapped
    table["rows"] = [resealed(modpo), table["rows"][1], resealed(peo)]
    paths = [board / f"scores/{row['id']}.parquet" for row in (modpo, peo)]
    contents = [path.read_bytes() for path in paths]
    for path, other in zip(paths, reversed(contents), strict=True):
        path.write_bytes(other)
    (board / "board.json").write_text(json.dumps(table))
    _, _, err = peo_bench("leaderboard", "verify")
    assert err.count("method") >= 2
    for path, own in zip(paths, contents, strict=True):
        path.write_bytes(own)
    table = content(board)
    table["rows"].append(table["rows"][-1])
    (board / "board.json").write_text(json.dumps(table))
    assert "occurs" in peo_bench("leaderboard", "verify")[2]


@pytest.mark.parametrize("damage", ["key", "row", "empty", "rows", "text"])
def test_damage_is_a_problem_and_never_a_traceback(peo_bench, board, damage):
    table = content(board)
    row = table["rows"][-1]
    path = board / f"scores/{row['id']}.parquet"
    if damage == "key":
        del row["values"]
    elif damage == "row":
        table["rows"][-1] = "x"
    else:
        scores = pd.read_parquet(path)
        {"empty": scores.head(0), "rows": scores.iloc[1:], "text": scores.drop(columns="reward")}[damage].to_parquet(
            path
        )
        table["rows"][-1] = resealed(row | {"scores_sha256": _sha256(path)})
    (board / "board.json").write_text(json.dumps(table))
    code, _, err = peo_bench("leaderboard", "verify")
    assert code == 3
    assert "Traceback" not in err


def test_scores_without_a_board_are_caught(peo_bench, board):
    (board / "board.json").unlink()
    code, _, err = peo_bench("leaderboard", "verify")
    assert code == 3
    assert "has scores and no board.json" in err


def test_tampered_missing_and_stray_scores_are_caught(peo_bench, board):
    row = content(board)["rows"][-1]
    path = board / f"scores/{row['id']}.parquet"
    scores = pd.read_parquet(path)
    scores.loc[0, "reward"] += 1e-6
    scores.to_parquet(path, index=False)
    assert "was changed" in peo_bench("leaderboard", "verify")[2]
    path.rename(path.with_name("stray.parquet"))
    _, _, err = peo_bench("leaderboard", "verify")
    assert "is missing" in err
    assert "stray.parquet: belongs to no row" in err


def test_other_scorers_get_a_table_of_their_own(peo_bench, board, tmp_path):
    other = write_run_folder(tmp_path / "c", noise_seed=9)
    run = json.loads((other / "run.json").read_text())
    run["measure"]["scorers"]["cost"] = ["beaver v1"]
    (other / "run.json").write_text(json.dumps(run))
    assert peo_bench("leaderboard", "add", "c")[0] == 0
    assert len(boards(tmp_path / "leaderboards")) == 2
    code, out, _ = peo_bench("leaderboard", "show", "--json")
    assert code == 0
    assert len(json.loads(out)["leaderboards"]) == 2


def test_the_page_and_the_table_name_every_row_and_published_figures_stay_apart(peo_bench, board, tmp_path):
    code, out, _ = peo_bench("leaderboard", "show", "--published")
    assert code == 0
    assert out.count("MODPO@") >= 2
    assert "arXiv 2306.04488" in out
    assert "not comparable" in out
    assert peo_bench("leaderboard", "html", "--out", "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text()
    ours, theirs = page.split("Published figures of other work")
    assert "arXiv 2504.20106" in theirs
    assert "arXiv" not in ours
    assert board.name in ours
    assert "<svg" in ours
    assert "default-src &#39;none&#39;" in page


def test_what_does_not_belong_is_refused(peo_bench, board, tmp_path):
    limited = write_run_folder(tmp_path / "limited")
    run = json.loads((limited / "run.json").read_text()) | {"limited": 32}
    (limited / "run.json").write_text(json.dumps(run))
    assert "takes whole runs" in peo_bench("leaderboard", "add", "limited")[2]
    assert "did you mean modpo" in peo_bench("leaderboard", "add", "a", "--method", "modpoo")[2]
    assert peo_bench("compare", "a", "b", "--out", "both")[0] == 0
    assert "is a comparison" in peo_bench("leaderboard", "add", "both")[2]
    assert "no leaderboard there" in peo_bench("leaderboard", "show", "--dir", "nowhere")[2]
    assert peo_bench("leaderboard", "add", "a", "--dir", "ours")[0] == 0
    (board / "board.json").write_text("{")
    code, _, err = peo_bench("leaderboard", "verify")
    assert code == 2
    assert "is no leaderboard" in err
    assert (
        "cannot write there"
        in peo_bench("leaderboard", "html", "--dir", str(tmp_path / "ours"), "--out", "no/x.html")[2]
    )


def renamed(folder: Path, old: str, new: str) -> None:
    """Give a method another name in every file of a run folder."""
    for name in ("run.json", "metrics.json", "costs.json", "points.csv"):
        path = folder / name
        path.write_text(path.read_text().replace(old, new))
    texts = pd.read_parquet(folder / "answers.parquet")
    texts.assign(method=texts["method"].replace(old, new)).to_parquet(folder / "answers.parquet")


def test_names_in_a_received_folder_lead_nowhere(peo_bench, board, tmp_path):
    """Neither a method, nor a task, nor a link makes a board write outside its folder."""
    before = {path for path in tmp_path.rglob("*") if "received" not in path.parts}
    for old, new in (("modpo", "../../../x"), ("modpo", "mine\\n"), ("sandbox", "../../x")):
        received = write_run_folder(tmp_path / "received")
        renamed(received, old, new)
        code, out, err = peo_bench("leaderboard", "add", "received")
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert "is not a valid name" in err
    write_run_folder(tmp_path / "received", noise_seed=3)
    (received / "config.yaml").write_text("third: yes")
    (board / "scores").rename(tmp_path / "received" / "away")
    (board / "scores").symlink_to(tmp_path / "received" / "away")
    code, _, err = peo_bench("leaderboard", "add", "received")
    assert (code, err.count("\n")) == (2, 1), err
    assert "is a link that leads out of the folder" in err
    after = {path for path in tmp_path.rglob("*") if "received" not in path.parts}
    assert {path for path in after ^ before if "scores" not in path.parts} == set()


def test_published_figures_name_their_sources():
    tables = published()
    assert all(table.source.startswith("arXiv ") for table in tables)
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)


def test_our_own_leaderboards_follow_from_their_scores():
    assert boards(resource_dir("leaderboards"))
    assert verify(resource_dir("leaderboards")) == []
