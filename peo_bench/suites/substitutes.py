"""`--substitute tiny`: a suite of which every checkpoint and hub data set is a made-up stand-in, made here.

The checkpoints are random and tiny, of the same architecture, file layout and kind of tokenizer; the rows are a few of
our own in the same layout. So a suite goes from plan to report where nothing can be downloaded. Its numbers mean
nothing, and everything that such a run writes says so: suite, task and title have other names, and no leaderboard takes
it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from peo_bench.core.decoding import Decoding
from peo_bench.data import made_up
from peo_bench.data.prompts import HUB_FIELDS, PromptSource
from peo_bench.data.schema import DataSource
from peo_bench.errors import UsageError
from peo_bench.files.digest import digest
from peo_bench.files.jsonl import write_jsonl
from peo_bench.models.known import KNOWN, KnownModel, repository
from peo_bench.models.quiet import quiet
from peo_bench.models.tiny import save_tiny_policy
from peo_bench.scorers.anchors import ANCHORS
from peo_bench.scorers.settings import ScorerConfig
from peo_bench.scorers.stand_ins import Wanted, anchor_texts, save_tiny_scorer
from peo_bench.suites.suite import PairsData, Scorers, SuiteConfig, TaskConfig, task_of

VERSION = 1
"""Of what is made; raise it when that changes."""

LABEL = (
    "SUBSTITUTED: every checkpoint of this run is a tiny random stand-in of the same architecture, and every data set "
    "a few made-up rows. It shows that the suite runs; its numbers mean nothing and compare with nothing."
)

MOST = {"validation_prompts": 12, "test_prompts": 16, "over_refusal_prompts": 8}
"""Of a suite's numbers of prompts."""
TRAINING = {"epochs": 1.0, "batch_size": 8, "micro_batch_size": 4, "lora_rank": 4}
"""At most, of the settings of trainings."""
MOVES = {"learning_rate": 0.01, "lora_alpha": 8.0}
"""Settings under which so short a training moves so small a model, so that policies differ."""
NEW_TOKENS, PAIRS = 12, 32

S = TypeVar("S", bound=DataSource)


def substituted(suite: SuiteConfig, folder: Path) -> SuiteConfig:
    """Return the suite with tiny stand-ins, which are made in `folder` unless they are there.

    Raises `UsageError` for a suite that trains its own model, and for a checkpoint of which no architecture is known.
    """
    if not isinstance(suite.data, PairsData):
        raise UsageError(f"--substitute tiny: suite {suite.name} makes its own model and data: leave it out")
    task = task_of(suite)
    directions = {o.column: (o.name, 1.0 if o.maximise else -1.0) for o in task.objectives}

    def scorers(given: Mapping[str, ScorerConfig]) -> dict[str, ScorerConfig]:
        return {key: _scorer(key, scorer, directions, folder) for key, scorer in given.items()}

    sources = tuple(_rows(source, "pairs", folder) for source in suite.data.sources)
    data = suite.data.model_copy(update={"sources": sources, "pairs": min(suite.data.pairs or PAIRS, PAIRS)})
    decoding = _short(suite.decoding)
    return suite.model_copy(
        update={
            "name": f"{suite.name}-tiny",
            "title": f"SUBSTITUTED {suite.title}",
            "task": f"tiny-{suite.task}",
            "task_definition": _task(task, scorers, folder),
            "model": str(_policy(suite.model, folder)),
            "data": data,
            "decoding": decoding,
            "training": suite.training.model_copy(update=_at_most(suite.training, TRAINING) | MOVES),
            "reward_model": suite.reward_model.model_copy(update=_at_most(suite.reward_model, TRAINING) | MOVES),
            "scorers": scorers(suite.scorers),
            "proxies": scorers(suite.proxies),
            "notes": (LABEL,),
            **_at_most(suite, MOST),
        }
    )


def _at_most(settings: object, most: Mapping[str, float]) -> dict[str, float]:
    return {key: min(getattr(settings, key), value) for key, value in most.items()}


def _short(decoding: Decoding) -> Decoding:
    return decoding.model_copy(update={"max_new_tokens": min(decoding.max_new_tokens, NEW_TOKENS)})


def _task(
    task: TaskConfig, scorers: Callable[[Mapping[str, ScorerConfig]], dict[str, ScorerConfig]], folder: Path
) -> TaskConfig:
    changes: dict[str, PromptSource | Scorers | Decoding | None] = {"scorers": scorers(task.scorers)}
    for key, use in (("prompts", "prompts"), ("benign", "benign")):
        source: PromptSource | None = getattr(task, key)
        changes[key] = None if source is None else _rows(source, use, folder)
    changes["decoding"] = task.decoding and _short(task.decoding)
    return task.model_copy(update=changes)


def _rows(source: S, use: str, folder: Path) -> S:
    """Return the source with made-up rows in place of a hub's."""
    if source.hub is None:
        return source
    content = [VERSION, use, source.model_dump(mode="json", exclude={"path", *HUB_FIELDS})]
    path = folder / "data" / f"{digest(content)}.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, made_up.rows(source, use))
    return source.model_copy(update=dict.fromkeys(HUB_FIELDS) | {"path": str(path), "split": "train"})


def _known(path_or_id: str) -> KnownModel:
    """Return what a checkpoint is made of."""
    known = KNOWN.get(repository(path_or_id))
    if known is None:
        raise UsageError(
            f"--substitute tiny: what {path_or_id} is made of is not known here: it knows {', '.join(sorted(KNOWN))}"
        )
    return known


def _policy(model: str, folder: Path) -> Path:
    known = _known(model)
    return _made(folder, model, ["policy"], lambda place: save_tiny_policy(model, known, _texts(), place))


def _scorer(key: str, scorer: ScorerConfig, directions: Mapping[str, tuple[str, float]], folder: Path) -> ScorerConfig:
    """Return the scorer with a stand-in; one in code, or trained here, stays."""
    if scorer.layout in ("registered", "trained"):
        return scorer
    columns = scorer.columns or {key: 0}
    wanted: Wanted = {
        label: (scorer.anchors.get(column) or ANCHORS[directions[column][0]], directions[column][1])
        for column, label in columns.items()
        if column in directions
    }
    known = _known(scorer.model)
    content = [scorer.layout, columns, {str(label): list(value) for label, value in wanted.items()}]
    texts = [*_texts(), *(text for some in scorer.anchors.values() for anchor in some for text in anchor)]

    def make(place: Path) -> None:
        save_tiny_scorer(scorer.model, known, scorer.layout, texts, place, wanted)

    made = _made(folder, scorer.model, content, make)
    return scorer.model_copy(update={"model": str(made)})


def _texts() -> list[str]:
    return [*made_up.texts(), *anchor_texts()]


def _made(folder: Path, name: str, content: object, make: Callable[[Path], None]) -> Path:
    """Return the folder of the stand-in for `name`, made whole or not at all."""
    place = folder / f"{repository(name).replace('/', '--')}-{digest([VERSION, content])}" / "model"
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder))
        try:
            with quiet():
                make(scratch / "model")
            place.parent.mkdir(exist_ok=True)
            if not place.is_dir():
                (scratch / "model").rename(place)
        finally:
            shutil.rmtree(scratch)
    return place
