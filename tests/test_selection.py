"""Policies that choose among answers: specs, the engine's choice, its exact distribution, the bound of its KL."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import PolicySpec, Utility, Weights, policy, spec_from_json
from peo_bench.engine.engine import Answer, Engine, Request
from peo_bench.engine.selection import selection_nats
from peo_bench.evaluation import generation
from peo_bench.files import journal
from peo_bench.files.journal import Journal, Memo
from peo_bench.jobs.job import Cost, Handle
from peo_bench.scorers import columns
from tests import models

REFERENCE = policy("base")
LORA = policy("base", [("lora-a", 1.0)])
OTHER = policy("base", [("lora-b", 1.0)])
MIX = PolicySpec(((0.4, Weights("base", (("lora-a", 1.0),))), (0.6, Weights("base", (("lora-b", 1.0),)))))
FULL = policy("base", [("full-a", 1.0)])
UTILITY = Utility((("reward", 0.7), ("cost", -0.3)))
DECODING = Decoding(max_new_tokens=8)


def best_of(n: int, spec: PolicySpec, utility: Utility = UTILITY) -> PolicySpec:
    return PolicySpec(candidates=(spec,) * n, utility=utility)


class WordScorer:
    """A fixed score per word, summed; counts what it was asked."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.values = dict(zip(models.WORDS, rng.integers(-5, 6, len(models.WORDS)).tolist(), strict=True))
        self.asked = 0

    def score(self, prompts: list[str], answers: list[str]) -> list[float]:
        self.asked += len(answers)
        return [float(sum(self.values.get(word, 0) for word in answer.split())) for answer in answers]


SCORERS = {"reward": WordScorer(1), "cost": WordScorer(2)}


def utility(text: str, wanted: Utility = UTILITY) -> float:
    return sum(c * SCORERS[name].score([""], [text])[0] for name, c in wanted.terms)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    scorers = {name: Handle(name, Path(name), {}, Cost(), 0.0) for name in SCORERS}
    return models.standard(tmp_path_factory.mktemp("artefacts")) | scorers


@pytest.fixture
def engine(artefacts: dict[str, Handle], monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(
        columns,
        "scorer_columns",
        lambda inputs, precision: {role.partition(":")[2]: SCORERS[handle.id] for role, handle in inputs.items()},
    )
    return Engine(artefacts.__getitem__, device="cpu", batch_size=64)


# ---- specs ----------------------------------------------------------------------------------------------------


def test_keys_of_mixtures_are_those_of_before():
    """Literal keys from the version that knew no selections: caches and leaderboards stay valid."""
    assert policy("base").key == "3f85378fbb70b94a"
    assert policy("base", [("a", 0.3), ("b", 0.7)]).key == "57d1e6839c250abc"
    mix = PolicySpec(((0.4, Weights("base", (("a", 1.0),))), (0.6, Weights("base", (("b", 1.0),)))))
    assert mix.key == "e75e8e812ac56e96"
    assert PolicySpec(((2.0, Weights("base", (("a", 1.0),))),)).key == "8863ffcdacf41579"


def test_the_best_of_one_is_the_policy_itself():
    assert best_of(1, LORA) == LORA
    assert best_of(1, MIX).key == MIX.key
    assert best_of(1, LORA).to_json() == LORA.to_json()


def test_equal_selections_have_equal_keys_and_the_order_of_candidates_counts():
    """Candidate j has the noise of sample j, so another order is another policy; a utility's scale is not."""
    scaled = Utility((("cost", -3.0), ("reward", 7.0)))
    assert best_of(4, LORA).key == best_of(4, LORA, scaled).key
    assert best_of(4, LORA).key != best_of(3, LORA).key
    assert best_of(4, LORA).key != best_of(4, LORA, Utility((("reward", 1.0),))).key
    there, back = (PolicySpec(candidates=pair, utility=UTILITY) for pair in ((LORA, OTHER), (OTHER, LORA)))
    assert there.key != back.key


def test_ids_are_bases_deltas_and_scorers_of_all_candidates():
    spec = PolicySpec(candidates=(LORA, MIX, REFERENCE), utility=Utility((("reward", 1.0), ("cost", 0.0))))
    assert spec.ids == ("base", "lora-a", "lora-b", "reward")
    assert LORA.scorers == ()
    assert LORA.mixtures == (LORA,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PolicySpec(candidates=(LORA, best_of(2, LORA)), utility=UTILITY),
        lambda: PolicySpec(candidates=(LORA, OTHER)),
        lambda: PolicySpec(mix=LORA.mix, candidates=(LORA, OTHER), utility=UTILITY),
        lambda: PolicySpec(mix=LORA.mix, utility=UTILITY),
    ],
)
def test_what_is_no_selection_is_refused(make):
    with pytest.raises(ValueError, match="a selection needs"):
        make()


