"""Whether a run fits on a device, how long it takes and what it costs: `plan --gpu`. Nothing is loaded or done.

Bytes follow from the models' sizes and the suite's settings (`peo_bench.runs.memory`); hours from the plan's bounds and
tokens per second that were given, or measured by finished jobs on this very device. Where neither is there, nothing is
guessed: it says what to give.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from peo_bench.data.fetched import OFFLINE, copy_of
from peo_bench.data.given_checkpoint import checkpoint_wanted, planning
from peo_bench.errors import UsageError
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.jobs.artefact import META
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.models.known import KNOWN, KNOWN_DATA, repository
from peo_bench.models.sizes import Sizes, sizes_at
from peo_bench.process import Precision
from peo_bench.runs.config import RunConfig
from peo_bench.runs.devices import GIB, Gpu, is_here
from peo_bench.runs.memory import (
    FLOAT,
    Answering,
    Memory,
    bytes_of,
    generating_memory,
    likelihood_memory,
    reading_memory,
    scoring_memory,
    training_memory,
)
from peo_bench.runs.repositories import data_sources, scorer_checkpoints
from peo_bench.runs.world import build_world
from peo_bench.scorers.settings import by_column
from peo_bench.suites.suite import PairsData, SuiteConfig, suite_task, with_settings
from peo_bench.training.settings import DPOSettings, RewardModelSettings

ROWS = 64
"""Answers that the engine generates at a time; half as many from the first batch on that does not fit."""
CHARACTERS = 3
"""Of a token, at least, by which the longest prompt's tokens are bounded."""
RATES = ("generate", "train", "read")
"""Tokens per second: generated, in a training step (forward and backward), in a forward pass."""
UNITS = ("pairs_trained", "examples_trained", "tokens_generated")
"""Of a cost, by which time is counted, the first that a stage has."""
ALIKE = {"pairs_trained": ("aspect", "modpo"), "tokens_generated": ("answers", "candidates", "extrapolation")}
"""Kinds of jobs whose seconds per unit serve stages of no kind of their own: all answers, and later rounds."""
ANSWERING = ("answers", "candidates", "extrapolation", "later rounds", "pair-answers")

MERGED = ("averaged-factors",)
"""Kinds of jobs that make weights without training."""
UNBOUNDED = "how many pairs there are is not known: set data.pairs"

Stage = Mapping[str, Any]
"""A stage of `peo_bench.runs.plan.plan_run`."""


@dataclass(frozen=True)
class Need:
    """What a stage needs of the device at its peak, and at the least; and hours, None where they are unknown.

    `by` says which rates gave the hours, `missing` those that were not there.
    """

    stage: str
    memory: Memory
    least: Memory
    hours: float | None
    by: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What `plan` was asked: the device, tokens per second by what is done, USD per hour if not the table's."""

    gpu: Gpu
    rates: Mapping[str, float]
    usd_per_hour: float | None = None

    @property
    def price(self) -> float | None:
        """USD per hour."""
        return self.gpu.usd_per_hour if self.usd_per_hour is None else self.usd_per_hour


@dataclass(frozen=True)
class Resources:
    """What a run needs: by stage, and in all.

    `host` are bytes of main memory, `download` bytes by repository (None: unknown), `kept` bytes of what is trained.
    """

    asked: Asked
    needs: tuple[Need, ...]
    host: float
    download: Mapping[str, float | None]
    kept: float

    @property
    def hours(self) -> float | None:
        """At most; None where a stage's are unknown."""
        hours = [need.hours for need in self.needs]
        return None if None in hours else sum(hour for hour in hours if hour is not None)

    @property
    def usd(self) -> float | None:
        """At most; None where hours or price are unknown."""
        price = self.asked.price
        return None if self.hours is None or price is None else self.hours * price

    @property
    def price_source(self) -> str:
        """Where the price per hour comes from."""
        return self.asked.gpu.source if self.asked.usd_per_hour is None else "given"

    def to_json(self) -> JsonObject:
        """Return it as JSON, whole bytes."""
        stages: list[JsonObject] = [
            {
                "stage": need.stage,
                "memory_bytes": round(need.memory.total),
                "memory": {name: round(n) for name, n in need.memory.parts.items()},
                "least_bytes": round(need.least.total),
                "hours": need.hours,
                "by": need.by,
            }
            for need in self.needs
        ]
        return {
            "gpu": self.asked.gpu.name,
            "usable_bytes": round(self.asked.gpu.usable),
            "stages": [*stages],
            "host_bytes": round(self.host),
            "download_bytes": {name: None if n is None else round(n) for name, n in self.download.items()},
            "kept_bytes": round(self.kept),
            "hours": self.hours,
            "usd_per_hour": self.asked.price,
            "price_source": self.price_source,
            "usd": self.usd,
        }


