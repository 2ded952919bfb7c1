"""The one place that imports the package alpaca_eval (0.6.6): repaired on the way in, kept off global state.

Importing it needs `pkg_resources` (gone from setuptools 82), raises the root logger to INFO and reads a `.env` file
found above site-packages into the environment; its calls add handlers to the root logger. Here the first is provided
where absent and the others are undone. What else is broken upstream, and what we therefore compute ourselves:
docs/winrate.md.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from peo_bench.errors import UsageError, unknown
from peo_bench.files.json_types import JsonObject
from peo_bench.process import environment

NO_DOTENV = "PYTHON_DOTENV_DISABLED"


def package() -> ModuleType:
    """Return the module alpaca_eval, imported on first use."""
    with _quiet():
        if importlib.util.find_spec("pkg_resources") is None:
            sys.modules["pkg_resources"] = _pkg_resources()
        import alpaca_eval  # type: ignore[import-untyped]

        return alpaca_eval  # type: ignore[no-any-return]


def winrate(annotations: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Return what `alpaca_eval.metrics.get_winrate` says of annotations."""
    upstream = package()
    with _quiet():
        return {key: float(value) for key, value in upstream.metrics.get_winrate(list(annotations)).items()}


def annotator_names() -> list[str]:
    """Return the annotator configurations that the installed package brings (not all that its documentation lists)."""
    folder = Path(package().constants.EVALUATORS_CONFIG_DIR)
    return sorted(path.parent.name for path in folder.glob("*/configs.yaml"))


def annotate(
    outputs: Sequence[Mapping[str, object]], reference: Sequence[Mapping[str, object]], annotator: str
) -> list[JsonObject]:
    """Return upstream's annotations of `outputs` against `reference` (its model outputs) by a named configuration.

    `annotator` is one of `annotator_names()` or a folder with a configs.yaml. Upstream asks the API its configuration
    names, with keys and addresses from the environment as it was at the import (OPENAI_API_KEY, OPENAI_BASE_URL), and
    shows each pair in one random order. Its cache, which would write into site-packages, is off, so a failure loses
    what was paid. A row for every instruction that both have; `preference` is NaN where a reply could not be parsed.
    Raises `UsageError` for an unknown name and for what the API refuses.
    """
    import openai

    if not (Path(annotator) / "configs.yaml").is_file() and annotator not in annotator_names():
        raise unknown("annotator", annotator, annotator_names())
    shared = {row["instruction"] for row in outputs} & {row["instruction"] for row in reference}
    if not shared:
        raise UsageError("no instruction is in both files: give a reference file with answers to the same instructions")
    upstream = package()
    with _quiet():
        judge = upstream.annotators.PairwiseAnnotator(annotators_config=annotator, caching_path=None)
        try:
            rows: list[JsonObject] = judge.annotate_head2head(outputs_1=list(reference), outputs_2=list(outputs))
        except openai.OpenAIError as error:
            raise UsageError(f"alpaca_eval's {annotator}: {' '.join(str(error).split())}") from None
    return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Undo what is done to the root logger, the environment's dotenv switch and warnings inside."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    if not handlers:
        root.addHandler(logging.NullHandler())  # or logging.info() would install one that prints
    try:
        with warnings.catch_warnings(), environment({NO_DOTENV: "1"}):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def _pkg_resources() -> ModuleType:
    """Return a stand-in with the two functions that alpaca_eval calls."""
    from packaging.version import parse

    module = ModuleType("pkg_resources")
    module.parse_version = parse  # type: ignore[attr-defined]
    module.get_distribution = importlib.metadata.distribution  # type: ignore[attr-defined]
    return module
