"""Elo ratings from pairwise verdicts, by maximum likelihood (Bradley & Terry 1952) on Elo's scale.

Sequential Elo (K = 32) depends on the order of games: shuffling and averaging removes that only in part, and its steps
do not shrink, so its spread does not either. All games of a run are known at once, so the ratings are those that make
them most probable under P(a beats b) = 1 / (1 + 10 ** ((r_b - r_a) / 400)), the model that Elo's updates estimate. A
tie is half a win for each side. One tie is added to every pair that met, which keeps ratings finite where a method won
all its games: two methods with w wins and l losses differ by 400 log10((w + 0.5) / (l + 0.5)).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

ORIGIN = 1000.0
"""Rating of the reference policy."""
SCALE = 400 / np.log(10)
"""Elo points per nat of log odds."""
PRIOR_TIES = 1.0


def elo(games: Iterable[tuple[str, str, float]], reference: str) -> dict[str, float]:
    """Return the rating of every method in `games` (a, b, share of a: 1 won, 0.5 tie, 0 lost), `reference` at 1000.

    NaN shares are left out. A method that no chain of games joins to the reference gets NaN. Raises ValueError if the
    reference played no game.

    >>> ratings = elo([("peo", "reference", 1.0)] * 9, "reference")
    >>> round(ratings["peo"] - 400 * np.log10(9.5 / 0.5)), ratings["reference"]
    (1000, 1000.0)
    """
    played = [game for game in games if game[2] == game[2]]
    names = sorted({name for a, b, _ in played for name in (a, b)})
    if reference not in names:
        raise ValueError(f"{reference!r} played no game: played by {', '.join(names) or 'nobody'}")
    number = {name: i for i, name in enumerate(names)}
    won = np.zeros((len(names), len(names)))
    for a, b, share in played:
        won[number[a], number[b]] += share
        won[number[b], number[a]] += 1 - share
    met = (won + won.T > 0) & ~np.eye(len(names), dtype=bool)
    won = np.where(met, won + PRIOR_TIES / 2, 0)

    def loss(logit: np.ndarray) -> tuple[float, np.ndarray]:
        gap = logit[:, None] - logit[None, :]
        return float((won * np.logaddexp(0, -gap)).sum()), (won.T * expit(gap) - won * expit(-gap)).sum(axis=1)

    logit = minimize(loss, np.zeros(len(names)), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    _, group = connected_components(met, directed=False)
    home = number[reference]
    ratings = np.where(group == group[home], ORIGIN + SCALE * (logit - logit[home]), np.nan)
    return dict(zip(names, ratings.tolist(), strict=True))
