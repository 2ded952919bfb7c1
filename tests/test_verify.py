"""`peo-bench verify`: whatever is changed in a run folder is named, with all digests renewed by who changed it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
import yaml
from fuzzing import Target, attempt, change_and_renew, damaged

from peo_bench.cli import received
from peo_bench.errors import UsageError
from peo_bench.jobs.artefact import CHECKSUM, META, fingerprint, sealed
from peo_bench.report.build import build_report, report_problems
from peo_bench.results.contract import FILES
from peo_bench.results.differences import REPORTS, SUMMED, json_problems, table_problems, write_sums
from peo_bench.results.folder import read_run_folder
from peo_bench.runs import assembly
from peo_bench.runs.rejudging import PLACE
from peo_bench.runs.verification import TOLD, _problems, verify_run
from peo_bench.runs.writing import STRICTLY

TASK = "peo_sandbox"
OTHER = {
    "status": "incomplete", "hypervolume_units": "reference", "units": "reference", "from": "labels",
"precision": "float16", "name": "helpful2", "learner": "ipo", "form": "lora",
}  # fmt: skip
"""Another text that may stand there, where not every text may."""
STANDS = {
    "costs.json": ("labels",),
    "run.json": TOLD,
    "metrics.json": (),
}
"""Keys whose value follows from nothing in the folder: there, the digest alone is what tells."""


@pytest.fixture(scope="module")
def whole(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run without its report."""
    out = tmp_path_factory.mktemp("verify") / "out"
    shutil.copytree(small_run / "out", out, ignore=shutil.ignore_patterns("report.*"))
    return out


@pytest.fixture(scope="module")
def metrics(whole: Path) -> Any:
    """What `run_metrics` gives for the untouched run, of which the resampling takes all the time."""
    kept: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        compute = assembly.run_metrics
        patch.setattr(assembly, "run_metrics", lambda *args: kept.append(compute(*args)) or kept[0])
        assert verify_run(whole) == []
    return kept[0]


