"""Merging rules against hand values, PEFT's own implementation and numpy; methods on the closed-form oracle."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from peft.utils import merge_utils
from preferences import asked
from test_closed_form import PREFERENCES, Tabular, world

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import Merge, Weights, policy, spec_from_json
from peo_bench.engine.engine import Engine, Request
from peo_bench.engine.merging import agreeing_mean, largest, merged_vectors, slerp
from peo_bench.errors import UsageError
from peo_bench.evaluation.kl_budget import keeps
from peo_bench.files.digest import digest
from peo_bench.jobs.job import Handle, Job
from peo_bench.methods import make_method
from peo_bench.methods.merging import _strengths
from peo_bench.training.aspect import pairs_bound
from peo_bench.training.mixed_pairs import mix_pairs, mixed_pairs_job
from tests import models, training_fixtures

MERGING = ["slerp", "liti", "ties", "dare", "della", "model-stock"]


def random_vectors(n: int = 2, shape: tuple[int, ...] = (6, 5)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(n)]


def merged(rule: Merge, vectors: list[torch.Tensor], shares: list[float]) -> torch.Tensor:
    names = [f"expert-{i}" for i in range(len(vectors))]
    tensors = {name: {"w": vector} for name, vector in zip(names, vectors, strict=True)}
    return merged_vectors(rule, tensors, dict(zip(names, shares, strict=True)))["w"]


# ---- specs ----------------------------------------------------------------------------------------------------------


def test_specs_with_a_merge_survive_json_and_keep_the_keys_of_others():
    spec = policy("base", [("a", 0.3), ("b", 0.7)], Merge("dare", 0.5, seed=3, strength=1.25))
    assert spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert policy("base", [("a", 1.0)]).to_json() == {"weights": {"base": "base", "terms": [["a", 1.0]]}}
    assert spec.key != policy("base", [("a", 0.3), ("b", 0.7)]).key


def test_a_share_of_zero_counts_and_a_strength_of_zero_is_the_base():
    """Which vectors are merged matters to the angle between them, even where one has no share."""
    assert policy("base", [("a", 1.0), ("b", 0.0)], Merge("slerp")).ids == ("base", "a", "b")
    assert policy("base", [("a", 1.0), ("b", 0.0)], Merge("slerp", strength=0.0)) == policy("base")


def test_going_further_multiplies_the_strength():
    weights = Weights("base", (("a", 0.5), ("b", 0.5)), Merge("ties", 0.2, strength=1.5))
    assert weights.times(2.0) == Weights("base", weights.terms, Merge("ties", 0.2, strength=3.0))
    assert Weights("base", (("a", 0.5),)).times(2.0) == Weights("base", (("a", 1.0),))


# ---- rules ----------------------------------------------------------------------------------------------------------


def test_slerp_by_hand():
    """Orthogonal: the half is (1, 1) / sqrt 2; at 60 degrees the third of the way is at 20; colinear is linear."""
    x, y = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    torch.testing.assert_close(slerp(x, y, 0.5), torch.tensor([0.5**0.5, 0.5**0.5]).double())
    at_60 = torch.tensor([np.cos(np.pi / 3), np.sin(np.pi / 3)])
    torch.testing.assert_close(slerp(x, at_60, 1 / 3), torch.tensor([np.cos(np.pi / 9), np.sin(np.pi / 9)]))
    torch.testing.assert_close(slerp(x, 3 * x, 0.25), 1.5 * x)
    torch.testing.assert_close(slerp(0 * x, y, 0.25), 0.25 * y)


def test_the_ends_of_a_slerp_are_the_experts():
    a, b = random_vectors()
    torch.testing.assert_close(merged(Merge("slerp"), [a, b], [1.0, 0.0]), a)
    torch.testing.assert_close(merged(Merge("slerp"), [a, b], [0.0, 1.0]), b)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_ties_with_equal_shares_is_pefts(density):
    vectors = random_vectors(3)
    expected = merge_utils.ties(vectors, torch.ones(3, dtype=torch.float64), density)
    torch.testing.assert_close(merged(Merge("ties", density), vectors, [1 / 3] * 3), expected)


def test_ties_with_unequal_shares_against_numpy():
    """Written out position by position; at a vertex the trimmed expert is left."""
    a, b = random_vectors()
    found = merged(Merge("ties", 0.5), [a, b], [0.7, 0.3]).flatten()
    cut = [np.sort(np.abs(v.numpy()), axis=None)[-15] for v in (a, b)]
    trimmed = [np.where(np.abs(v.numpy()) >= c, v.numpy(), 0).ravel() for v, c in zip((a, b), cut, strict=True)]
    for i, (x, y) in enumerate(zip(*trimmed, strict=True)):
        up = 0.7 * x + 0.3 * y >= 0
        votes = [(w, v) for w, v in ((0.7, x), (0.3, y)) if (v > 0 if up else v < 0)]
        mean = sum(w * v for w, v in votes) / sum(w for w, _ in votes) if votes else 0.0
        assert float(found[i]) == pytest.approx(mean, abs=1e-12)
    torch.testing.assert_close(merged(Merge("ties", 0.5), [a, b], [1.0, 0.0]), largest(a, 0.5))


def test_agreement_by_hand():
    """(4, -1): the sum at (1/4, 3/4) is 1/4, so 4 alone counts; (4, -2): the sum is -1/2, so -2 alone counts."""
    found = agreeing_mean([torch.tensor([4.0, 4.0, 2.0]), torch.tensor([-1.0, -2.0, 6.0])], [0.25, 0.75])
    torch.testing.assert_close(found, torch.tensor([4.0, -2.0, 5.0]))


def test_at_least_one_number_is_kept():
    assert largest(torch.tensor([1.0, -3.0, 2.0]), 0.1).tolist() == [0.0, -3.0, 0.0]


def own_seed(seed: int, name: str) -> int:
    return int(digest([seed, name]), 16) % 2**63


def test_dare_is_pefts_with_the_same_masks():
    """PEFT draws from torch's global generator, seeded here as ours is for each expert and tensor."""
    vectors, shares = random_vectors(), [0.7, 0.3]
    expected = torch.zeros_like(vectors[0])
    for i, (vector, share) in enumerate(zip(vectors, shares, strict=True)):
        torch.manual_seed(own_seed(5, f"expert-{i}/w"))
        expected += share * merge_utils.prune(vector, 0.4, "random", rescale=True)
    torch.testing.assert_close(merged(Merge("dare", 0.4, seed=5), vectors, shares), expected)
    assert (merged(Merge("dare", 0.4, seed=6), vectors, shares) != expected).any()


