"""Log-probabilities and KL against brute force, against enumeration, and for batches of any composition."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import PolicySpec, Weights, policy
from peo_bench.engine import likelihood
from peo_bench.engine.engine import Answer, Engine, Request
from peo_bench.jobs.job import Handle
from peo_bench.models.rendering import prompt_ids
from tests import models
from tests.test_engine import DECODING, REFERENCE, SPECS, every_spec


@pytest.fixture(scope="module")
def engine(artefacts: dict[str, Handle]) -> Engine:
    return Engine(artefacts.__getitem__, device="cpu", batch_size=64)


def brute(engine: Engine, spec: PolicySpec, prompt: str, tokens: tuple[int, ...]) -> np.ndarray:
    """Return log pi (tokens, vocabulary) from merged models, one sequence, no padding, float64."""
    total = torch.zeros(())
    for a, weights in spec.mix:
        model, tokenizer = engine.materialised(weights)
        ids = prompt_ids(tokenizer, prompt) + list(tokens)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, len(ids) - len(tokens) - 1 : -1].double()
        total = total + a * logits.log_softmax(-1)
    return total.log_softmax(-1).numpy()


def test_kl_and_log_probs_equal_brute_force(engine: Engine) -> None:
    requests = every_spec(models.PROMPTS[:3])
    answers = engine.generate(requests, DECODING)
    assert len({len(answer.tokens) for answer in answers}) > 2
    reference = SPECS["mix"]
    found, scores = engine.kl(requests, answers, reference), engine.log_probs(requests, answers)
    for request, answer, kl, log_probs in zip(requests, answers, found, scores, strict=True):
        log_pi = brute(engine, request.spec, request.prompt, answer.tokens)
        log_ref = brute(engine, reference, request.prompt, answer.tokens)
        assert kl == pytest.approx(float((np.exp(log_pi) * (log_pi - log_ref)).sum()), rel=1e-4, abs=1e-5)
        expected = log_pi[np.arange(len(answer.tokens)), list(answer.tokens)]
        assert log_probs.shape == (len(answer.tokens),)
        np.testing.assert_allclose(log_probs, expected, rtol=1e-4, atol=1e-4)


def test_the_reference_itself_costs_nothing_and_is_exactly_zero(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Request(REFERENCE, prompt, prompt) for prompt in models.PROMPTS]
    answers = engine.generate(requests, DECODING)
    monkeypatch.setattr(likelihood, "answer_kl", lambda *args: pytest.fail("a forward was run"))
    assert engine.kl(requests, answers, REFERENCE) == [0.0] * len(requests)


def test_kl_does_not_depend_on_the_batch(
    engine: Engine, artefacts: dict[str, Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = every_spec()
    answers = engine.generate(requests, DECODING)
    together = engine.kl(requests, answers, REFERENCE)
    monkeypatch.setattr(likelihood, "LOGITS_BYTES", 1)
    alone = Engine(artefacts.__getitem__, device="cpu", batch_size=5).kl(requests, answers, REFERENCE)
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    assert min(together) >= 0


@pytest.mark.parametrize("mixed", [False, True])
def test_the_mean_kl_of_samples_is_the_sequence_kl_by_enumeration(tmp_path: Path, mixed: bool) -> None:
    """All 1 + 5 + ... answers over 6 tokens, one of them eos, at most 3 tokens long: 156 sequences."""
    engine, n = tiny_world(tmp_path), 3000
    spec = policy("base", [("lora-a", 1.0)])
    if mixed:
        spec = PolicySpec(((1.5, Weights("base", (("lora-a", 1.0),))), (-0.5, Weights("base"))))
    answers = every_answer(6, 2, 3)
    requests = [Request(spec, "x", "p")] * len(answers)
    log_pi = total_log_probs(engine, requests, answers)
    log_ref = total_log_probs(engine, [Request(policy("base"), "x", "p")] * len(answers), answers)
    assert np.exp(log_pi).sum() == pytest.approx(1, abs=1e-5)
    exact = float((np.exp(log_pi) * (log_pi - log_ref)).sum())
    drawn = [Request(spec, "x", "p", k) for k in range(n)]
    kl = np.array(engine.kl(drawn, engine.generate(drawn, Decoding(max_new_tokens=3)), policy("base")))
    assert exact > 0.05
    assert abs(kl.mean() - exact) < 4 * kl.std() / np.sqrt(n)
    weighted = np.exp(log_pi) @ np.array(engine.kl(requests, answers, policy("base")))
    assert weighted == pytest.approx(exact, rel=1e-4)


def tiny_world(folder: Path) -> Engine:
    model = models.llama(vocabulary=6)
    made = models.tokenizer(template=None, words=["x"])
    handles = {
        "base": models.save_base(folder, "base", model, made),
        "lora-a": models.save_lora(folder, "lora-a", model, seed=7, scale=0.4),
    }
    return Engine(handles.__getitem__, device="cpu", batch_size=4096)


def every_answer(vocabulary: int, eos: int, longest: int) -> list[Answer]:
    others = [token for token in range(vocabulary) if token != eos]
    ended = [(*body, eos) for n in range(longest) for body in itertools.product(others, repeat=n)]
    cut = list(itertools.product(others, repeat=longest))
    return [Answer(tokens, "", False) for tokens in ended] + [Answer(tokens, "", True) for tokens in cut]


def total_log_probs(engine: Engine, requests: list[Request], answers: list[Answer]) -> np.ndarray:
    return np.array([row.astype(np.float64).sum() for row in engine.log_probs(requests, answers)])


def test_generated_answers_are_likely_under_their_own_policy(engine: Engine) -> None:
    """Greedy answers take each step's most probable token, so teacher forcing must agree with decoding."""
    requests = every_spec()
    answers = engine.generate(requests, Decoding(max_new_tokens=6, temperature=0))
    for request, answer, scores in zip(requests, answers, engine.log_probs(requests, answers), strict=True):
        best = brute(engine, request.spec, request.prompt, answer.tokens).max(axis=-1)
        np.testing.assert_allclose(scores, best, rtol=1e-3, atol=1e-3)


def test_a_kl_does_not_depend_on_how_many_tokens_are_summed_at_a_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = every_spec(models.PROMPTS)
    answers = engine.generate(requests, DECODING)
    whole = engine.kl(requests, answers, REFERENCE)
    monkeypatch.setattr(likelihood, "CHUNK_BYTES", 1)
    assert engine.kl(requests, answers, REFERENCE) == whole
