"""Task files of others run no code unless they are trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_odd_surroundings import BOMB

from peo_bench.errors import UsageError
from peo_bench.lm_eval.trust import sandboxed_templates, task_code, trust_notes
from peo_bench.resources import resource_dir

PLAIN = "task: t\ndataset_path: json\ndoc_to_text: '{{question}}'\nmetric_list: [{metric: acc, hf_evaluate: false}]\n"


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder with code that leaves a proof when it is imported, and task files that lead to it."""
    (tmp_path / "views.py").write_text(
        f"open({str(tmp_path / 'proof')!r}, 'w')\ndef views(doc, results): return {{}}\n"
    )
    files = {
        "plain": PLAIN,
        "function": PLAIN + "process_results: !function views.views\n",
        "deep": PLAIN + "a: {b: [1, {c: !function views.views}]}\n",
        "included": "include: function.yaml\n" + PLAIN,
        "prompted": "use_prompt: '/tmp/prompts.yaml:mine'\n" + PLAIN,
        "circle": "include: [circle.yaml, included.yaml]\n" + PLAIN,
        "metric": PLAIN.replace("false", "true"),
        "path": PLAIN.replace("acc, hf_evaluate: false", str(tmp_path / "views")),
        "object": PLAIN + "x: !!python/object/apply:os.system [true]\n",
        "pickle": PLAIN.replace("json", "pandas"),
        "sql": "x: &x sql\n" + PLAIN.replace("json", "*x"),
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("plain", None),
        ("function", "function.yaml runs !function views.views"),
        ("deep", "deep.yaml runs !function views.views"),
        ("included", "function.yaml runs !function views.views"),
        ("prompted", "prompted.yaml takes its prompt from another file (use_prompt: /tmp/prompts.yaml:mine)"),
        ("circle", "function.yaml runs !function views.views"),
        ("metric", "metric.yaml loads a metric from the hub (hf_evaluate)"),
        ("object", "object.yaml runs tag:yaml.org,2002:python/object/apply:os.system"),
        ("pickle", "pickle.yaml opens pickles (dataset_path: pandas)"),
        ("sql", "sql.yaml runs SQL (dataset_path: sql)"),
    ],
)
def test_code_in_a_task_file_is_found(evil: Path, name: str, code: str | None) -> None:
    assert task_code(evil / f"{name}.yaml") == code
    assert not (evil / "proof").exists()


@pytest.mark.parametrize("beside", [False, True])
def test_what_is_no_file_is_not_opened(peo_bench, evil: Path, beside: bool) -> None:
    """A pipe that is included, or lies beside a task: opening it would wait for ever."""
    os.mkfifo(evil / "pipe.yaml")
    (evil / "piped.yaml").write_text(PLAIN if beside else "include: pipe.yaml\n" + PLAIN)
    code, _, err = peo_bench("plan", "--methods", "soup", "--capabilities", "piped.yaml")
    assert (code, err.count("\n")) == ((0, 0) if beside else (2, 1))
    assert beside or "pipe.yaml: is no file" in err


@pytest.mark.parametrize("text", ["x: " + "[" * 5000, "x: " + BOMB, "a: &a [*a]"], ids=["nested", "many", "circle"])
def test_a_nested_or_multiplied_task_file_is_one_line(peo_bench, evil: Path, text: str) -> None:
    (evil / "much.yaml").write_text(f"{PLAIN}{text}\n")
    code, _, err = peo_bench("plan", "--methods", "soup", "--capabilities", "much.yaml")
    assert (code, err.count("\n")) == (2, 1)
    assert "much.yaml: malformed YAML" in err
    (evil / "includes.yaml").write_text(f"include: much.yaml\n{PLAIN}")
    with pytest.raises(UsageError, match=r"much\.yaml: cannot be read as YAML"):
        task_code(evil / "includes.yaml")


def test_a_metric_that_lm_eval_does_not_have_is_code(evil: Path) -> None:
    """lm-eval takes the path of a Python file, or a name on the hub, for a metric to load."""
    assert str(task_code(evil / "path.yaml")).startswith(f"path.yaml loads the metric {evil / 'views'}, which")


def test_installed_tasks_are_trusted_as_their_package_is() -> None:
    ours = list(resource_dir("tasks").rglob("*.yaml"))
    assert any("!function" in path.read_text() for path in ours)
    assert {task_code(path) for path in ours} == {None}
    assert task_code(Path("arc_easy")) is None


def test_code_is_refused_in_one_line_unless_trusted(peo_bench, evil: Path) -> None:
    """`plan` resolves the same configuration as `run` and executes nothing."""
    asked = ("plan", "--methods", "soup", "--capabilities", "function.yaml")
    code, out, err = peo_bench(*asked)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "function.yaml runs !function views.views" in err
    assert "--trust-task-code" in err
    assert peo_bench(*asked, "--trust-task-code")[0] == 0
    (note,) = trust_notes(("function.yaml", "plain.yaml", "arc_easy"))
    assert "SHA-256" in note
    assert not (evil / "proof").exists()


def test_lines_of_a_template_are_counted_for_one_text(monkeypatch) -> None:
    """A task with many documents runs many lines in all; the sandbox is around its whole evaluation."""
    from jinja2.exceptions import TemplateRuntimeError
    from lm_eval import utils

    monkeypatch.setattr("peo_bench.process.MOST_LINES", 50)
    with sandboxed_templates():
        assert {utils.apply_template("{{ question }}", {"question": str(i)}) for i in range(200)} >= {"0", "199"}
        with pytest.raises(TemplateRuntimeError, match="lines"):
            utils.apply_template("{% for i in range(99) %}{{ i }}{% endfor %}", {})


def test_templates_run_in_a_sandbox() -> None:
    """lm-eval's own environment gives a template every attribute of every object."""
    from jinja2.exceptions import SecurityError, TemplateRuntimeError
    from lm_eval import utils

    attack = "{{ question.__class__.__mro__[1].__subclasses__() | length }}"
    assert int(utils.apply_template(attack, {"question": "why"})) > 0
    with sandboxed_templates():
        assert utils.apply_template("{{question | regex_replace('w', 'W')}}?", {"question": "why"}) == "Why?"
        with pytest.raises(SecurityError):
            utils.apply_template(attack, {"question": "why"})
        with pytest.raises(TemplateRuntimeError, match="it runs more than 1,000,000 lines"):
            utils.apply_template("{% for i in range(59049) %}{% for j in range(59049) %}{% endfor %}{% endfor %}", {})
        for much in ("{{ 9 ** (9 ** 9) }}", "{{ 'x' * 10000000000 }}", "{{ (9999999 * 9999999) * 'x' }}"):
            with pytest.raises(TemplateRuntimeError, match="gives too much"):
                utils.apply_template(much, {})
        assert utils.apply_template("{{ 3 * 4 }}{{ 2.5 * 2 }}{{ 'ab' * 3 }}", {}) == "125.0ababab"
    assert int(utils.apply_template(attack, {"question": "why"})) > 0
