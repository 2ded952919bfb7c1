"""Notes on a run from what its jobs found."""

import pytest

from peo_bench.jobs.job import Cost, Handle
from peo_bench.runs.job_notes import job_notes


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


def test_remarks_on_checkpoints_are_passed_on_once():
    base = handle("checkpoint-1", name="owner/base", warnings=["a"], remarks=["b"])
    assert job_notes([base, base, handle("pairs-2")]) == ["owner/base: a.", "owner/base: b."]
