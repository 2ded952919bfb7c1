"""FW-Merging: Frank-Wolfe over the experts' hull, with the preference-weighted DPO loss (after hmarkc/FW-Merging).

Per preference w, ten gradient evaluations of sum_k w_k L_k on a few training pairs, each moving towards the expert that
the gradient points at, by 2 / (t + 2). Published: 10 iterations, checkpoints of many tasks, per layer or as a whole,
merged inside by TIES or task arithmetic; here as a whole, on two experts, without an inner merge. The iterate stays in
the experts' hull: an interpolation whose weights are found by gradients, so it can do no better than the best soup on
this loss, and it never extrapolates.

This is the algorithm of the paper, not what the official code does: that chooses the expert, parameter by parameter, by
the cosine between its task vector and the gradient instead of their inner product (so that long task vectors have no
advantage), moves towards the base model where no cosine is negative (its hull contains the base), and starts from the
inner merge of all experts, not from the reference policy.
"""

from __future__ import annotations

from peo_bench.core import roles
from peo_bench.core.method import Build, Method, MethodSettings, PolicyFamily, Round, World
from peo_bench.core.preference import Preference
from peo_bench.core.space import Space
from peo_bench.core.spec import policy
from peo_bench.jobs.job import Job
from peo_bench.training.settings import FrankWolfeSettings


class FWMergeSettings(MethodSettings, FrankWolfeSettings):
    """Those of the search for the coefficients."""


class FWMerge(Method):
    """Interpolate the experts with weights that gradients of the preferred loss choose."""

    name = "fw-merge"
    reference = "FW-Merging, arXiv 2503.12649, github.com/hmarkc/FW-Merging"
    Settings = FWMergeSettings
    trains = "one expert per objective"
    costs = "2 U, 10 gradients on 64 pairs per objective and preference"
    exact = "Frank-Wolfe steps over the hull, step 2 / (t + 2)"
    ours = "DPO losses weighted by the preference; whole models, no inner merge; inner products, not the code's cosines"

    def build(self, world: World) -> Build:
        """Train the experts, then find the coefficients of every preference."""
        aspects, base = world.aspects, world.reference.id
        names = [objective.name for objective in world.objectives]
        needs = {"reference": world.reference, "pairs": world.pairs[names[0]]}
        needs |= {roles.delta(i): job for i, job in enumerate(aspects)}
        shared = {
            "objectives": names,
            **self.settings.model_dump(include=set(FrankWolfeSettings.model_fields)),
            **world.plain_training,
        }
        jobs = {w: Job("frank-wolfe", {**shared, "weights": list(w.weights)}, needs) for w in world.preferences}
        handles = yield Round(list(jobs.values()))
        found: dict[Preference, tuple[float, ...]] = {
            w: tuple(handles[job.id].result["coefficients"]) for w, job in jobs.items()
        }
        ids = [job.id for job in aspects]
        return PolicyFamily(
            space=Space("points", world.preferences),
            at=lambda w: policy(base, zip(ids, found[w], strict=True)),
            coefficients=found.__getitem__,
        )
