"""Policies that are given, not trained: they compete as they are, one policy for every preference."""

from __future__ import annotations

from collections.abc import Mapping

from peo_bench.core.method import Build, Method, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.methods import make_method


class GivenPolicy(Method):
    """A finished policy of the world's `given`: a change of the reference policy, a model of its own, or answers."""

    reference = "given with --policy or --answers"

    def __init__(self, name: str) -> None:
        """Take the policy called `name`."""
        super().__init__()
        self.given = name

    def build(self, world: World) -> Build:
        """Take it over; the family offers it for every preference, placed in the centre."""
        job = world.given[self.given]
        yield Round([job])
        changed = "reference" in job.needs
        spec = policy(world.reference.id, [(job.id, 1.0)]) if changed else policy(job.id)
        return PolicyFamily(space=Space("points", (Preference.even(world.names),)), at=lambda w: spec)


def method_of(name: str, settings: Mapping[str, Mapping[str, object]], world: World) -> Method:
    """Return what a run calls `name`: one of the world's given policies, else a method with its settings."""
    return GivenPolicy(name) if name in world.given else make_method(name, settings)
