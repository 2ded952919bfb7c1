"""What `run` and `plan` are asked for, as typed: every option is declared here, once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from typer import Option

from peo_bench.errors import UsageError

LARGEST_SEED = 2**32 - 1
"""What numpy's generators take."""

Suite = Annotated[str, Option("--suite", help="A suite's name or the path of a suite file.")]
Set = Annotated[list[str], Option("--set", help="METHOD.KEY=VALUE or SECTION.KEY=VALUE; may be repeated.")]
Judges = Annotated[
    list[str], Option("--judge", help="openai:MODEL@BASE_URL, scorers or alpaca_eval:CONFIG; repeatable.")
]
MaxUsd = Annotated[float | None, Option("--max-usd", help="Most that judges may spend now.", min=0)]


@dataclass(frozen=True)
class RunRequest:
    """The options that say what a run is, by name; `resolve_config` checks their values."""

    methods: Annotated[
        str, Option("--methods", "-m", help="Comma-separated, all, or none; see `peo-bench list methods`.")
    ] = "peo,modpo"
    suite: Suite = "sandbox"
    model: Annotated[str | None, Option(help="Base model: smollm2, a folder or a hub id.")] = None
    set: Set = field(default_factory=list)
    substitute: Annotated[
        str | None,
        Option("--substitute", help="tiny: tiny made-up stand-ins for the suite's checkpoints and hub data sets."),
    ] = None
    seed: Annotated[int, Option(help="Training seed.", min=0)] = 0
    seeds: Annotated[str | None, Option(help="Several training seeds, as in 0,1,2.")] = None
    preferences: Annotated[
        str | None, Option(help="Number of points, or helpful weights as in 0,0.5,1; by default the suite's, or 5.")
    ] = None
    limit: Annotated[int | None, Option(help="At most so many pairs and prompts of each kind.")] = None
    max_kl: Annotated[float | None, Option(help="KL budget of every search, in nats.")] = None
    offline: Annotated[
        Path | None, Option("--offline", help="Folder that `fetch` wrote: read its copies instead of the hub.")
    ] = None
    data_dir: Annotated[Path | None, Option(help="Where local data files are.")] = None
    expert: Annotated[list[str], Option(help="OBJECTIVE=PATH: use this checkpoint for phase 1.")] = field(
        default_factory=list
    )
    policy: Annotated[list[str], Option(help="NAME=PATH: compare this finished policy too; repeatable.")] = field(
        default_factory=list
    )
    answers: Annotated[
        list[str], Option(help="NAME=FILE: compare these finished answers to the test prompts too; repeatable.")
    ] = field(default_factory=list)
    strict_repro: Annotated[
        bool,
        Option("--strict-repro", help="One thread, deterministic kernels, a cache of its own: same bytes again."),
    ] = False
    from_scratch: Annotated[
        bool, Option("--from-scratch", help="Train the sandbox's reference policy too, which is shipped for seed 0.")
    ] = False
    capabilities: Annotated[str, Option(help="lm-eval tasks: names or YAML files, by commas.")] = ""
    judge: Judges = field(default_factory=list)
    trust_task_code: Annotated[
        bool, Option("--trust-task-code", help="Let task files given to --capabilities run code of their own.")
    ] = False

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """Those of `seeds` where given, else `seed`; raises `UsageError` for what is no whole number from 0."""
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UsageError(f"--seed {self.seed}: give a whole number from 0 to {LARGEST_SEED}")
        if self.seeds is None:
            return (self.seed,)
        parts = [part.strip() for part in self.seeds.split(",")]
        digits = len(str(LARGEST_SEED))
        if not all(re.fullmatch(f"[0-9]{{1,{digits}}}", part) and int(part) <= LARGEST_SEED for part in parts):
            raise UsageError(
                f"--seeds {self.seeds!r}: give whole numbers from 0 to {LARGEST_SEED} separated by commas, as in 0,1,2"
            )
        return tuple(dict.fromkeys(int(part) for part in parts))
