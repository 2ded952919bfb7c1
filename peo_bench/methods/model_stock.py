"""Model stock: the average of the experts, as much nearer to the reference as their angle says (arXiv 2403.19522).

theta = t sum_i theta_i / k + (1 - t) theta_ref with t = k cos / (1 + (k - 1) cos) (Jang et al. 2024, equation 5), cos
that of the angle between the task vectors, tensor by tensor. The paper takes fine-tuned models of one task to lie
around a centre and asks for the nearest point to it; experts of different objectives are no such models. It has no
weights: what takes the preference as weights is the same geometry for a weighted mean, see `peo_bench.engine.merging`.
At equal weights it is the paper's. Where task vectors point apart (cos < 0) the tensor stays that of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence

from peo_bench.core.method import World
from peo_bench.core.spec import Merge
from peo_bench.methods.merging import MergingMethod


class ModelStock(MergingMethod):
    """Average the experts by the preference, shrunk by the angle between them."""

    name = "model-stock"
    reference = "Jang et al. 2024, arXiv 2403.19522"
    exact = "equation 5, tensor by tensor, at equal weights"
    ours = "the preference as weights; t = 0 for negative cosines; strengths within a KL budget"

    def rules(self, world: World) -> Sequence[Merge]:
        """Return the one rule."""
        return [Merge("model-stock")]
