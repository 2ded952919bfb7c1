"""Elo: the closed form of two players, another algorithm, what the order of games must not change."""

import numpy as np
import pytest

from peo_bench.winrates.elo import elo


def simulated(ratings, n, seed=0):
    rng = np.random.default_rng(seed)
    games = []
    for _ in range(n):
        a, b = rng.choice(list(ratings), 2, replace=False)
        p = 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / 400))
        games.append((str(a), str(b), float(rng.choice([0.5, float(rng.random() < p)], p=[0.1, 0.9]))))
    return games


@pytest.mark.parametrize(("wins", "losses", "ties"), [(7, 3, 0), (2, 0, 0), (0, 5, 2), (3, 3, 9)])
def test_two_players_by_hand(wins, losses, ties):
    games = [("a", "reference", 1.0)] * wins + [("reference", "a", 1.0)] * losses + [("a", "reference", 0.5)] * ties
    expected = 400 * np.log10((wins + ties / 2 + 0.5) / (losses + ties / 2 + 0.5))
    assert elo(games, "reference") == pytest.approx({"a": 1000 + expected, "reference": 1000}, abs=1e-3)


def test_minorisation_maximisation_finds_the_same():
    """Hunter (2004): p_i <- W_i / sum_j n_ij / (p_i + p_j), on the same counts with one tie per pair."""
    games = simulated({"peo": 1180, "soup": 1050, "mod": 900, "reference": 1000}, 300)
    names = ["peo", "soup", "mod", "reference"]
    won = np.zeros((4, 4))
    for a, b, share in games:
        won[names.index(a), names.index(b)] += share
        won[names.index(b), names.index(a)] += 1 - share
    won += 0.5 * (1 - np.eye(4))
    strength = np.ones(4)
    for _ in range(5000):
        strength = won.sum(axis=1) / ((won + won.T) / (strength[:, None] + strength[None])).sum(axis=1)
    expected = 1000 + 400 * np.log10(strength / strength[3])
    found = elo(games, "reference")
    assert [found[name] for name in names] == pytest.approx(expected, abs=1e-3)


def test_ratings_are_recovered_and_do_not_depend_on_the_order():
    truth = {"peo": 1180.0, "soup": 1050.0, "mod": 900.0, "reference": 1000.0}
    games = simulated(truth, 20_000, seed=1)
    found = elo(games, "reference")
    assert found == pytest.approx({k: 1000 + 0.88 * (v - 1000) for k, v in truth.items()}, abs=25)  # a tenth are ties
    mixed = [games[i] for i in np.random.default_rng(2).permutation(len(games))]
    turned = [(b, a, 1 - share) for a, b, share in mixed]
    assert elo(turned, "reference") == pytest.approx(found, abs=1e-3)


def test_what_is_not_joined_to_the_reference_has_no_rating():
    games = [("a", "reference", 1.0), ("c", "d", 1.0), ("a", "reference", float("nan"))]
    found = elo(games, "reference")
    assert found["a"] == pytest.approx(1000 + 400 * np.log10(3), abs=1e-3)
    assert np.isnan([found["c"], found["d"]]).all()
    with pytest.raises(ValueError, match="'x' played no game: played by a, c, d, reference"):
        elo(games, "x")
