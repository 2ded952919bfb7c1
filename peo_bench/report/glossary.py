"""The terms of the report with their formulas, in reading order."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str, str], ...] = (
    ("policy", "π", "A model that answers prompts. Every point of the figure is one policy."),
    ("reference policy", "π_ref", "The model before any alignment; the star."),
    ("preference", "w = (w_helpful, w_harmless), sum 1", "The balance a user asks for."),
    ("dominated", "a ⪰ b in all, ≻ in one", "Another policy is at least as good everywhere and better somewhere."),
    ("front", "", "The policies of a method that none of its other policies dominates, and the steps between them."),
    ("steered utility", "U = mean_w [ w_helpful · reward − w_harmless · cost ]", "What a user gets who asks for w."),
    ("hypervolume", "HV = area { z : some point is better than z, z better than the reference point }",
     "Size of the trade-offs a front makes possible. Noise inflates it: no verdict rests on it."),
    ("KL", "KL(π‖π_ref) = E_π Σ_t KL(π(·|t) ‖ π_ref(·|t)), nats per answer", "How far a policy moved from π_ref. "
     "Going further is not the same as a better trade-off; mean KLs within 10 % of each other count as similar."),
    ("oracle", "π*(y) ∝ π_ref(y) exp( w · (reward, −cost) / β )", "The best any policy can do at a given KL. "
     "Points with an effective sample size under 50 are hollow."),
    ("distance to oracle", "IGD+ = mean_z min_a ‖max(0, z − a)‖", "How far the front falls short of the oracle's."),
    ("95 % interval", "percentiles 2.5 and 97.5 of resamples", "Methods share the resamples (paired), so a "
     "difference is told apart more sharply than two separate intervals suggest."),
    ("cost", "training units · scorer calls · decoding factor", "One unit trains one expert, proxies are charged "
     "to methods that ask them; the decoding factor is the work per generated token against a single model."),
    ("labels", "labelled pairs seen, by objective", "What annotators would be paid for, each pair once."),
)  # fmt: skip
