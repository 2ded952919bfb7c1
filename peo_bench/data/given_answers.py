"""Answers that are given rather than generated: a file with what some policy said to the task's test prompts.

Rows have `prompt` and `answer`, or `instruction` and `output` as alpaca_eval's model outputs. A row is the answer to
the prompt of the same text, white space aside: everything else counts, case included. Where the file lies is no part
of a job's identity (see `peo_bench.data.sources`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from peo_bench.data.sources import located, remember
from peo_bench.errors import UsageError
from peo_bench.files.dialogue import messages_in, to_prompt
from peo_bench.files.digest import file_digest
from peo_bench.files.json_types import JsonObject
from peo_bench.files.jsonl import read_jsonl, write_jsonl
from peo_bench.files.rows import RowError, file_rows, whole_text
from peo_bench.jobs.job import Handle, Job, job_kind
from peo_bench.jobs.workspace import Workspace

GIVEN_ANSWERS = "given-answers"
"""The kind of the jobs that take over answers."""
LAYOUTS = (("prompt", "answer"), ("instruction", "output"))
"""Columns of prompt and answer: our own, alpaca_eval's."""
EXPECTED = "rows with prompt and answer, or with instruction and output as alpaca_eval writes them"


def remember_answers(path: Path) -> str:
    """Return the SHA-256 of a file with answers; remember where it lies, for jobs of this process and its children.

    Raises `UsageError` for a file that holds no answers of one policy.
    """
    if not path.is_file():
        raise UsageError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}: give a file of {EXPECTED}")
    read_given(path)
    digest = file_digest(path)
    remember(digest, path)
    return digest


def given_answers_job(sha256: str, prompts: Job, n_prompts: int) -> Job:
    """Return the job that finds the answer to each of the first `n_prompts` test prompts in a remembered file."""
    return Job(GIVEN_ANSWERS, {"sha256": sha256, "n_prompts": n_prompts}, {"prompts": prompts})


def read_given(path: Path) -> dict[str, str]:
    """Return the answers in a file by their prompt (see `same_text`); raise `UsageError` for what is none, in one line.

    Several answers to a prompt, or answers of several policies, are refused.
    """
    answers: dict[str, str] = {}
    generators: Counter[str] = Counter()
    repeated: list[str] = []
    for place, row in file_rows(path, str(path)):
        try:
            prompt, answer = _prompt_and_answer(row)
        except RowError as problem:
            raise UsageError(f"{place}: {problem}: give {EXPECTED}") from None
        if isinstance(row, Mapping) and "generator" in row:
            generators[str(row["generator"])] += 1
        key = same_text(prompt)
        if key in answers:
            repeated.append(key)
        answers[key] = answer
    if not answers:
        raise UsageError(f"{path}: holds no rows: give {EXPECTED}")
    if len(generators) > 1:
        shown = ", ".join(sorted(generators)[:9])
        raise UsageError(f"{path}: answers of {len(generators)} generators ({shown}): give a file of each")
    if repeated:
        raise UsageError(
            f"{path}: {len(set(repeated))} prompts have several answers, among them {repeated[0]!r:.60}: "
            "give one answer to each prompt, in a file for each policy"
        )
    return answers


def same_text(text: str) -> str:
    r"""Return the text by which an answer is found: every run of white space is one blank, none is at the ends.

    >>> same_text("How  do I\nbake bread? ")
    'How do I bake bread?'
    """
    return " ".join(text.split())


def _prompt_and_answer(row: object) -> tuple[str, str]:
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, Mapping):
        raise RowError("is no object with named columns")
    columns = next((names for names in LAYOUTS if set(names) <= row.keys()), None)
    if columns is None:
        raise RowError(f"its columns are {', '.join(sorted(map(str, row))) or 'none'}")
    asked, said = columns
    turns = messages_in(row[asked], asked)
    if not isinstance(row[said], str):
        raise RowError(f"{said} is {type(row[said]).__name__}, expected text")
    return to_prompt(turns) if turns else whole_text(row[asked], asked), whole_text(row[said], said)


@job_kind(GIVEN_ANSWERS, version=1, keeps="result", common=True)
def match_answers(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> JsonObject:
    """Write `answers.jsonl`: the answer to every test prompt; the `remarks` of the result tell of those left out.

    Raises `UsageError` where one is missing: means over other prompts do not compare.
    """
    path = located(job.params["sha256"], "the file of --answers")
    if file_digest(path) != job.params["sha256"]:
        raise UsageError(f"{path} has changed since the run was planned: type the command again")
    answers = read_given(path)
    rows = [row for row in read_jsonl(inputs["prompts"].path / "prompts.jsonl") if row["split"] == "test"]
    rows = rows[: job.params["n_prompts"]]
    missing = [row["prompt"] for row in rows if same_text(row["prompt"]) not in answers]
    if missing:
        raise UsageError(
            f"{path}: {len(missing)} of the {len(rows)} test prompts have no answer, among them {missing[0]!r:.60}: "
            "answer the prompts of this run (a run's answers.parquet has them, `peo-bench outputs` writes them), or "
            "take the task whose prompts these are"
        )
    write_jsonl(
        work.dir / "answers.jsonl",
        ({"prompt_id": row["prompt_id"], "answer": answers[same_text(row["prompt"])]} for row in rows),
    )
    extra = len(answers) - len({same_text(row["prompt"]) for row in rows})
    told = f"{extra} of its {len(answers)} answers are to no test prompt of this run and are left out"
    return {"n": len(rows), "name": path.name, "remarks": [told] if extra else []}


def read_matched(handle: Handle) -> dict[str, str]:
    """Return the answers of such a job's artefact by the prompt's id."""
    return {row["prompt_id"]: row["answer"] for row in read_jsonl(handle.path / "answers.jsonl")}
