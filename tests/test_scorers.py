"""Scorers from checkpoints: every layout against a computation by hand, and what must be refused when one is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import scorer_checkpoints as made
import torch
from safetensors.torch import load_file, save_file
from scorer_checkpoints import ANSWERS, PROMPTS
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2ForSequenceClassification,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from peo_bench.core.method import Objective
from peo_bench.errors import UsageError
from peo_bench.evaluation.generation import score
from peo_bench.jobs.job import Job
from peo_bench.jobs.store import Store
from peo_bench.models.controls import encode_pair
from peo_bench.scorers import load_scorer, open_scorer
from peo_bench.scorers.columns import Label, count_scorers
from peo_bench.scorers.kinds import scorer_job, scorer_jobs
from peo_bench.scorers.self_test import TOLERANCE, batch_gap
from peo_bench.scorers.sequence_classification import SequenceClassifier
from peo_bench.scorers.settings import ScorerConfig
from peo_bench.settings import check
from peo_bench.suites.suite import TaskConfig

HELPFUL, HARMLESS = Objective("helpful", "reward", True), Objective("harmless", "cost", False)


@pytest.fixture(scope="module")
def beaver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_beaver(tmp_path_factory.mktemp("beaver") / "reward")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_gpt2(tmp_path_factory.mktemp("gpt2") / "harmless")


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_deberta(tmp_path_factory.mktemp("deberta") / "several")


def declared(layout: str, model: Path, **more: Any) -> ScorerConfig:
    return ScorerConfig.model_validate({"layout": layout, "model": str(model)} | more)


# --- scores -----------------------------------------------------------------------------------------------------------


def beaver_by_hand(folder: Path, prompt: str, answer: str) -> float:
    """w . h + b with h the trunk's last hidden state of the one text, unpadded; nothing of ours but the text's form."""
    tensors = load_file(folder / "model" / "model.safetensors")
    trunk = LlamaModel(LlamaConfig.from_pretrained(folder / "model")).eval()
    trunk.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    text = "BEGINNING OF CONVERSATION: USER: " + prompt + " ASSISTANT:" + answer
    ids = AutoTokenizer.from_pretrained(folder / "model")(text, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == 1, "the tokenizer writes its BOS"
    with torch.no_grad():
        hidden = trunk(ids).last_hidden_state[0, -1]
    return float(tensors["score_head.weight"][0] @ hidden + tensors["score_head.bias"][0])


def test_beaver_by_hand(beaver: Path) -> None:
    expected = [beaver_by_hand(beaver, p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert max(expected) - min(expected) > 0.1
    assert open_scorer(beaver, "beaver").score(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-4)


def test_gpt2_by_hand(gpt2: Path) -> None:
    """The pair of transcript and answer, one text at a time, read at its last token."""
    model = GPT2ForSequenceClassification.from_pretrained(gpt2 / "model", pad_token_id=2).eval()
    words = AutoTokenizer.from_pretrained(gpt2 / "model")
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids = words("\n\nHuman: " + prompt + "\n\nAssistant:", answer, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = model.transformer(ids).last_hidden_state[0, -1]
        expected.append(float(model.score.weight[0].detach() @ hidden))
    scorer = open_scorer(gpt2, "hh-gpt2")
    assert scorer.score(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-4)
    transcripts = [f"\n\nHuman: {prompt}\n\nAssistant:" for prompt in PROMPTS]
    assert scorer.score(transcripts, ANSWERS) == pytest.approx(expected, abs=1e-4), "a transcript stays as it is"


def test_several_labels_by_hand(deberta: Path) -> None:
    """An encoder reads its first token, and which half a token belongs to; each label is a row of the classifier."""
    model = DebertaV2ForSequenceClassification.from_pretrained(deberta / "model").eval()
    words = AutoTokenizer.from_pretrained(deberta / "model")
    scorer = open_scorer(deberta, "sequence-classification")
    found = scorer.score_labels(PROMPTS, ANSWERS).labels
    for prompt, answer, row in zip(PROMPTS, ANSWERS, found, strict=True):
        both = words(prompt, answer, return_tensors="pt")
        halves = torch.zeros_like(both["input_ids"])
        halves[0, (both["input_ids"][0] == 2).nonzero()[0, 0] + 1 :] = 1
        with torch.no_grad():
            first = model.deberta(both["input_ids"], token_type_ids=halves).last_hidden_state[:, 0]
            pooled = torch.nn.functional.gelu(model.pooler.dense(first))[0]
            expected = model.classifier.weight @ pooled + model.classifier.bias
        assert list(row) == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_template_and_the_chat_template(tmp_path: Path, deberta: Path) -> None:
    """A text template is scored as that text; braces in a prompt are text."""
    form = open_scorer(deberta, "sequence-classification", template="Q: {prompt} A: {answer}")
    (ids,) = (text["input_ids"] for text in form.encode(["{prompt} hello"], ["no {answer}"]))
    assert ids == form.tokenizer("Q: {prompt} hello A: no {answer}")["input_ids"]
    with pytest.raises(UsageError, match="no chat template"):
        open_scorer(deberta, "sequence-classification", template="chat")
    form.tokenizer.chat_template = "{% for m in messages %}<s> {{ m['content'] }} {% endfor %}"
    form.template = "chat"
    (ids,) = (text["input_ids"] for text in form.encode(["hello"], ["no"]))
    assert form.tokenizer.convert_ids_to_tokens(ids) == ["<s>", "hello", "<s>", "no"]
    assert form.remarks() == []
    form.tokenizer.chat_template += "{{ strftime_now('%d %b %Y') }}"
    assert form.remarks() == ["its chat template writes the date, which is 2024-07-26 here whatever the day"]
    (ids,) = (text["input_ids"] for text in form.encode(["hello"], ["no"]))
    assert form.tokenizer("26 Jul 2024", add_special_tokens=False)["input_ids"] == ids[4:]


@pytest.mark.parametrize("limit", [None, 14])
@pytest.mark.parametrize(("layout", "kind"), [("hh-gpt2", "gpt2"), ("sequence-classification", "deberta")])
def test_names_of_tokens_that_end_answers_are_text_in_a_pair_special_or_not(
    layout: str, kind: str, limit: int | None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The pair is that of the tokenizer that does not know them, cut as it cuts."""
    folder = shutil.copytree(request.getfixturevalue(kind), tmp_path / kind)
    plain = AutoTokenizer.from_pretrained(folder / "model")
    config = folder / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": [2, len(plain)]}))
    scorer = open_scorer(folder, layout)
    scorer.tokenizer.add_tokens([AddedToken("<turn>", special=False)])
    prompt, answer = "hello <turn> </s> how do", "no <turn> number </s> with care A number A number"
    (found,) = scorer.encode([prompt], [answer], limit)
    (question,) = scorer.questions([prompt])
    cut = {} if limit is None else {"truncation": True, "max_length": limit}
    expected = plain(question, answer, split_special_tokens=True, **cut)
    assert found == {name: ids for name, ids in expected.items() if name != "attention_mask"}
    assert len(plain) not in found["input_ids"]
    (whole,) = scorer.encode(["hello"], ["<turn>"])
    assert len(plain) not in whole["input_ids"], "alone too"


