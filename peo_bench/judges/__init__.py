"""Judges: pairwise verdicts and what is computed from them. Nothing here imports a model or opens a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peo_bench.registry import Registry

if TYPE_CHECKING:
    from peo_bench.judges.judge import Judge


def _is_judge(thing: object) -> bool:
    from peo_bench.judges.judge import Judge

    return isinstance(thing, type) and issubclass(thing, Judge)


JUDGES: Registry[type[Judge]] = Registry(
    "judge",
    "peo_bench.judges",
    {
        "alpaca_eval": "peo_bench.judges.alpaca_judge:AlpacaEvalJudge",
        "openai": "peo_bench.judges.openai_judge:OpenAIJudge",
        "scorers": "peo_bench.judges.scorer_judge:ScorerJudge",
    },
    expected="a subclass of peo_bench.judges.judge.Judge",
    valid=_is_judge,
)
