"""What a run is asked to do, resolved to the last default; saved as `config.yaml`."""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from peo_bench.data.fetched import look_offline
from peo_bench.data.given_answers import remember_answers
from peo_bench.data.sources import DATA_DIR, look_beside
from peo_bench.errors import UsageError
from peo_bench.files.digest import digest
from peo_bench.judges.judge import make_judges
from peo_bench.lm_eval.capabilities import capability_identity
from peo_bench.lm_eval.trust import require_trust
from peo_bench.methods import METHODS, make_method
from peo_bench.process import DeviceKind, compute_on, device, settled
from peo_bench.registry import check_name
from peo_bench.resources import cache_dir
from peo_bench.runs.request import RunRequest
from peo_bench.sandbox.reference import record
from peo_bench.scorers.settings import ScorerConfig
from peo_bench.settings import Frozen, parse_yaml
from peo_bench.suites.suite import SuiteConfig, load_suite, suite_folder, with_settings
from peo_bench.training.settings import settled_of

WRAPPED = ("best-of-n", "rps.soup")
"""The wrappers among `--methods all`, on what costs no training; ExPO is there as a control."""


class RunConfig(Frozen):
    """A run. `preferences` are helpful weights; the harmless weight is what is left to 1.

    `policies` are finished checkpoints by name, `answers` the SHA-256 of files with a finished policy's answers,
    `shipped_reference` that of the sandbox's reference policy where it may come with the package.
    `substitute` says what stands in for the suite's checkpoints and data, which `suite` has already.
    """

    schema_version: Literal[1] = 1
    suite: SuiteConfig
    methods: tuple[str, ...]
    settings: dict[str, dict[str, Any]] = {}
    seeds: tuple[int, ...] = (0,)
    preferences: tuple[float, ...]
    limit: int | None = None
    max_kl: float | None = None
    experts: dict[str, str] = {}
    policies: dict[str, str] = {}
    answers: dict[str, str] = Field({}, exclude_if=lambda value: not value)
    capabilities: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    strict_repro: bool = False
    shipped_reference: str | None = Field(None, exclude_if=lambda value: value is None)
    substitute: Literal["tiny"] | None = Field(None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _compares_something(self) -> RunConfig:
        if not (self.methods or self.policies or self.answers):
            raise ValueError("nothing is compared: give methods, policies or answers")
        return self

    @property
    def controls(self) -> tuple[str, ...]:
        """Free comparisons that are always shown: the soup, ExPO on the generalist, ExPO on every other method."""
        wrapped = [f"expo.{name}" for name in self.methods if "." not in name and METHODS.get(name).expo_adds]
        experts = ("soup", "peo-expo") if self.suite.has_pairs or self.experts else ()
        free = (*experts, *wrapped) if self.methods else ()
        return tuple(name for name in free if name not in self.methods)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of finished policies that compete as they are."""
        return (*self.policies, *self.answers)

    @property
    def competing(self) -> tuple[str, ...]:
        """All that is compared: methods, controls and given policies."""
        return (*self.methods, *self.controls, *self.given)

    @property
    def stand_in(self) -> str | None:
        """The given answers that stand in for the reference policy, where a run has none."""
        return next(iter(self.answers)) if self.only_answers else None

    @property
    def judged(self) -> tuple[str, ...]:
        """What judges compare, with the reference policy and with each other."""
        return tuple(name for name in (*self.methods, *self.given) if name != self.stand_in)

    @property
    def only_answers(self) -> bool:
        """Whether nothing is compared but given answers: then there is no reference policy."""
        return not self.methods and not self.policies

    @property
    def name(self) -> str:
        """The default name of the run folder, derived from everything above."""
        short = "-".join([self.suite.name, *(self.methods or self.given)])[:47].rstrip("-.")
        return f"{short}-{digest(self.model_dump(mode='json'))[:8]}"

    def to_yaml(self) -> str:
        """Return the text of `config.yaml`."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


MOST_POINTS = 1001
"""Of a grid of preferences: a policy, its answers and its scores each."""


def parse_preferences(text: str) -> tuple[float, ...]:
    """Return helpful weights from "5" (an even grid) or "0,0.3,1"; each must lie in [0, 1].

    >>> parse_preferences("3")
    (0.0, 0.5, 1.0)
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        if len(parts) == 1 and parts[0].isdecimal() and int(parts[0]) > 1:
            n = int(parts[0])
            if n > MOST_POINTS:
                raise UsageError(f"--preferences {n}: give at most {MOST_POINTS} points")
            return tuple(round(i / (n - 1), 9) for i in range(n))
        weights = tuple(round(float(part), 9) for part in parts)
    except ValueError:
        raise UsageError(f"--preferences {text!r}: give a number of points (5) or helpful weights (0,0.5,1)") from None
    outside = [weight for weight in weights if not 0 <= weight <= 1]
    if outside:
        raise UsageError(f"--preferences {outside[0]:g} is off the simplex: helpful weights lie between 0 and 1")
    return tuple(sorted(set(weights)))


def parse_settings(items: list[str], methods: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Split `--set key=value` items into the suite's settings and the methods'; values are read as YAML."""
    suite: dict[str, Any] = {}
    by_method: dict[str, dict[str, Any]] = {}
    for item in items:
        key, equals, text = item.partition("=")
        owner, _, name = key.rpartition(".")
        if not equals or not (owner or key in SuiteConfig.model_fields):
            raise UsageError(f"--set {item!r}: type METHOD.KEY=VALUE or SECTION.KEY=VALUE, as in --set peo.budget=24")
        try:
            value = parse_yaml(text)
        except yaml.YAMLError:
            raise UsageError(f"--set {item!r}: the value is not YAML") from None
        if key.split(".")[0] in SuiteConfig.model_fields:
            suite[key] = value
        elif owner.split(".")[0] in METHODS.names():
            by_method.setdefault(owner, {})[name] = value
        else:
            sections = ("training", "reward_model", "sft", "decoding", "judge", "data")
            raise UsageError(f"--set {item!r}: {owner!r} is neither a method nor one of {', '.join(sections)}")
    wrapped = {name.split(".", i)[-1] for name in methods for i in range(name.count(".") + 1)}
    unused = set(by_method) - wrapped
    if unused:
        known = ", ".join(methods) or "none"
        raise UsageError(f"--set {sorted(unused)[0]}: this method is not in the run; its methods: {known}")
    return suite, by_method


def parse_pairs(option: str, items: list[str]) -> dict[str, str]:
    """Return {NAME: PATH} from `NAME=PATH` items."""
    pairs = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not path:
            raise UsageError(f"{option} {item!r}: type {option} NAME=PATH")
        if name in pairs:
            raise UsageError(f"{option} {name}=...: this name is given twice: choose another")
        pairs[check_name(option, name)] = path
    return pairs


def all_methods(suite: SuiteConfig) -> tuple[str, ...]:
    """Return every registered method that the suite's data can serve, and `WRAPPED` of the wrappers."""
    known = {name: METHODS.get(name) for name in METHODS.names()}
    plain = (
        name
        for name, method in known.items()
        if not method.wraps
        and (suite.labels_on_both or not method.needs_labels_on_both)
        and (suite.has_pairs or not method.needs_pairs)
    )
    return (*plain, *(WRAPPED if suite.has_pairs else ()))


def resolve_config(request: RunRequest, planned: DeviceKind | None = None) -> RunConfig:
    """Turn the command line into a checked configuration; every problem is a one-line `UsageError`.

    With a device that is `planned` for, what `auto` stands for and what can be done are that device's.
    """
    try:
        return _resolved(request, planned)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UsageError(f"{error.filename}: is too long for the name of a file: give a name or a path") from None


def _resolved(request: RunRequest, planned: DeviceKind | None) -> RunConfig:
    if request.data_dir is not None:
        if not request.data_dir.is_dir():
            raise UsageError(
                f"--data-dir {request.data_dir}: no such folder: give the folder that holds the suite's data files"
            )
        os.environ[DATA_DIR] = str(request.data_dir.resolve())
    look_offline(request.offline)
    names = _names(request.methods)
    if not names:
        raise UsageError("--methods is empty: type for instance --methods peo,modpo")
    policies, files = parse_pairs("--policy", request.policy), parse_pairs("--answers", request.answers)
    if names == ("none",):
        names = _nothing_trained(request, policies, files)
    config = load_suite(request.suite)
    look_beside(suite_folder(request.suite))
    if names == ("all",):
        names = all_methods(config)
    experts = parse_pairs("--expert", request.expert)
    asked = RunConfig(
        suite=config, methods=names, policies=policies, answers=files, preferences=(0.5,), experts=experts
    )
    every = (*names, *asked.controls)
    suite_settings, by_method = parse_settings(request.set, every)
    if request.model is not None:
        suite_settings["model"] = request.model
    for name in names:
        make_method(name, by_method)
    for option, taken in (("--policy", every), ("--answers", (*every, *policies))):
        for name in policies if option == "--policy" else files:
            if name in (*taken, "reference", "oracle"):
                what = "another policy" if name in policies and option == "--answers" else "a method"
                raise UsageError(f"{option} {name}=...: this name belongs to {what} of the run: choose another")
    capabilities = _names(request.capabilities)
    for name in capabilities:
        capability_identity(name)
        require_trust(name, request.trust_task_code)
    if request.limit is not None and request.limit < 2:
        raise UsageError(f"--limit {request.limit}: give a number of at least 2")
    if request.max_kl is not None and not 0 < request.max_kl < float("inf"):
        raise UsageError(f"--max-kl {request.max_kl:g}: give nats above 0, as in 1.5")
    suite = on_this_machine(_substituted(with_settings(config, suite_settings), request.substitute), planned)
    make_judges(request.judge, suite.judge)
    return RunConfig(
        suite=suite,
        methods=names,
        settings=by_method,
        seeds=request.training_seeds,
        preferences=parse_preferences(str(suite.preferences) if request.preferences is None else request.preferences),
        limit=request.limit,
        max_kl=request.max_kl,
        experts=experts,
        policies=policies,
        answers={name: remember_answers(Path(path)) for name, path in files.items()},
        capabilities=capabilities,
        judges=tuple(request.judge),
        strict_repro=request.strict_repro,
        shipped_reference=None if request.from_scratch or suite.model != "sandbox" else record()["sha256"],
        substitute=request.substitute,
    )


def on_this_machine(suite: SuiteConfig, planned: DeviceKind | None = None) -> SuiteConfig:
    """Return the suite with what `auto` stands for, and let jobs compute where it says; here or as `planned`.

    Raises `UsageError` for what this machine cannot do.
    """
    compute_on(suite.engine.model_dump())
    if planned is None:
        _check_hardware(suite)
    task, training, reward_model = suite.task_definition, suite.training, suite.reward_model
    scorers = {**suite.scorers, **suite.proxies, **(task.scorers if task else {})}.values()
    asked = [value for part in (training, reward_model) for value in (part.precision, part.gradient_checkpointing)]
    if "auto" not in (suite.precision, *asked, *(s.dtype for s in scorers)):
        return suite
    return suite.model_copy(
        update={
            "precision": settled(suite.precision, planned),
            "training": training.model_copy(update=settled_of(training, planned)),
            "reward_model": reward_model.model_copy(update=settled_of(reward_model, planned)),
            "scorers": _with_dtype(suite.scorers, planned),
            "proxies": _with_dtype(suite.proxies, planned),
            "task_definition": task and task.model_copy(update={"scorers": _with_dtype(task.scorers, planned)}),
        }
    )


def _with_dtype(scorers: Mapping[str, ScorerConfig], planned: DeviceKind | None) -> dict[str, ScorerConfig]:
    return {name: s.model_copy(update={"dtype": settled(s.dtype, planned)}) for name, s in scorers.items()}


def _check_hardware(suite: SuiteConfig) -> None:
    """Raise `UsageError` for settings that need a CUDA device, or a package, that is not there."""
    flash = "flash_attention_2"
    asked = [
        (suite.engine.device == "cuda", "engine.device=cuda", ""),
        (suite.training.quantization, f"training.quantization={suite.training.quantization}", "bitsandbytes"),
        (suite.training.attention == flash, f"training.attention={flash}", "flash-attn"),
        (suite.reward_model.attention == flash, f"reward_model.attention={flash}", "flash-attn"),
    ]
    for setting, package in [(setting, package) for wanted, setting, package in asked if wanted]:
        import torch

        if not (torch.cuda.is_available() and device().startswith("cuda")):
            raise UsageError(f"{setting} needs a CUDA device, and none is used here: leave it out, or run where one is")
        if package and importlib.util.find_spec(package.replace("-", "_")) is None:
            raise UsageError(f"{setting} needs the package {package}: type `pip install {package}`, or leave it out")


def _substituted(suite: SuiteConfig, what: str | None) -> SuiteConfig:
    """Return the suite, with stand-ins where they are asked for."""
    if what is None:
        return suite
    if what != "tiny":
        raise UsageError(f"--substitute {what}: type tiny, or leave it out")
    from peo_bench.suites.substitutes import substituted

    return substituted(suite, cache_dir() / "substitutes")


def _nothing_trained(request: RunRequest, policies: Mapping[str, str], answers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the methods of `--methods none`: no one; raise `UsageError` where that leaves nothing to compare."""
    if not policies and len(answers) < 2:
        raise UsageError(
            "--methods none: nothing is left to compare: give --policy NAME=PATH, or --answers NAME=FILE twice"
        )
    if not policies and len(request.training_seeds) > 1:
        raise UsageError(f"--seeds {request.seeds}: nothing is trained or sampled with --answers alone: leave it out")
    if request.expert:
        raise UsageError(f"--expert {request.expert[0]}: no method of --methods none uses it: leave it out")
    return ()


def _names(text: str) -> tuple[str, ...]:
    """Return the comma-separated names in `text`, each once."""
    return tuple(dict.fromkeys(name.strip(" ") for name in text.split(",") if name.strip(" ")))