def test_a_name_among_the_pieces_of_a_unigram_model_is_spelled() -> None:
    """As DeBERTa-v3's and T5's: their converted vocabularies hold the control tokens, which no text should hit."""
    letters = [(letter, -5.0) for letter in "\u2581[SEP]abc"]
    inner = Tokenizer(models.Unigram([("[UNK]", 0.0), ("[SEP]", 0.0), *dict.fromkeys(letters)], unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 1)]
    )
    inner.add_special_tokens(["[UNK]", "[SEP]"])
    words = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", sep_token="[SEP]")
    ids, halves = encode_pair(words, "a [SEP]", "b")
    assert "".join(words.convert_ids_to_tokens(ids)) == "\u2581a\u2581[SEP][SEP]\u2581b[SEP]"
    assert words.convert_ids_to_tokens(ids)[3:8] == list("[SEP]")
    assert halves == [0] * 9 + [1] * 3


@pytest.mark.parametrize("layout", ["beaver", "hh-gpt2", "sequence-classification"])
def test_a_score_is_the_same_alone_and_in_any_batch(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue({"beaver": "beaver", "hh-gpt2": "gpt2"}.get(layout, "deberta"))
    scorer = open_scorer(folder, layout)
    together = scorer.score_labels(PROMPTS, ANSWERS).labels
    alone = [scorer.score_labels([p], [a]).labels[0] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    assert [value for row in together for value in row] == pytest.approx([v for row in alone for v in row], abs=1e-4)
    assert batch_gap(scorer) < TOLERANCE["float32"]
    assert batch_gap(open_scorer(folder, layout, "bfloat16")) < TOLERANCE["bfloat16"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_beaver_reads_the_last_attended_token_whatever_the_padding(beaver: Path, side: str) -> None:
    scorer = open_scorer(beaver, "beaver")
    rows = {"input_ids": [text["input_ids"] for text in scorer.encode(PROMPTS, ANSWERS)]}
    assert len({len(ids) for ids in rows["input_ids"]}) > 1
    padded = scorer.tokenizer.pad(rows, padding_side=side, return_tensors="pt")
    with torch.no_grad():
        found = scorer.end_scores(padded)[:, 0].tolist()
    assert found == pytest.approx(
        [beaver_by_hand(beaver, p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)], abs=1e-4
    )


ENDED = "{prompt} {answer} </s>"
"""A text that ends with the token that is padding too, where the tokenizer has none of its own."""


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding", [None, -1, 0, 2])  # 2 is the end token, which then is skipped by transformers too
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_score_is_stock_transformers_of_the_text_alone(tmp_path: Path, kind: str, padding: int, side: str) -> None:
    """Whatever the configuration and the tokenizer say of padding; the end token was taken for it before."""
    folder = made.save_gpt2(tmp_path / "model", pad_token_id=padding) / "model"
    words = AutoTokenizer.from_pretrained(folder, padding_side=side)
    words.save_pretrained(folder)
    if kind == "llama":
        config = made.llama_config(words, num_labels=1)
        config.pad_token_id = None if padding is None else padding % len(words)
        made.lively(LlamaForSequenceClassification(config)).save_pretrained(folder)
    assert (words.pad_token, words.eos_token_id) == (None, 2)
    stock = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = [ENDED.format(prompt=p, answer=a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    ids = [words(text)["input_ids"] for text in texts]
    with torch.no_grad():
        expected = [float(stock(torch.tensor([row])).logits) for row in ids]
    scorer = open_scorer(tmp_path / "model", "sequence-classification", template=ENDED)
    assert scorer.score(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-4)
    assert [scorer.score([p], [a])[0] for p, a in zip(PROMPTS, ANSWERS, strict=True)] == pytest.approx(
        expected, abs=1e-4
    )
    if kind == "llama":  # GPT-2's positions count padding on the left
        padded = scorer.tokenizer.pad({"input_ids": ids}, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            assert scorer.end_scores(padded)[:, 0].tolist() == pytest.approx(expected, abs=1e-4)


def test_texts_beyond_the_context_are_cut_and_counted_by_column(gpt2: Path) -> None:
    """What is left is what the tokenizer's own truncation leaves; other texts are not touched."""
    scorer = open_scorer(gpt2, "hh-gpt2")
    long = "care " * 400
    found = scorer.score_labels(["hello", "hello"], [long, "no"])
    assert found.cut == [True, False]
    assert scorer.truncated == 1
    words = AutoTokenizer.from_pretrained(gpt2 / "model")
    kept = words("\n\nHuman: hello\n\nAssistant:", long, truncation=True, max_length=256)["input_ids"]
    assert scorer.encode(["hello"], [long], 256) == [{"input_ids": kept}]


def test_columns_of_one_scorer_share_one_forward(deberta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peo_bench.core.spec import policy
    from peo_bench.engine.engine import Answer, Request

    scorer = open_scorer(deberta, "sequence-classification")
    sizes: list[int] = []
    forward = scorer._forward
    monkeypatch.setattr(scorer, "_forward", lambda batch: sizes.append(len(batch)) or forward(batch))
    columns = {"reward": Label(scorer, 0), "cost": Label(scorer, 2)}
    requests = [Request(policy("x"), prompt, prompt) for prompt in PROMPTS]
    found = score(columns, requests, [Answer((1,), answer, False) for answer in ANSWERS])
    assert sizes == [3]
    assert count_scorers(columns) == 1
    expected = scorer.score_labels(PROMPTS, ANSWERS).labels
    assert found.columns == {
        "reward": [round(row[0], 6) for row in expected], "cost": [round(row[2], 6) for row in expected]
    }  # fmt: skip


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_checked_scorer_says_what_it_is(beaver: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    handle = store.run(scorer_job("reward", declared("beaver", beaver), [HELPFUL, HARMLESS]))
    assert handle.result["signs"]["reward"] == {"higher": 7, "lower": 0, "of": 7, "gap": pytest.approx(2, abs=1e-3)}
    assert handle.result["batch_gap"] < 1e-3
    assert (handle.result["layout"], handle.result["labels"], handle.result["max_length"]) == ("beaver", 1, 512)
    assert "form" not in handle.result, "which would make it a policy, copied into run folders"
    expected = beaver_by_hand(beaver, PROMPTS[0], ANSWERS[0])
    assert load_scorer(handle.path, "bfloat16").score(PROMPTS[:1], ANSWERS[:1]) == pytest.approx([expected], abs=1e-4)


def test_a_new_head_is_refused_by_name(tmp_path: Path, beaver: Path) -> None:
    headless = made.save_beaver(tmp_path / "base", head=False)
    with pytest.raises(UsageError, match=r"no score_head.bias, score_head.weight of the right shape, drawn at random"):
        open_scorer(headless, "beaver")
    with pytest.raises(UsageError, match=r"no score.weight.*use layout: beaver"):
        open_scorer(beaver, "sequence-classification")


def test_a_damaged_layout_is_one_line(tmp_path: Path) -> None:
    folder = made.save_beaver(tmp_path / "other")
    tensors = load_file(folder / "model" / "model.safetensors")
    tensors["score_head.weight"] = torch.zeros(1, made.HIDDEN + 1)
    save_file(tensors, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"no score_head.weight of the right shape") as error:
        open_scorer(folder, "beaver")
    assert "\n" not in str(error.value)
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"do_normalize": True}))
    with pytest.raises(UsageError, match="do_normalize"):
        open_scorer(folder, "beaver")


def changed(source: Path, target: Path, tensors: Any = None, **config: Any) -> Path:
    """Copy a checkpoint with other config keys and, where given, tensors changed by a function (None: left out)."""
    import shutil

    shutil.copytree(source, target)
    folder = target / "model"
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensors(name, value) if tensors else value for name, value in weights.items()}
    kept = {name: value for name, value in kept.items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return target


def test_a_beaver_without_its_bias_is_refused_by_name(tmp_path: Path, beaver: Path) -> None:
    def without(name: str, value: Any) -> Any:
        return None if name == "score_head.bias" else value

    with pytest.raises(UsageError, match=r"no score_head.bias .*score_bias to false"):
        open_scorer(changed(beaver, tmp_path / "cut", without), "beaver")
    declared_so = open_scorer(changed(beaver, tmp_path / "declared", without, score_bias=False), "beaver")
    bias = float(load_file(beaver / "model" / "model.safetensors")["score_head.bias"])
    whole = open_scorer(beaver, "beaver").score(PROMPTS, ANSWERS)
    assert declared_so.score(PROMPTS, ANSWERS) == pytest.approx([score - bias for score in whole], abs=1e-4)


@pytest.mark.parametrize(("file", "key", "value"), [("config.json", "pooler_hidden_act", "x"),
                                                    ("tokenizer_config.json", "model_input_names", [])])  # fmt: skip
def test_a_setting_that_shows_when_a_text_is_scored_is_one_line(
    tmp_path: Path, deberta: Path, file: str, key: str, value: Any
) -> None:
    folder = changed(deberta, tmp_path / "odd")
    known = json.loads((folder / "model" / file).read_text())
    (folder / "model" / file).write_text(json.dumps(known | {key: value}))
    with pytest.raises(UsageError, match=r"loads but cannot score a text \((Key|Index|Value)Error") as error:
        batch_gap(open_scorer(folder, "sequence-classification"))
    assert "\n" not in str(error.value)


def test_a_layout_for_one_architecture_refuses_others(
    peo_bench: Any, tmp_path: Path, beaver: Path, gpt2: Path, deberta: Path
) -> None:
    """Each loads and would score something."""
    for model, layout, said in (
        (deberta, "hh-gpt2", "this is deberta-v2 with 3: use layout: sequence-classification"),
        (gpt2, "trained", "no meta.json of kind reward-model"),
        (beaver, "trained", "use layout: sequence-classification, beaver or hh-gpt2"),
    ):
        code, out, err = peo_bench("scorer", "check", str(model), "--layout", layout)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert said in err
    ours = changed(gpt2, tmp_path / "ours")
    for kind, accepted in (("reward-model", True), ("dpo", False)):
        (ours / "meta.json").write_text(json.dumps({"kind": kind}))
        for path in (ours, ours / "model"):
            if accepted:
                assert scorer_job("reward", declared("trained", path), [HELPFUL]).params["layout"] == "trained"
            else:
                with pytest.raises(UsageError, match="no such artefact"):
                    scorer_job("reward", declared("trained", path), [HELPFUL])
    for damaged in ("[]", "{", "null"):
        (ours / "meta.json").write_text(damaged)
        with pytest.raises(UsageError, match="no such artefact"):
            scorer_job("reward", declared("trained", ours), [HELPFUL])


@pytest.mark.parametrize(("value", "said"), [(0.0, "the same score (0)"), (float("nan"), "not finite")])
def test_a_dead_head_is_refused_with_its_path(
    peo_bench: Any, tmp_path: Path, gpt2: Path, value: float, said: str
) -> None:
    dead = changed(gpt2, tmp_path / "dead", lambda name, w: torch.full_like(w, value) if name == "score.weight" else w)
    code, out, err = peo_bench("scorer", "check", str(dead), "--layout", "hh-gpt2")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"error: {dead}: ")
    assert said in err


def test_mistakes_in_scorer_check_are_plain_words(peo_bench: Any, tmp_path: Path, gpt2: Path) -> None:
    def error(*args: str) -> str:
        code, _, err = peo_bench("scorer", "check", *args)
        assert (code, err.count("\n")) == (2, 1), err
        return str(err)

    layouts = error(str(gpt2), "--layout", "foo")
    assert "Known: beaver, hh-gpt2, sequence-classification, trained" in layouts
    assert "registered" not in layouts
    assert error(str(gpt2), "--layout", "hh-gpt2", "--template", "{prompt} {answer}").startswith(
        "error: scorer: layout hh-gpt2 has its own template"
    )
    (tmp_path / "m").mkdir()
    absent = error("m/nothere", "--layout", "beaver")
    assert "no checkpoint at 'm/nothere'" in absent
    assert "network" not in absent


def test_a_reversed_sign_is_refused(tmp_path: Path, beaver: Path) -> None:
    """The published trap: a cost model read as a reward (and the other way round)."""
    store = Store(tmp_path / "store")
    for model, objective in ((beaver, HARMLESS), (made.save_beaver(tmp_path / "cost", sign=-1.0), HELPFUL)):
        as_cost = Objective("helpful", objective.column, objective.maximise)
        with pytest.raises(UsageError, match=r"0 of 7 anchor pairs and the other in 7: set `maximise: ") as error:
            store.run(scorer_job(objective.column, declared("beaver", model), [as_cost]))
        assert f"`maximise: {str(not objective.maximise).lower()}`" in str(error.value)


def test_own_anchors_take_the_place_of_the_built_in_ones(tmp_path: Path, beaver: Path) -> None:
    better, worse = sorted(ANSWERS[:2], key=lambda answer: -beaver_by_hand(beaver, "hello", answer))
    store, concise = Store(tmp_path), Objective("concise", "reward", True)
    with pytest.raises(UsageError, match="no anchor pairs for objective 'concise'"):
        store.run(scorer_job("reward", declared("beaver", beaver), [concise]))
    for pair, right in (((better, worse), True), ((worse, better), False)):
        job = scorer_job("reward", declared("beaver", beaver, anchors={"reward": [("hello", *pair)]}), [concise])
        if right:
            assert store.run(job).result["signs"]["reward"]["of"] == 1
        else:
            with pytest.raises(UsageError, match="0 of 1 anchor pairs"):
                store.run(job)


def test_a_scorer_that_depends_on_the_batch_is_refused(
    tmp_path: Path, gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a head that reads padding."""
    monkeypatch.setattr(SequenceClassifier, "end_scores", lambda self, batch: self.model(**batch).logits)
    assert batch_gap(open_scorer(changed(gpt2, tmp_path / "padding", pad_token_id=0), "hh-gpt2")) > 1
    job = scorer_job("reward", declared("hh-gpt2", tmp_path / "padding"), [Objective("harmless", "reward", True)])
    with pytest.raises(UsageError, match="depend on the batch"):
        Store(tmp_path / "store").run(job)


def test_labels_are_named_or_refused(tmp_path: Path, deberta: Path) -> None:
    store, layout = Store(tmp_path), "sequence-classification"
    with pytest.raises(UsageError, match=r"3 labels: say which, as in `columns: \{reward: 0\}`"):
        store.run(scorer_job("reward", declared(layout, deberta), [HELPFUL]))
    with pytest.raises(UsageError, match="no label 3"):
        store.run(scorer_job("x", declared(layout, deberta, columns={"reward": 3}), [HELPFUL]))
    both = declared(layout, deberta, columns={"reward": 0, "cost": 2, "other": 1})
    jobs = scorer_jobs({"several": both}, [HELPFUL, HARMLESS])
    assert set(jobs) == {"reward", "cost", "other"}
    assert len(set(jobs.values())) == 1
    signs = store.run(jobs["cost"]).result["signs"]
    assert (signs["reward"]["higher"], signs["cost"]["lower"], set(signs)) == (7, 7, {"reward", "cost"})


# --- identity and declaration -----------------------------------------------------------------------------------------


def test_the_day_of_prompts_is_part_of_what_a_scorer_with_a_chat_template_is(
    tmp_path: Path, deberta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peo_bench.scorers import kinds

    folder = shutil.copytree(deberta, tmp_path / "chat")
    (folder / "model" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")

    def job(template: str | None) -> Job:
        more = {"template": template, "columns": {"reward": 0}}
        return scorer_job("reward", declared("sequence-classification", folder, **more), [HELPFUL])

    chat, pair = job("chat"), job(None)
    assert (chat.params["prompt_date"], "prompt_date" in pair.params) == ("2024-07-26", False)
    monkeypatch.setattr(kinds, "PROMPT_DATE", "2026-01-01")
    assert (job("chat").id == chat.id, job(None).id == pair.id) == (False, True)


def test_identity_is_content_layout_template_dtype_and_direction(tmp_path: Path, deberta: Path) -> None:
    def name(model: Path = deberta, objectives: Any = (HELPFUL,), **more: Any) -> str:
        config = declared("sequence-classification", model, **({"columns": {"reward": 0}} | more))
        return scorer_job("reward", config, objectives).id

    shutil.copytree(deberta, tmp_path / "moved")
    assert name(tmp_path / "moved") == name()
    changed = [
        name(template="{prompt} {answer}"), name(dtype="bfloat16"), name(columns={"reward": 1}),
        name(objectives=(Objective("helpful", "reward", False),)),
    ]  # fmt: skip
    weights = load_file(tmp_path / "moved" / "model" / "model.safetensors")
    weights["classifier.bias"] += 1e-3
    save_file(weights, tmp_path / "moved" / "model" / "model.safetensors", metadata={"format": "pt"})
    assert len({name(), name(tmp_path / "moved"), *changed}) == 6


TASK = {
    "version": 1, "licence": "x", "units": "raw", "reference_point": {"reward": -1, "cost": 1},
    "objectives": [{"name": "helpful", "column": "reward", "maximise": True},
                   {"name": "harmless", "column": "cost", "maximise": False}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        ({"reward": {"layuot": "beaver", "model": "a/b"}}, "in scorers.reward 'layuot': did you mean layout"),
        ({"reward": {"model": "a/b"}}, "scorers.reward.layout': field required"),
        ({"reward": {"layout": "beaver", "model": "a/b", "modle": 1}}, "did you mean model"),
        ({"reward": {"layout": "bever", "model": "a/b"}}, "'beaver'"),
        ({"reward": {"layout": "beaver", "model": "a/b", "template": "{prompt} {answer}"}}, "own template"),
        ({"reward": {"layout": "sequence-classification", "model": "a", "template": "{prompt}"}}, "has {prompt} and"),
        (
            {"x": {"layout": "sequence-classification", "model": "a", "columns": {"cost": 0}}, "cost": "y"},
            "two scorers",
        ),
        ({"length": "sandbox-reward"}, "column 'length'"),
        ({"reward_proxy": "sandbox-reward"}, "column 'reward_proxy'"),
    ],
)
def test_a_declaration_is_checked(scorers: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("{", r"\{")) as error:
        check(TASK | {"scorers": scorers}, TaskConfig, "task.yaml")
    assert "\n" not in str(error.value)


def test_a_missing_checkpoint_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint at"):
        scorer_job("reward", declared("beaver", tmp_path / "nowhere"), [HELPFUL])


# --- the command ------------------------------------------------------------------------------------------------------


def test_scorer_check_shows_scores_and_directions(peo_bench: Any, deberta: Path, beaver: Path) -> None:
    code, out, err = peo_bench("scorer", "check", str(deberta), "--layout", "sequence-classification", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["labels"][0]["helpful"]["higher"], found["labels"][2]["harmless"]["lower"]) == (7, 7)
    args = ["--prompt", PROMPTS[0], "--answer", ANSWERS[0]]
    code, out, _ = peo_bench("scorer", "check", str(beaver), "--layout", "beaver", *args)
    assert code == 0
    assert f"{beaver_by_hand(beaver, PROMPTS[0], ANSWERS[0]):.4f}"[:-1] in out
    for wrong in ("sequence-classification", "registered", "bever"):
        code, out, err = peo_bench("scorer", "check", str(beaver), "--layout", wrong)
        assert code == 2
        assert err.startswith("error: ")
        assert "beaver" in err


def test_modpo_takes_its_margin_from_a_checkpoint_in_its_direction(tmp_path: Path, deberta: Path) -> None:
    """(1 - w) / beta x (-cost) on the pairs of the other objective; of two columns, the other objective's."""
    from training_fixtures import workspace

    from peo_bench.training.modpo import margin_shift

    config = declared("sequence-classification", deberta, columns={"reward": 0, "cost": 2})
    handle = Store(tmp_path / "store").run(scorer_job("several", config, [HELPFUL, HARMLESS]))
    params = {"objective": "helpful", "beta": 0.1}
    shift = margin_shift(params, {"margin": handle}, workspace(tmp_path / "work"), 0.75)
    chosen, rejected = shift({"prompt": PROMPTS, "chosen": ANSWERS, "rejected": ANSWERS[::-1]})
    scorer = open_scorer(deberta, "sequence-classification")
    for found, answers in ((chosen, ANSWERS), (rejected, ANSWERS[::-1])):
        costs = [row[2] for row in scorer.score_labels(PROMPTS, answers).labels]
        assert found == pytest.approx([-2.5 * cost for cost in costs], abs=1e-4)
