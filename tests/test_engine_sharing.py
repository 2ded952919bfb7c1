"""What rows share is read once: the beginning of all prompts by policy, a prompt by policy for all its samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, MistralConfig, PreTrainedModel

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import policy
from peo_bench.engine import passes
from peo_bench.engine.engine import Engine, Request
from peo_bench.engine.passes import allows_gaps, common_beginning, first_of_each, left_padded, positions
from tests import models
from tests.test_engine import DECODING, SPECS

SYSTEM = "please store the old red green blue box here now"
PROMPTS = [f"{SYSTEM} {prompt}" for prompt in models.PROMPTS]


def without_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "LEAST_SHARED", 10**6)


def test_answers_kl_and_log_probs_are_those_without_sharing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [Request(spec, prompt, prompt, k) for prompt in PROMPTS for spec in SPECS.values() for k in (0, 1)]
    decoding = Decoding(max_new_tokens=10, temperature=0.9, top_p=0.95)

    def everything() -> tuple[object, np.ndarray, np.ndarray]:
        answers = engine.generate(requests, decoding)
        log_probs = np.concatenate(engine.log_probs(requests, answers))
        return answers, log_probs, np.array(engine.kl(requests, answers, SPECS["mix"]))

    assert engine._shared(requests) > len(SYSTEM.split())
    shared = everything()
    without_sharing(monkeypatch)
    assert engine._shared(requests) == 0
    alone = everything()
    assert shared[0] == alone[0]
    for ours, theirs in zip(shared[1:], alone[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def tokens_read(engine: Engine, act: Callable[[], object]) -> list[int]:
    """Return how many tokens each forward of the base model reads while `act` runs."""
    seen: list[int] = []
    model = engine.models.row_lora("base").model
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    act()
    hook.remove()
    return seen


def test_a_prompt_is_read_once_for_all_samples_of_a_policy(engine: Engine) -> None:
    specs = [SPECS["lora"], SPECS["extrapolated"]]
    requests = [Request(spec, "open the lock", "p", k) for spec in specs for k in range(20)]
    n = len(engine._prompt(requests[0]))
    engine.models.adapter("base", "lora-a")
    seen = tokens_read(engine, lambda: engine.generate(requests, DECODING))
    assert seen[0] == len(specs) * n
    assert seen[1] <= len(requests)


def test_the_beginning_is_read_once_per_policy_in_decoding_and_in_likelihood(engine: Engine) -> None:
    specs = [SPECS["lora"], SPECS["extrapolated"], SPECS["reference"]]
    requests = [Request(spec, prompt, prompt) for prompt in PROMPTS for spec in specs]
    shared = engine._shared(requests)
    width = max(len(engine._prompt(request)) for request in requests)
    answers = engine.generate(requests, DECODING)
    seen = tokens_read(engine, lambda: engine.generate(requests, DECODING))
    assert seen[:2] == [len(specs) * shared, len(requests) * (width - shared)]
    first, second = tokens_read(engine, lambda: engine.log_probs(requests, answers))
    assert first == len(specs) * shared
    assert second == len(requests) * (width - shared + max(len(answer.tokens) for answer in answers))


def test_answers_do_not_depend_on_what_is_asked_beside_them(engine: Engine) -> None:
    """A prompt without the common beginning takes the sharing away."""
    requests = [Request(SPECS["extrapolated"], prompt, prompt, k) for prompt in PROMPTS for k in range(6)]
    other = Request(SPECS["lora"], "stop", "other")
    assert engine._shared([*requests, other]) == 0
    assert engine.generate([*requests, other], DECODING)[:-1] == engine.generate(requests, DECODING)


def tiny(architecture: str) -> PreTrainedModel:
    """Return a random model of two layers; what an architecture does not know of its configuration is left out."""
    size = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "sliding_window": None}
    low_rank = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = dict.fromkeys(("num_experts", "n_routed_experts"), 4) | {"num_experts_per_tok": 2, "n_group": 1}
    experts |= {"topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 16}
    settings = size | heads | low_rank | experts | {"shared_expert_intermediate_size": 16}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings)).eval()


@pytest.mark.parametrize("architecture", passes.ROTARY)
def test_a_gap_changes_nothing_for_models_that_allow_it(architecture: str) -> None:
    model = tiny(architecture)
    assert allows_gaps(model.config)
    prompts, shared = [[3, 4, 5, 6, 7, 8, 9, 10, 11], [3, 4, 5, 6, 7, 12]], 4
    outputs = []
    for beginning in (0, shared):
        ids, mask = left_padded(prompts, 0, torch.device("cpu"), beginning)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask)).logits
        outputs.append(logits[:, -1])
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        models.gemma2().config,
        models.gpt2().config,
        models.falcon(alibi=True).config,
        models.lfm2().config,
        MistralConfig(sliding_window=16),
        BloomConfig(),
        models.llama().config.__class__(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
    ],
    ids=["window", "learnt positions", "falcon's biases", "convolutions", "one window", "biases", "moving frequencies"],
)
def test_models_that_count_columns_share_no_beginning(config: object) -> None:
    assert not allows_gaps(config)


def test_what_is_common_leaves_a_token_to_each_prompt_and_must_be_worth_it() -> None:
    eight = list(range(8))
    assert common_beginning([[*eight, 1], [*eight, 2]]) == 8
    assert common_beginning([[*eight, 1], [*eight]]) == 0
    assert common_beginning([[*eight, 8], [*eight, 8, 9]]) == 8
    assert common_beginning([[1, 2], [1, 3]]) == 0


def test_first_of_each() -> None:
    firsts, place = first_of_each(["b", "a", "b", "c", "a"], torch.device("cpu"))
    assert (firsts.tolist(), place.tolist()) == ([0, 1, 3], [0, 1, 0, 2, 1])


def test_a_policy_alone_is_its_own_company(engine: Engine) -> None:
    spec = policy("base", [("lora-a", 0.7)])
    requests = [Request(spec, prompt, prompt) for prompt in PROMPTS]
    together = engine.generate(requests, DECODING)
    assert [engine.generate([request], DECODING)[0] for request in requests] == together
