"""Aspect learners: every name is the loss it claims to be, written down once more here."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from training_fixtures import save_pairs, save_policy, workspace

from peo_bench.errors import UsageError
from peo_bench.jobs.job import Handle, Job
from peo_bench.models.loading import load_causal
from peo_bench.suites.suite import load_suite, with_settings
from peo_bench.training import aspect, kto
from peo_bench.training.learners import LEARNERS, PairBatch, bco

BETA = 0.3
PARAMS: dict[str, Any] = {
    **{"objective": "helpful", "seed": 1, "form": "full", "learner_beta": BETA, "learning_rate": 1e-3},
    **{"batch_size": 8, "micro_batch_size": 8, "epochs": 2.0},
}


def pairs(w: torch.Tensor, v: torch.Tensor, p: torch.Tensor, beta: float, state: dict[str, Any]) -> PairBatch:
    """A whole batch for losses that know the reference and no lengths."""
    return PairBatch(w, v, p, p, torch.ones_like(w), torch.ones_like(w), beta, state, len(w), len(w))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def smooth(x: float, epsilon: float) -> float:
    """Robust DPO: the unbiased estimate of the clean loss under flips with probability epsilon."""
    return (-(1 - epsilon) * log_sigmoid(x) + epsilon * log_sigmoid(-x)) / (1 - 2 * epsilon)


def exo(x: float, epsilon: float = 1e-3) -> float:
    q = 1 / (1 + math.exp(-x))
    return q * math.log(q / (1 - epsilon)) + (1 - q) * math.log((1 - q) / epsilon)


def discopop(x: float, tau: float = 0.05) -> float:
    mix = 1 / (1 + math.exp(-x / tau))
    return -log_sigmoid(x) * (1 - mix) + math.exp(-x) * mix


def f_alpha(u: float) -> float:
    """f'(t) = (t^(alpha - 1) - 1) / (alpha - 1), alpha 0.5, of a log ratio."""
    return (math.exp(-0.5 * u) - 1) / -0.5


LITERAL = {  # of log u_w, log u_l, their numbers of tokens and log pi(y_w)
    "dpo": lambda w, v, n, m, p: -log_sigmoid(BETA * (w - v)),
    "hinge": lambda w, v, n, m, p: max(0.0, 1 - BETA * (w - v)),
    "ipo-mean": lambda w, v, n, m, p: (w / n - v / m - 1 / (2 * BETA)) ** 2,
    "ipo": lambda w, v, n, m, p: (w - v - 1 / (2 * BETA)) ** 2,
    "ln-dpo": lambda w, v, n, m, p: -log_sigmoid(BETA * (w / n - v / m)),
    "robust": lambda w, v, n, m, p: smooth(BETA * (w - v), 0.1),
    "exo": lambda w, v, n, m, p: exo(BETA * (w - v)),
    "nca": lambda w, v, n, m, p: -log_sigmoid(BETA * w) - 0.5 * log_sigmoid(-BETA * w) - 0.5 * log_sigmoid(-BETA * v),
    "sppo": lambda w, v, n, m, p: (w - 0.5 / BETA) ** 2 + (v + 0.5 / BETA) ** 2,
    "apo-zero": lambda w, v, n, m, p: 1 - 1 / (1 + math.exp(-BETA * w)) + 1 / (1 + math.exp(-BETA * v)),
    "apo-down": lambda w, v, n, m, p: 1 / (1 + math.exp(-BETA * w)) + 1 - 1 / (1 + math.exp(-BETA * (w - v))),
    "discopop": lambda w, v, n, m, p: discopop(BETA * (w - v)),
    "bco-unshifted": lambda w, v, n, m, p: -log_sigmoid(BETA * w) - log_sigmoid(-BETA * v),
    "f-forward-kl": lambda w, v, n, m, p: -log_sigmoid(BETA * (math.exp(-v) - math.exp(-w))),
    "f-js": lambda w, v, n, m, p: -log_sigmoid(BETA * (log_sigmoid(w) - log_sigmoid(v))),
    "f-alpha": lambda w, v, n, m, p: -log_sigmoid(BETA * (f_alpha(w) - f_alpha(v))),
    "rpo": lambda w, v, n, m, p: -log_sigmoid(BETA * (w - v)) - 0.005 * BETA * p,
    "flex-dpo": lambda w, v, n, m, p: -log_sigmoid(BETA * w - 0.5 * BETA * v),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Handle]:
    root = tmp_path_factory.mktemp("inputs")
    return {"reference": save_policy(root / "reference"), "pairs": save_pairs(root / "pairs", count=16)}


