"""How answers are sampled."""

from __future__ import annotations

from pydantic import Field

from peo_bench.settings import Frozen


class Decoding(Frozen):
    """How answers are sampled: temperature and top-p act after mixing; temperature 0 is greedy."""

    max_new_tokens: int = Field(64, gt=0)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
