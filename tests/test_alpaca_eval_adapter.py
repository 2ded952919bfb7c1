"""The adapter around alpaca_eval: its numbers, and what it must leave alone."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from peo_bench.judges import alpaca_eval
from peo_bench.winrates.winrate import win_rate

KEYS = ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.floats(1, 2), st.sampled_from([0, 1, 1.5, 2, None])), min_size=1, max_size=30))
def test_win_rate_agrees_with_get_winrate(preferences):
    assume(set(preferences) != {None})  # where upstream's function breaks with pandas 3
    found = win_rate([np.nan if p is None else p for p in preferences])
    upstream = alpaca_eval.winrate([{"preference": p} for p in preferences])
    assert [getattr(found, key) for key in KEYS] == pytest.approx([upstream[k] for k in KEYS], nan_ok=True, abs=1e-9)


CHILD = """
import json, logging, os, sys
assert "alpaca_eval" not in sys.modules
root = logging.getLogger()
root.setLevel({level})
handlers = [logging.NullHandler() for _ in range({handlers})]
root.handlers[:] = handlers
if {hide}:
    import importlib.util
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "pkg_resources" else real(name, *rest)
from peo_bench.judges import alpaca_eval
before = dict(os.environ)
assert "sklearn" not in sys.modules and "alpaca_eval" not in sys.modules
rate = alpaca_eval.winrate([{{"preference": p}} for p in (1, 2, None, 9)])
upstream = alpaca_eval.package()
assert upstream.utils.check_pkg_atleast_version("pandas", "1.0")
assert upstream.utils.get_package_version("alpaca_eval").startswith("0.6")
assert (sys.modules["pkg_resources"].__spec__ is None) == {hide}
print(json.dumps([rate["win_rate"], root.level, root.handlers == handlers, dict(os.environ) == before]))
"""


@pytest.mark.parametrize(("level", "handlers", "hide"), [(30, 0, False), (10, 2, True)])
def test_global_state_stays_as_it_was(level, handlers, hide):
    """Importing upstream sets the root logger to INFO; without pkg_resources (setuptools 82) it cannot be imported."""
    code = CHILD.format(level=level, handlers=handlers, hide=hide)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"[50.0, {level}, true, true]", done.stderr


def test_the_command_line_does_not_import_it():
    code = (
        "import sys; from peo_bench.cli import winrate; import peo_bench.winrates.summary; print(sorted(sys.modules))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "'peo_bench.winrates.summary'" in done.stdout
    for heavy in ("alpaca_eval", "sklearn", "torch", "openai"):
        assert f"'{heavy}'" not in done.stdout


def test_names_are_those_of_the_installed_package():
    names = alpaca_eval.annotator_names()
    assert "weighted_alpaca_eval_gpt4_turbo" in names
    assert "longest" not in names  # documented upstream, not in its wheel
    assert logging.getLogger("alpaca_eval").level == logging.NOTSET
