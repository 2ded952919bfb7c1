"""ExPO as a wrapper: extrapolate any family away from the reference policy.

For a family whose policies are weights, theta_ref + (1 + alpha) (theta(w) - theta_ref); for one that mixes
log-probabilities, log pi_ref + (1 + alpha) (log pi_w - log pi_ref). One alpha serves all preferences: the one with the
highest mean steered utility of the proxies on validation prompts (Zheng et al. 2024, arXiv 2404.16792, choose alpha
by a reward model on held-out prompts and use mostly 0.3 or 0.5). The family itself is scored first: its KL tells how
far the KL budget lets it go, and only alphas that keep every policy within it count; below 0 where the family itself
exceeds it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Annotated

from pydantic import Field

from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.rounds import Building
from peo_bench.core.spec import PolicySpec, Weights
from peo_bench.evaluation.kl_budget import EVALUATIONS, best_for_all, kl_budget, times_until
from peo_bench.evaluation.validation import Candidates, read_candidates, searched_preferences, validation_bound
from peo_bench.files.json_types import JsonObject
from peo_bench.jobs.job import Handle, Job


class ExPOSettings(MethodSettings):
    """`alphas` are the strengths to try beside 0; by default, evenly spaced up to the KL budget, as `budget` allows.

    Every alpha costs one validation evaluation per searched preference: with five, as many as any search has.
    `max_kl` is in nats, by default 1.5 or the largest of the wrapped family.
    """

    alphas: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(None, min_length=1)
    budget: int = Field(EVALUATIONS, ge=2)
    max_kl: float | None = Field(None, gt=0)

    def tries(self, n_preferences: int) -> int:
        """Return how many alphas beside 0 are tried."""
        if self.alphas is not None:
            return len(set(self.alphas) - {0.0})
        return max(1, self.budget // n_preferences - 1)

    def grid(self, n_preferences: int, furthest: float) -> list[float]:
        """Return the alphas to try, `furthest` the strength at which the KL budget is expected to be spent."""
        if self.alphas is not None:
            return sorted(set(self.alphas) - {0.0})
        n = self.tries(n_preferences)
        return [round(furthest * i / n, 3) for i in range(1, n + 1)]


def extrapolate(spec: PolicySpec, reference: str, alpha: float, mixes: bool) -> PolicySpec:
    """Return `spec` moved past itself, away from `reference`, by `alpha` (0 leaves it as it is).

    In weights, or with `mixes` in log-probabilities.
    """
    if mixes:
        away = ((1 + alpha) * a for a, _ in spec.mix)
        sources = (weights for _, weights in spec.mix)
        return PolicySpec(mix=(*zip(away, sources, strict=True), (-alpha, Weights(reference))))
    return PolicySpec(mix=((1.0, spec.mix[0][1].times(1 + alpha)),))


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
        """Build the wrapped family, score it at 0, then at every alpha on validation prompts, keep the best alpha."""
        inner, known = yield from self._build_inner(world)
        reference, asked = world.reference.id, searched_preferences(world)
        n = len(asked)

        def score(alphas: list[float], units: bool) -> Job:
            specs = [extrapolate(inner.resolve(w), reference, alpha, inner.mixes) for alpha in alphas for w in asked]
            ids = dict.fromkeys(name for spec in specs for name in spec.ids if name != reference)
            deltas = [known[name] for name in ids]
            params: JsonObject = {"specs": [spec.to_json() for spec in specs], "units": units}
            return world.validation_job("candidates", params, deltas)

        start = score([0.0], units=True)
        handles = yield Round([start], later=validation_bound(world, self.settings.tries(n) * n))
        found = read_candidates(handles[start.id])
        max_kl = kl_budget(self.settings.max_kl or world.max_kl, found.points)
        furthest = min(times_until(max_kl, point.kl) for point in found.points)
        alphas = self.settings.grid(n, furthest - 1 if furthest >= 1 else furthest / 2 - 1)
        points = found.points
        if alphas:
            job = score(alphas, units=False)
            points += read_candidates((yield Round([job]))[job.id]).points
        best = best_for_all(Candidates(found.reference, points), world, max_kl, starts=n)
        alpha = -1.0 if best is None else [0.0, *alphas][best]
        coefficients = inner.coefficients
        return PolicyFamily(
            space=inner.space,
            at=lambda w: extrapolate(inner.resolve(w), reference, alpha, inner.mixes),
            mixes=inner.mixes,
            chosen={**inner.chosen, "alpha": alpha, "max_kl": max_kl},
            coefficients=coefficients and (lambda w: tuple((1 + alpha) * c for c in coefficients(w))),
        )

    def _build_inner(self, world: World) -> Generator[Round, Mapping[str, Handle], tuple[PolicyFamily, dict[str, Job]]]:
        """Run the wrapped build, announcing this wrapper's evaluations too; return its family and its jobs by id."""
        n = len(searched_preferences(world))
        search = validation_bound(world, 1 + n + self.settings.tries(n) * n)
        inner = Building(self.inner, world)
        while inner.round:
            inner.send((yield Round(inner.round.jobs, inner.round.later + search)))
        return inner.family, inner.jobs
