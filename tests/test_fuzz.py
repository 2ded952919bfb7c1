"""Every reader of what others may have written, on hostile files; a fixed few of them, benchmarks/fuzz.py does many."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from random import Random

import pytest
from fuzz_targets import TARGETS
from fuzzing import attempt, damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By target, the folder that is whole; read once, without damage."""
    made = {}
    for name, target in TARGETS.items():
        made[name] = tmp_path_factory.mktemp("whole") / "whole"
        made[name].mkdir()
        target.write(made[name])
    return made


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_damage_is_one_line_or_nothing(
    wholes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, name: str, rng: Random
) -> None:
    logging.disable(logging.CRITICAL)
    copy = tmp_path_factory.mktemp("fuzz") / "copy"
    try:
        damaged(TARGETS[name], wholes[name], copy, rng)
        assert attempt(TARGETS[name], copy, rng) in ("read", "refused")
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(copy.parent)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", range(6))
def test_what_is_whole_is_read(wholes: dict[str, Path], tmp_path: Path, name: str, seed: int) -> None:
    """Otherwise the fuzzed readers could refuse everything. Seeds: a reader may choose what it does."""
    shutil.copytree(wholes[name], tmp_path / "copy")
    assert attempt(TARGETS[name], tmp_path / "copy", Random(seed)) == "read"
