"""Labelled pairs that methods see, by objective, counted by hand on files of known size."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_fixtures import handle

from peo_bench.jobs.job import Handle, Job, closure
from peo_bench.runs.label_budget import labels_seen

SIZES = {"helpful-policy": 10, "harmless-policy": 8, "helpful-scorer": 5, "harmless-scorer": 4}
BASE = Job("sft")
PAIRS = Job("sandbox-pairs", {"seed": 0, "policy": 10, "scorer": 5}, {"reference": BASE})
MIXED = Job("mixed-pairs", {"objectives": ["helpful", "harmless"]}, {"pairs:helpful": PAIRS, "pairs:harmless": PAIRS})


def training(kind: str = "aspect", pairs: Job = PAIRS, needs: dict[str, Job] | None = None, **params: object) -> Job:
    return Job(kind, {"objective": "helpful", "seed": 0} | params, {"reference": BASE, "pairs": pairs} | (needs or {}))


HELPFUL, HARMLESS = training(), training(objective="harmless")
PROXY = training("reward-model", direction="reward")
BOTH = {"helpful": 10, "harmless": 8}


@pytest.fixture
def handles(tmp_path: Path) -> dict[str, Handle]:
    for name, count in SIZES.items():
        (tmp_path / f"{name}.jsonl").write_text("{}\n" * count)
    return {PAIRS.id: handle(tmp_path, {})}


@pytest.mark.parametrize(
    ("jobs", "seen"),
    [
        ([HELPFUL], {"helpful": 10}),
        ([HELPFUL, HARMLESS], BOTH),
        ([HELPFUL, training(swapped=True)], {"helpful": 10}),
        ([training(epochs=0.25)], {"helpful": 3}),
        ([training(epochs=0.25, needs={"log-probs": training("log-probs")})], {"helpful": 3}),
        ([training(epochs=0.25), training(epochs=3.0)], {"helpful": 10}),
        ([PROXY], {"helpful": 5}),
        ([HELPFUL, PROXY], {"helpful": 15}),
        ([training("modpo", weight=0.5, margin_beta=0.1, needs={"margin": HARMLESS})], BOTH),
        ([training("gradients", objectives=["helpful", "harmless"], combiner="mgda", weights=[0.5, 0.5])], BOTH),
        ([training(pairs=MIXED, objective="mixture")], BOTH),
        ([BASE, PAIRS], {}),
    ],
    ids=[
        *(
            "one expert",
            "two",
            "swapped labels are the same pairs",
            "a quarter",
            "log-probabilities read no label",
            "the most of both",
            "a proxy's own",
        ),
        *("policies' and scorers'", "the margin's too", "both labels of a pair", "the mixture", "nothing"),
    ],
)
def test_every_labelled_pair_counts_once(handles: dict[str, Handle], jobs: list[Job], seen: dict[str, int]) -> None:
    """10 and 8 pairs for policies, 5 and 4 for scorers; a quarter of 10 is 3 rounded up."""
    assert labels_seen(closure(jobs), handles) == seen