def parse_rates(text: str | None) -> dict[str, float]:
    """Return tokens per second by what is done, from `4000` (generated) or `generate=4000,train=9000,read=20000`."""
    found = {}
    for part in (part.strip() for part in (text or "").split(",") if part.strip()):
        name, _, number = part.partition("=") if "=" in part else ("generate", "=", part)
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if name not in RATES or not 0 < value < float("inf"):
            raise UsageError(f"--tokens-per-second {part!r}: type a number above 0, or {'=N,'.join(RATES)}=N")
        found[name] = value
    return found


class Fit:
    """The models of a run's suite and what stages make of them."""

    def __init__(self, config: RunConfig, asked: Asked) -> None:
        """Look up the sizes; raises `UsageError` for a model whose configuration cannot be had."""
        self.config, self.suite, self.asked = config, config.suite, asked
        self.policy = _sizes(config.suite.model)
        self.scorers = {s.model: s for s in scorer_checkpoints(config.suite)}
        self.sizes = {model: _sizes(model) for model in self.scorers}
        self.own = _trained_scorers(config.suite)

    def needs(self, stages: Sequence[Stage], cache: Path, reference: str) -> list[Need]:
        """Return what every stage needs; `reference` is the job of the reference policy, by which rates are found."""
        measured = _measured(cache, reference) if is_here(self.asked.gpu) else {}
        return [self._need(stage, measured) for stage in stages if stage["jobs"] != stage["cached"]]

    def _need(self, stage: Stage, measured: Mapping[str, Mapping[str, float]]) -> Need:
        name = str(stage["stage"])
        memory, least = self._memory(name)
        return self._timed(Need(name, memory, least, 0.0), stage["cost"], measured)

    def _memory(self, stage: str, suite: SuiteConfig | None = None) -> tuple[Memory, Memory]:
        """Return a stage's memory, and the least that it can do with."""
        suite, device = suite or self.suite, self.asked.gpu.kind
        if stage == "scorer":
            found = [scoring_memory(self.sizes[model], self._bytes(s.dtype)) for model, s in self.scorers.items()]
            memory = max(found, key=lambda each: each.total, default=Memory())
            return memory, memory
        if stage == "log-probs":
            memory = reading_memory(self.policy, suite.training, device)
            return memory, memory
        if stage == "reward-model":
            memory = training_memory(self.policy, suite.reward_model, device)
            return memory, memory
        if stage.startswith(ANSWERING):
            return self._answering(suite, suite.engine.batch_size or ROWS), self._answering(suite, 1)
        if not _trains(stage):
            return Memory(), Memory()
        memory = training_memory(self.policy, suite.training, device)
        return memory, memory

    def _bytes(self, precision: Precision | Literal["auto"]) -> int:
        return bytes_of(precision, self.asked.gpu.kind)

    def _answering(self, suite: SuiteConfig, rows: int) -> Memory:
        """Return what answering, scoring and measuring KL need with all models on the device."""
        data = suite.data
        prompt = data.max_chars // CHARACTERS if isinstance(data, PairsData) else suite.training.max_length
        rank = 2 * suite.training.lora_rank if suite.training.form == "lora" else 0
        e = self._bytes(suite.precision)
        how = Answering(e, rows, prompt, suite.decoding.max_new_tokens, rank)
        generating = generating_memory(self.policy, how, sources=2 if "mod" in self.config.methods else 1)
        scored = [
            scoring_memory(self.sizes[model], self._bytes(s.dtype), ROWS * (prompt + how.new))
            for model, s in self.scorers.items()
        ]
        scored += [scoring_memory(self.policy, e, ROWS * (prompt + how.new))] * self.own
        weights = sum(memory.parts["weights"] for memory in scored)
        moving = [
            sum(value for key, value in generating.parts.items() if key != "weights"),
            likelihood_memory(self.policy, how, self.asked.gpu.kind).total,
            *(memory.parts["logits and intermediate"] for memory in scored),
        ]
        own = generating.parts["weights"]
        return Memory({"weights": own, "scorers' weights": weights, "keys and values, logits": max(moving)})

    def _timed(self, need: Need, cost: Mapping[str, int], measured: Mapping[str, Mapping[str, float]]) -> Need:
        """Return the need with its hours: by seconds per unit that were measured, else by rates that were given."""
        unit = next((unit for unit in UNITS if cost.get(unit)), None)
        if unit is None and _trains(need.stage) and self.config.limit is None:
            return replace(need, hours=None, by=UNBOUNDED)
        if unit is None:
            return need
        kinds = (need.stage, *ALIKE.get(unit, ()))
        seconds = next((measured[kind][unit] for kind in kinds if unit in measured.get(kind, {})), None)
        if seconds is not None:
            return replace(need, hours=cost[unit] * seconds / 3600, by="measured here")
        tokens = {name: n for name, n in self._tokens(cost).items() if n}
        missing = tuple(name for name in tokens if name not in self.asked.rates)
        if missing:
            return replace(need, hours=None, missing=missing)
        return replace(need, hours=sum(n / self.asked.rates[name] for name, n in tokens.items()) / 3600, by="given")

    def _tokens(self, cost: Mapping[str, int]) -> dict[str, float]:
        """Return the tokens of a stage at most: generated, trained on, read."""
        length, data = self.suite.training.max_length, self.suite.data
        prompt = data.max_chars // CHARACTERS if isinstance(data, PairsData) else length
        answer = prompt + self.suite.decoding.max_new_tokens
        read = (cost.get("scorer_calls", 0) + 2 * cost.get("answers", 0)) * answer
        trained = (2 * cost.get("pairs_trained", 0) + cost.get("examples_trained", 0)) * length
        return {"generate": cost.get("tokens_generated", 0), "train": trained, "read": read}

    def resources(self, stages: Sequence[Stage], needs: Sequence[Need]) -> Resources:
        """Return all of it."""
        return Resources(self.asked, tuple(needs), self.host(), self.download(), self.kept(stages))

    def check(self, needs: Sequence[Need]) -> None:
        """Raise `UsageError` for the first stage that cannot fit, with the numbers and what would make it fit."""
        usable = self.asked.gpu.usable
        for need in (need for need in needs if need.least.total > usable):
            parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in need.least.parts.items())
            raise UsageError(
                f"{need.stage} needs {need.least.total / GIB:.1f} GiB at the least ({parts}), and "
                f"{self.asked.gpu.name} has {usable / GIB:.1f} for it: {self._remedy(need.stage)}"
            )

    def _remedy(self, stage: str) -> str:
        """Return the settings that make a stage fit, the mildest first, each on top of those before it."""
        changed: dict[str, Json] = {}
        for key, value in self._milder(stage):
            try:
                suite = with_settings(self.suite, changed | {key: value})
            except UsageError:  # this learner or batch does not take it
                continue
            changed[key] = value
            _, least = self._memory(stage, suite)
            if least.total <= self.asked.gpu.usable:
                told = " ".join(f"--set {name}={str(to).lower()}" for name, to in changed.items())
                return f"{told} ({least.total / GIB:.1f} GiB)"
        return "no setting of ours makes it fit: take a larger device or smaller models"

    def _milder(self, stage: str) -> Iterator[tuple[str, Json]]:
        """Yield settings that take less, by key."""
        if stage.startswith((*ANSWERING, "scorer")):
            yield "precision", "bfloat16"
            return
        section = "reward_model" if stage == "reward-model" else "training"
        settings: DPOSettings | RewardModelSettings = getattr(self.suite, section)
        if self._bytes(settings.precision) > 2:
            yield f"{section}.precision", "bfloat16"
        yield f"{section}.gradient_checkpointing", True
        micro = min(settings.micro_batch_size, settings.batch_size)
        while micro > 1:
            micro //= 2
            yield f"{section}.micro_batch_size", micro
        if settings.form == "full":
            yield f"{section}.form", "lora"
        if section == "training" and self.asked.gpu.kind == "cuda":
            yield "training.quantization", "4bit"

    def host(self) -> float:
        """Return the bytes of main memory that loading the largest checkpoint needs: a policy is read in fp32."""
        scorers = [self._bytes(s.dtype) * self.sizes[model].parameters for model, s in self.scorers.items()]
        return float(max(FLOAT * self.policy.parameters, *scorers, 0))

    def download(self) -> dict[str, float | None]:
        """Return the bytes to download by repository, about; of local files none."""
        found: dict[str, float | None] = {}
        if OFFLINE in os.environ:
            return found
        for model in (self.suite.model, *self.scorers):
            if not Path(model).exists() and model != "smollm2":
                known, sizes = KNOWN.get(repository(model)), _sizes(model)
                found[repository(model)] = sizes.parameters * float(known.dtype if known else 2)
        for name in (source.hub for source in data_sources(self.suite) if source.hub is not None):
            found[name] = KNOWN_DATA[name].megabytes * 1e6 if name in KNOWN_DATA else None
        return found

    def kept(self, stages: Sequence[Stage]) -> float:
        """Return the bytes of what is trained, as far as its number is known, and one checkpoint of a training."""
        settings = self.suite.training
        one = 4.0 * (self.policy.parameters if settings.form == "full" else settings.lora_rank * self.policy.linear)
        jobs = sum(stage["jobs"] or 0 for stage in stages if stage["cost"].get("pairs_trained"))
        return one * (jobs + 3)