def test_masks_are_those_of_the_expert_whatever_the_preference():
    a, b = random_vectors()
    centre, end = (merged(Merge("dare", 0.5), [a, b], shares) for shares in ([0.5, 0.5], [1.0, 0.0]))
    torch.testing.assert_close(2 * centre - end, merged(Merge("dare", 0.5), [a, b], [0.0, 1.0]))


def test_della_drops_small_numbers_more_often_and_keeps_the_mean():
    """Over 2,000 seeds: a row's numbers stay as often as their ranks say, and the mean is the tensor's (5 errors)."""
    row = torch.tensor([[0.5, -4.0, 1.0, 2.0, -3.0]], dtype=torch.float64)
    probability = torch.tensor([[0.3, 0.7, 0.4, 0.5, 0.6]], dtype=torch.float64)
    drawn = torch.stack([merged(Merge("della", 0.5, 0.2, seed), [row, row], [1.0, 0.0]) for seed in range(2000)])
    error = (probability * (1 - probability) / 2000).sqrt()
    assert (((drawn != 0).double().mean(dim=0) - probability).abs() < 5 * error).all()
    assert ((drawn.mean(dim=0) - row).abs() < 5 * error * row.abs() / probability).all()
    kept = drawn[drawn[:, 0, 1] != 0][0, 0, 1]
    assert float(kept) == pytest.approx(-4.0 / 0.7)


