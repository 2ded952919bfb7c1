"""The length-controlled fit: published values, alpaca_eval's own code, an independent optimiser, symmetry."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.model_selection import GroupKFold

from peo_bench.winrates.length_controlled import (
    STRENGTHS,
    Regulariser,
    Weights,
    length_adjusted,
    length_controlled,
    rate_between,
    standardised_gap,
)
from peo_bench.winrates.winrate import graded, swapped, win_rate

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
BASELINE = "gpt4_1106_preview"
KEYS = ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total")


def synthetic(seed: int, n: int = 120):
    """Return preferences, z, difficulty and a regulariser that follow the model with known coefficients."""
    rng = np.random.default_rng(seed)
    z, hard = rng.normal(0.3, 1, n), rng.normal(0, 1, n)
    p = 1 / (1 + np.exp(1.5 * np.tanh(z) - 0.8 * hard + 0.4))
    share = np.clip(p + rng.normal(0, 0.1, n), 0, 1)
    own_z, own_hard = rng.normal(0, 1, 2 * n), np.tile(hard, 2)
    own = 1 / (1 + np.exp(1.2 * np.tanh(own_z) - 0.5 * own_hard))
    return 1 + share, z, hard, Regulariser(np.clip(own + rng.normal(0, 0.1, 2 * n), 0, 1), own_z, own_hard)


def design(preferences, z, hard, regulariser):
    own = np.column_stack([np.tanh(z), hard, np.ones(len(z))])
    others = np.column_stack([np.tanh(regulariser.z), regulariser.difficulty, np.zeros(len(regulariser.z))])
    share = np.concatenate([regulariser.share, graded(preferences)])
    return np.concatenate([others, own]), share, np.repeat([0.1, 1.0], [len(others), len(own)])


def penalised(x, share, weight, strength):
    """Minimise ||b||_1 + C sum of weighted log losses by bounded L-BFGS on b = u - v, u and v not negative."""
    k = x.shape[1]

    def loss(parts):
        logit = x @ (parts[:k] - parts[k:])
        value = (weight * (np.logaddexp(0, logit) - share * logit)).sum()
        slope = x.T @ (weight * (1 / (1 + np.exp(-logit)) - share))
        return strength * value + parts.sum(), strength * np.concatenate([slope, -slope]) + 1

    found = minimize(loss, np.full(2 * k, 0.1), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2 * k,
                     options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000})  # fmt: skip
    return found.x[:k] - found.x[k:]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_fit_is_the_optimum_and_its_strength_the_best_of_the_grid(seed):
    preferences, z, hard, regulariser = synthetic(seed)
    preferences[::9] = np.nan
    found = length_controlled(preferences, z, hard, regulariser)
    x, share, weight = design(preferences, z, hard, regulariser)
    rated = np.isfinite(share)
    x, share, weight = x[rated], share[rated], weight[rated]
    prompts = np.tile(np.arange(len(share)), 2)
    held_out = []
    for c in STRENGTHS:
        folds = []
        for _, test in GroupKFold(5).split(prompts, groups=prompts):
            out = np.unique(prompts[test])
            keep = np.setdiff1d(np.arange(len(share)), out)
            logit = x[out] @ penalised(x[keep], share[keep], weight[keep], c)
            folds.append(np.mean(weight[out] * (np.logaddexp(0, logit) - share[out] * logit)))
        held_out.append(np.mean(folds))
    close = held_out - np.min(held_out) < 1e-5  # C of 21.5 and more are that close; 2.8 is five times as far
    assert close[np.argmin(np.abs(STRENGTHS - found.strength))]
    b = penalised(x, share, weight, found.strength)
    assert [found.weights.length, found.weights.difficulty, found.weights.model] == pytest.approx(b, abs=2e-3)
    assert found.win_rate == pytest.approx(100 * np.mean(1 / (1 + np.exp(-b[2] - b[1] * hard))), abs=0.02)


@pytest.mark.parametrize("seed", [3, 4])
def test_agrees_with_alpaca_evals_own_fit(seed):
    import sklearn

    from peo_bench.judges import alpaca_eval

    preferences, z, hard, regulariser = synthetic(seed)
    found = length_controlled(preferences, z, hard, regulariser)
    x, share, weight = design(preferences, z, hard, regulariser)
    with sklearn.config_context():  # upstream switches metadata routing on for the whole process
        data = pd.DataFrame(x, columns=["length", "difficulty", "model"]).assign(preference=share)
        fit = alpaca_eval.package().metrics.glm_winrate.fit_LogisticRegressionCV
        model = fit(data, "preference", sample_weight=pd.Series(weight))
    assert found.strength == pytest.approx(float(np.ravel(model.C_)[0]))
    ours = [found.weights.length, found.weights.difficulty, found.weights.model]
    assert ours == pytest.approx(model.coef_[0], abs=1e-6)


def test_adjusting_recovers_equal_lengths():
    """Without noise the share at z = 0 is sigmoid(b3) = 30 %, whatever lengths did to the raw rate."""
    z = np.random.default_rng(0).normal(1, 1, 4000)
    logit = np.log(0.3 / 0.7) - 2 * np.tanh(z)
    preferences = 1 + 1 / (1 + np.exp(-logit))
    found = length_adjusted(preferences, z)
    assert win_rate(preferences).win_rate < 18
    assert found.win_rate == pytest.approx(30, abs=0.1)
    assert found.weights.length == pytest.approx(-2, abs=0.01)
    assert (found.weights.difficulty, found.standard_error) == (0, 0)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_exchanging_model_and_baseline_gives_100_minus(seed):
    preferences, z, hard, regulariser = synthetic(seed, 60)
    turned = Regulariser(1 - regulariser.share, -regulariser.z, regulariser.difficulty)
    one = length_controlled(preferences, z, hard, regulariser)
    other = length_controlled(swapped(preferences), -z, hard, turned)
    assert one.win_rate + other.win_rate == pytest.approx(100, abs=0.02)
    assert one.standard_error == pytest.approx(other.standard_error, abs=0.02)
    pair = length_adjusted(preferences, z), length_adjusted(swapped(preferences), -z)
    assert pair[0].win_rate + pair[1].win_rate == pytest.approx(100, abs=0.02)


numbers = st.floats(-5, 5)
weights = st.builds(Weights, numbers, numbers, numbers)


@given(weights, weights, st.lists(numbers, min_size=1, max_size=20))
def test_rates_between_models_are_antisymmetric(a, b, difficulty):
    assert rate_between(a, a, difficulty) == 50
    assert rate_between(a, b, difficulty) == pytest.approx(100 - rate_between(b, a, difficulty))


def test_equal_lengths_are_fitted_and_one_sided_verdicts_are_not():
    _, _, hard, regulariser = synthetic(0, 30)
    assert standardised_gap([5, 6], [4, 5]).tolist() == [0, 0]
    nearly = length_controlled(np.r_[np.ones(29), 1.1], np.zeros(30), hard, regulariser)
    assert 0 <= nearly.win_rate < 3
    for one_side in (np.ones(30), np.full(30, 2.0)):
        with pytest.raises(ValueError, match="all 30 verdicts are for one side"):
            length_controlled(one_side, np.zeros(30), hard, regulariser)
    with pytest.raises(ValueError, match="4 verdicts are too few"):
        length_adjusted([1, 2, 1, 2, np.nan], np.zeros(5))


# --- published values -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    table = pd.read_csv(SHARED / "expected" / "alpaca_eval_weighted_dev.csv", index_col="model")
    folder = SHARED / "alpaca_eval"
    verdicts = pd.read_csv(folder / "annotations_weighted_gpt4_turbo_compact.dev.csv.gz")
    hard = pd.read_csv(folder / "instruction_difficulty_recovered.csv")["instruction_difficulty"].to_numpy()
    gamed = pd.read_csv(folder / "df_gamed_reconstructed.csv")
    columns = [gamed[key].to_numpy() for key in ("preference", "std_delta_len", "instruction_difficulty")]
    return table, dict(iter(verdicts.groupby("model"))), hard, Regulariser(*columns)


@needs_data
def test_rates_and_counts_of_28_models(published):
    from peo_bench.judges import alpaca_eval

    table, verdicts, _, _ = published
    compared = 0
    for model, rows in verdicts.items():
        found = win_rate(rows["preference"])
        upstream = alpaca_eval.winrate(rows[["preference"]].to_dict("records"))
        assert [getattr(found, key) for key in KEYS] == pytest.approx([upstream[key] for key in KEYS], abs=1e-9)
        if np.isfinite(table["win_rate"][model]):
            expected = [table[key][model] for key in KEYS]
            assert [getattr(found, key) for key in KEYS] == pytest.approx(expected, abs=1e-6), model
            compared += 1
    assert (len(verdicts), compared) == (28, 27)  # no leaderboard has text_davinci_003


@needs_data
def test_length_controlled_values_of_27_models(published):
    """Within 0.2 of the leaderboard's and 1e-4 of alpaca_eval's own fit on the same regulariser."""
    table, verdicts, hard, regulariser = published
    errors = []
    for model, rows in verdicts.items():
        if model in (BASELINE, "text_davinci_003"):
            continue
        z = standardised_gap(rows["len_output_1"], rows["len_output_2"])
        found = length_controlled(rows["preference"], z, hard[rows["row"]], regulariser).win_rate
        errors.append(abs(found - table["length_controlled_winrate"][model]))
        assert found == pytest.approx(table["lc_recomputed_reconstructed_gamed"][model], abs=1e-4), model
    assert len(errors) == 26
    assert max(errors) < 0.1


@needs_data
def test_published_weights_give_published_values(published):
    folder = SHARED / "alpaca_eval" / "leaderboards"
    board = pd.read_csv(folder / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv", index_col=0)
    saved = pd.read_csv(folder / "glm_weights_length_controlled_v1_baseline_gpt4_1106_preview.csv", index_col=0)
    fits = {model: Weights(*row) for model, row in zip(saved.index, saved.to_numpy(), strict=True)}
    both = [model for model in saved.index if model in board.index]
    errors = [
        abs(rate_between(fits[m], fits[BASELINE], published[2]) - board["length_controlled_winrate"][m]) for m in both
    ]
    assert len(both) == 199
    assert np.sum(np.array(errors) < 1e-3) >= 189
    assert max(errors) < 0.2
