"""The suite's key `judge`: how many prompts are judged, with which decoding, at what price."""

from __future__ import annotations

from pydantic import Field

from peo_bench.settings import Frozen


class Price(Frozen):
    """USD per million tokens of one model."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Return what a call with so many tokens costs."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


class JudgeSettings(Frozen):
    """How judges are asked. `prompts` is the number of test prompts that are judged, a fixed sample by hash.

    `temperature`, `max_tokens` and `seed` change answers and are part of what identifies one; `concurrency`,
    `timeout_s` (for a whole answer) and `attempts` do not. `prices` by model id are needed for `--max-usd`.
    `api_key_env` names the environment variable that holds the key; the key itself is never stored.
    """

    prompts: int = Field(50, gt=0)
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(300, gt=0)
    seed: int = 0
    concurrency: int = Field(8, gt=0, le=256)
    timeout_s: float = Field(60.0, gt=0)
    attempts: int = Field(6, gt=0)
    prices: dict[str, Price] = {}
    api_key_env: str = "OPENAI_API_KEY"
