"""`costs.json` as types: what every method cost as if it had run alone, and every kind of job."""

from __future__ import annotations

from collections.abc import Mapping

from peo_bench.results.record import SCHEMA_VERSION, Count, MethodName, Number, Record


class BuildCost(Record):
    """What building and asking a method costs."""

    train_units: Number
    """Pairs trained by those of one expert, the method's proxies included; null where the run trained no expert."""
    proxy_units: Number = None
    """Those of them that trained the run's own reward and cost models, for methods that need them."""
    labels: Mapping[str, int] | None = None
    """Labelled pairs seen while building, by objective: each pair once, those of the proxies included."""
    pairs_trained: Count
    """Preference pairs passed through a backward pass, epochs included."""
    tokens_generated: Count
    """Tokens generated while building."""
    scorer_calls: Count
    """Texts given to a reward or cost model while building."""
    kl_tokens: Count = None
    """Tokens whose next-token distributions were compared with the reference policy's by searches."""
    validation_evaluations: Count
    """Policies evaluated on validation prompts."""
    decode_factor: Number
    """For every answer: forward passes per token, candidates of selections included."""
    scorer_calls_per_answer: Number = None
    """For every answer: texts scored to choose it."""


class MethodCost(BuildCost):
    """An entry of `methods`."""

    examples_trained: Count
    """Single answers passed through a backward pass; one counts half a pair."""
    seconds: Number
    """Seconds of the jobs when they were done: a reused job still counts."""
    stored_parameters: Count
    """Numbers to keep beside the reference policy to serve all asked preferences of one seed; null where unknown."""
    jobs: Count
    """Jobs that the method needs, without those that every method starts from."""
    shared_jobs: Count
    """Those of them that another method of the run needs too, and that were done once."""


class KindCost(Record):
    """An entry of `kinds`."""

    jobs: int
    """Jobs of this kind."""
    reused: int
    """Those of them that were found in the cache."""
    seconds: float
    """Seconds of work when they were done."""
    cost: Mapping[str, int]
    """Their counts that are not zero, see `MethodCost`."""


class Costs(Record):
    """All of `costs.json`."""

    schema_version: int = SCHEMA_VERSION
    """1."""
    methods: Mapping[MethodName, MethodCost] = {}
    """By method; what finished policies have cost that were given is not known."""
    kinds: Mapping[str, KindCost] = {}
    """By kind of job."""
