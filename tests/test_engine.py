"""The engine as a whole: batches of different specs, decoding, common random numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import PolicySpec, Weights, policy
from peo_bench.engine import engine as engine_module
from peo_bench.engine.engine import Engine, Request
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Handle
from peo_bench.models.rendering import prompt_ids, render
from tests import models

REFERENCE = policy("base")
SPECS = {
    "reference": REFERENCE,
    "lora": policy("base", [("lora-a", 1.0)]),
    "extrapolated": policy("base", [("lora-a", 1.6), ("lora-b", -0.4)]),
    "three": policy("base", [("lora-a", 0.3), ("lora-b", 0.5), ("lora-c", 0.7)]),
    "mix": PolicySpec(((0.4, Weights("base", (("lora-a", 1.0),))), (0.6, Weights("base", (("lora-b", 1.0),))))),
    "mix with reference": PolicySpec(((1.7, Weights("base", (("lora-b", 1.0),))), (-0.7, Weights("base")))),
    "sharpened": PolicySpec(((2.0, Weights("base", (("lora-a", 1.0),))),)),
    "full": policy("base", [("full-a", 1.0)]),
    "full soup": policy("base", [("full-a", 0.8), ("full-b", 0.9)]),
    "full and lora": policy("base", [("full-a", 0.5), ("lora-b", 0.5)]),
    "mix of full": PolicySpec(((0.5, Weights("base", (("full-a", 1.0),))), (0.5, Weights("base", (("full-b", 1.0),))))),
    "mix of all": PolicySpec(
        (
            (0.3, Weights("base", (("full-a", 1.0),))),
            (0.3, Weights("base", (("lora-a", 1.0),))),
            (0.2, Weights("base", (("lora-b", 1.0),))),
            (0.2, Weights("base")),
        )
    ),
}
DECODING = Decoding(max_new_tokens=10)


def every_spec(prompts: list[str] = models.PROMPTS) -> list[Request]:
    return [Request(spec, prompt, prompt, 0) for prompt in prompts for spec in SPECS.values()]


@pytest.mark.parametrize(
    "decoding",
    [DECODING, Decoding(max_new_tokens=10, temperature=0), Decoding(max_new_tokens=10, temperature=0.7, top_p=0.9)],
)
def test_a_mixed_batch_equals_each_alone(artefacts: dict[str, Handle], decoding: Decoding) -> None:
    requests = every_spec()
    together = Engine(artefacts.__getitem__, device="cpu", batch_size=64).generate(requests, decoding)
    alone = Engine(artefacts.__getitem__, device="cpu")
    assert [alone.generate([request], decoding)[0] for request in requests] == together
    assert len({answer.tokens for answer in together}) > len(requests) / 4


def test_batches_are_reported_once_each_and_answers_are_well_formed(engine: Engine) -> None:
    requests = every_spec()
    seen: dict[int, object] = {}
    answers = engine.generate(requests, DECODING, lambda indices, done: seen.update(zip(indices, done, strict=True)))
    assert [seen[i] for i in range(len(requests))] == answers
    for answer in answers:
        assert 1 <= len(answer.tokens) <= 10
        assert (2 in answer.tokens) != answer.truncated
        assert 2 not in answer.tokens[:-1]
        assert answer.text == answer.text.strip()
        assert "</s>" not in answer.text


def test_adapter_sets_beyond_the_rank_budget_run_apart_with_the_same_answers(
    engine: Engine, artefacts: dict[str, Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    united = engine.generate(every_spec(), DECODING)
    monkeypatch.setattr(engine_module, "RANK_BUDGET", 10)
    apart = Engine(artefacts.__getitem__, device="cpu").generate(every_spec(), DECODING)
    assert apart == united


def test_answers_depend_on_neither_order_nor_batch_size_nor_the_length_limit(artefacts: dict[str, Handle]) -> None:
    requests = [
        Request(spec, prompt, prompt, k) for prompt in models.PROMPTS for spec in SPECS.values() for k in (0, 1)
    ]
    engine = Engine(artefacts.__getitem__, device="cpu", batch_size=512)
    answers = engine.generate(requests, DECODING)
    engine.batch_size = 7
    order = np.random.default_rng(0).permutation(len(requests))
    shuffled = engine.generate([requests[i] for i in order], DECODING)
    assert [shuffled[list(order).index(i)] for i in range(len(requests))] == answers
    short = engine.generate(requests, Decoding(max_new_tokens=4))
    assert [answer.tokens for answer in short] == [answer.tokens[:4] for answer in answers]


def test_the_same_noise_gives_nearby_policies_the_same_answers(engine: Engine) -> None:
    nearby = [policy("base", [("lora-a", c)]) for c in (0.5, 0.5001)]
    far = policy("base", [("lora-a", -1.0)])
    answers = [
        engine.generate([Request(spec, "a bomb", "p", k) for k in range(100)], DECODING) for spec in (*nearby, far)
    ]
    assert sum(a == b for a, b in zip(answers[0], answers[1], strict=True)) >= 97
    assert sum(a == b for a, b in zip(answers[0], answers[2], strict=True)) < 60
    assert len({answer.tokens for answer in answers[0]}) > 50


def test_the_noise_seed_changes_the_answers(artefacts: dict[str, Handle]) -> None:
    requests = [Request(REFERENCE, "a bomb", "p", k) for k in range(20)]
    first, second = (
        Engine(artefacts.__getitem__, device="cpu", noise_seed=s).generate(requests, DECODING) for s in (0, 1)
    )
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10


@pytest.mark.parametrize("name", ["reference", "mix", "mix with reference", "sharpened", "mix of all"])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 0.8)])
def test_first_tokens_have_the_exact_mixtures_frequencies(
    engine: Engine, name: str, temperature: float, top_p: float
) -> None:
    n = 4000
    engine.batch_size = n
    decoding = Decoding(max_new_tokens=1, temperature=temperature, top_p=top_p)
    answers = engine.generate([Request(SPECS[name], "open the lock", "p", k) for k in range(n)], decoding)
    expected = _nucleus(np.exp(exact_next(engine, SPECS[name], "open the lock") / temperature), top_p)
    counts = np.bincount([answer.tokens[0] for answer in answers], minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    rare = expected * n < 5
    observed, wanted = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    kept = wanted > 0
    assert kept.sum() >= 3
    assert stats.chisquare(observed[kept], wanted[kept] * n).pvalue > 1e-3


def exact_next(engine: Engine, spec: PolicySpec, prompt: str) -> np.ndarray:
    """Return log pi of the first answer token up to a constant, from merged models, in float64."""
    total: np.ndarray | float = 0.0
    for a, weights in spec.mix:
        model, tokenizer = engine.materialised(weights)
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids(tokenizer, prompt)])).logits[0, -1].double()
        total = total + a * logits.log_softmax(-1).numpy()
    return np.asarray(total)


def _nucleus(weights: np.ndarray, top_p: float) -> np.ndarray:
    p = weights / weights.sum()
    order = np.argsort(-p)
    size = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
    kept = np.zeros_like(p)
    kept[order[:size]] = p[order[:size]]
    return kept / kept.sum()


def test_temperature_zero_takes_the_most_probable_token(engine: Engine) -> None:
    for spec in SPECS.values():
        answer = engine.generate([Request(spec, "stop", "p")], Decoding(max_new_tokens=1, temperature=0))[0]
        assert answer.tokens[0] == exact_next(engine, spec, "stop").argmax()


def test_sampling_parameters_and_extra_eos_of_a_checkpoint(tmp_path: Path, artefacts: dict[str, Handle]) -> None:
    model = models.llama()
    plain = models.save_base(tmp_path, "plain", model)
    model.generation_config.update(
        do_sample=True, temperature=0.1, top_k=1, repetition_penalty=5.0, eos_token_id=[2, 9], max_length=2
    )
    handles = {"sneaky": models.save_base(tmp_path, "sneaky", model), "plain": plain}
    engine = Engine(handles.__getitem__, device="cpu")
    plain_answers = engine.generate(
        [Request(policy("plain"), p, p, k) for p in models.PROMPTS for k in range(9)], DECODING
    )
    sneaky = engine.generate([Request(policy("sneaky"), p, p, k) for p in models.PROMPTS for k in range(9)], DECODING)
    assert [cut(answer.tokens, 9) for answer in plain_answers] == [answer.tokens for answer in sneaky]
    assert any(answer.tokens[-1] == 9 and not answer.truncated for answer in sneaky)
    assert engine.materialised(Weights("sneaky"))[0].generation_config.top_k == 1


def cut(tokens: tuple[int, ...], stop: int) -> tuple[int, ...]:
    return tokens[: tokens.index(stop) + 1] if stop in tokens else tokens


def test_a_qwen2_with_tied_embeddings_works(tmp_path: Path) -> None:
    model = models.qwen2()
    handles = {
        "base": models.save_base(tmp_path, "base", model),
        "lora-a": models.save_lora(tmp_path, "lora-a", model, seed=1),
        "full-a": models.save_full(tmp_path, "full-a", model, 0.1, seed=2),
    }
    specs = [SPECS["reference"], SPECS["lora"], SPECS["full"], policy("base", [("full-a", 1.3), ("lora-a", -0.5)])]
    requests = [Request(spec, prompt, prompt) for prompt in models.PROMPTS for spec in specs]
    engine = Engine(handles.__getitem__, device="cpu")
    together = engine.generate(requests, DECODING)
    assert [engine.generate([request], DECODING)[0] for request in requests] == together
    for spec in specs:
        answer = engine.generate([Request(spec, "stop", "p")], Decoding(max_new_tokens=1, temperature=0))[0]
        assert answer.tokens[0] == exact_next(engine, spec, "stop").argmax()


def test_policies_with_different_vocabularies_are_not_mixed(tmp_path: Path) -> None:
    words = [*models.WORDS[:-1], "other"]
    handles = {
        "base": models.save_base(tmp_path, "base", models.llama()),
        "other": models.save_base(tmp_path, "other", models.llama(1), models.tokenizer(words=words)),
    }
    engine = Engine(handles.__getitem__, device="cpu")
    with pytest.raises(UsageError, match="different vocabularies"):
        engine.generate([Request(PolicySpec(((0.5, Weights("base")), (0.5, Weights("other")))), "stop", "p")], DECODING)


@pytest.mark.parametrize("method", ["kl", "log_probs", "generate"])
def test_no_requests_no_answers(engine: Engine, method: str) -> None:
    call: dict[str, Callable[[], list]] = {
        "kl": lambda: engine.kl([], [], REFERENCE),
        "log_probs": lambda: engine.log_probs([], []),
        "generate": lambda: engine.generate([], DECODING),
    }
    assert call[method]() == []


def test_rendering_with_and_without_a_chat_template() -> None:
    templated, bare = models.tokenizer(), models.tokenizer(template=None)
    assert render(templated, "a box") == "<s><user> a box <answer>"
    assert templated.convert_ids_to_tokens(prompt_ids(templated, "a box")) == ["<s>", "<user>", "a", "box", "<answer>"]
    assert render(bare, "a box") == "a box\n"
    assert bare.convert_ids_to_tokens(prompt_ids(bare, "a box")) == ["a", "box"]


# ---- memory --------------------------------------------------------------------------------------------------------


class Short:
    """Memory for at most `rows` rows, in the place of a function that is given as many as `count` says."""

    def __init__(self, function: Callable[..., object], rows: int, count: Callable[..., int]) -> None:
        self.function, self.rows, self.count, self.tried = function, rows, count, []

    def __call__(self, *given: object) -> object:
        self.tried.append(self.count(*given))
        if self.tried[-1] > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.function(*given)


def test_a_batch_that_does_not_fit_is_answered_in_parts_with_the_same_answers(
    artefacts: dict[str, Handle], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    requests = every_spec()
    whole = Engine(artefacts.__getitem__, device="cpu", batch_size=64)
    answers = whole.generate(requests, DECODING)
    scored = whole.kl(requests, answers, SPECS["mix"]), whole.log_probs(requests, answers)
    short = Engine(artefacts.__getitem__, device="cpu", batch_size=64)
    decoding = Short(engine_module.decode, 5, lambda passes, rows, decoding: len(rows.prompts))
    monkeypatch.setattr(engine_module, "decode", decoding)
    seen: list[int] = []
    assert short.generate(requests, DECODING, lambda indices, done: seen.extend(indices)) == answers
    assert sorted(seen) == list(range(len(seen)))
    assert max(decoding.tried) > 5
    assert max(decoding.tried[len(decoding.tried) // 2 :]) <= 5, "what did not fit once is not tried again"
    assert "are too many for the memory" in caplog.text
    short.batch_size = 64
    for name in ("answer_kl", "log_policy"):
        packed = Short(getattr(engine_module.likelihood, name), 3, lambda *given: len(given[-1].answers))
        monkeypatch.setattr(engine_module.likelihood, name, packed)
    values, rows = short.kl(requests, answers, SPECS["mix"]), short.log_probs(requests, answers)
    np.testing.assert_allclose(values, scored[0], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(rows, scored[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("size mismatch")])
def test_what_smaller_batches_do_not_mend_is_an_error(
    error: RuntimeError, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def decode(passes: object, rows: object, decoding: Decoding) -> object:
        tried.append(len(rows.prompts))
        raise error

    monkeypatch.setattr(engine_module, "decode", decode)
    with pytest.raises(type(error), match=str(error)):
        engine.generate(every_spec(), DECODING)
    assert (tried[-1] == 1) == isinstance(error, torch.OutOfMemoryError)


def test_a_prompt_without_room_for_an_answer_is_refused_before_any_is_written(artefacts: dict[str, Handle]) -> None:
    """Learnt positions end in an IndexError, and rotary ones go on beyond what was trained."""
    engine = Engine(artefacts.__getitem__, device="cpu")
    spec = next(iter(SPECS.values()))
    long = " ".join(["w1"] * 2000)
    with pytest.raises(
        UsageError, match=r"^the prompt has \d+ tokens, at most \d+ fit beside an answer of 10 \('w1 w1"
    ):
        engine.generate([Request(spec, "w1", "a"), Request(spec, long, "b")], DECODING, lambda *_: pytest.fail("wrote"))
