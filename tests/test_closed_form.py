"""The log-linear oracle: on a softmax bandit every KL-regularised method has a known optimum.

X prompts, V responses, rewards r_1, r_2, free logits per prompt, Bradley-Terry labels in expectation. DPO to
convergence in float64 gives tau_i = r_i / beta (up to a constant per prompt), and pi*(w) = pi_ref exp(w . r / beta) /
Z. The methods under test are the real ones; only the executors of jobs are replaced by exact tabular ones.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from preferences import asked
from scipy.special import log_softmax

from peo_bench.core.decoding import Decoding
from peo_bench.core.method import Build, Objective, World
from peo_bench.core.spec import spec_from_json
from peo_bench.engine.merging import merged_vectors
from peo_bench.evaluation.validation import Point, prompt_utilities
from peo_bench.jobs.job import Cost, Handle, Job, closure
from peo_bench.methods import METHODS, make_method
from peo_bench.training import extrapolation
from peo_bench.training.interpolation import simplex_grid
from peo_bench.training.modpo import Answers, modpo_loss
from peo_bench.training.steering_map import Evaluated, cautious_map, supported_map

BETA, X, V = 0.5, 3, 5
RNG = np.random.default_rng(3)
REFERENCE = RNG.normal(size=(X, V))
REWARDS = RNG.normal(size=(2, X, V))
OBJECTIVES = (Objective("helpful", "reward", True), Objective("harmless", "cost", False))
PREFERENCES = ((0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0))
INTERIOR = PREFERENCES[1:-1]
SIGNS = (("reward", 1), ("cost", -1))


def world() -> World:
    reference, pairs = Job("sft"), Job("pairs")
    return World(
        reference=reference,
        objectives=OBJECTIVES,
        pairs={o.name: pairs for o in OBJECTIVES},
        proxies={o.name: Job("reward-model", {"objective": o.name}, {"reference": reference}) for o in OBJECTIVES},
        prompts=Job("prompts"),
        preferences=tuple(map(asked, PREFERENCES)),
        training={"beta": BETA},
        decoding=Decoding(max_new_tokens=1),
        seed=0,
        validation_prompts=X,
    )


def log_policy(logits: np.ndarray) -> np.ndarray:
    return log_softmax(logits, axis=-1)


def optimum(weights: tuple[float, ...]) -> np.ndarray:
    return log_policy(REFERENCE + np.tensordot(weights, REWARDS, 1) / BETA)


def converge(reward: np.ndarray, margin: np.ndarray, weight: float) -> np.ndarray:
    """Minimise the expected MODPO loss (weight 1: DPO) over free logits, both orders of every pair, in float64."""
    first, second = (torch.tensor(side) for side in zip(*combinations(range(V), 2), strict=True))
    r, m = torch.tensor(reward), torch.tensor(margin)
    p = torch.sigmoid(r[:, first] - r[:, second])
    reference = torch.log_softmax(torch.tensor(REFERENCE), -1)
    logits = torch.tensor(REFERENCE).clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [logits],
        lr=1,
        max_iter=3000,
        tolerance_grad=1e-15,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def loss(z: torch.Tensor) -> torch.Tensor:
        log_pi = torch.log_softmax(z, -1)
        sides = [Answers(t[:, first], t[:, second]) for t in (log_pi, reference, m)]
        forward = modpo_loss(*sides, beta=BETA, weight=weight)
        backward = modpo_loss(*(Answers(side.rejected, side.chosen) for side in sides), beta=BETA, weight=weight)
        return (p * forward + (1 - p) * backward).sum()

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    optimiser.step(step)
    for _ in range(5):  # Newton; the Hessian is singular along constants per prompt, hence the pseudo-inverse
        gradient = torch.autograd.grad(loss(logits), logits)[0].flatten()
        hessian = torch.autograd.functional.hessian(loss, logits.detach()).reshape(X * V, X * V)
        with torch.no_grad():
            logits -= (torch.linalg.pinv(hessian, rtol=1e-10) @ gradient).reshape(X, V)
    return logits.detach().numpy() - REFERENCE


class Tabular:
    """Executes jobs exactly and evaluates specs in closed form."""

    def __init__(self) -> None:
        self.deltas: dict[str, np.ndarray] = {}
        self.results: dict[str, dict] = {}

    def log_probs(self, spec) -> np.ndarray:
        def source(weights) -> np.ndarray:
            shares = dict(weights.terms)
            if weights.merge:
                vectors = {name: {"logits": torch.tensor(self.deltas[name])} for name in shares}
                merged = merged_vectors(weights.merge, vectors, shares)["logits"].numpy()
                return log_policy(REFERENCE + weights.merge.strength * merged)
            return log_policy(REFERENCE + sum(c * self.deltas[name] for name, c in shares.items()))

        return log_policy(sum(a * source(weights) for a, weights in spec.mix))

    def point(self, spec) -> Point:
        log_p = self.log_probs(spec)
        p = np.exp(log_p)
        kl = float((p * (log_p - log_policy(REFERENCE))).sum(-1).mean())
        scores = {"reward": (p * REWARDS[0]).sum(-1).tolist(), "cost": (-(p * REWARDS[1]).sum(-1)).tolist()}
        return Point(scores, kl, kl)

    def run(self, job: Job) -> dict:
        names = [o.name for o in OBJECTIVES]
        if job.kind == "aspect":
            sign = -1 if job.params.get("swapped") else 1
            reward = sign * REWARDS[names.index(job.params["objective"])]
            self.deltas[job.id] = converge(reward, np.zeros((X, V)), 1.0)
            start = job.needs["reference"]
            if start.kind == "merged":  # the second of two steps: a full model holds both
                self.deltas[job.id] += self.deltas[start.needs["one"].id]
            return {"form": "full", "task_vector_norm": float(np.linalg.norm(self.deltas[job.id]))}
        if job.kind == "modpo":
            # labels of objective 0; margin = implicit reward of the other expert, or the reward itself
            other = job.needs["margin"]
            margin = REWARDS[1] if other.kind == "reward-model" else BETA * self.deltas[other.id]
            reward = REWARDS[names.index(job.params["objective"])]
            self.deltas[job.id] = converge(reward, margin, job.params["weight"])
            return {"form": "full"}
        units = {"reward": [0.0, 1.0], "cost": [0.0, 1.0]}
        if job.kind == "candidates":
            points = [asdict(self.point(spec_from_json(s))) for s in job.params["specs"]]
            return {"reference": units, "points": points}
        if job.kind == "extrapolation":
            return self.search(job)
        return {}

    def search(self, job: Job) -> dict:
        """Run the real job with this oracle in the validator's place."""
        inputs = {
            role: Handle(need.id, Path("."), self.results[need.id], Cost(), 0.0) for role, need in job.needs.items()
        }
        oracle = SimpleNamespace(points=lambda specs, kept: [self.point(spec) for spec in specs], cost=Cost())
        journal = SimpleNamespace(records=[])
        journal.append = journal.records.append
        work = SimpleNamespace(
            journal=lambda name: journal, memo=lambda name: None, progress=lambda done, note: None,
            charge=lambda cost: None,
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(extrapolation, "Validator", lambda *args: oracle)
            return extrapolation.extrapolate.run(job, inputs, work)

    @cache  # noqa: B019 (one oracle for the whole module)
    def _build(self, name: str, settings: str):
        return self.drive(make_method(name, {name: json.loads(settings)}).build(world()))

    def drive(self, build: Build):
        handles: dict[str, Handle] = {}
        try:
            step = next(build)
            while True:
                for job in closure(step.jobs):
                    if job.id not in self.results:
                        self.results[job.id] = self.run(job)
                    handles[job.id] = Handle(job.id, Path("."), self.results[job.id], Cost(), 0.0)
                step = build.send(handles)
        except StopIteration as returned:
            return returned.value

    def build(self, name: str, settings: dict | None = None):
        return self._build(name, json.dumps(settings or {}))


@pytest.fixture(scope="module")
def tabular() -> Tabular:
    return Tabular()


def test_dpo_converges_to_the_scaled_reward(tabular):
    tabular.build("soup")
    for job, reward in zip(world().aspects, REWARDS, strict=True):
        difference = tabular.deltas[job.id] - reward / BETA
        assert np.ptp(difference, axis=-1).max() < 1e-8


@pytest.mark.parametrize("name", ["soup", "mod", "modpo"])
@pytest.mark.parametrize("w", PREFERENCES)
def test_linear_methods_reach_the_optimum(tabular, name, w):
    family = tabular.build(name)
    assert abs(tabular.log_probs(family.resolve(asked(w))) - optimum(w)).max() < 1e-8


@pytest.mark.parametrize("w", INTERIOR)
def test_modpo_with_an_explicit_margin_reaches_the_optimum(tabular, w):
    explicit, implicit = tabular.build("modpo", {"margin": "explicit"}), tabular.build("modpo")
    assert explicit.resolve(asked(w)).key != implicit.resolve(asked(w)).key
    assert abs(tabular.log_probs(explicit.resolve(asked(w))) - optimum(w)).max() < 1e-8


def test_vertices_are_the_experts(tabular):
    """Of soup, MOD and MODPO, as equal keys; PEO's vertices are not experts, and its coefficients say so."""
    ids = [job.id for job in world().aspects]
    keys = {
        name: [tabular.build(name).resolve(asked(w)).key for w in ((1.0, 0.0), (0.0, 1.0))]
        for name in ("soup", "mod", "modpo")
    }
    assert keys["soup"] == keys["mod"] == keys["modpo"]
    for w in ((1.0, 0.0), (0.0, 1.0)):
        terms = dict(tabular.build("peo").resolve(asked(w)).mix[0][1].terms)
        assert set(terms) == set(ids)


STRATEGY_NAMES = ["gp", "surrogate", "grid", "nsga2", "cma-es"]


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@pytest.mark.parametrize("w", INTERIOR)
def test_peo_is_the_optimum_of_its_coefficients_within_the_budget(tabular, strategy, w):
    """PEO's policy at w has coefficients (a, b), a + b >= 1, and equals pi_ref exp((a r_1 + b r_2) / beta) / Z."""
    family = tabular.build("peo", {"strategy": strategy})
    a, b = family.coefficients(asked(w))
    assert a + b >= 1 - 1e-12
    assert abs(tabular.log_probs(family.resolve(asked(w))) - optimum((a, b))).max() < 1e-8
    assert tabular.point(family.resolve(asked(w))).kl <= family.chosen["max_kl"] + 1e-9


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_peo_gains_where_proxies_are_exact_and_never_loses_to_the_soup(tabular, strategy):
    """With exact rewards more is better up to the budget, at every knot of the path."""
    peo, soup = tabular.build("peo", {"strategy": strategy, "max_kl": 4.0}), tabular.build("soup")
    gains = []
    for w in PREFERENCES:
        better, plain = (tabular.point(family.resolve(asked(w))).scores for family in (peo, soup))
        gains.append(sum(w[i] * sign * np.mean(np.subtract(better[c], plain[c])) for i, (c, sign) in enumerate(SIGNS)))
    assert min(gains) >= -1e-12
    assert max(gains) > 0.05


def test_at_lambda_zero_peo_is_the_soup(tabular):
    """Where the bounds let nothing beyond the soup be better, the policies are the soup's, key by key."""
    line = [Evaluated(phi, tabular.point(tabular.build("soup").resolve(asked(phi)))) for phi in simplex_grid(5)]
    worse = Evaluated((1.0, 1.0), Point({"reward": [-9.0] * X, "cost": [9.0] * X}, 0.1, 0.1))
    utilities = prompt_utilities(
        [*[e.point for e in line], worse.point], {"reward": [0, 1], "cost": [0, 1]}, OBJECTIVES
    )
    steer = cautious_map(line, [worse], utilities, 9.0)
    assert steer.coefficients == tuple(simplex_grid(5))


def test_the_path_leaves_the_line_where_the_lower_bound_is_positive():
    """By hand, 4 prompts, weight 0.5: gains .2 +- 0 (taken), and mean .3 with sd 1.2 (bound .3 - 1.645 * .6 < 0)."""
    line = [Evaluated((w, 1 - w), Point({}, 0.5, 0.5)) for w in (0.0, 0.5, 1.0)]
    others = [Evaluated((1.0, 1.0), Point({}, 1.0, 1.0)), Evaluated((2.0, 2.0), Point({}, 1.0, 1.0))]
    utilities = np.zeros((5, 4, 2))
    utilities[3] = 0.2
    utilities[4] = np.array([0.3 - 1.2 * 0.75**0.5, 0.3 + 1.2 * 0.75**0.5] * 2)[:, None]
    assert np.std(utilities[4, :, 0], ddof=1) == pytest.approx(1.2)
    assert cautious_map(line, others, utilities, 2.0).coefficients == ((1.0, 1.0),) * 3
    assert cautious_map(line, others, utilities, 0.8).coefficients == ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0))
    assert cautious_map(line, others, utilities, 0.1).coefficients == ((0.0, 0.0),) * 3, "nothing but the reference"


