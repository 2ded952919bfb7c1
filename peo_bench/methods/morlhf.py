"""MORLHF: reinforcement learning on the weighted sum of the rewards, one run per preference.

maximise E[w . u] - beta KL(pi | pi_ref); its optimum is pi_ref exp(w . u / beta). The baseline of rewarded soups (Rame
et al. 2023, arXiv 2306.04488) and MODPO, there with PPO. Here with RLOO (Ahmadian et al. 2024, arXiv 2402.14740), which
has the same gradient in expectation and needs no value head; TRL has no PPO any more.

beta is 0.2 per nat, of rewards in standard deviations. RiC's MORLHF runs (arXiv 2402.10207), whose rewards are
standardised too, start at that coefficient, but there it is the beginning of an adaptive controller with a target of 3
nats, and answers are sampled at temperature 0.7 (here 1, where KL is measured). A beta on this scale says nothing about
the offline methods', which is per unit of a Bradley-Terry reward: compare the two at equal KL.
"""

from __future__ import annotations

from peo_bench.methods.combined_rewards import OnlineMethod


class MORLHF(OnlineMethod):
    """Train one policy per preference by RLOO on the weighted sum of the rewards."""

    name = "morlhf"
    reference = "Rame et al. 2023, arXiv 2306.04488; RLOO, arXiv 2402.14740"
    costs = "1 U per preference, on answers it generates and scores"
    exact = "the objective; its closed form on a bandit"
    ours = "RLOO for PPO; a constant KL weight where RiC's adapts; scores in the reference's standard deviations"