def built(name: str, inputs: dict[str, Handle], path: Path, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """The trainer, its model moved away from the reference, and its first batch."""
    params = PARAMS | {"learner": name} | changes
    make_class = partial(aspect.trainer_class, None, loss=LEARNERS.get(name).loss)
    trainer = aspect.build_trainer(params, inputs, workspace(path), make_class)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return trainer, trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


def ratios(trainer: Any, batch: dict[str, Any]) -> list[tuple[float, float, int, int, float, float]]:
    """Per pair: log ratios of both answers, their numbers of tokens, log pi of both; from full logits."""
    with torch.no_grad():
        table = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        table = table.double().log_softmax(-1)[:, :-1]
    picked = table.gather(2, batch["input_ids"][:, 1:, None])[..., 0] * batch["completion_mask"][:, 1:]
    log_pi, tokens = picked.sum(1), batch["completion_mask"].sum(1)
    half = len(log_pi) // 2
    return [
        (
            float(log_pi[i] - batch["ref_chosen_logps"][i]),
            float(log_pi[half + i] - batch["ref_rejected_logps"][i]),
            int(tokens[i]),
            int(tokens[half + i]),
            float(log_pi[i]),
            float(log_pi[half + i]),
        )
        for i in range(half)
    ]


@pytest.mark.parametrize("name", LITERAL)
def test_the_trainer_computes_the_named_loss(name, inputs, tmp_path: Path) -> None:
    trainer, batch = built(name, inputs, tmp_path)
    with torch.no_grad():
        found = float(trainer.compute_loss(trainer.model, dict(batch)))
    literal = [LITERAL[name](*pair[:5]) for pair in ratios(trainer, batch)]
    assert found == pytest.approx(sum(literal) / len(literal), rel=2e-4, abs=1e-6)


def test_aot_sorts_the_margins_of_the_micro_batch(inputs, tmp_path: Path) -> None:
    trainer, batch = built("aot", inputs, tmp_path)
    with torch.no_grad():
        found = float(trainer.compute_loss(trainer.model, dict(batch)))
    reference = (batch["ref_chosen_logps"] - batch["ref_rejected_logps"]).tolist()
    own = [w - v + r for (w, v, *_), r in zip(ratios(trainer, batch), reference, strict=True)]
    literal = [-log_sigmoid(BETA * (a - b)) for a, b in zip(sorted(own), sorted(reference), strict=True)]
    assert found == pytest.approx(sum(literal) / len(literal), rel=2e-4)


def log_odds(x: float) -> float:
    return x - math.log1p(-math.exp(x))


FREE = {  # of log pi(y_w), log pi(y_l) and their numbers of tokens; and whether the likelihood term comes on top
    "simpo": (lambda p, q, n, m: -log_sigmoid(BETA * (p / n - q / m) - 0.5), False),
    "cpo": (lambda p, q, n, m: -log_sigmoid(BETA * (p - q)), True),
    "orpo": (lambda p, q, n, m: -BETA * log_sigmoid(log_odds(p / n) - log_odds(q / m)), True),
}


@pytest.mark.parametrize("name", FREE)
def test_learners_without_a_reference(name, inputs, tmp_path: Path) -> None:
    trainer, batch = built(name, inputs, tmp_path)
    with torch.no_grad():
        found = float(trainer.compute_loss(trainer.model, dict(batch)))
        elsewhere = batch | {"ref_chosen_logps": batch["ref_chosen_logps"] - 5.0}
        assert float(trainer.compute_loss(trainer.model, elsewhere)) == pytest.approx(found, rel=1e-5)
    pairs = ratios(trainer, batch)
    formula, likelihood = FREE[name]
    expected = sum(formula(p, q, n, m) for _, _, n, m, p, q in pairs) / len(pairs)
    if likelihood:
        expected -= sum(p for *_, p, _ in pairs) / sum(n for _, _, n, *_ in pairs)
    assert found == pytest.approx(expected, rel=2e-4)


def test_kto_by_hand(inputs, tmp_path: Path) -> None:
    """Its KL comes from answers to other prompts; every answer is judged alone."""
    trainer = kto.build_trainer(PARAMS | {"learner": "kto"}, inputs, workspace(tmp_path))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        rows = trainer.train_dataset.select(range(16)).to_list()
        reference = load_causal(inputs["reference"].path / "model")
        good = [row["label"] for row in rows]
        assert good == [True] * 8 + [False] * 8
        own = [log_ratio(trainer.model, reference, row["prompt_ids"], row["completion_ids"]) for row in rows]
        other = [
            log_ratio(trainer.model, reference, row["prompt_ids"], rows[i - 1]["completion_ids"])
            for i, row in enumerate(rows)
        ]
        kl = max(sum(other) / 16, 0.0)
        losses = [1 - sigmoid(BETA * (r - kl) * (1 if label else -1)) for r, label in zip(own, good, strict=True)]
        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        found = float(trainer.compute_loss(trainer.model, batch))
    assert found == pytest.approx(sum(losses) / 16, rel=2e-4)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_ratio(model: Any, reference: Any, prompt: list[int], answer: list[int]) -> float:
    values = []
    for one in (model, reference):
        table = one(torch.tensor([prompt + answer])).logits.double().log_softmax(-1)[0, len(prompt) - 1 : -1]
        values.append(float(table.gather(1, torch.tensor(answer)[:, None]).sum()))
    return values[0] - values[1]


def test_kto_needs_more_than_one_pair_per_micro_batch() -> None:
    with pytest.raises(UsageError, match=r"set micro_batch_size to 2 or more"):
        with_settings(load_suite("sandbox"), {"training.learner": "kto", "training.micro_batch_size": 1})


def test_bco_follows_its_running_mean_and_bounds_dpo() -> None:
    """delta is 0 for the first batch and then moves by a tenth; for every delta the loss is at least DPO's."""
    w, v = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0])
    state: dict[str, Any] = {}
    first = bco(pairs(w, v, w, 0.5, state))
    expected = [-log_sigmoid(0.5 * a) - log_sigmoid(-0.5 * b) for a, b in zip(w, v, strict=True)]
    assert first.tolist() == pytest.approx(expected, rel=1e-6)
    mean = 0.5 * (2.0 - 0.5) / 2
    assert state == {"delta": pytest.approx(0.1 * mean)}
    bco(pairs(w + 4, v + 4, w, 0.5, state))
    assert state["delta"] == pytest.approx(0.09 * mean + 0.1 * (mean + 2.0))
    for delta in (-3.0, 0.0, 2.0):
        loss = bco(pairs(w, v, w, 0.5, {"delta": delta}))
        dpo = -torch.nn.functional.logsigmoid(0.5 * (w - v))
        assert (loss >= dpo - 1e-6).all()


