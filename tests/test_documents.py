"""Documents that describe the code are compared with it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "peo_bench"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"]


def floors() -> list[set[str]]:
    """The rooms of each floor in the picture, from the top."""
    picture = re.search(r"## Floors\n\n```text\n(.*?)```", ARCHITECTURE, flags=re.S)
    assert picture is not None
    return [set(line.split(" | ")) for line in picture[1].splitlines()]


def test_the_picture_of_the_floors_is_the_import_contract():
    (layers,) = (contract["layers"] for contract in LINTER["contracts"] if contract["type"] == "layers")
    assert floors() == [set(layer.replace("peo_bench.", "").split(" | ")) for layer in layers]


def test_the_contract_on_trl_covers_every_room_but_one():
    (sources,) = (c["source_modules"] for c in LINTER["contracts"] if c.get("forbidden_modules") == ["trl"])
    assert sorted(name.removeprefix("peo_bench.") for name in sources) == sorted(set().union(*floors()) - {"training"})


def test_every_room_has_a_floor_and_a_purpose():
    modules = {file.stem for file in PACKAGE.glob("*.py") if not file.stem.startswith("__")}
    rooms = {folder.parent.name for folder in PACKAGE.glob("*/__init__.py")}
    assert set().union(*floors()) == rooms | modules
    table = ARCHITECTURE.split("| room |", 1)[1].split("\n\n", 1)[0]
    described = [cell for row in table.splitlines()[2:] for cell in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(described) == sorted(rooms | modules)


def test_the_walk_of_a_preference_goes_down_and_enters_no_room_twice():
    walk = ARCHITECTURE.split("## The walk of one preference", 1)[1].split("\n## ", 1)[0]
    rooms = re.findall(r"^\d+\. \*\*(\w+)\*\*", walk, flags=re.M)
    number = {room: i for i, floor in enumerate(floors()) for room in floor}
    heights = [number[room] for room in rooms]
    assert len(rooms) >= 10
    assert heights == sorted(set(heights))
    for room, said in re.findall(r"^\d+\. \*\*(\w+)\*\*(.*?)(?=^\d+\. |\n\n)", walk, flags=re.M | re.S):
        source = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / room).rglob("*.py"))
        for name in re.findall(r"`([A-Za-z_.]+)`", said):
            assert re.search(rf"\b{name.split('.')[-1]}\b", source), f"{room} has no {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_files_and_modules_that_exist(document: Path):
    text = document.read_text(encoding="utf-8")
    groups = {"peo_bench.job_kinds", "peo_bench.learners", "peo_bench.tasks"}
    for place in set(re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|md|yaml))`", text)):
        assert any((base / place).exists() for base in (ROOT, PACKAGE, document.parent)), place
    for name in set(re.findall(r"\bpeo_bench(?:\.[a-z]\w*)+", text)) - groups:
        parts = name.split(".")[:3]
        path = ROOT.joinpath(*parts)
        known = path.is_dir() or path.with_suffix(".py").exists() or name_in(path.parent, parts[-1])
        assert known, name


def name_in(module: Path, name: str) -> bool:
    """Whether the module's (or package's) source has the name."""
    source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    return source.exists() and re.search(rf"\b{name}\b", source.read_text(encoding="utf-8")) is not None


TWINS = {
    **dict.fromkeys(("compare", "convert", "judge", "leaderboard", "winrate"), "a command and what it calls"),
    **dict.fromkeys(("kinds", "records", "settings", "tables"), "what a room has of its own, as the others have"),
    **dict.fromkeys(("merging", "modpo"), "a method and the arithmetic behind it"),
    "safety": "what is measured and its figures",
}
"""Names that modules of several rooms share, and why they mean the same thing there."""


def test_no_two_modules_share_a_name_for_different_things():
    names = [path.stem for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")]
    assert {name for name in names if names.count(name) > 1} == set(TWINS)


def promises() -> list[list[str]]:
    """The rows of docs/reliability.md, as cells: hazard, promise, trade-off, tests, figure."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def named_tests(cell: str) -> Iterator[tuple[Path, str]]:
    for file, names in re.findall(r"`(tests/test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", cell):
        yield from ((ROOT / file, name) for name in re.findall(r"test_\w+", names))


@pytest.mark.parametrize("row", promises(), ids=lambda row: row[0][:40])
def test_every_promise_has_a_trade_off_tests_by_name_and_a_figure(row):
    assert len(row) == 5
    assert all(row)
    tests = list(named_tests(row[3]))
    assert len(tests) == len(re.findall(r"`test_\w+`", row[3])) > 0
    for file, name in tests:
        known = {node.name for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
        assert name in known, f"{file.name} has no {name}"


def test_figures_count_the_cases_of_the_named_tests(request):
    """Of rows whose files are all in this session: in a whole run of the suite, every row."""
    chosen = request.config.getoption
    if any(chosen(name, None) for name in ("keyword", "markexpr", "lf")) or any(
        "::" in given for given in request.config.args
    ):
        pytest.skip("only some cases of a file are in this session")
    items = Counter((item.path, item.originalname) for item in request.session.items if hasattr(item, "originalname"))
    files = {path for path, _ in items}
    for hazard, _, _, cell, figure in promises():
        tests = list(named_tests(cell))
        if {file for file, _ in tests} <= files:
            cases = sum(items[test] for test in tests)
            assert figure.startswith(f"{cases} case{'s' * (cases > 1)}: "), f"{hazard}: {cases}"