def _trains(stage: str) -> bool:
    """Say whether a stage trains policies."""
    kind = JOB_KINDS.get(stage) if stage in JOB_KINDS.names() else None
    return kind is not None and kind.keeps == "weights" and not kind.common and stage not in MERGED


def _sizes(model: str) -> Sizes:
    wanted = checkpoint_wanted(model)
    copied = copy_of("model", wanted.id, wanted.revision) if wanted else None
    found = sizes_at(str(copied[0]) if copied else model)
    if found is None:
        raise UsageError(
            f"--gpu: how large {model} is cannot be told: its config.json is not here and the hub does not give it; "
            "give a folder, or leave --gpu out"
        )
    return found


def _trained_scorers(suite: SuiteConfig) -> int:
    """Return how many reward and cost models the run trains itself."""
    task, proxies = suite_task(suite), by_column(suite.proxies)
    reported = {column for column, scorer in by_column(task.scorers).items() if scorer.layout != "registered"}
    served = proxies.keys() | (set() if suite.own_proxies else reported)
    return sum(objective.column not in served for objective in task.objectives)


def _measured(cache: Path, reference: str) -> dict[str, dict[str, float]]:
    """Return by kind of job the seconds per unit of its cost, of finished jobs on the same reference policy."""
    sums: dict[str, dict[str, list[float]]] = {}
    for path in cache.glob(f"*/*/{META}"):
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            if meta["needs"].get("reference") == reference:
                for unit, n in meta["cost"].items():
                    spent = sums.setdefault(meta["kind"], {}).setdefault(unit, [0.0, 0.0])
                    spent[0] += meta["seconds"]
                    spent[1] += n
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # a damaged artefact tells nothing
            continue
    return {kind: {unit: s / n for unit, (s, n) in units.items() if n} for kind, units in sums.items()}


def fit_run(config: RunConfig, stages: Sequence[Stage], asked: Asked, cache: Path) -> Resources:
    """Return what a run needs of the device that was asked about; `UsageError` for a stage that cannot fit.

    `stages` are those of `plan_run`. A suite that trains its own small model fits anywhere, and is refused.
    """
    if not isinstance(config.suite.data, PairsData):
        raise UsageError(f"--gpu: suite {config.suite.name} trains a model of its own that fits anywhere: leave it out")
    with planning():
        reference = build_world(config, suite_task(config.suite), config.seeds[0]).reference
    fit = Fit(config, asked)
    needs = fit.needs(stages, cache, reference.id)
    fit.check(needs)
    return fit.resources(stages, needs)