@pytest.mark.parametrize("name", ["cpo", "orpo", "bco", "simpo"])
def test_the_step_does_not_depend_on_the_size_of_the_micro_batches(name, inputs, tmp_path: Path) -> None:
    """13 pairs in batches of 8, whole and in micro-batches of 4: 8 and 5, or 4 + 4 and 4 + 1."""
    found = []
    for micro in (8, 4):
        params = {"micro_batch_size": micro, "epochs": 13 / 16}
        trainer, _ = built(name, inputs, tmp_path / str(micro), **params)
        batches, gradients = iter(trainer.get_train_dataloader()), []
        for _ in range(2):
            samples, _ = trainer.get_batch_samples(batches, 8 // micro, torch.device("cpu"))
            trainer.current_gradient_accumulation_steps = len(samples)
            for sample in samples:
                (trainer.compute_loss(trainer.model, sample) / len(samples)).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
            trainer.model.zero_grad()
        found.append(gradients)
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)


def test_limits() -> None:
    """RPO without its term and Flex-DPO with equal betas are DPO; alpha near 0 is reverse KL up to a constant."""
    from peo_bench.training import learners

    w, v, p = torch.tensor([0.5, -0.2]), torch.tensor([0.1, 0.4]), torch.tensor([-3.0, -5.0])
    dpo = -torch.nn.functional.logsigmoid(0.3 * (w - v))
    batch = pairs(w, v, p, 0.3, {})
    torch.testing.assert_close(learners.rpo(batch) + learners.RPO_ETA * 0.3 * p, dpo)
    torch.testing.assert_close(learners.flex(pairs(w, v / learners.FLEX_REJECTED, p, 0.3, {})), dpo)


@pytest.mark.parametrize("name", LEARNERS.names())
def test_every_learner_trains_towards_the_preferred_answers(name, inputs, tmp_path: Path) -> None:
    own = LEARNERS.get(name).beta or (2.0 if name == "ipo-mean" else BETA)
    params = PARAMS | {"learner": name, "epochs": 4.0, "learner_beta": own}
    result = aspect.train_aspect.run(Job("aspect", params), inputs, workspace(tmp_path))
    if name == "discopop":  # has a local optimum at a slightly negative margin, where training starts
        assert abs(result["curves"][-1]["margin"]) < 0.5
    else:
        assert result["curves"][-1]["margin"] > 0
    assert (tmp_path / "model").is_dir()


