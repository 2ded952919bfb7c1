"""An answer's tokens are those of stock transformers' whole dialogue, behind the prompt that generation continues."""

import unicodedata

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from peo_bench.errors import UsageError
from peo_bench.models.rendering import answer_texts, answer_tokens, prompt_ids, remarks

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>"]
WORDS = ["hello", "world", "how", "are", "you", "fine", "yes"]
LETTERS = sorted(set("".join(WORDS) + "AB:INST/[]<>|.?\n"))


def unigram() -> Tokenizer:
    scores = {"▁": -6.0} | dict.fromkeys(LETTERS, -8.0) | {form: -3.0 for word in WORDS for form in (word, f"▁{word}")}
    return Tokenizer(models.Unigram([*((name, 0.0) for name in SPECIAL), *scores.items()], unk_id=0))


def bpe() -> Tokenizer:
    """Merges that join words with the blank before them, as SentencePiece learns them."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=SPECIAL, initial_alphabet=[*LETTERS, "▁"])
    made.train_from_iterator([" hello world how are you", " yes hello you are fine", " fine world"] * 3, trainer)
    return Tokenizer(made.model)


def sentencepiece(model, scheme: str, template: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer that writes blanks as SentencePiece does: Metaspace, or Llama 2's normaliser."""
    inner = model()
    if scheme == "normaliser":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    blank = [decoders.Replace("▁", " "), decoders.Fuse(), *([] if scheme == "never" else [decoders.Strip(" ", 1, 0)])]
    inner.decoder = decoders.Sequence(blank)
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, additional_special_tokens=SPECIAL[4:], **names)
    made.chat_template = template
    return made


def chat(user: str, assistant: str, generated: str) -> str:
    """Return a template that writes messages in these forms, and what it writes where an answer is to begin."""
    turns = f"{{% if m['role'] == 'user' %}}{user}{{% else %}}{assistant}{{% endif %}}".replace(
        "TEXT", "{{ m['content'] }}"
    )
    return f"{{% for m in messages %}}{turns}{{% endfor %}}{{% if add_generation_prompt %}}{generated}{{% endif %}}"


TEMPLATES = {
    "behind a line break (Zephyr)": chat("<|user|>\nTEXT</s>\n", "<|assistant|>\nTEXT</s>\n", "<|assistant|>\n"),
    "behind a blank (Llama 2)": chat("<s>[INST] TEXT [/INST]", " TEXT </s>", ""),
    "behind a bracket (Mistral)": chat("<s>[INST] TEXT [/INST]", "TEXT</s>", ""),
    "behind a special token": chat("<|user|>TEXT</s>", "<|assistant|>TEXT</s>", "<|assistant|>"),
    "behind a colon": chat("A: TEXT\n", "B:TEXT</s>", "B:"),
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("scheme", ["always", "first", "never", "normaliser"])
@pytest.mark.parametrize("model", [unigram, bpe])
def test_answers_are_the_tokens_of_the_stock_dialogue(model, scheme, template):
    tokenizer = sentencepiece(model, scheme, template)
    prompt, answers = "how are you?", ["hello world", "fine", "yes.\nyou?", "[fine]"]
    for answer, ids in zip(answers, answer_tokens(tokenizer, answers), strict=True):
        dialogue = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        stock = tokenizer.apply_chat_template(dialogue, return_dict=False)
        ours = prompt_ids(tokenizer, prompt) + ids
        assert ours == stock[: len(ours)]
        (text,) = answer_texts(tokenizer, [ids], stop=[tokenizer.eos_token_id])
        assert answer_tokens(tokenizer, [text.rstrip()]) == [ids]  # what was generated is scored as it was generated
    assert remarks(tokenizer) == [] or "Llama 2" in template or "are trained to end with" in remarks(tokenizer)[0]


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_without_a_template_answers_are_those_behind_the_line_break(scheme):
    tokenizer = sentencepiece(unigram, scheme, None)
    ids = prompt_ids(tokenizer, "how are you?") + answer_tokens(tokenizer, ["hello world"])[0]
    assert ids == [*tokenizer("how are you?\nhello world", add_special_tokens=False)["input_ids"], 2]


def test_prompts_that_end_inside_a_token_are_told():
    """Stock transformers writes the blank and the word as one token, and generation's prompt ends with the blank."""
    tokenizer = sentencepiece(unigram, "first", chat("A: TEXT\n", "B: TEXT</s>", "B: "))
    prompt, (answer,) = prompt_ids(tokenizer, "how are you?"), answer_tokens(tokenizer, ["hello world"])
    assert tokenizer.convert_ids_to_tokens([*prompt[-2:], *answer]) == [":", "▁", "hello", "▁world", "</s>"]
    assert remarks(tokenizer) == [
        "its prompts end inside a token ('\\nB: '): answers are trained to continue them as text"
    ]


def test_a_dialogue_that_writes_more_than_the_prompt_before_an_answer_is_told():
    """Qwen 3's kind: an empty thought stands before the answers of a dialogue."""
    tokenizer = sentencepiece(unigram, "never", chat("<|user|>TEXT</s>", "<|assistant|>[]\nTEXT</s>", "<|assistant|>"))
    assert remarks(tokenizer) == [
        "its chat template writes '</s><|assistant|>[]\\n' before an answer in a dialogue and '</s><|assistant|>' "
        "before one that is generated: answers are trained behind the latter"
    ]


@pytest.mark.parametrize("name", ["＜/s＞", "＜|user|＞", "</ｓ>"])
def test_a_control_token_in_another_width_is_spelled_though_it_is_a_piece(name):
    """NFKC, which T5, XLM-R and Gemma's kin have, makes of it the name that a Unigram model finds among its pieces."""
    tokenizer = sentencepiece(unigram, "never", TEMPLATES["behind a special token"])
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    plain = unicodedata.normalize("NFKC", name)
    control = tokenizer.convert_tokens_to_ids(plain)
    assert control in tokenizer(name, add_special_tokens=False)["input_ids"], "the tokenizer alone reads the token"
    frame = prompt_ids(tokenizer, "")
    asked = prompt_ids(tokenizer, name)
    (said,) = answer_tokens(tokenizer, [f"hello {name} world"])
    assert asked.count(control) == frame.count(control)
    assert said.count(control) == (control == tokenizer.eos_token_id)
    assert plain in "".join(tokenizer.convert_ids_to_tokens(asked))
    assert plain in "".join(tokenizer.convert_ids_to_tokens(said[:-1]))


def test_a_control_token_that_a_model_of_words_cannot_spell_is_refused_in_any_case():
    words = {name: i for i, name in enumerate([*SPECIAL, *WORDS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", bos_token="<s>")
    assert answer_tokens(tokenizer, ["Hello World"]) == [[words["hello"], words["world"], words["</s>"]]]
    for text in ("hello </S> world", "hello </s> world"):
        with pytest.raises(UsageError, match=r"a text holds '</s>', which the tokenizer of .* cannot spell"):
            answer_tokens(tokenizer, [text])
