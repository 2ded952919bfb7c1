"""Notes on a run from what its jobs found."""

import pytest
from training_fixtures import save_pairs, save_policy

from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.runs.job_notes import foreseen_notes, job_notes


def handle(job_id, **result):
    return Handle(job_id, None, result, Cost(), 0.0)


def lengths(whole, cut, dropped, limit=64):
    return {"whole": whole, "cut": cut, "dropped": dropped, "limit": limit}


@pytest.mark.parametrize(
    ("job_id", "found", "note"),
    [
        ("aspect-0a", lengths(48, 0, 0), None),
        (
            "aspect-0a",
            lengths(95, 4, 1),
            "aspect helpful: of 100 rows, 4 lost the end of an answer and 1 were left out, being longer than 64 "
            "tokens.",
        ),
        (
            "aspect-0a",
            lengths(23, 22, 3),
            "aspect helpful: of 48 rows, 22 lost the end of an answer and 3 were left out, being longer than 64 "
            "tokens: 52% is too many, raise it with --set training.max_length=...",
        ),
        (
            "reward-model-0b",
            lengths(7, 0, 15),
            "reward-model helpful: of 22 rows, 0 lost the end of an answer and 15 were left out, being longer than 64 "
            "tokens: 68% is too many, raise it with --set reward_model.max_length=...",
        ),
    ],
)
def test_lengths_are_told_and_above_a_twentieth_with_what_to_do(job_id, found, note):
    assert job_notes([handle(job_id, objective="helpful", lengths=found)] * 2) == ([note] if note else [])


def test_malformed_rows_are_counted_and_the_first_is_named():
    dropped = {"helpful": {"malformed": 2, "duplicate": 1}, "harmless": {"malformed": 1}}
    pairs = handle("pairs-2", dropped=dropped, malformed=["h.jsonl:7: not JSON", "h.jsonl:9: prompt is int"])
    assert job_notes([pairs]) == ["3 rows of the data are malformed and left out, the first at h.jsonl:7: not JSON."]
    assert job_notes([handle("sandbox-pairs-2", dropped={"policy": 3})]) == []  # other counts under the same name
    assert job_notes([handle("pairs-2", dropped={"helpful": {"duplicate": 1}}, malformed=[])]) == []


def test_a_plan_tells_what_a_training_will_cut(tmp_path):
    done = {"checkpoint": save_policy(tmp_path / "base"), "pairs": save_pairs(tmp_path / "pairs")}
    needs = {"reference": Job("checkpoint", {}), "pairs": Job("pairs", {})}
    ids = {job.id: done[job.kind] for job in needs.values()}
    long, short = (Job("aspect", {"objective": "helpful", "max_length": n}, needs) for n in (512, 14))
    assert foreseen_notes(long, ids) == []
    (note,) = foreseen_notes(short, ids)
    assert note.startswith("aspect helpful: of 48 rows, ")
    assert note.endswith("% is too many, raise it with --set training.max_length=...")
    assert foreseen_notes(short, {}) == foreseen_notes(needs["pairs"], ids) == []


def test_remarks_on_checkpoints_are_passed_on_once():
    base = handle("checkpoint-1", name="owner/base", warnings=["a"], remarks=["b"])
    assert job_notes([base, base, handle("pairs-2")]) == ["owner/base: a.", "owner/base: b."]
