"""The run's own reward and cost models as a pairwise judge: free, and independent of the order."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from peo_bench.errors import UsageError
from peo_bench.judges.judge import Bound, Desk, Judge, Judged, Recorded
from peo_bench.judges.matchups import IDENTITY, ORDERS
from peo_bench.judges.settings import JudgeSettings


class ScorerJudge(Judge):
    """The answer with the better score wins (`--judge scorers`); equal scores are ties.

    The scores are those of `points.csv`: higher reward, lower cost. Their sizes are ignored, only their order counts.
    """

    def __init__(self, argument: str, settings: JudgeSettings) -> None:
        """Take no argument."""
        if argument:
            raise UsageError(f"--judge scorers:{argument}: this judge takes no argument: type --judge scorers")
        self.id = "scorers"
        self.description = f"the objective's score column, {settings.prompts} prompts"

    def judge(self, pairs: pd.DataFrame, desk: Desk) -> Judged:
        """Compare scores; both orders get the same verdict."""
        return self._compared(pairs)

    @classmethod
    def recorded(cls, argument: str, settings: JudgeSettings) -> Recorded:
        """Compare the scores again: nobody else was asked."""
        judge = cls(argument, settings)
        return Recorded(judge.id, re.escape(judge.description), again=lambda pairs, said: judge._compared(pairs))

    def _compared(self, pairs: pd.DataFrame) -> Judged:
        if "score_a" not in pairs:
            raise UsageError("--judge scorers compares the scores of a run's answers; these texts have none")
        verdict = 0.5 * (1.0 + np.sign(pairs["score_a"] - pairs["score_b"]))
        plain = pairs[IDENTITY].assign(verdict=verdict, reason="", raw="", usd=0.0, asked=False)
        rows = pd.concat([plain.assign(order=order) for order in ORDERS], ignore_index=True)
        return Judged(rows, rows.head(0)[[*IDENTITY, "order", "reason"]], 0, 0, priced=True)

    def estimate(self, n_calls: int, answer_tokens: int) -> Bound:
        """No calls."""
        return {"judge_calls": 0, "usd": 0.0}