def test_model_stock_is_the_nearest_point_to_the_centre():
    """Experts m + s e_i around a centre m e_3; equal shares give the paper's t, unequal ones the foot on their line."""
    s, m = 2.0, 1.0
    centre = torch.tensor([0.0, 0.0, m], dtype=torch.float64)
    experts = [torch.tensor(v, dtype=torch.float64) for v in ([s, 0, m], [0, s, m])]
    cosine = m**2 / (s**2 + m**2)
    t = 2 * cosine / (1 + cosine)
    torch.testing.assert_close(merged(Merge("model-stock"), experts, [0.5, 0.5]), t * (experts[0] + experts[1]) / 2)
    line = 0.8 * experts[0] + 0.2 * experts[1]
    foot = (line @ centre) / (line @ line) * line
    torch.testing.assert_close(merged(Merge("model-stock"), experts, [0.8, 0.2]), foot)
    opposed = [experts[0], -experts[0]]
    assert not merged(Merge("model-stock"), opposed, [0.5, 0.5]).any()


def test_what_a_vector_lacks_is_zero():
    """An adapter leaves norms alone where a full fine-tune moved them."""
    found = merged_vectors(Merge("slerp"), {"full": {"w": torch.ones(2)}, "lora": {}}, {"full": 0.25, "lora": 0.75})
    torch.testing.assert_close(found["w"], torch.full((2,), 0.25))


# ---- the engine -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(models.standard(tmp_path_factory.mktemp("artefacts")).__getitem__, device="cpu")


@pytest.mark.parametrize("experts", [("full-a", "full-b"), ("lora-a", "lora-b")])
def test_the_engine_adds_the_merged_vector_to_the_base(engine, experts):
    """Against PEFT's TIES on the differences of whole models, LoRA's products included."""
    base = engine.materialised(Weights("base"))[0].state_dict()
    trained = [engine.materialised(Weights("base", ((name, 1.0),)))[0].state_dict() for name in experts]
    weights = Weights("base", tuple((name, 0.5) for name in experts), Merge("ties", 0.5, strength=1.5))
    found = engine.materialised(weights)[0].state_dict()
    for name, tensor in base.items():
        vectors = [state[name] - tensor for state in trained]
        expected = tensor + 1.5 * merge_utils.ties(vectors, torch.ones(2), 0.5)
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def test_a_merged_policy_answers_the_same_in_any_company(engine):
    spec = policy("base", [("lora-a", 0.5), ("lora-b", 0.5)], Merge("slerp", strength=1.2))
    alone = [Request(spec, prompt, prompt) for prompt in models.PROMPTS]
    others = [Request(policy("base", [("lora-a", 0.5)]), prompt, prompt) for prompt in models.PROMPTS]
    decoding = Decoding(max_new_tokens=6)
    assert engine.generate([*others, *alone], decoding)[len(others) :] == engine.generate(alone, decoding)


# ---- methods --------------------------------------------------------------------------------------------------------


@cache
def oracle() -> Tabular:
    return Tabular()


def strength(family, w: tuple[float, float]) -> float:
    merge = family.resolve(asked(w)).mix[0][1].merge
    return merge.strength if merge else 0.0


@pytest.mark.parametrize("name", MERGING)
def test_a_family_keeps_the_budget_at_strengths_of_its_own(name):
    """One per preference of the run, of one density; between two preferences they are interpolated."""
    tabular = oracle()
    family = tabular.build(name)
    points = [tabular.point(family.resolve(asked(w))) for w in PREFERENCES]
    assert keeps(family.chosen["max_kl"], points, starts=0).all()
    assert [strength(family, w) for w in PREFERENCES] == family.chosen["strengths"]
    middle = (family.chosen["strengths"][1] + family.chosen["strengths"][2]) / 2
    assert strength(family, (0.375, 0.625)) == pytest.approx(middle)
    assert min(family.chosen["strengths"]) > 0


