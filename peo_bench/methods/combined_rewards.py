"""What online methods share: settings, and one training per preference on combined rewards."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from peo_bench.core.method import MethodSettings, World
from peo_bench.core.preference import Preference
from peo_bench.errors import UsageError
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Job
from peo_bench.methods.per_preference import PointMethod
from peo_bench.training.online import online_job
from peo_bench.training.settings import AnswersSettings


class OnlineSettings(MethodSettings, AnswersSettings):
    """Settings of an online method, how many answers it trains on among them.

    `beta` is the KL penalty per nat, rewards being in standard deviations of the reference policy; `learning_rate` that
    of the suite's training if none is given.
    """

    beta: float = Field(0.2, gt=0)
    learning_rate: float | None = Field(None, gt=0)

    def training(self) -> JsonObject:
        """Return what replaces or adds to the training settings of the suite."""
        given = self.model_dump(include={"beta", "learning_rate", *AnswersSettings.model_fields})
        return {name: value for name, value in given.items() if value is not None}


class OnlineMethod(PointMethod):
    """One online training per preference."""

    trains = "one policy per preference, on its own answers"
    needs_pairs = False
    Settings = OnlineSettings
    combiner: ClassVar[str] = "linear"

    def options(self, preference: Preference) -> JsonObject:
        """Return the combiner's options for a preference."""
        return {}

    def job(self, world: World, preference: Preference) -> Job:
        """Return the training at `preference`."""
        size, answers = world.training["batch_size"], self.settings.answers
        if 2 * size % answers:
            what = f"two answers for each of the {size} pairs of training.batch_size are no multiple of"
            raise UsageError(f"{what} {self.name}.answers = {answers}, those per prompt: choose other numbers")
        return online_job(
            world,
            self.combiner,
            preference.weights,
            samples=getattr(self.settings, "samples", 0),
            options=self.options(preference),
            **self.settings.training(),
        )
