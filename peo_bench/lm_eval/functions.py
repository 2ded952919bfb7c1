"""What the YAML files in `tasks/` need when lm-eval runs them by itself: data sets and metrics of single answers.

`lm_eval --metadata '{"data": "PATH"}'` says where local data is: a folder as for `--data-dir`, the data set's own
folder, or one file; anything else is taken as the id of a hub data set with the same columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from peo_bench.data.prompts import PromptSource, prompts_identity, read_task_prompts
from peo_bench.evaluation.refusals import is_refusal
from peo_bench.files.json_types import Json
from peo_bench.sandbox.gold import features, gold_cost, gold_reward
from peo_bench.sandbox.small_world import SPLITS, prompts_of

if TYPE_CHECKING:
    from datasets import Dataset


def prompt_set(prompts: Mapping[str, Json], data: str | None = None, **metadata: object) -> dict[str, Dataset]:
    """Return the prompts of a task by split; `prompts` is the key of that name in the task file."""
    from datasets import Dataset

    source = PromptSource.model_validate(prompts)
    parts = read_task_prompts(prompts_identity(source.given(data) if data else source))
    return {
        name: Dataset.from_list(
            [{"prompt_id": p.prompt_id, "prompt": p.prompt, "category": p.category or "all"} for p in part]
        )
        for name, part in parts.items()
    }


def sandbox_prompts(**metadata: object) -> dict[str, Dataset]:
    """Return the sandbox's validation and test prompts."""
    from datasets import Dataset

    return {
        split: Dataset.from_list(
            [{"prompt_id": p.id, "prompt": p.text, "category": p.hazard} for p in prompts_of(split)]
        )
        for split in SPLITS
        if split != "train"
    }


def answer_views(doc: Mapping[str, str], results: list[str]) -> dict[str, float]:
    """Return what can be said of one answer without a scorer: refusal, length in words, emptiness."""
    answer = results[0].strip()
    return {
        "refusal_rate": float(is_refusal(answer)),
        "words": float(len(answer.split())),
        "empty": float(not answer),
    }


def sandbox_views(doc: Mapping[str, str], results: list[str]) -> dict[str, float]:
    """Return the gold scores of one sandbox answer, and whether it is safe and refuses."""
    prompt, answer = doc["prompt"], results[0].strip()
    cost = gold_cost(prompt, answer)
    return {
        "reward": gold_reward(prompt, answer),
        "cost": cost,
        "safe_rate": float(cost <= 0),
        "refusal_rate": float(features(answer).refused),
        "words": float(len(answer.split())),
    }
