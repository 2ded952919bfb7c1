"""The plane of two experts in the sandbox, with proxy and gold scores of any of its policies: shared by scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt

from peo_bench.cli import cache_dir
from peo_bench.core.method import World
from peo_bench.core.spec import PolicySpec, policy
from peo_bench.evaluation.generation import generate, make_engine, read_prompts, score
from peo_bench.evaluation.validation import Point, Z
from peo_bench.jobs.runner import Runner
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.runs.world import build_world
from peo_bench.sandbox.gold import gold_cost, gold_reward
from peo_bench.scorers.columns import scorer_columns
from peo_bench.suites.suite import load_task

Floats = npt.NDArray[np.float64]
Split = Literal["validation", "test"]


@contextmanager
def sandbox_world(suite: str, seed: int, *settings: str) -> Iterator[tuple[Runner, World]]:
    """Give a runner over the user's cache and the world of `suite`, with `settings` as after `--set`."""
    config = resolve_config(RunRequest(methods="soup", suite=suite, seed=seed, set=list(settings)))
    with Runner(cache_dir(), workers=1) as runner:
        yield runner, build_world(config, load_task(config.suite.task), seed)


class Scored:
    """A sandbox world whose policies are scored by the proxies that search sees, by gold and by their KL."""

    def __init__(self, runner: Runner, world: World) -> None:
        """Train the proxies."""
        self.world = world
        proxies = {objective.column: world.proxies[objective.name] for objective in world.objectives}
        self.handles = runner.run([*proxies.values(), world.prompts])
        self.engine = make_engine(self.handles.__getitem__, world.reference.id, "float32", world.seed)
        self.scorers = scorer_columns({column: self.handles[job.id] for column, job in proxies.items()}, "float32")
        self.reference = policy(world.reference.id)
        self.units = {split: self._units(split) for split in ("validation", "test")}

    def prompts(self, split: Split) -> list[dict[str, str]]:
        """Return the rows of the run's prompts of a split."""
        return read_prompts(self.handles[self.world.prompts.id], split)

    def scores(self, specs: list[PolicySpec], split: Split) -> Floats:
        """Return (n, prompts, 5): proxy reward and cost, gold reward and cost, KL in nats of every answer."""
        rows = self.prompts(split)
        requests, answers = generate(self.engine, specs, rows, self.world.decoding)
        columns = score(self.scorers, requests, answers).columns
        gold = [[g(r.prompt, a.text) for r, a in zip(requests, answers, strict=True)] for g in (gold_reward, gold_cost)]
        kl: list[float] = []
        for i in range(0, len(requests), len(rows)):
            kl += self.engine.kl(requests[i : i + len(rows)], answers[i : i + len(rows)], self.reference)
        table = np.array([columns["reward"], columns["cost"], *gold, kl])
        return table.T.reshape(len(specs), len(rows), 5)

    def _units(self, split: Split) -> Floats:
        """Return mean and deviation (2, 4) of the reference's four scores."""
        scores = self.scores([self.reference], split)[0, :, :4]
        return np.stack([scores.mean(axis=0), scores.std(axis=0, ddof=1)])

    def utilities(self, scores: Floats, split: Split, which: Literal["proxy", "gold"]) -> Floats:
        """Return (n, prompts, 2) utilities in the reference's units on `split`, higher is better."""
        columns = slice(0, 2) if which == "proxy" else slice(2, 4)
        mean, deviation = self.units[split][:, columns]
        return np.asarray((scores[:, :, columns] - mean) / deviation * (1, -1))


class Plane(Scored):
    """The policies theta_ref + a tau_1 + b tau_2 of a world."""

    def __init__(self, runner: Runner, world: World) -> None:
        """Train the experts too."""
        super().__init__(runner, world)
        runner.run(world.aspects)

    def spec(self, coefficients: tuple[float, ...]) -> PolicySpec:
        """Return the policy at a place of the plane."""
        ids = [job.id for job in self.world.aspects]
        return policy(self.world.reference.id, zip(ids, coefficients, strict=True))


def point(scores: Floats) -> Point:
    """Return the `Point` of one policy's scores (prompts, 5)."""
    kl = scores[:, 4]
    upper = kl.mean() + Z * kl.std(ddof=1) / np.sqrt(len(kl))
    return Point({"reward": scores[:, 0].tolist(), "cost": scores[:, 1].tolist()}, float(kl.mean()), float(upper))