def test_a_utility_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one scorer"):
        Utility((("reward", 0.0),))


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.floats(-9, 9)), min_size=1, max_size=4),
    st.lists(st.sampled_from((LORA, OTHER, MIX, REFERENCE)), min_size=2, max_size=5),
)
def test_json_round_trip_of_selections(terms, candidates):
    """Also of utilities whose rounded coefficients do not add up to exactly 1."""
    try:
        wanted = Utility(tuple(terms))
    except ValueError:
        return
    spec = PolicySpec(candidates=tuple(candidates), utility=wanted)
    assert spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec


# ---- the engine's choice ----------------------------------------------------------------------------------------


def test_the_best_candidate_is_kept_the_first_of_equals(engine: Engine) -> None:
    requests = [Request(best_of(4, LORA), prompt, prompt) for prompt in models.PROMPTS]
    alone = [
        engine.generate([Request(LORA, prompt, prompt, j) for j in range(4)], DECODING) for prompt in models.PROMPTS
    ]
    found = engine.generate(requests, DECODING)
    for response, candidates in zip(found, alone, strict=True):
        utilities = [utility(candidate.text) for candidate in candidates]
        assert response.candidates == tuple(candidates)
        assert response.chosen == utilities.index(max(utilities))
        assert response.tokens == candidates[response.chosen].tokens
    assert len({response.chosen for response in found}) > 1


def test_utility_rises_with_n_on_the_same_noise(engine: Engine) -> None:
    """The first n of more candidates are the candidates of n: a maximum over more of the same, so exactly monotone."""
    prompts = [(prompt, f"{prompt}-{i}") for prompt in models.PROMPTS for i in range(8)]
    rows = []
    for n in (1, 2, 4, 8):
        answers = engine.generate([Request(best_of(n, LORA), prompt, name) for prompt, name in prompts], DECODING)
        rows.append([utility(answer.text) for answer in answers])
    steps = np.diff(np.array(rows), axis=0)
    assert (steps >= 0).all()
    assert (steps.sum(axis=1) > 0).all()


def test_further_samples_have_candidates_of_their_own(engine: Engine) -> None:
    """Sample s of the best of n chooses among the policy's samples s n ... s n + n - 1: none is used twice."""
    second = engine.generate([Request(best_of(3, LORA), "a bomb", "p", 1)], DECODING)[0]
    alone = engine.generate([Request(LORA, "a bomb", "p", j) for j in (3, 4, 5)], DECODING)
    assert second.candidates == tuple(alone)


def test_a_mixed_batch_of_selections_equals_each_alone(engine: Engine, artefacts: dict[str, Handle]) -> None:
    specs = [
        LORA, best_of(3, LORA), MIX, best_of(2, MIX), best_of(2, FULL), best_of(2, LORA, Utility((("cost", -1.0),))),
        PolicySpec(candidates=(LORA, MIX, FULL, REFERENCE), utility=UTILITY), REFERENCE,
    ]  # fmt: skip
    requests = [Request(spec, prompt, prompt) for spec in specs for prompt in models.PROMPTS]
    together = engine.generate(requests, DECODING)
    alone = Engine(artefacts.__getitem__, device="cpu")
    assert [alone.generate([request], DECODING)[0] for request in requests] == together