@pytest.fixture
def out(whole: Path, metrics: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run to change."""
    monkeypatch.setattr(assembly, "run_metrics", lambda *args: metrics)
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def found(out: Path) -> list[str]:
    """What `verify` says once all digests are renewed; a folder that it refuses is one line as well."""
    write_sums(out)
    try:
        return verify_run(out)
    except UsageError as error:
        return [str(error)]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all numbers, texts and truths in a JSON value; of a list the last entry only."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        if value:
            yield from leaves(value[-1], (*path, len(value) - 1))
    elif value is not None:
        yield path


def other(value: Any, key: str | int) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return {"higher": "lower", "lower": "higher"}.get(value) or OTHER.get(str(key), f"{value}x")
    if key == "top_p":
        return value / 2  # at most 1
    return value + 1 if isinstance(value, int) else value + 0.001 * (1 + abs(value))


def change(content: Any, path: tuple[str | int, ...]) -> None:
    *inner, last = path
    for key in inner:
        content = content[key]
    content[last] = other(content[last], last)


def said(file: str, path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
    return f"{file}: {text} is "


@pytest.mark.parametrize("file", ["metrics.json", "costs.json", "run.json"])
def test_every_value_of_a_file_follows_from_the_rest(out: Path, file: str) -> None:
    """All values of the file are changed at once, each is named; so is a value that is taken away."""
    content = json.loads((out / file).read_text())
    part = content["tasks"][TASK] if file == "metrics.json" else content
    places = [
        path
        for path in leaves(part)
        if path[0] != "schema_version" and not {*STANDS[file]} & {*path} and path[:2] != ("measure", "judges")
    ]
    for path in places:
        change(part, path)
    (out / file).write_text(json.dumps(content))
    problems = found(out)
    unnamed = [path for path in places if not any(line.startswith(said(file, path)) for line in problems)]
    assert not unnamed
    assert len(places) > 40


@pytest.mark.parametrize("file", ["points.csv", "search.csv", "curves.csv"])
def test_every_column_of_a_table_follows_from_the_rest(out: Path, file: str) -> None:
    table = pd.read_csv(out / file)
    columns = [name for name in table if table[name].notna().any()]
    for name in columns:
        row = table[name].last_valid_index()
        value = table.loc[row, name]
        table[name] = table[name].astype(object)
        table.loc[row, name] = other(value.item() if hasattr(value, "item") else value, "")
    table.to_csv(out / file, index=False)
    problems = [line for line in found(out) if line.startswith(f"{file}: ")]
    assert not [name for name in columns if not any(f": {name} is" in line for line in problems)]


def test_the_values_of_families_follow_from_the_configuration(out: Path) -> None:
    """Each alone, as a folder whose jobs do not fit together is refused."""
    content = json.loads((out / "families.json").read_text())
    last = [*content["worlds"]["0"]["graph"]][-1]
    places = [path for path in leaves(content) if path[2:3] != ("graph",) or path[3] == last]
    for path in places:
        changed = json.loads(json.dumps(content))
        change(changed, path)
        (out / "families.json").write_text(json.dumps(changed))
        assert any(said in first(out) for said in ("families.json", "was made by another version")), path
    assert len(places) > 30


def first(out: Path) -> str:
    """The first thing that `verify` says, digests aside: of families it speaks before it computes any number."""
    try:
        run = read_run_folder(out)
        assert run.answers is not None
        return next(_problems(out, run, run.answers))
    except UsageError as error:
        return str(error)


def one_cell(file: str, column: str, value: Any) -> Callable[[Path], None]:
    def edit(out: Path) -> None:
        read, write = (pd.read_parquet, "to_parquet") if file.endswith("parquet") else (pd.read_csv, "to_csv")
        table = read(out / file)
        table.loc[len(table) // 2, column] = value
        getattr(table, write)(out / file, index=False)

    return edit


def in_json(file: str, edit: Callable[[Any], None]) -> Callable[[Path], None]:
    def edited(out: Path) -> None:
        content = json.loads((out / file).read_text())
        edit(content)
        (out / file).write_text(json.dumps(content))

    return edited


def in_yaml(edit: Callable[[Any], None]) -> Callable[[Path], None]:
    def edited(out: Path) -> None:
        content = yaml.safe_load((out / "config.yaml").read_text())
        edit(content)
        (out / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    return edited


def invented_rows(out: Path) -> None:
    table = pd.read_csv(out / "points.csv")
    own = table[table["method"] == "peo"].assign(method="invented", reward=9.0)
    pd.concat([table, own]).to_csv(out / "points.csv", index=False)


def second_task(out: Path) -> None:
    table = pd.read_csv(out / "points.csv")
    own = table[table["method"] == "peo"].assign(task="other", reward=9.0)
    pd.concat([table, own]).to_csv(out / "points.csv", index=False)


def answers_of_nobody(out: Path) -> None:
    table = pd.read_parquet(out / "answers.parquet")
    pd.concat([table, table[table["method"] == "peo"].assign(method="nobody")]).to_parquet(out / "answers.parquet")


def fewer_answers(out: Path) -> None:
    pd.read_parquet(out / "answers.parquet").iloc[1:].reset_index(drop=True).to_parquet(out / "answers.parquet")


def renewed_artefact(out: Path) -> None:
    """Weights exchanged, with their checksum and that of the record."""
    weights = next((out / "artefacts").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    path = next(parent for parent in weights.parents if (parent / META).exists())
    meta = json.loads((path / META).read_text())
    del meta[CHECKSUM]
    meta["files"][str(weights.relative_to(path))] = fingerprint(weights)
    (path / META).write_text(json.dumps(sealed(meta)))


def lines(edit: Callable[[list[Any]], None]) -> Callable[[Path], None]:
    def edited(out: Path) -> None:
        rows = [json.loads(line) for line in (out / "jobs.jsonl").read_text().splitlines()]
        edit(rows)
        (out / "jobs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    return edited


def dearer(rows: list[Any]) -> None:
    row = next(row for row in rows if row["record"]["kind"] == "aspect")
    record = {key: value for key, value in row["record"].items() if key != CHECKSUM}
    row["record"] = sealed(record | {"cost": record["cost"] | {"pairs_trained": 9}})


def failed_too(rows: list[Any]) -> None:
    identity = {key: rows[-1]["record"][key] for key in ("kind", "version", "params", "needs")}
    rows.append({"failed": "x", "record": identity})


def failed_with_a_result(rows: list[Any]) -> None:
    del rows[0]["reused"]
    rows[0]["failed"] = "x"


def shared(column: str, value: Any) -> Callable[[Path], None]:
    """Change one answer of a policy under one of the names that offer it."""

    def edit(out: Path) -> None:
        table = pd.read_parquet(out / "answers.parquet")
        names = table[table["split"] == "test"].groupby("spec_key")["method"].transform("nunique")
        row = names[names > 1].index[-1]
        table.loc[row, column] = value if isinstance(value, str) else table.loc[row, column] + value
        table.to_parquet(out / "answers.parquet")

    return edit


def answers(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def edited(out: Path) -> None:
        edit(pd.read_parquet(out / "answers.parquet")).to_parquet(out / "answers.parquet")

    return edited


def exchanged_prompts(table: pd.DataFrame) -> pd.DataFrame:
    """The answers of one policy, each to the prompt of another."""
    last = table["spec_key"] == table["spec_key"].iloc[-1]
    turned = table.loc[last, ["prompt_id", "prompt", "category"]].iloc[::-1].to_numpy()
    table.loc[last, ["prompt_id", "prompt", "category"]] = turned
    return table


def strict(out: Path) -> None:
    """A run that claims to be one of `--strict-repro`, which computes with one thread."""
    in_yaml(lambda config: config.update(strict_repro=True))(out)
    in_json("run.json", lambda run: (run["notes"].append(STRICTLY), run["hardware"].update(threads=2)))(out)


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "the policy of a row": (one_cell("points.csv", "spec_key", "0123456789abcdef"), "points.csv: "),
    "rows of a method that was never run": (invented_rows, "points.csv: "),
    "rows of another task": (second_task, "points.csv: "),
    "the weights that a row was offered for": (one_cell("points.csv", "projected_helpful", 0.123), "points.csv: "),
    "a method in the configuration": (in_yaml(lambda c: c["methods"].remove("mod")), "points.csv: "),
    "a training setting": (in_yaml(lambda c: c["suite"]["training"].update(beta=0.2)), "families.json: "),
    "the title": (in_yaml(lambda c: c["suite"].update(title="Another")), "run.json: title "),
    "a score": (one_cell("answers.parquet", "reward", 9.0), "points.csv: "),
    "the policy of an answer": (one_cell("answers.parquet", "spec_key", "0123456789abcdef"), "answers.parquet: "),
    "answers of a method that was never run": (answers_of_nobody, "answers.parquet: "),
    "answers less": (fewer_answers, "answers.parquet: "),
    "a score of another text": (one_cell("answers.parquet", "cost", 9.0), ": cost is 9.0, sandbox-cost gives "),
    "a length under one name": (shared("length", 1), ": they are of one policy"),
    "a proxy's score under one name": (shared("reward_proxy", 0.5), ": reward_proxy is "),
    "an answer under one name": (shared("answer", ""), ": answer is '', "),
    "an answer of no tokens": (one_cell("answers.parquet", "length", 0), ": length is 0 tokens, though "),
    "all answers": (answers(lambda table: table.assign(answer="")), "sandbox-reward gives this text "),
    "a prompt": (one_cell("answers.parquet", "prompt", "What is 2+2?"), ": prompt is 'What is 2+2?', "),
    "a category": (one_cell("answers.parquet", "category", "harmless"), ": category is 'harmless', "),
    "the prompts of a policy": (answers(exchanged_prompts), ": the prompts of other policies are others"),
    "a column of answers": (answers(lambda table: table.assign(human=1.0)), "column 'human' is not known"),
    "a column of answers less": (answers(lambda t: t.drop(columns="cost_proxy")), "it has no column 'cost_proxy'"),
    "words for scores": (answers(lambda t: t.assign(cost_proxy="low")), "'cost_proxy' does not hold numbers"),
    "a capability": (in_yaml(lambda c: c.update(capabilities=["arc_easy"])), "capability arc_easy of config.yaml"),
    "strictness": (strict, "run.json: hardware.threads is 2, with strict_repro it is 1"),
    "a job's costs": (lines(dearer), "jobs.jsonl: the record of aspect-"),
    "a job less": (lines(lambda rows: rows.pop(0)), "run.json: "),
    "a job's record": (lines(lambda rows: rows[0]["record"].update(seconds=1.0)), "jobs.jsonl: is damaged"),
    "a key of a job's line": (lines(lambda rows: rows[0].update(approved=True)), "jobs.jsonl: is damaged"),
    "a job's line twice": (lines(lambda rows: rows.append(rows[0])), "has two records"),
    "a job that is done and failed": (lines(failed_too), "has two records"),
    "a failure with a result": (lines(failed_with_a_result), "done and failed"),
    "another package's kind": (lines(lambda rows: rows[0]["record"].update(kind="b")), "a job of kind 'b': install"),
    "weights with their checksums": (renewed_artefact, "jobs.jsonl: the record of "),
    "an artefact less": (lambda out: shutil.rmtree(next((out / "artefacts" / "modpo").iterdir())), "artefacts: modpo-"),
    "the version": (in_json("run.json", lambda run: run.update(peo_bench="0.0.1")), "run.json: peo_bench is 0.0.1, "),
    "a package": (in_json("run.json", lambda run: run["packages"].update(torch="1")), "run.json: packages.torch is 1,"),
    "progress": (lambda out: (out / "progress.json").write_text("{}"), "progress.json is there"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_is_named_though_all_digests_are_renewed(out: Path, what: str) -> None:
    tamper, named = TAMPERED[what]
    tamper(out)
    problems = found(out)
    assert any(named in line for line in problems), problems


def test_numbers_differ_from_the_seventh_digit_on() -> None:
    """Tables keep six decimals, and so a change of the last one is named."""
    table, seen = pd.DataFrame({"reward": [2.0]}), [2.0, 2.0 + 1e-6, 2.0 + 5e-6, 2.0001]
    told = [[*table_problems("points.csv", pd.DataFrame({"reward": [value]}), table)] for value in seen]
    assert list(map(bool, told)) == [False, False, True, True]
    assert [*map(bool, ([*json_problems(2.0 + gap, 2.0)] for gap in (1e-12, 1e-8)))] == [False, True]


def test_entries_more_and_less_are_named(out: Path) -> None:
    def edit(content: Any) -> None:
        task = content["tasks"][TASK]
        content["tasks"]["other"] = json.loads(json.dumps(task))
        task["methods"]["invented"] = task["methods"]["peo"]
        task["judges"] = {}
        for name in ("comparisons", "safety"):
            task[name].pop()

    in_json("metrics.json", edit)(out)
    more = {"notes": ["All is well."], "missing": [{"what": "x", "reason": "y", "n": 1}]}
    in_json("run.json", lambda run: run.update(more))(out)
    problems = found(out)
    for named in (
        *("metrics.json: methods.invented ", "metrics.json: tasks.other", "metrics.json: comparisons "),
        *("metrics.json: safety ", "metrics.json: judges ", "run.json: missing ", "run.json: notes lack "),
        "run.json: notes: 'All is well.' ",
    ):
        assert any(line.startswith(named) for line in problems), named


@pytest.mark.parametrize(
    ("file", "place", "named"),
    [
        ("run.json", (), "approved"),
        ("run.json", ("counts",), "counts.approved"),
        ("metrics.json", ("tasks", TASK), f"tasks.{TASK}.approved"),
        ("metrics.json", ("tasks", TASK, "comparisons", 0), f"tasks.{TASK}.comparisons[0].approved"),
        ("costs.json", ("methods", "peo"), "methods.peo.approved"),
        ("families.json", ("worlds", "0"), "worlds.0.approved"),
    ],
)
def test_a_key_that_no_record_has_is_named(out: Path, file: str, place: tuple[str | int, ...], named: str) -> None:
    """Readers pass it over; nobody may take it for something that was checked."""

    def edit(content: Any) -> None:
        for key in place:
            content = content[key]
        content["approved"] = True

    in_json(file, edit)(out)
    assert f"{file}: {named} is no key of this file" in found(out)


def test_directions_are_those_of_the_task(out: Path) -> None:
    """Higher is better everywhere: in the list of objectives and in the measure."""

    def edit(run: Any) -> None:
        for objective, triple in zip(run["objectives"], run["measure"]["objectives"], strict=True):
            objective["maximise"] = triple[2] = True

    in_json("run.json", edit)(out)
    problems = found(out)
    for named in ("run.json: objectives[1].maximise ", "run.json: measure.objectives[1][2] "):
        assert any(line.startswith(named) for line in problems), named


def test_every_file_of_the_contract_is_among_them() -> None:
    """Here every value is changed, or the file is there only while a run works."""
    assert {"metrics.json", "costs.json", "run.json", "families.json", "progress.json"} == {*FILES}
    with_judges = {"judgements.parquet", "judgements-missing.csv"}
    changed = {"config.yaml", "points.csv", "search.csv", "curves.csv", "answers.parquet", "jobs.jsonl"}
    assert {*SUMMED} == {*FILES} - {"progress.json"} | changed | with_judges


@pytest.mark.parametrize("file", [name for name in SUMMED if not name.startswith("judgements")])
def test_every_file_has_a_digest(out: Path, file: str) -> None:
    """A change that makes no difference to any number is one all the same; so is a file less, and one more."""
    if file.endswith(".parquet"):
        pd.read_parquet(out / file).to_parquet(out / file, compression="gzip")
    else:
        (out / file).write_text((out / file).read_text() + "\n")
    assert verify_run(out) == [f"{file} was changed (SHA-256)"]


def test_digests_of_files_that_are_not_there_and_files_without(out: Path) -> None:
    pd.DataFrame(columns=[*PLACE, "reason"]).to_csv(out / "judgements-missing.csv", index=False)
    sums = out / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  judgements.parquet\n")
    problems = verify_run(out)
    assert "judgements-missing.csv has no digest in SHA256SUMS" in problems
    assert "judgements.parquet is missing" in problems


def test_nothing_that_is_no_file_is_opened(out: Path) -> None:
    """A pipe would be waited for."""
    for name in ("jobs.jsonl", "families.json", "config.yaml"):
        kept = (out / name).read_bytes()
        (out / name).unlink()
        os.mkfifo(out / name)
        with pytest.raises(UsageError, match=name):
            verify_run(out)
        (out / name).unlink()
        (out / name).write_bytes(kept)


def test_reports_are_what_the_folder_says(small_run: Path, tmp_path: Path) -> None:
    """With texts or without; a changed one is named, another version's is left alone."""
    out = tmp_path / "out"
    shutil.copytree(small_run / "out", out)
    assert report_problems(out) == []
    for name in REPORTS:
        (out / name).write_text((out / name).read_text().replace("0", "1", 1))
    advice = f"is not the report of this folder: type `peo-bench report {out}`"
    assert report_problems(out) == [f"{name} {advice}" for name in REPORTS]
    build_report(out, redact=True)
    assert report_problems(out) == []
    (out / "report.html").unlink()
    missing = [f"report.html is missing: type `peo-bench report {out}`"]
    assert report_problems(out) == missing
    in_json("run.json", lambda run: run.update(peo_bench="0.0.1"))(out)
    assert report_problems(out) == missing


RUN = Target(
    write=lambda folder: None,
    read=lambda folder, rng: refused_or_verified(folder),
    files=("*.json", "*.csv", "*.parquet", "*.yaml", "*.jsonl", "artefacts/*/*/*"),
    kinds=True,
    change=change_and_renew,
)


def refused_or_verified(folder: Path) -> None:
    with received(folder):
        assert verify_run(folder) != []


@pytest.mark.parametrize("seed", range(6))
def test_damage_is_found_or_refused_in_one_line(out: Path, tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    damaged(RUN, out, tmp_path / "copy", rng)
    shutil.rmtree(out)
    assert attempt(RUN, tmp_path / "copy", rng) in ("read", "refused")
