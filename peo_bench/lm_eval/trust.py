"""What a task file of somebody else may do on this machine: nothing but read data, unless it is trusted.

lm-eval imports Python files that a YAML file names (`!function`), loads metrics that it does not have from a path or
the hub, and renders templates without a sandbox. Files that need the first two are refused unless trusted; templates
always run in Jinja's sandbox. Tasks of installed packages, ours and lm-eval's, are trusted as the packages are.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from peo_bench.errors import UsageError
from peo_bench.files.digest import file_digest
from peo_bench.process import bounded_templates
from peo_bench.resources import resource_dir
from peo_bench.settings import check_size, yaml_text

PLAIN = {tag for tag in yaml.SafeLoader.yaml_constructors if tag} | {"tag:yaml.org,2002:merge"}
"""The tags of plain YAML values."""
BUILDERS = {"pandas": "opens pickles", "sql": "runs SQL"}
"""What Hugging Face's builders of data sets can do besides reading."""


def require_trust(name: str, trusted: bool) -> None:
    """Raise `UsageError` if the task file `name` runs code of its own and is not trusted."""
    code = task_code(Path(name))
    if code and not trusted:
        raise UsageError(
            f"--capabilities {name}: {code}, code that is not peo-bench's: read it, then repeat with --trust-task-code"
        )


def trust_notes(names: tuple[str, ...]) -> list[str]:
    """Return a remark on every task that runs code of its own, with the digest of its file."""
    found = [(name, task_code(Path(name))) for name in names]
    return [
        f"Capability {name}: {code}, trusted with --trust-task-code (SHA-256 of the file {file_digest(Path(name))})."
        for name, code in found
        if code
    ]


def task_code(path: Path) -> str | None:
    """Say where a task's YAML file, or one it includes, runs code of its own; None if nowhere, or for a task's name."""
    return _code(path.resolve(), set()) if path.suffix in (".yaml", ".yml") else None


def _code(path: Path, seen: set[Path]) -> str | None:
    if path in seen or any(path.is_relative_to(home) for home in _homes()):
        return None
    seen.add(path)
    try:
        root = yaml.compose(yaml_text(path), Loader=yaml.SafeLoader)
        check_size(root)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:200]})") from None
    for key, node in _nodes(root):
        if node.tag not in PLAIN:
            return f"{path.name} runs {node.tag} {node.value if isinstance(node.value, str) else ''}".rstrip()
        if key == "hf_evaluate" and node.value != "false":
            return f"{path.name} loads a metric from the hub (hf_evaluate)"
        if key == "metric" and isinstance(node, yaml.ScalarNode) and node.value not in _metrics():
            return f"{path.name} loads the metric {node.value}, which lm-eval itself does not have"
        if key == "dataset_path" and isinstance(node, yaml.ScalarNode) and node.value in BUILDERS:
            return f"{path.name} {BUILDERS[node.value]} (dataset_path: {node.value})"
        if key == "use_prompt" and isinstance(node, yaml.ScalarNode) and ".yaml" in node.value:
            return f"{path.name} takes its prompt from another file (use_prompt: {node.value})"
        if key == "include":
            texts = [item.value for _, item in _nodes(node) if isinstance(item, yaml.ScalarNode)]
            found = next(filter(None, (_code((path.parent / text).resolve(), seen) for text in texts)), None)
            if found:
                return found
    return None


def _nodes(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every node of a YAML document with the key that it stands under."""
    if node is None:
        return
    yield key, node
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from _nodes(name)
            yield from _nodes(value, str(name.value))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _nodes(value)


@cache
def _metrics() -> frozenset[str]:
    """The metrics that lm-eval computes itself; any other name, a path too, it takes for code to load."""
    import lm_eval.api.metrics  # noqa: F401 - registers them
    from lm_eval.api.registry import METRIC_REGISTRY

    return frozenset(METRIC_REGISTRY)


def _homes() -> list[Path]:
    package = importlib.util.find_spec("lm_eval")
    theirs = [Path(place).resolve() for place in (package.submodule_search_locations or [])] if package else []
    return [resource_dir("tasks").resolve(), *theirs]


MOST_PRODUCT = 10**7
"""Of a product in a task's template, as a number or as the length of a text."""


def _size(value: object) -> float:
    """Return how much a factor makes of another one."""
    return len(value) if isinstance(value, Sized) else abs(value) if isinstance(value, int | float) else 1


@contextmanager
def sandboxed_templates() -> Iterator[None]:
    """Let lm-eval render templates in Jinja's sandbox inside, and end those that would not end."""
    from jinja2 import Template, TemplateRuntimeError
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    class Bounded(Template):
        """Ends where one text takes too many lines."""

        def render(self, *args: Any, **kwargs: Any) -> str:
            with bounded_templates():
                return super().render(*args, **kwargs)

    class Closed(ImmutableSandboxedEnvironment):
        """Refuses the operators of which one alone can take for ever, or all memory."""

        template_class = Bounded
        intercepted_binops = frozenset({"**", "*"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or max(_size(left), 1) * max(_size(right), 1) > MOST_PRODUCT:
                raise TemplateRuntimeError(f"{operator} gives too much")
            return super().call_binop(context, operator, left, right)

    open_ = utils.env
    closed = Closed(loader=open_.loader, undefined=open_.undefined, keep_trailing_newline=open_.keep_trailing_newline)
    closed.filters.update(open_.filters)
    utils.env = closed
    try:
        yield
    finally:
        utils.env = open_
