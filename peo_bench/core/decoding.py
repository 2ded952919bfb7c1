"""How answers are sampled."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from peo_bench.files.json_types import Json, JsonObject
from peo_bench.process import Precision
from peo_bench.settings import Frozen


class Decoding(Frozen):
    """How answers are sampled: temperature and top-p act after mixing; temperature 0 is greedy."""

    max_new_tokens: int = Field(64, gt=0)
    """Tokens of an answer at most."""
    temperature: float = Field(1.0, ge=0)
    """Of the distribution after mixing; 0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus of the distribution after mixing."""


def sampling_params(decoding: Decoding = Decoding(), precision: Precision = "float32") -> JsonObject:  # noqa: B008
    """Return the parameters of a job that samples; without arguments, their defaults."""
    return {"decoding": decoding.model_dump(mode="json"), "precision": precision}


def decoding_of(params: Mapping[str, Json]) -> Decoding:
    """Return the decoding among a job's parameters."""
    return Decoding.model_validate(params["decoding"])
