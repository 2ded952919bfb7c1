"""Best-of-n: n answers from one policy, of which reward and cost models keep the best.

y = argmax_j w . r(x, y_j) with y_1 ... y_n ~ pi_w (Stiennon et al. 2020; Nakano et al. 2021), where pi_w is the policy
that the wrapped family offers for w, or the reference policy. Nothing is trained. The KL to pi_w is at most
log n - (n - 1) / n nats (Beirami et al. 2024, arXiv 2401.01879), however long the answers are. The best of 1 is the
wrapped family.
"""

from __future__ import annotations

from pydantic import Field

from peo_bench.core.method import Build, MethodSettings, PolicyFamily, World
from peo_bench.core.preference import Preference
from peo_bench.core.spec import PolicySpec
from peo_bench.errors import UsageError
from peo_bench.methods.selecting import SelectingMethod


class BestOfNSettings(MethodSettings):
    """`n` answers are generated for one (Nakano et al. 2021 go to 64; every answer costs its tokens)."""

    n: int = Field(4, ge=1)


class BestOfN(SelectingMethod):
    """Draw n answers from a policy of the wrapped family and keep the one with the highest preferred utility."""

    name = "best-of-n"
    expo_adds = False
    reference = "Stiennon et al. 2020, arXiv 2009.01325; Nakano et al. 2021, arXiv 2112.09332"
    trains = "nothing"
    costs = "1 evaluation, decoding x4 and 4 scorer calls per answer and objective, on top of what it wraps"
    exact = "independent answers, the best of them by w . r"
    ours = "n = 4; scores in standard deviations of the reference policy; alone it wraps the reference policy"
    Settings = BestOfNSettings
    wraps_reference = True

    @property
    def candidates(self) -> int:
        """The setting `n`."""
        return int(self.settings.n)

    def build(self, world: World) -> Build:
        """Refuse greedy decoding, which gives n times the same answer."""
        if self.candidates > 1 and world.decoding.temperature == 0:
            raise UsageError("best-of-n needs answers that differ: set decoding.temperature above 0, or best-of-n.n=1")
        return (yield from super().build(world))

    def policies(self, inner: PolicyFamily, preference: Preference) -> list[PolicySpec]:
        """Return the policy of `preference`, n times."""
        return [inner.resolve(preference)] * self.candidates
