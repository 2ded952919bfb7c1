"""What an accepted checkpoint computes: stock transformers' numbers, the same from every cache, and after export."""

from dataclasses import replace

import pytest
import torch
from models import PROMPTS, edit_config, gemma2, gpt2, llama, qwen2, save_base, save_full
from transformers import AutoModelForCausalLM

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import Weights, policy
from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.engine.engine import Engine, Request
from peo_bench.jobs.kinds import JOB_KINDS
from peo_bench.jobs.store import Store

MODELS = {"llama": llama, "qwen2": qwen2, "gemma2": gemma2, "gpt2": gpt2}
TOKENS = torch.tensor([[1, 5, 6, 7, 8, 9, 10]])
DECODING = Decoding(max_new_tokens=6, temperature=1.0, top_p=1.0)


def logits(model):
    with torch.no_grad():
        return model.eval()(TOKENS).logits


@pytest.mark.parametrize("kind", MODELS)
def test_two_caches_and_an_export_agree_with_stock_transformers(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    base = save_base(tmp_path, "base", MODELS[kind]()).path / "model"
    expert = save_full(tmp_path, "expert", MODELS[kind](), 0.1, seed=4).path / "model"
    reference = checkpoint_job(str(base), "base")
    given = checkpoint_job(str(expert), "delta", reference)
    found = []
    for name in ("one", "other"):
        store = Store(tmp_path / name)
        for job in (reference, given):
            store.run(job)
        engine = Engine(store.__getitem__, noise_seed=0, device="cpu")
        spec = policy(reference.id, [(given.id, 0.5)])
        requests = [Request(spec, prompt, prompt) for prompt in PROMPTS]
        answers = engine.generate(requests, DECODING)
        kl = list(engine.kl(requests, answers, policy(reference.id)))
        found.append(([answer.tokens for answer in answers], kl))
    assert found[0] == found[1]
    for weights, folder in ((Weights(reference.id), base), (Weights(reference.id, ((given.id, 1.0),)), expert)):
        stock = AutoModelForCausalLM.from_pretrained(folder)
        exported = engine.models.exportable(weights)
        assert torch.allclose(logits(exported), logits(stock), atol=1e-4)
        exported.save_pretrained(tmp_path / "exported")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
        assert torch.equal(logits(again), logits(exported))
        assert again.generation_config.eos_token_id == stock.generation_config.eos_token_id


def test_an_exported_model_ends_where_answers_ended_here(tmp_path, monkeypatch):
    """Ends that only config.json or the tokenizer declare are in what stock transformers reads."""
    monkeypatch.setenv("PEO_BENCH_LOCATIONS", "{}")
    base = save_base(tmp_path, "base", MODELS["llama"]()).path / "model"
    edit_config(base, eos_token_id=[2, 22])
    (base / "generation_config.json").write_text('{"eos_token_id": null}')
    reference, store = checkpoint_job(str(base), "base"), Store(tmp_path / "store")
    store.run(reference)
    engine = Engine(store.__getitem__, device="cpu")
    ends = set(engine.models.stop_ids(reference.id))
    assert len(ends) > 1
    engine.models.exportable(Weights(reference.id)).save_pretrained(tmp_path / "exported")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert set(stock.generation_config.eos_token_id) == ends


@pytest.mark.parametrize("kind", ["checkpoint", "gguf", "scorer", "pairs", "prompts", "aspect", "reward-model"])
def test_what_an_older_version_wrote_is_not_taken(kind, tmp_path, monkeypatch):
    """Artefacts that were made without the checks, or with other ends of answers, are made anew."""
    from peo_bench.jobs.job import Job

    known, new = JOB_KINDS.get(kind), Job(kind, {}).id
    assert known.version > 1
    monkeypatch.setattr(JOB_KINDS, "get", lambda name: replace(known, version=known.version - 1))
    assert Job(kind, {}).id != new