def test_each_knot_of_the_supported_map_is_best_for_its_weight():
    """By hand: A (0, 3), B (2, 2), C (3, 0) are supported; D (0.9, 2.5) lies under the chord AB, E is dominated.

    B beats A from w = 1/3 on and C beats B from w = 2/3 on, so B sits at 1/2. Twice the same point is one.
    """
    utilities = np.array([[3.0, 0.0], [0.9, 2.5], [2.0, 2.0], [0.0, 3.0], [1.0, 1.0], [2.0, 2.0], [9.0, 9.0]])
    kl = [1.0] * 6 + [2.0]
    points = [Evaluated((float(i), 0.0), Point({}, nats, nats)) for i, nats in enumerate(kl)]
    steer = supported_map(points, utilities, 1.5, starts=0)
    assert steer.coefficients == ((3.0, 0.0), (2.0, 0.0), (0.0, 0.0))
    assert steer.positions == pytest.approx((0.0, 0.5, 1.0))
    assert steer(0.25) == pytest.approx((2.5, 0.0))
    assert supported_map(points, utilities, 0.5, starts=0)(0.3) == (0.0, 0.0), "nothing but the reference"


def test_a_front_that_collapses_to_a_point_steers_nowhere():
    points = [Evaluated((c, c), Point({}, 1.0, 1.0)) for c in (1.0, 0.0)]
    steer = supported_map(points, np.array([[2.0, 2.0], [1.0, 1.0]]), 1.0, starts=0)
    assert steer(0.0) == steer(1.0) == (1.0, 1.0)


