"""What methods that choose among finished answers share: candidate policies, and the utility that decides."""

from __future__ import annotations

from abc import abstractmethod

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.rounds import alongside
from peo_bench.core.space import Space
from peo_bench.core.spec import PolicySpec, policy
from peo_bench.evaluation.validation import answer_utility


class SelectingMethod(Method):
    """Keep the best of the answers that several policies of a wrapped family give, by the proxy scorers.

    An answer's utility for preference w is w . r, with the proxies' scores in units of the reference policy's standard
    deviations on validation prompts (one evaluation, shared by all such methods) and costs negated.
    """

    wraps = True

    @abstractmethod
    def policies(self, inner: PolicyFamily, preference: Preference) -> list[PolicySpec]:
        """Return the policies that give an answer each, the one of `preference` itself first."""

    def build(self, world: World) -> Build:
        """Build the wrapped family; measure the scorers' units beside it."""
        build = self._inner.build(world) if self._inner else _reference(world)
        if self.candidates == 1:
            return (yield from build)
        scale = world.validation_job("candidates", {"specs": []}, [])
        inner, handle = yield from alongside(build, scale)
        units = handle.result["reference"]

        def at(w: Preference) -> PolicySpec:
            return PolicySpec(candidates=tuple(self.policies(inner, w)), utility=answer_utility(world, w, units))

        # The whole simplex, whatever the inner family offers: the utility knows every preference.
        return PolicyFamily(space=Space("simplex"), at=at, chosen=inner.chosen)


def _reference(world: World) -> Build:
    """Yield nothing to train and return the family whose every policy is the reference."""
    yield Round([world.reference])
    return PolicyFamily(space=Space("simplex"), at=lambda w: policy(world.reference.id))
