"""Readers of run folders and boards say in one line which file is damaged, whatever the damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_folder_fixture import write_run_folder
from test_closed_form import world

from peo_bench.errors import UsageError
from peo_bench.jobs.store import Store
from peo_bench.results.folder import read_run_folder
from peo_bench.steering.families import read_families, save_families

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = write_run_folder(tmp_path_factory.mktemp("whole") / "run", rich=True, n_prompts=8, weights=(1.0, 0.5, 0.0))
    save_families(where, Store(where / "cache"), ["peo"], {}, {1: world()}, [])
    return where


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def latin(path: Path) -> None:
    path.write_bytes(b"\xe9" + path.read_bytes())


def comma(path: Path) -> None:
    """One field more in one row, as where a name with a comma was not quoted."""
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2] + ",x", *lines[3:]]))


def commas(path: Path) -> None:
    """One field more in every row: pandas would take the first for an index."""
    head, *lines = path.read_text().splitlines()
    path.write_text("\n".join([head, *(f"x,{line}" for line in lines)]))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def nested(path: Path) -> None:
    path.write_text("[" * 200_000)


def table(change: Callable[[pd.DataFrame], Any]) -> Damage:
    def damage(path: Path) -> None:
        if path.suffix == ".csv":
            change(pd.read_csv(path)).to_csv(path, index=False)
        else:
            change(pd.read_parquet(path)).to_parquet(path)

    return damage


def whole_bytes(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def without(*keys: str, content: object = None) -> Damage:
    """An entry of the task's metrics less, or `content` in its place: whole JSON that does not fit the other files."""

    def damage(path: Path) -> None:
        told = json.loads(path.read_text())
        item = told["tasks"]["sandbox"]
        for key in keys[:-1]:
            item = item[key]
        item[keys[-1]] = content
        if content is None:
            del item[keys[-1]]
        path.write_text(json.dumps(told))

    return damage


EMPTY, LIST, NULL = whole_bytes(b""), whole_bytes(b"[]"), whole_bytes(b"null")
OF_JSON = {"cut": cut, "latin": latin, "empty": EMPTY, "list": LIST, "null": NULL, "folder": folder, "nested": nested}
OF_CSV = {"latin": latin, "empty": EMPTY, "comma": comma, "commas": commas, "folder": folder}
OF_TABLE = {
    "no method": table(lambda t: t.drop(columns="method" if "method" in t else "method_a")),
    "words for seeds": table(lambda t: t.assign(seed="one")),
}
OF_PARQUET = {"cut": cut, "empty": EMPTY, "flipped": lambda path: path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)}
CASES = {
    **{(name, how): damage for name in ("run.json", "metrics.json") for how, damage in OF_JSON.items()},
    **{(name, how): damage for name in ("points.csv", "curves.csv") for how, damage in (OF_CSV | OF_TABLE).items()},
    **{
        (name, how): damage
        for name in ("answers.parquet", "judgements.parquet")
        for how, damage in (OF_PARQUET | OF_TABLE).items()
    },
    ("config.yaml", "latin"): latin,
    ("metrics.json", "no task"): whole_bytes(b'{"schema_version": 1, "tasks": {}}'),
    ("metrics.json", "a method less"): without("methods", "peo"),
    ("metrics.json", "a control less"): without("methods", "soup"),
    ("metrics.json", "no units"): without("units", content={}),
    ("metrics.json", "no units of a column"): without("units", "1", "cost"),
    ("metrics.json", "no means of units"): without("reference_units", content={}),
}


@pytest.mark.parametrize(("name", "how"), CASES, ids=[f"{name} {how}" for name, how in CASES])
def test_a_damaged_file_is_named_in_one_line(whole: Path, tmp_path: Path, name: str, how: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    CASES[name, how](run / name)
    with pytest.raises(UsageError) as refused:
        read_run_folder(run)
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(f"{run / name}: ") or f"{name} is missing" in said
    assert "repeat the run" in said or "is missing" in said


@pytest.mark.parametrize("damage", [*OF_JSON.values(), whole_bytes(b'{"methods": ["peo"]}')])
def test_a_damaged_families_file_is_named_in_one_line(whole: Path, tmp_path: Path, damage: Damage) -> None:
    shutil.copy(whole / "families.json", tmp_path)
    assert read_families(tmp_path).methods == ("peo",)
    damage(tmp_path / "families.json")
    with pytest.raises(UsageError) as refused:
        read_families(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'families.json'}: is damaged")
    assert "\n" not in str(refused.value)


def test_files_that_do_not_fit_together_are_one_line_for_every_command(peo_bench, whole: Path, tmp_path: Path) -> None:
    """Each file is whole by itself, and metrics.json does not say of a method what the report needs."""
    shutil.copytree(whole, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    metrics["tasks"]["sandbox"]["methods"]["peo"] = 3
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    world = ("steer", "run", "--method", "peo", "what ?")
    for command in (("report", "run"), ("figures", "run", "--formats", "csv"), ("leaderboard", "add", "run"), world):
        code, out, err = peo_bench(*command)
        assert (code, out, err.count("\n")) == (2, "", 1), (command, err)
        assert err.startswith("error: run")
    assert not (tmp_path / "leaderboards").exists()