@pytest.mark.parametrize(
    "name", ["peo", "peo-generalist", "peo-past-expert", "peo-bonesoup", "peo-expo", "expo.modpo", "map"]
)
@pytest.mark.parametrize("max_kl", [0.3, None])
def test_no_search_offers_a_policy_beyond_its_budget(tabular, name, max_kl):
    """On the prompts that it was searched on, at the preferences that it was searched for."""
    family = tabular.build(name, {"max_kl": max_kl})
    budget = family.chosen["max_kl"]
    assert budget == (max_kl or budget) >= (max_kl or 1.5)
    for w in PREFERENCES:
        kl = tabular.point(family.resolve(asked(w))).kl
        assert kl <= budget * (1.03 if name == "map" else 1) + 1e-9  # map believes its fit


@pytest.mark.parametrize("w", PREFERENCES)
def test_preference_vectors_go_twice_as_far_as_the_soup(tabular, w):
    """Swapped labels give tau- = -tau+ at the optimum, so phi = 2 tau and eta = 1/2 is the soup."""
    family = tabular.build("preference-vector", {"eta": 0.5})
    assert abs(tabular.log_probs(family.resolve(asked(w))) - optimum(w)).max() < 1e-8
    far = tabular.build("preference-vector")
    assert abs(tabular.log_probs(far.resolve(asked(w))) - optimum((2 * w[0], 2 * w[1]))).max() < 1e-8


