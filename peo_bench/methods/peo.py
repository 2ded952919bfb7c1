"""PEO: experts, a generalist between them, extrapolation beyond it (arXiv 2503.01233), as named variants.

Every reading lives in the plane theta(a, b) = theta_ref + a tau_helpful + b tau_harmless. The paper's interpolation
weights, search and hyperparameters are not available to us, so nothing here is "the paper's number".

- `peo`: theta_gen + lambda_1 tau_1 + lambda_2 tau_2 with lambda >= 0, so a >= phi_1 and b >= phi_2: the experts
themselves
  are not reachable. Its preference space is the simplex; the plane is internal, searched once on validation prompts.
- `peo-expo`: ExPO on the generalist, (1 + alpha) (w, 1 - w), one alpha chosen on validation prompts.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.errors import UsageError
from peo_bench.evaluation.validation import utility_scores, validation_bound
from peo_bench.jobs.job import Handle
from peo_bench.methods.expo import ExPO, ExPOSettings
from peo_bench.methods.soup import Soup
from peo_bench.training.extrapolation import steering_map
from peo_bench.training.interpolation import choose_generalist, simplex_grid


class PEOSettings(MethodSettings):
    """`budget` evaluations in phase 3, lambda_i up to `reach` x mean ||tau|| / ||tau_i||, `grid` points for phi."""

    budget: int = Field(25, ge=9)
    strategy: Literal["surrogate", "grid", "nsga2"] = "surrogate"
    reach: float = Field(0.5, gt=0)
    grid: int = Field(11, ge=2)


class PEO(Method):
    """Extrapolate the generalist along both task vectors; preferences walk along the validation front."""

    name = "peo"
    reference = "PEO, arXiv 2503.01233"
    trains = "one expert per objective"
    costs = "2 U, 38 evaluations"
    exact = "plane arithmetic in fp32"
    ours = "interpolation weights, search and steering map (the paper's are not published)"
    Settings = PEOSettings

    def build(self, world: World) -> Build:
        """Phase 1: experts. Phase 2: the generalist. Phase 3: the search, whose front becomes the steering map."""
        if len(world.objectives) != 2:
            raise UsageError(f"peo orders a front of two objectives, this suite has {len(world.objectives)}")
        settings, aspects, base = self.settings, world.aspects, world.reference.id
        ids = [job.id for job in aspects]
        phis = simplex_grid(settings.grid)
        specs = [policy(base, zip(ids, phi, strict=True)).to_json() for phi in phis]
        candidates = world.validation_job("candidates", {"specs": specs}, aspects)
        handles = yield Round([candidates], later=validation_bound(world, settings.budget))

        norms = _norms([handles[name] for name in ids])
        params = {
            "generalist": choose_generalist(phis, handles[candidates.id], world.objectives),
            "high": [settings.reach * sum(norms) / len(norms) / norm for norm in norms],
            "maximise": {objective.column: objective.maximise for objective in world.objectives},
            "budget": settings.budget,
            "strategy": settings.strategy,
        }
        search = world.validation_job("extrapolation", params, aspects)
        result = (yield Round([search]))[search.id].result

        utilities = utility_scores(result["evaluations"], result["reference"], world.objectives)
        steer = steering_map(result["evaluations"], utilities)
        return PolicyFamily(
            space=Space("simplex"),
            at=lambda w: policy(base, zip(ids, steer(w.weights[0]), strict=True)),
            coefficients=lambda w: steer(w.weights[0]),
            chosen={"generalist": params["generalist"], "front_points": len(steer.positions)},
        )


def _norms(experts: list[Handle]) -> list[float]:
    """Return ||tau|| of every expert; equal lengths where one is not recorded (a finished checkpoint) or is 0."""
    norms = [expert.result.get("task_vector_norm") for expert in experts]
    return norms if all(norms) else [1.0] * len(norms)  # type: ignore[return-value]


class PEOExPO(Method):
    """ExPO on the generalist: (1 + alpha) (w, 1 - w) on the task vectors, alpha chosen on validation prompts."""

    name = "peo-expo"
    reference = "PEO, arXiv 2503.01233; ExPO, arXiv 2404.16792"
    trains = "one expert per objective"
    costs = "2 U, 36 evaluations"
    exact = "extrapolation of the soup"
    ours = "one alpha for all preferences, chosen on validation prompts"
    Settings = ExPOSettings

    def build(self, world: World) -> Build:
        """Wrap the soup, whose policies are the generalists, with ExPO."""
        return ExPO(self.settings, Soup()).build(world)
