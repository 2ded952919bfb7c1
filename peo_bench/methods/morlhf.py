"""MORLHF: reinforcement learning on the weighted sum of the rewards, one run per preference.

maximise E[w . u] - beta KL(pi | pi_ref); its optimum is pi_ref exp(w . u / beta). The baseline of rewarded soups (Rame
et al. 2023, arXiv 2306.04488) and MODPO, there with PPO. Here with RLOO (Ahmadian et al. 2024, arXiv 2402.14740), which
has the same gradient in expectation and needs no value head; TRL has no PPO any more. beta 0.2 is the KL coefficient of
RiC's MORLHF runs (arXiv 2402.10207), whose rewards are standardised too.
"""

from __future__ import annotations

from peo_bench.methods.combined_rewards import OnlineMethod


class MORLHF(OnlineMethod):
    """Train one policy per preference by RLOO on the weighted sum of the rewards."""

    name = "morlhf"
    reference = "Rame et al. 2023, arXiv 2306.04488; RLOO, arXiv 2402.14740"
    costs = "1 U per preference, on answers it generates and scores"
    exact = "the objective; its closed form on a bandit"
    ours = "RLOO for PPO; scores in the reference's standard deviations"
