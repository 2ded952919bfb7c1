"""The suite's key `judge`: how many prompts are judged, with which decoding, at what price."""

from __future__ import annotations

from pydantic import Field

from peo_bench.files.json_types import JsonObject
from peo_bench.settings import Frozen


class Price(Frozen):
    """USD per million tokens of one model."""

    input: float = Field(ge=0)
    """USD per million tokens read."""
    output: float = Field(ge=0)
    """USD per million tokens written."""

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Return what a call with so many tokens costs."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


class JudgeSettings(Frozen):
    """How judges are asked; `temperature`, `max_tokens` and `seed` are part of what identifies a reply."""

    prompts: int = Field(50, gt=0)
    """Test prompts that are judged, a fixed sample by hash."""
    temperature: float = Field(0.0, ge=0)
    """Of the judge; 0 is greedy."""
    max_tokens: int = Field(300, gt=0)
    """Tokens that a reply may have."""
    seed: int = 0
    """Sent to the endpoint."""
    concurrency: int = Field(8, gt=0, le=256)
    """Calls at a time."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds that a whole reply may take."""
    attempts: int = Field(6, gt=0)
    """Calls until a reply is given up."""
    prices: dict[str, Price] = {}
    """By model id; `--max-usd` needs them."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key, which is never stored."""

    @property
    def parameters(self) -> JsonObject:
        """What is sent with every question and changes replies."""
        return self.model_dump(include={"temperature", "max_tokens", "seed"})