def test_shared_candidates_are_generated_once_and_charged_to_each_policy(engine: Engine) -> None:
    """The best of 4 for two utilities has 4 answers in common; each is charged 4, and the scorers that it asks."""
    specs = [best_of(4, LORA, Utility((("reward", 1.0),))), best_of(4, LORA), LORA]
    requests = [Request(spec, "stop", "p") for spec in specs]
    drawn: list[int] = []
    answers = engine.generate(requests, DECODING, lambda indices, done: drawn.extend(indices))
    assert sorted(drawn) == [0, 1, 2, 3]
    costs = [generation.charge(requests[i : i + 1], answers[i : i + 1], 2, 0) for i in range(3)]
    assert [cost.answers for cost in costs] == [4, 4, 1]
    assert [cost.scorer_calls for cost in costs] == [4 * 1 + 2, 4 * 2 + 2, 2]
    tokens = [len(candidate.tokens) for candidate in answers[0].candidates]
    assert [cost.tokens_generated for cost in costs] == [sum(tokens), sum(tokens), len(answers[2].tokens)]


def test_an_interrupted_generation_goes_on_where_it_was(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [best_of(3, LORA), PolicySpec(candidates=(LORA, OTHER), utility=UTILITY), LORA]
    prompts = [{"prompt": prompt, "prompt_id": prompt} for prompt in models.PROMPTS]
    whole = generation.generate(engine, specs, prompts, DECODING)
    n_drafts = 4 * len(prompts)  # LORA's samples 0, 1, 2 and OTHER's sample 1
    engine.batch_size = 3

    class Killed(Exception):
        pass

    def kill(fraction: float, note: str) -> None:
        if fraction > 0.5:
            raise Killed

    monkeypatch.setattr(journal, "KEEP_SECONDS", 0.0)
    with pytest.raises(Killed):
        generation.generate(engine, specs, prompts, DECODING, [Memo(tmp_path / "j.jsonl")] * 3, kill)
    before = kept(tmp_path / "j.jsonl")
    assert n_drafts / 2 < before < n_drafts
    assert generation.generate(engine, specs, prompts, DECODING, [Memo(tmp_path / "j.jsonl")] * 3) == whole
    assert kept(tmp_path / "j.jsonl") == n_drafts, "each once, although policies have candidates in common"


def kept(path: Path) -> int:
    return sum(len(record) for record in Journal(path).records)


# ---- the distribution of the best of n, and its KL ----------------------------------------------------------------


ONE = Decoding(max_new_tokens=1)


@pytest.fixture(scope="module")
def one_token(artefacts: dict[str, Handle]) -> tuple[dict[PolicySpec, np.ndarray], np.ndarray]:
    """Exact distributions (vocabulary,) of one-token answers to one prompt, and every answer's utility."""
    engine = Engine(artefacts.__getitem__, device="cpu")
    tokenizer = engine.models.tokenizer("base")
    tokens = range(len(tokenizer))
    answers = [Answer((token,), "", True) for token in tokens]
    exact = {}
    for spec in (REFERENCE, LORA, OTHER):
        logs = engine.log_probs([Request(spec, "open the lock", "p")] * len(answers), answers)
        exact[spec] = np.exp(np.concatenate(logs).astype(np.float64))
        np.testing.assert_allclose(exact[spec].sum(), 1, atol=1e-5)
        exact[spec] /= exact[spec].sum()
    texts = tokenizer.batch_decode([[token] for token in tokens], skip_special_tokens=True)
    return exact, np.array([utility(text.strip()) for text in texts])


def distribution_of_best(p: np.ndarray, u: np.ndarray, n: int) -> np.ndarray:
    """P(u <= u(y))^n - P(u < u(y))^n for y's class of ties, shared out within the class in proportion to p."""
    below = np.array([p[u < value].sum() for value in u])
    level = np.array([p[u == value].sum() for value in u])
    return ((below + level) ** n - below**n) * p / level


def wins(ps: list[np.ndarray], u: np.ndarray) -> np.ndarray:
    """P(candidate j gives y and is kept), (k, answers): all before it are lower, all after it at most equal."""
    lower, at_most = (
        np.array([[q[kept].sum() for kept in mask] for q in ps]) for mask in (u < u[:, None], u <= u[:, None])
    )
    return np.array([p * lower[:j].prod(axis=0) * at_most[j + 1 :].prod(axis=0) for j, p in enumerate(ps)])


def kl(p: np.ndarray, q: np.ndarray) -> float:
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


@pytest.mark.parametrize("n", [2, 5])
def test_best_of_n_reaches_its_closed_form(engine: Engine, one_token, n: int) -> None:
    """Chi-squared over 6,000 draws; and the draws are clearly not those of the policy itself."""
    exact, u = one_token
    expected = distribution_of_best(exact[LORA], u, n)
    assert expected.sum() == pytest.approx(1)
    engine.batch_size = 4096
    requests = [Request(best_of(n, LORA), "open the lock", f"p{i}") for i in range(6000)]
    drawn = np.bincount([answer.tokens[0] for answer in engine.generate(requests, ONE)], minlength=len(u))
    cells = np.where(expected * len(requests) >= 5, np.arange(len(u)), 0)  # rare tokens join the first one

    def p_value(probabilities: np.ndarray) -> float:
        seen, wanted = (np.bincount(cells, weights)[np.unique(cells)] for weights in (drawn, probabilities))
        return float(stats.chisquare(seen, wanted * len(requests)).pvalue)

    assert p_value(expected) > 0.001
    assert p_value(exact[LORA]) < 1e-9


@pytest.mark.parametrize("n", [2, 3, 4, 8, 64])
def test_the_exact_kl_of_best_of_n_keeps_its_bound(one_token, n: int) -> None:
    """Here with many ties, and for random distributions without one, where the bound is nearly reached."""
    exact, u = one_token
    bound = selection_nats(best_of(n, LORA))
    assert bound == pytest.approx(math.log(n) - (n - 1) / n)
    assert 0 < kl(distribution_of_best(exact[LORA], u, n), exact[LORA]) <= bound
    rng = np.random.default_rng(n)
    fine = rng.dirichlet(np.ones(5000))
    near = kl(distribution_of_best(fine, rng.permutation(5000).astype(float), n), fine)
    assert 0.95 * bound < near <= bound


def test_the_kl_bound_of_answers_bounds_the_exact_kl(engine: Engine, one_token) -> None:
    """Its mean estimates E log pi / ref + log n - (n - 1) / n under the selected answers; alone, exactly the latter."""
    exact, u = one_token
    requests = [Request(best_of(3, LORA), "open the lock", f"p{i}") for i in range(3000)]
    values = np.array(engine.kl_bound(requests, engine.generate(requests, ONE), REFERENCE))
    best = distribution_of_best(exact[LORA], u, 3)
    wanted = selection_nats(best_of(3, LORA)) + float((best * np.log(exact[LORA] / exact[REFERENCE])).sum())
    assert abs(values.mean() - wanted) < 4 * values.std(ddof=1) / math.sqrt(len(values))
    assert kl(best, exact[REFERENCE]) <= wanted
    of_reference = [replace(request, spec=best_of(3, REFERENCE)) for request in requests[:5]]
    bounds = engine.kl_bound(of_reference, engine.generate(of_reference, ONE), REFERENCE)
    assert bounds == [selection_nats(best_of(3, REFERENCE))] * 5


def test_different_candidates_have_the_wider_bound(engine: Engine, one_token) -> None:
    """All pairs and triples of three policies: exact distribution by enumeration, exact KL below the bound."""
    exact, u = one_token
    for candidates in (*product(exact, repeat=2), *product(exact, repeat=3)):
        spec = PolicySpec(candidates=candidates, utility=UTILITY)
        ps = np.array([exact[candidate] for candidate in candidates])
        kept = wins(list(ps), u)
        assert kept.sum() == pytest.approx(1)
        log_ratio = float((kept * np.log(ps / exact[REFERENCE])).sum())
        assert kl(kept.sum(axis=0), exact[REFERENCE]) <= selection_nats(spec) + log_ratio + 1e-12
    pair = PolicySpec(candidates=(LORA, OTHER), utility=UTILITY)
    assert selection_nats(pair) == math.log(2)


def test_kl_is_measured_for_mixtures_and_bounded_for_selections(engine: Engine) -> None:
    requests = [Request(spec, "stop", "p") for spec in (REFERENCE, LORA, best_of(2, LORA))]
    answers = engine.generate(requests, DECODING)
    measured, bounded = (f(requests, answers, REFERENCE) for f in (engine.kl, engine.kl_bound))
    assert measured[0] == 0 < measured[1]
    assert [math.isnan(value) for value in measured] == [False, False, True]
    assert [math.isnan(value) for value in bounded] == [True, True, False]
