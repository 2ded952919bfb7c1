"""Settings of every test process, and the command line in-process."""

import os
import sys

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # busy threads on shared cores cost an order of magnitude
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models of the tests are too small to share a forward

settings.register_profile("peo-bench", deadline=None)  # a slow machine is no failure
settings.load_profile("peo-bench")


TOLD = ("PEO_BENCH_DATA_DIR", "PEO_BENCH_OFFLINE", "PEO_BENCH_SUITES_ENGINE")
"""Where a command tells its workers what it was told."""


@pytest.fixture(autouse=True)
def nothing_beside(monkeypatch):
    """Let no command that runs in this process tell the next test where data is, and where to compute."""
    monkeypatch.setenv("PEO_BENCH_BESIDE", "")
    for name in TOLD:
        os.environ.pop(name, None)
    yield
    for name in TOLD:
        os.environ.pop(name, None)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory):
    """Make the tiny base policy, adapters and full fine-tunes of `tests.models`; return their handles by name."""
    from tests import models

    return models.standard(tmp_path_factory.mktemp("artefacts"))


@pytest.fixture
def engine(artefacts):
    """Return a fresh engine over them."""
    from peo_bench.engine.engine import Engine

    return Engine(artefacts.__getitem__, device="cpu", batch_size=64)


@pytest.fixture
def peo_bench(monkeypatch, capsys, tmp_path):
    """Run the command in-process; return (exit code, stdout, stderr)."""
    from peo_bench import cli

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["peo-bench", *args])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out = capsys.readouterr()
        return int(stopped.value.code or 0), out.out, out.err

    return run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A folder with the finished run `out` of `--methods peo,modpo,mod` and its `cache`; add to it, change nothing."""
    from tiny_run import TINY, peo_bench

    where = tmp_path_factory.mktemp("run")
    done = peo_bench(where, "run", "--methods", "peo,modpo,mod", "--out", "out", *TINY)
    assert "hypervolume" in done.stdout
    assert "out/report.html" in done.stdout
    return where


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One headless Chromium for all tests."""
    from browser import Browser

    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()
