"""What a finished run folder holds to steer and export: the methods, their world as a job graph, and the artefacts.

`families.json` keeps the graph; `artefacts/` is a small store with the weights and search results. A family is had by
replaying the method's `build` on them, so no second description of a policy exists.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from peo_bench.core.method import PolicyFamily, World
from peo_bench.core.preference import Preference
from peo_bench.core.rounds import replay
from peo_bench.core.spec import Weights
from peo_bench.data.given_answers import GIVEN_ANSWERS
from peo_bench.errors import UsageError, unknown
from peo_bench.files.atomic import follow_umask, write_json, write_text
from peo_bench.files.dialogue import messages_in, problem_of, to_prompt
from peo_bench.files.digest import digest
from peo_bench.files.json_types import Json
from peo_bench.files.room import room_for, size_of
from peo_bench.files.rows import RowError, is_whole
from peo_bench.jobs.job import Handle, Job, closure
from peo_bench.jobs.store import Store
from peo_bench.methods.given import method_of
from peo_bench.results.families_records import SavedFamilies, SavedJob, SavedWorld
from peo_bench.results.record import SCHEMA_VERSION, damaged, read_record
from peo_bench.results.records import RunRecord

if TYPE_CHECKING:
    from peo_bench.engine.engine import Engine

FAMILIES = "families.json"
ODD = (LookupError, TypeError, ValueError, AttributeError)
"""What worlds raise whose parts do not fit together."""
JOBS = ("reference", "prompts")
JOB_MAPS = ("pairs", "proxies", "experts", "evaluation", "given")


def save_families(
    folder: Path,
    store: Store,
    methods: Sequence[str],
    settings: Mapping[str, Mapping[str, Json]],
    worlds: Mapping[int, World],
    used: list[str],
) -> None:
    """Write `families.json` and copy the artefacts `used` (job ids) into `artefacts/`."""
    store.copy_to(folder / "artefacts", used)
    write_json(folder / FAMILIES, saved_families(methods, settings, worlds).to_json())


def is_answers(method: str, world: World) -> bool:
    """Say whether all there is of `method` are answers that were given."""
    return method in world.given and world.given[method].kind == GIVEN_ANSWERS


def load_family(folder: Path, method: str, seed: int | None) -> tuple[PolicyFamily, World, Store]:
    """Return the family of `method` in the finished run at `folder`, with its world and the store of its artefacts."""
    saved = read_families(folder)
    if method not in saved.methods:
        raise unknown(f"method in {folder}", method, saved.methods)
    seeds = list(saved.worlds)
    chosen = seeds[0] if seed is None else str(seed)
    if chosen not in saved.worlds:
        raise UsageError(f"--seed {seed}: this run has the seeds {', '.join(seeds)}")
    try:
        world = world_of(saved.worlds[chosen])
        made = method_of(method, saved.settings, world)
    except UsageError as error:
        again = "install the package that adds it, in the version of the run"
        raise UsageError(f"{folder}: {method} cannot be made here ({error}): {again}") from None
    except ODD as error:
        raise damaged(folder / FAMILIES, f"{type(error).__name__}: {error}") from None
    store = Store(folder / "artefacts")
    return replay(made, world, store), world, store


def read_families(folder: Path) -> SavedFamilies:
    """Return the content of `families.json`; `UsageError` if it is damaged."""
    path = folder / FAMILIES
    if not path.exists():
        raise UsageError(
            f"{folder} is not a finished run folder: {path.name} is missing; give the folder that `run` printed"
        )
    return read_record(path, SavedFamilies)


def _graph_of(world: SavedWorld) -> dict[str, Job]:
    """Return the jobs by the id they were saved under."""
    jobs: dict[str, Job] = {}
    for job_id, saved in world.graph.items():
        jobs[job_id] = Job(saved.kind, saved.params, {role: jobs[need] for role, need in saved.needs.items()})
        if jobs[job_id].id != job_id:
            raise UsageError(f"{job_id} was made by another version of peo-bench: repeat the run")
    return jobs


def saved_world(world: World) -> SavedWorld:
    """Return what families.json says of a world: its jobs as ids into `graph`."""
    jobs = [getattr(world, name) for name in JOBS] + [j for name in JOB_MAPS for j in getattr(world, name).values()]
    plain = {f.name: getattr(world, f.name) for f in fields(World) if f.name not in (*JOBS, *JOB_MAPS)}
    return SavedWorld.model_validate(
        plain
        | {
            "graph": {
                job.id: SavedJob(
                    kind=job.kind, params=dict(job.params), needs={role: need.id for role, need in job.needs.items()}
                )
                for job in closure(jobs)
            },
            "preferences": [preference.weights for preference in world.preferences],
            **{name: getattr(world, name).id for name in JOBS},
            **{name: {key: job.id for key, job in getattr(world, name).items()} for name in JOB_MAPS},
        }
    )


def saved_families(
    methods: Sequence[str], settings: Mapping[str, Mapping[str, Json]], worlds: Mapping[int, World]
) -> SavedFamilies:
    """Return the content of `families.json`."""
    return SavedFamilies(
        schema_version=SCHEMA_VERSION,
        methods=tuple(methods),
        settings={name: dict(own) for name, own in settings.items()},
        worlds={str(seed): saved_world(world) for seed, world in worlds.items()},
    )


def world_of(saved: SavedWorld) -> World:
    """Invert `saved_world`."""
    jobs = _graph_of(saved)
    names = tuple(objective.name for objective in saved.objectives)
    plain = {f.name: getattr(saved, f.name) for f in fields(World) if f.name not in (*JOBS, *JOB_MAPS)}
    return World(
        **plain
        | {
            "preferences": tuple(Preference(names, weights) for weights in saved.preferences),
            **{name: jobs[getattr(saved, name)] for name in JOBS},
            **{name: {key: jobs[job] for key, job in getattr(saved, name).items()} for name in JOB_MAPS},
        }
    )


def asked_for(world: World, helpful: float) -> Preference:
    """Return the preference with this weight of helpfulness; `UsageError` where no objective is called helpful."""
    if "helpful" not in world.names:
        names = ", ".join(world.names)
        raise UsageError(f"--helpful: the objectives of this run are {names}: give a run with one called helpful")
    return Preference.of(world.names, helpful=helpful)


def check_prompts(prompts: Sequence[object]) -> list[str]:
    """Return questions as texts, dialogues too (see `peo_bench.files.dialogue`); `UsageError` for what is none."""
    if isinstance(prompts, str):
        raise UsageError("one text is no list of prompts: write it in brackets, [text]")
    return list(map(_asked, prompts))


def _asked(prompt: object) -> str:
    try:
        turns = messages_in(prompt, "a prompt")
    except RowError as error:
        raise UsageError(f"{error}: give texts, or lists of messages") from None
    problem = problem_of(turns) if turns else None
    if problem:
        raise UsageError(f"a prompt is a list of messages, and {problem}: end with a user's, after an assistant's")
    text = to_prompt(turns) if turns else str(prompt)
    if not text.strip():
        raise UsageError("a prompt is empty: give a question to answer")
    if not is_whole(text):
        raise UsageError("a prompt is not UTF-8 text: write it anew")
    return text


def artefacts_of(store: Store) -> Callable[[str], Handle]:
    """Return what finds the artefacts of a run folder; one that is not there is a `UsageError`."""

    def find(job_id: str) -> Handle:
        handle = store.get(job_id)
        if handle is None:
            raise UsageError(f"{store.root}: {job_id} is missing or damaged: repeat the run that made this folder")
        return handle

    return find


class SteeredPolicy:
    """What a method of a finished run offers at a weight of helpfulness: it answers, and it can be exported."""

    def __init__(self, folder: Path, method: str, helpful: float, seed: int | None = None) -> None:
        """Find the policy of `method` in the run at `folder`; `seed` is a training seed, by default the run's first."""
        self._family, self._world, self._store = load_family(folder, method, seed)
        if is_answers(method, self._world):
            raise UsageError(f"{method} was given as answers: there is no model to ask; answers.parquet has them")
        self._folder, self.method = folder, method
        self.asked = asked_for(self._world, helpful)
        self.spec = self._family.resolve(self.asked)
        self.preference = self._family.space.project(self.asked)

    @cached_property
    def _engine(self) -> Engine:
        from peo_bench.engine.engine import Engine

        return Engine(artefacts_of(self._store), precision=self._world.precision, noise_seed=self._world.seed)

    def generate(self, prompts: Iterable[str | Sequence[Mapping[str, str]]], samples: int = 1) -> list[str]:
        """Return `samples` answers per prompt, a text or a list of messages; prompts outermost, and reproducible.

        Raises `UsageError` for prompts that are empty or too long.
        """
        from peo_bench.engine.engine import Request
        from peo_bench.models.quiet import quiet

        if type(samples) is not int or samples < 1:
            raise UsageError(f"samples={samples!r}: give a number of answers per prompt, at least 1")
        asked = check_prompts(prompts if isinstance(prompts, str) else list(prompts))
        requests = [Request(self.spec, prompt, digest(prompt), i) for prompt in asked for i in range(samples)]
        with quiet():
            return [answer.text for answer in self._engine.generate(requests, self._world.decoding)]

    def export(self, to: str | os.PathLike[str]) -> None:
        """Write the policy as a Hugging Face model folder with a model card; `to` must not exist yet.

        Raises `UsageError` for policies that are no single model: mixtures, and choices among answers.
        """
        from peo_bench.engine.engine import Engine
        from peo_bench.models.quiet import quiet
        from peo_bench.models.rendering import remarks

        spec, method = self.spec, self.method
        if spec.candidates:
            within = f": export --method {method.partition('.')[2]}, which it chooses from" if "." in method else ""
            raise UsageError(f"{method} keeps the best of {len(spec.candidates)} answers: no single model{within}")
        if len(spec.mix) != 1 or spec.mix[0][0] != 1.0:
            raise UsageError(
                f"{method} mixes the log-probabilities of {len(spec.mix)} models at decoding time: no single model"
            )
        to = Path(to)
        if to.exists():
            raise UsageError(f"{to} exists already: give --to a new folder")
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
        except OSError as error:
            raise UsageError(f"{to}: cannot write there ({error.strerror}): give --to another folder") from None
        try:
            with quiet(), room_for(to, "the policy", lambda: size_of(scratch)):
                model, tokenizer = Engine(artefacts_of(self._store)).materialised(spec.mix[0][1])
                model.save_pretrained(scratch)
                tokenizer.save_pretrained(scratch)
                said = remarks(tokenizer)
            write_text(scratch / "README.md", self._card(said))
            follow_umask(scratch)
            scratch.rename(to)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def _card(self, said: Sequence[str]) -> str:
        """Return the model card; `said` is what a reader should know of how the tokenizer writes prompts."""
        run = read_record(self._folder / "run.json", RunRecord)
        origin = f"`{run.command}` (peo-bench {run.peo_bench}, suite {run.suite}, base model {run.model})"
        weights = self.spec.mix[0][1]
        terms = "\n".join(f"- {coefficient:+.6g} x task vector of `{name}`" for name, coefficient in weights.terms)
        return f"""---
library_name: transformers
tags: [peo-bench, multi-objective-alignment]
---
# {self.method} at {self.asked}

A policy of the run {origin}.

- asked preference: {self.asked}; offered: {self.preference}
- weights: base `{weights.base}` plus{_rule(weights)}
{terms or "- nothing: the base as it is"}
- data licence: {run.licence}; the base model's licence applies too.
{"".join(f"- the run's prompts and answers: {remark}{chr(10)}" for remark in said)}
Trained on preference data that contains harmful prompts; not evaluated for deployment.
"""


def _rule(weights: Weights) -> str:
    """Return by what rule the task vectors listed below are merged; nothing where they are added."""
    rule = weights.merge
    if rule is None:
        return ""
    density = f" at density {rule.density:g}" if rule.density < 1 else ""
    return f" {rule.strength:g} times what `{rule.kind}`{density} makes, by these shares, of"