def test_plain_dpo_leaves_ids_alone_and_every_other_learner_and_version_has_its_own(monkeypatch) -> None:
    suite = load_suite("sandbox")

    def job_id(learner: str) -> str:
        return Job("aspect", with_settings(suite, {"training.learner": learner}).training.job_params()).id

    params = suite.training.job_params()
    plain = {key: value for key, value in params.items() if key not in ("learner", "learner_version")}
    before = job_id("ipo")
    assert job_id("dpo") == Job("aspect", plain).id != before
    monkeypatch.setitem(LEARNERS._entries, "ipo", replace(LEARNERS.get("ipo"), version=2))
    assert job_id("ipo") != before


@pytest.mark.parametrize(
    ("learner", "beta"), [("dpo", 0.3), ("kto", 0.3), ("simpo", 2.0), ("ln-dpo", 5.0), ("cpo", 0.1), ("orpo", 0.1)]
)
def test_a_learner_on_another_scale_has_its_own_beta_and_leaves_that_of_others(learner, beta) -> None:
    """The suite's is 0.3; `learner_beta` is for the experts alone."""
    settings = with_settings(load_suite("sandbox"), {"training.learner": learner}).training
    assert (settings.aspect_beta, settings.beta) == (beta, 0.3)
    other = with_settings(load_suite("sandbox"), {"training.learner": learner, "training.learner_beta": 1.5}).training
    assert (other.aspect_beta, other.beta) == (1.5, 0.3)
    assert Job("aspect", other.job_params()).id != Job("aspect", settings.job_params()).id


def test_the_trainer_is_given_the_learners_beta(inputs, tmp_path: Path) -> None:
    trainer, _ = built("simpo", inputs, tmp_path, learner_beta=None, beta=0.3)
    assert trainer.beta == 2.0


@pytest.mark.parametrize("name", ["simpo", "ln-dpo", "cpo", "orpo", "bco"])
def test_what_former_versions_trained_is_not_reused(name) -> None:
    params = with_settings(load_suite("sandbox"), {"training.learner": name}).training.job_params()
    assert Job("aspect", params).id != Job("aspect", params | {"learner_version": 1}).id


def test_unknown_learners_are_refused() -> None:
    suite = load_suite("sandbox")
    with pytest.raises(
        UsageError, match=r"training.learner.: unknown learner .ppo.: did you mean sppo.*peo-bench list learners"
    ):
        with_settings(suite, {"training.learner": "ppo"})


class Prepared(Exception):
    """Carries the rows out that a trainer is given, in its place."""


def prepared(name: str, swapped: bool, inputs: dict[str, Handle], path: Path) -> list[dict[str, Any]]:
    """The rows on which the learner would be trained, by the way that jobs take."""
    path.mkdir()
    params = PARAMS | {"learner": name, "swapped": swapped, "epochs": 1.0}
    with pytest.raises(Prepared) as rows:
        aspect.train_aspect.run(Job("aspect", params), inputs, workspace(path))
    return rows.value.args[0]


@pytest.mark.parametrize("name", LEARNERS.names())
def test_swapped_labels_are_swapped_for_every_learner(name, inputs, tmp_path: Path, monkeypatch) -> None:
    """What was preferred is rejected and the other way round; prompts and their order stay."""

    def refuse(trainer: Any, *, train_dataset: Any, **rest: Any) -> None:
        raise Prepared(train_dataset.to_list())

    for trainer in (trl.DPOTrainer, trl.KTOTrainer):
        monkeypatch.setattr(trainer, "__init__", refuse)
    for module in ("peo_bench.models.loading", "peo_bench.training.kto"):
        monkeypatch.setattr(f"{module}.load_causal", lambda *args: None)
    plain = prepared(name, False, inputs, tmp_path / "plain")
    swapped = prepared(name, True, inputs, tmp_path / "swapped")
    if name == "kto":
        judged = [
            {(tuple(row["prompt_ids"]), tuple(row["completion_ids"]), row["label"]) for row in rows}
            for rows in (plain, swapped)
        ]
        assert judged[1] == {(prompt, answer, not label) for prompt, answer, label in judged[0]} != judged[0]
    else:
        sides = [[(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in r] for r in (plain, swapped)]
        assert sides[1] == [(prompt, rejected, chosen) for prompt, chosen, rejected in sides[0]] != sides[0]
