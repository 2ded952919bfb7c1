"""ExPO as a wrapper: extrapolate any family away from the reference policy.

For a family whose policies are weights, theta_ref + (1 + alpha) (theta(w) - theta_ref); for one that mixes
log-probabilities, log pi_ref + (1 + alpha) (log pi_w - log pi_ref). One alpha serves all preferences: the one with the
highest mean steered utility of the proxies on validation prompts (Zheng et al. 2024, arXiv 2404.16792, choose alpha
by a reward model on held-out prompts and use mostly 0.3 or 0.5).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

import numpy as np
from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.spec import PolicySpec, Weights, policy
from peo_bench.evaluation.validation import utility_scores, validation_bound
from peo_bench.jobs.job import Handle, Job, closure


class ExPOSettings(MethodSettings):
    """`alphas` are the strengths to choose from; by default as many, evenly spaced from 0 to 2, as `budget` allows.

    Every alpha costs one validation evaluation per preference. The default budget is what PEO spends on policies
    of its own (11 + 25); at five preferences it allows seven alphas.
    """

    alphas: tuple[float, ...] | None = Field(None, min_length=1)
    budget: int = Field(36, ge=2)

    def grid(self, n_preferences: int) -> tuple[float, ...]:
        """Return the alphas to try."""
        if self.alphas is not None:
            return self.alphas
        n = max(2, self.budget // n_preferences)
        return tuple(round(2.0 * i / (n - 1), 6) for i in range(n))


def extrapolate(spec: PolicySpec, reference: str, alpha: float, mixes: bool) -> PolicySpec:
    """Return `spec` moved past itself, away from `reference`, by `alpha` (0 leaves it as it is).

    In weights, or with `mixes` in log-probabilities.
    """
    if mixes:
        away = ((1 + alpha) * a for a, _ in spec.mix)
        sources = (weights for _, weights in spec.mix)
        return PolicySpec(mix=(*zip(away, sources, strict=True), (-alpha, Weights(reference))))
    weights = spec.mix[0][1]
    return policy(weights.base, [(name, (1 + alpha) * c) for name, c in weights.terms])


class ExPO(Method):
    """Extrapolate the wrapped family's policies away from the reference, by one alpha chosen on validation prompts."""

    name = "expo"
    reference = "Zheng et al. 2024, arXiv 2404.16792"
    trains = "nothing"
    costs = "36 evaluations on top of what it wraps"
    exact = "extrapolation in weights or log-probabilities"
    ours = "one alpha for all preferences, chosen on validation prompts"
    Settings = ExPOSettings
    wraps = True

    def build(self, world: World) -> Build:
        """Build the wrapped family, score it at every alpha on validation prompts, keep the best alpha."""
        inner, known = yield from self._build_inner(world)
        alphas = self.settings.grid(len(world.preferences))
        reference = world.reference.id
        specs = [
            extrapolate(inner.resolve(w), reference, alpha, inner.mixes) for alpha in alphas for w in world.preferences
        ]
        ids = dict.fromkeys(name for spec in specs for name in spec.ids if name != reference)
        deltas = [known[name] for name in ids]
        job = world.validation_job("candidates", {"specs": [spec.to_json() for spec in specs]}, deltas)
        handles = yield Round([job])
        alpha = alphas[_best(handles[job.id], world, len(alphas))]
        coefficients = inner.coefficients
        return PolicyFamily(
            space=inner.space,
            at=lambda w: extrapolate(inner.resolve(w), reference, alpha, inner.mixes),
            mixes=inner.mixes,
            chosen={**inner.chosen, "alpha": alpha},
            coefficients=coefficients and (lambda w: tuple((1 + alpha) * c for c in coefficients(w))),
        )

    def _build_inner(self, world: World) -> Generator[Round, Mapping[str, Handle], tuple[PolicyFamily, dict[str, Job]]]:
        """Run the wrapped build, announcing this wrapper's evaluations too; return its family and its jobs by id."""
        known: dict[str, Job] = {}
        search = validation_bound(world, len(self.settings.grid(len(world.preferences))) * len(world.preferences))
        build = self.inner.build(world)
        try:
            step = next(build)
            while True:
                known.update((job.id, job) for job in closure(step.jobs))
                handles = yield Round(step.jobs, step.later + search)
                step = build.send(handles)
        except StopIteration as finished:
            return finished.value, known


def _best(handle: Handle, world: World, n_alphas: int) -> int:
    """Return the index of the alpha with the highest steered utility, averaged over the preferences."""
    scores = utility_scores(handle.result["points"], handle.result["reference"], world.objectives)
    by_alpha = scores.reshape(n_alphas, len(world.preferences), -1)
    return int(np.argmax(np.einsum("apo,po->a", by_alpha, np.asarray([w.weights for w in world.preferences]))))