@pytest.mark.parametrize("w", PREFERENCES)
def test_peo_past_expert_stays_on_the_line_and_reaches_past_the_experts(tabular, w):
    family = tabular.build("peo-past-expert", {"max_kl": 6.0, "budget": 22})
    a, b = family.coefficients(asked(w))
    assert a + b == pytest.approx(1.0)
    assert abs(tabular.log_probs(family.resolve(asked(w))) - optimum((a, b))).max() < 1e-8
    assert family.coefficients(asked((1.0, 0.0)))[0] > 1 > 0 > family.coefficients(asked((0.0, 1.0)))[0]
    inside = tabular.build("peo-past-expert", {"max_kl": 0.4, "budget": 14})
    assert all(0 <= c <= 1 for c in inside.coefficients(asked(w))), (
        "experts beyond the budget: within the soup's segment"
    )


class Counting(Tabular):
    """Keeps the jobs that it executed."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []

    def run(self, job: Job) -> dict:
        self.jobs.append(job)
        return super().run(job)


SEARCHES = sorted({name for name in METHODS.names() if "budget" in METHODS.get(name).Settings.model_fields} - {"expo"})


@pytest.mark.parametrize("n", [2, 3, 5, 21])
@pytest.mark.parametrize("name", [*SEARCHES, "expo.modpo"])
def test_every_search_scores_as_many_policies(name, n):
    """35 and once the reference policy, whatever a run reports; ExPO what divides among fewer than five preferences."""
    preferences = tuple(asked((float(w), 1 - float(w))) for w in np.linspace(0, 1, n))
    oracle = Counting()
    oracle.drive(make_method(name).build(replace(world(), preferences=preferences)))
    scored = [job for job in oracle.jobs if job.kind in ("candidates", "extrapolation")]
    spent = sum(job.bound.evaluations for job in scored)
    whole = 35 // min(n, 5) * min(n, 5)
    assert spent == 1 + (whole if "expo" in name else 35)
    assert sum(job.params.get("units", False) for job in scored) == 1
    build = make_method(name).build(replace(world(), preferences=preferences))
    assert planned(build) == spent, "`plan` knows it beforehand"


def planned(build: Build) -> int:
    """Return the evaluations that a build announces before any of them is done."""
    step = next(build)
    while not any(job.kind == "candidates" for job in step.jobs):
        step = build.send({job.id: Handle(job.id, Path("."), {}, Cost(), 0.0) for job in closure(step.jobs)})
    now = sum(job.bound.evaluations for job in step.jobs)
    return now + step.later.evaluations


@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_sacpo_adds_the_second_step_to_the_first(tabular, q):
    """Both steps exact: pi_ref exp((r_1 + q r_2) / beta) / Z; q = 0 is the first expert itself."""
    family = tabular.build("sacpo")
    spec = family.resolve(asked((1 - q, q)))
    assert abs(tabular.log_probs(spec) - optimum((1.0, q))).max() < 1e-8
    if q == 0:
        assert spec.key == tabular.build("soup").resolve(asked((1.0, 0.0))).key


@pytest.mark.parametrize("w", PREFERENCES)
def test_peo_bonesoup_blends_strengthened_experts(tabular, w):
    """With exact scores more strength is always better for one objective alone: as much as the budget allows."""
    family = tabular.build("peo-bonesoup", {"max_kl": 1.5})
    k = family.chosen["strengths"]
    assert min(k) > 1
    kl = [tabular.point(family.resolve(asked(vertex))).kl for vertex in ((1.0, 0.0), (0.0, 1.0))]
    assert kl == [pytest.approx(1.4, abs=0.1)] * 2
    assert abs(tabular.log_probs(family.resolve(asked(w))) - optimum((k[0] * w[0], k[1] * w[1]))).max() < 1e-8


def test_expo_scales_every_task_vector(tabular):
    """peo-expo and expo.modpo: pi_ref exp((1 + alpha) w . r / beta), with the alpha of highest utility."""
    for name in ("peo-expo", "expo.modpo", "expo.mod"):
        family = tabular.build(name, {"alphas": (0.0, 0.5)})
        for w in INTERIOR:
            log_pi = tabular.log_probs(family.resolve(asked(w)))
            scale = (log_pi - log_pi[:, :1] - REFERENCE + REFERENCE[:, :1])[:, 1:]
            scale = scale / (np.tensordot(w, REWARDS, 1) / BETA - (np.tensordot(w, REWARDS, 1) / BETA)[:, :1])[:, 1:]
            assert np.ptp(scale) < 1e-6
            assert scale.mean() >= 1 - 1e-8


def test_equal_policies_of_different_methods_share_a_key(tabular):
    w = asked((0.5, 0.5))
    assert tabular.build("peo-expo", {"alphas": (0.0,)}).resolve(w) == tabular.build("soup").resolve(w)


def test_a_second_method_trains_nothing_new(tabular):
    tabular.build("peo")
    trained = set(tabular.deltas)
    tabular.build("mod")
    assert set(tabular.deltas) == trained


SEARCHING = {"candidates", "extrapolation"}
SEARCHES = [name for name in METHODS.names() if "evaluation" in METHODS.get(name).costs]


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_evaluate_as_often_as_their_documentation_says(name):
    """At the five preferences of `world`; a wrapper's number is on top of what it wraps."""
    first = next(make_method(f"{name}.soup" if METHODS.get(name).wraps else name, {}).build(world()))
    now = sum(job.bound.evaluations for job in closure(first.jobs) if job.kind in SEARCHING)
    said = re.search(r"(\d+) evaluation", METHODS.get(name).costs)
    assert said is not None
    assert now + first.later.evaluations == int(said[1])
