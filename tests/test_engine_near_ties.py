"""Near ties: found where rounding could decide a token, and decided on the row alone."""

from __future__ import annotations

import pytest
import torch

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import PolicySpec, Weights, policy
from peo_bench.engine import decode, near_ties
from peo_bench.engine.decode import Pass
from peo_bench.engine.engine import Engine, Request
from peo_bench.engine.near_ties import TIE, perturbed
from peo_bench.engine.noise import Noise
from peo_bench.jobs.job import Handle
from tests import models

SPECS = [
    policy("base", [("lora-a", 1.6), ("lora-b", -0.4)]),
    PolicySpec(((0.4, Weights("base", (("lora-a", 1.0),))), (0.6, Weights("base", (("lora-b", 1.0),))))),
    policy("base", [("full-a", 0.8), ("full-b", 0.9)]),
]


class Fixed(Noise):
    """Noise (rows, vocabulary) that is given."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def everywhere(self, position: int, vocabulary: int) -> torch.Tensor:
        return self.values

    def at(self, position: int, tokens: torch.Tensor) -> torch.Tensor:
        return self.values.gather(1, tokens)

    def of(self, rows: torch.Tensor | slice) -> Noise:
        return Fixed(self.values[rows])


def tied(probabilities: list[float], noise: list[float] | None, decoding: Decoding) -> bool:
    scores = torch.tensor([probabilities]).log()
    return bool(perturbed(scores, None if noise is None else (Fixed(torch.tensor([noise])), 0), decoding)[1])


def test_greedy_ties_are_those_of_the_logits() -> None:
    greedy = Decoding(temperature=0)
    assert tied([0.4, 0.4 * (1 - TIE / 2), 0.2], None, greedy)
    assert not tied([0.4, 0.4 * (1 - TIE * 2), 0.2], None, greedy)


def test_sampling_ties_are_those_of_scores_and_noise() -> None:
    """log 0.5 - log 0.25 = 0.693147: noise that makes up for the difference makes the tie."""
    assert tied([0.5, 0.25, 0.25], [0.0, 0.693147, 0.0], Decoding())
    assert not tied([0.5, 0.25, 0.25], [0.0, 0.7, 0.0], Decoding())


@pytest.mark.parametrize(
    ("top_p", "noise", "expected"),
    [
        (0.5, [0.0, 5.0, 0.0], True),  # the second token would win, and 0.5 < 0.5 is a matter of rounding
        (0.5, [5.0, 0.0, 0.0], False),  # it is as uncertain there, but cannot win
        (0.6, [0.0, 5.0, 0.0], False),  # it is surely inside
        (0.4, [0.0, 5.0, 0.0], False),  # it is surely outside
    ],
)
def test_a_token_at_the_edge_of_the_nucleus_is_a_tie_where_it_could_win(
    top_p: float, noise: list[float], expected: bool
) -> None:
    assert tied([0.5, 0.3, 0.2], noise, Decoding(top_p=top_p)) is expected


def test_equally_probable_tokens_on_both_sides_of_the_edge_are_a_tie() -> None:
    """Which of the two is inside (0.5 + 0.25 >= 0.6) is decided by the order of equal numbers."""
    assert tied([0.5, 0.25, 0.25], [0.0, 5.0, 0.0], Decoding(top_p=0.6))


def test_the_nucleus_is_the_smallest_set_with_the_mass() -> None:
    scores, _ = perturbed(torch.tensor([[0.1, 0.6, 0.3]]).log(), (Fixed(torch.zeros(1, 3)), 0), Decoding(top_p=0.7))
    assert torch.isinf(scores).tolist() == [[True, False, False]]


@pytest.mark.parametrize("top_p", [0.3, 0.95, 0.9999])
def test_looking_at_the_most_probable_tokens_only_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, top_p: float
) -> None:
    """Peaked and flat rows, nuclei within the candidates and larger ones, against the definition on the whole row."""
    generator = torch.Generator().manual_seed(1)
    sharpness = torch.tensor([0.1, 1.0, 3.0, 8.0]).repeat(30)[:, None]
    scores = torch.randn(120, 400, generator=generator) * sharpness
    keys = torch.arange(120)
    probabilities, order = scores.softmax(dim=-1).sort(dim=-1, descending=True)
    outside = (
        torch.zeros_like(scores).scatter(1, order, (probabilities.cumsum(-1) - probabilities >= top_p).float()) > 0
    )
    expected = (scores + Noise(keys).everywhere(5, 400)).masked_fill(outside, -torch.inf)
    monkeypatch.setattr(near_ties, "CANDIDATES", 16)
    found, tied = perturbed(scores, (Noise(keys), 5), Decoding(top_p=top_p))
    assert (found.argmax(dim=-1) == expected.argmax(dim=-1))[~tied].all()
    assert tied.float().mean() < 0.2
    sizes = (~outside).sum(dim=-1)
    assert sizes.min() < 16 < sizes.max(), "both kinds of rows are there"
    agree = (torch.isinf(found) == outside).all(dim=-1)
    assert agree.float().mean() > 0.9, "but for tokens at the very edge the nucleus is the same"


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_no_answer_depends_on_what_the_batch_does_to_logits(
    artefacts: dict[str, Handle], monkeypatch: pytest.MonkeyPatch, top_p: float
) -> None:
    """Batches get logits that are off by up to 0.01, a thousand times fp32's rounding; ties are as wide."""
    monkeypatch.setattr(near_ties, "TIE", 0.1)
    decoding = Decoding(max_new_tokens=12, top_p=top_p)
    requests = [Request(spec, prompt, prompt, k) for spec in SPECS for prompt in models.PROMPTS for k in range(6)]
    expected = Engine(artefacts.__getitem__, device="cpu", batch_size=1).generate(requests, decoding)
    exact = Pass.logits
    noise = torch.Generator().manual_seed(0)

    def rounded(self: Pass, **inputs: object) -> tuple[torch.Tensor, object]:
        logits, cache = exact(self, **inputs)
        if len(logits) > 1:
            logits = logits + 0.01 * (2 * torch.rand(logits.shape, generator=noise) - 1)
        return logits, cache

    monkeypatch.setattr(Pass, "logits", rounded)
    batched = Engine(artefacts.__getitem__, device="cpu", batch_size=64)
    assert batched.generate(requests, decoding) == expected
    batched.precision = "bfloat16"  # where near ties are left to rounding
    assert batched.generate(requests, decoding) != expected


def test_rows_that_have_ended_leave_and_change_nothing(
    artefacts: dict[str, Handle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixtures, adapters and full models; as soon as one row has ended, and never before the last one has."""
    requests = [Request(spec, prompt, prompt, k) for spec in SPECS for prompt in models.PROMPTS for k in range(4)]
    forwards: list[int] = []
    exact = Pass.logits

    def counted(self: Pass, **inputs: torch.Tensor) -> tuple[torch.Tensor, object]:
        forwards.append(len(inputs["input_ids"]))
        return exact(self, **inputs)

    monkeypatch.setattr(Pass, "logits", counted)
    answers, work = [], []
    for share in (0.0, 2.0):
        monkeypatch.setattr(decode, "LEAVE", share)
        forwards.clear()
        engine = Engine(artefacts.__getitem__, device="cpu")
        answers.append([answer.tokens for answer in engine.generate(requests, Decoding(max_new_tokens=40))])
        work.append(sum(forwards))
    lengths = sorted(map(len, answers[0]))
    assert lengths[0] < 10
    assert lengths[-1] == 40, "the longest answers are cut"
    assert answers[0] == answers[1]
    assert work[0] < 0.8 * work[1]