def test_each_preference_has_its_best_strength_within_the_budget():
    """On the oracle more is better: every preference ends within a step of the budget, whatever its KL at 1."""
    tabular = oracle()
    family = tabular.build("slerp", {"max_kl": 0.8})
    kl = [tabular.point(family.resolve(asked(w))).kl for w in PREFERENCES]
    assert max(kl) <= 0.8
    assert min(kl) > 0.45
    assert len(set(family.chosen["strengths"])) > 1


def test_liti_stays_between_the_reference_and_the_slerp():
    """Proxies are exact here and the budget leaves room, so slerps go beyond 1 and LITI ends at 1."""
    free, held = (oracle().build(name, {"max_kl": 8.0}).chosen["strengths"] for name in ("slerp", "liti"))
    assert min(free) > 1.0
    assert held == [1.0] * 5
    assert len(set(_strengths(1.0, 6)) - {1.0}) == 6, "strengths below 1, none of them twice"


@pytest.mark.parametrize("settings", [{"epsilon": 0.3}, {"densities": (0.9,)}])
def test_probabilities_of_della_are_probabilities(settings):
    with pytest.raises(UsageError, match=r"setting della.epsilon=.*between epsilon and 1 - epsilon"):
        make_method("della", {"della": settings})


@pytest.mark.parametrize("name", MERGING)
def test_a_budget_that_nothing_keeps_leaves_the_reference(name):
    family = oracle().build(name, {"max_kl": 1e-9})
    assert family.resolve(asked((0.5, 0.5))) == policy(world().reference.id)


@pytest.mark.parametrize("name", MERGING)
def test_fewer_evaluations_than_a_merge_needs_are_refused(name):
    with pytest.raises(UsageError, match=rf"budget=6: .* need 7 evaluations: type --set {name}.budget=7"):
        next(make_method(name, {name: {"budget": 6}}).build(world()))


def test_slerp_is_for_two_experts():
    three = type(world())(**{**vars(world()), "objectives": (*world().objectives, world().objectives[0])})
    with pytest.raises(UsageError, match="slerp merges two experts, this suite has 3 objectives"):
        next(make_method("slerp").build(three))


# ---- data-mix -------------------------------------------------------------------------------------------------------


def test_the_mixture_has_every_pair_of_every_objective(tmp_path: Path):
    pairs = training_fixtures.save_pairs(tmp_path / "pairs", 5)
    work = training_fixtures.workspace(tmp_path / "work")
    inputs: dict[str, Handle] = {"pairs:helpful": pairs, "pairs:harmless": pairs}
    result = mix_pairs.run(Job("mixed-pairs", {"objectives": ["helpful", "harmless"]}), inputs, work)
    both = [(pairs.path / f"{name}-policy.jsonl").read_text() for name in ("helpful", "harmless")]
    assert (work.dir / "mixture-policy.jsonl").read_text() == "".join(both)
    assert result == {"pairs": {"helpful": 5, "harmless": 5}}


def test_data_mix_trains_one_policy_on_as_many_pairs_as_all_experts():
    here = world()
    pairs = Job("sandbox-pairs", {"seed": 0, "policy": 100, "scorer": 10})
    here = type(here)(**{**vars(here), "pairs": dict.fromkeys(here.names, pairs)})
    (job,) = next(make_method("data-mix").build(here)).jobs
    assert job.needs["pairs"] == mixed_pairs_job(here)
    assert job.params["beta"] == here.training["beta"]
    assert pairs_bound(job).pairs_trained == 200 == sum(pairs_bound(e).pairs_trained for e in here.aspects)
