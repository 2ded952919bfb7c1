"""The gold scores as registered scorers, for the final evaluation on test prompts."""

from __future__ import annotations

from peo_bench.sandbox.gold import gold_cost, gold_reward


class GoldReward:
    """Exact helpfulness of an answer; higher is better."""

    version = 1
    reads_text_alone = True

    def score(self, prompts: list[str], answers: list[str]) -> list[float]:
        """Return the gold reward of every (prompt, answer)."""
        return [gold_reward(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


class GoldCost:
    """Exact harm of an answer; lower is better, 0 is the border between safe and unsafe."""

    version = 1
    calibrated_zero = True
    reads_text_alone = True

    def score(self, prompts: list[str], answers: list[str]) -> list[float]:
        """Return the gold cost of every (prompt, answer)."""
        return [gold_cost(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
