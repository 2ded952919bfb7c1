"""Agreement with people: by hand on small files, and as published on LLMBar's and PandaLM's."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judge_server import FAST, Answer, says, serve, verdict  # noqa: F401 - serve is a fixture

from peo_bench.errors import UsageError
from peo_bench.judges.agreement import agreement, majority, recorded
from peo_bench.judges.card import by_order, card
from peo_bench.judges.judge import make_judge
from peo_bench.judges.labelled import read_labelled
from peo_bench.winrates.winrate import effective_wilson

SHARED = Path(__file__).parents[2] / "shared/data"
LLMBAR, PANDALM = SHARED / "llmbar/LLMBar", SHARED / "pandalm"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


def unpacked(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def pair(labels, verdicts=None, **more):
    row = {"prompt": "q", "answer_a": "one", "answer_b": "two", "labels": labels} | more
    return row | ({} if verdicts is None else {"verdicts": verdicts})


HAND = [
    pair(["a", "a", "b"], {"ab": "a", "ba": "a"}),
    pair(["b", "b", "b"], {"ab": "b", "ba": "a"}),
    pair(["tie", "tie", "a"], {"ab": "tie", "ba": "tie"}),
    pair(["a", "b", "tie"], {"ab": "a", "ba": "a"}),
    pair(["b", "b", "a"], {"ab": None, "ba": "b"}),
    pair(["a", "a", "a"], {"ab": "tie", "ba": "a"}),
]


@pytest.fixture
def file(tmp_path):
    def write(rows, name="labelled.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_agreement_by_hand(file):
    """Majorities a, b, tie, none, b, a; hits by order 2/2, 1/2, 2/2, -, 1/2, 1/2 over the five pairs with one."""
    pairs = read_labelled(file(HAND))
    rows = recorded(pairs)
    found = agreement(pairs, rows)
    assert found["agreement"] == pytest.approx((1 + 0.5 + 1 + 0.5 + 0.5) / 5)
    assert found["agreement_combined"] == pytest.approx(3 / 5), "a; b against a: a tie; tie; NaN; tie with a: a"
    assert found["agreement_decided"] == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)
    single = [4 / 6, 3 / 6, 4 / 6, 2 / 6, 2 / 6, 3 / 6]
    assert found["agreement_annotators"] == pytest.approx(np.mean(single))
    assert found["people"] == pytest.approx((1 + 3 + 1 + 0 + 1 + 3) / 18)
    assert (found["n_pairs"], found["n_no_majority"], found["n_people_ties"], found["n_missing"]) == (6, 1, 1, 0)
    assert found["confusion"] == {
        "a": {"a": 3, "b": 0, "tie": 1, "unparseable": 0},
        "b": {"a": 1, "b": 2, "tie": 0, "unparseable": 1},
        "tie": {"a": 0, "b": 0, "tie": 2, "unparseable": 0},
    }
    shown = card(rows, n_calls=0, priced=False)
    assert shown["position_consistency"] == pytest.approx(3 / 5), "of the pairs with a verdict in both orders"
    assert (shown["parse_failures"], shown["ties"]) == (1, 3)


def test_raw_replies_name_positions(file):
    """In order "ba" the reply's A is answer_b."""
    replies = {"ab": "Fine.\nVerdict: A", "ba": "Fine.\n**Verdict: A**"}
    (read,) = read_labelled(file([pair(["a"], replies=replies)]))
    assert read.verdicts == {"ab": 1.0, "ba": 0.0}


def test_one_label(file):
    row = {"prompt": "q", "answer_a": "x", "answer_b": "y", "label": "tie"}
    (read,) = read_labelled(file([row]))
    assert read.labels == (0.5,)


def test_a_split_vote_has_no_majority():
    assert np.isnan(majority([1.0, 0.0]))
    assert majority([1.0]) == 1.0


BROKEN = {
    "unknown label": (pair(["c"]), "labels.0"),
    "no labels": (pair([]), "labels"),
    "no answer": ({"prompt": "q", "answer_a": "x", "labels": ["a"]}, "answer_b"),
    "unknown key": (pair(["a"], juge="x"), "juge"),
    "unknown verdict": (pair(["a"], {"ab": "A wins"}), "verdicts.ab"),
}


LLMBAR_ROW = {"input": "q", "output_1": "x", "output_2": "y", "label": 1}
PANDALM_ROW = {"idx": 0, "instruction": "q", "input": "", "response1": "x", "response2": "y", "annotator1": 1}
BROKEN_LAYOUTS = {
    "no list of results": ("llmbar", LLMBAR_ROW | {"results": 5}, "results"),
    "a result that is none": ("llmbar", LLMBAR_ROW | {"results": ["x"]}, "the row"),
    "no reply in a result": ("llmbar", LLMBAR_ROW | {"results": [{"swap = True": {"completion": []}}]}, "completion"),
    "another label": ("llmbar", LLMBAR_ROW | {"label": 3}, "label"),
    "an answer that is no text": ("pandalm", PANDALM_ROW | {"response1": ["x"]}, "response1"),
    "an index that is none": ("pandalm", PANDALM_ROW | {"idx": {}}, "idx"),
}


@pytest.mark.parametrize(("layout", "row", "said"), BROKEN_LAYOUTS.values(), ids=BROKEN_LAYOUTS)
def test_a_broken_row_of_another_layout_is_named(file, layout, row, said):
    whole = {"llmbar": LLMBAR_ROW, "pandalm": PANDALM_ROW}[layout]
    assert len(read_labelled(file([whole, whole]), layout)) == 2
    with pytest.raises(UsageError, match=rf"labelled.jsonl:2: .*{said}"):
        read_labelled(file([whole, row]), layout)


@pytest.mark.parametrize(("row", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named(peo_bench, file, row, said):
    code, _, err = peo_bench("judge", "calibrate", "--data", str(file([HAND[0], row])))
    assert code == 2
    assert "labelled.jsonl:2" in err
    assert said in err
    assert err.count("\n") == 1


def test_misuse_is_one_line(peo_bench, file):
    plain = str(file([pair(["a"])]))
    for args, said in (
        (["--data", "nowhere.jsonl"], "no such file"),
        (["--data", plain], "holds no verdicts"),
        (["--data", plain, "--layout", "xml"], "ours, pandalm, llmbar"),
        (["--data", plain, "--verdicts", plain], "--layout pandalm"),
        (["--data", plain, "--judge", "openai:m"], "MODEL@BASE_URL"),
        (["--data", plain, "--judge", "scorers"], "scores"),
    ):
        code, _, err = peo_bench("judge", "calibrate", *args)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err


def test_a_judge_is_calibrated_and_remembered(peo_bench, serve, file, tmp_path):  # noqa: F811
    """The server prefers "one" whatever its place: right on a, wrong on b, and always consistent."""
    server = serve(lambda call: verdict("A" if call.first == "one" else "B"))
    data = str(file([pair(["a"]), pair(["a"], prompt="q2"), pair(["b"], prompt="q3"), pair(["tie"], prompt="q4")]))
    code, out, _ = peo_bench("judge", "calibrate", "--data", data, "--judge", f"openai:m@{server.url}", "--json")
    assert code == 0
    ((name, found),) = json.loads(out).items()
    assert found["agreement"] == 0.5
    assert (found["position_consistency"], found["n_calls"], len(server.calls)) == (1.0, 8, 8)
    from peo_bench.runs.judging import calibration
    from peo_bench.suites.suite import load_suite

    asked = make_judge(f"openai:m@{server.url}", load_suite("sandbox").judge)
    assert asked.id == name
    assert calibration(tmp_path / "cache/peo-bench", asked)["agreement"] == 0.5
    peo_bench("judge", "calibrate", "--data", data, "--judge", f"openai:m@{server.url}")
    assert len(server.calls) == 8, "replies are kept"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(b"{}", 401), "HTTP 401"),
        (Answer(b"{}", 404), "HTTP 404"),
        (Answer(b"{}", 429, (("Retry-After", "9999"),)), "asks to wait 9999 s"),
        (Answer(b"[1]"), "no chat completion"),
    ],
    ids=["401", "404", "429", "unusable"],
)
def test_a_judge_that_never_answers_is_one_line(peo_bench, serve, file, tmp_path, answer, said):  # noqa: F811
    server = serve(lambda call: answer)
    args = ("--data", str(file([pair(["a"])])), "--judge", f"openai:m@{server.url}", "--set", "judge.attempts=1")
    code, out, err = peo_bench("judge", "calibrate", *args, "--json")
    ((_, found),) = json.loads(out).items()
    assert (code, err.count("\n")) == (3, 1), err
    assert said in err
    assert (found["agreement"], found["n_calls"], found["n_missing"], found["position_consistency"]) == (
        None,
        0,
        1,
        None,
    )
    assert not (tmp_path / "cache/peo-bench/judge-calibrations").exists()
    assert peo_bench("judge", "calibrate", *args)[0] == 3, "as a table too"


def test_half_a_surrogate_pair_in_texts_and_replies_is_no_end(peo_bench, serve, file):  # noqa: F811
    """Two lone halves: one in the labelled text, one in the reply."""
    server = serve(lambda call: says("good \ud800\nVerdict: A", usage=None))
    data = str(file([pair(["a"], prompt="what \ud83d?")]))
    code, out, err = peo_bench("judge", "calibrate", "--data", data, "--judge", f"openai:m@{server.url}", "--json")
    assert (code, err) == (0, "")
    ((_, found),) = json.loads(out).items()
    assert (found["n_calls"], found["parse_failures"], found["n_missing"]) == (2, 0, 0)


def test_a_calibration_belongs_to_address_and_decoding(tmp_path):
    """The judge's name is model and prompts only; another server's model of that name is another judge."""
    from peo_bench.runs.judging import calibration, save_calibration

    def judge(port=1, **settings):
        return make_judge(f"openai:m@http://127.0.0.1:{port}/v1", FAST.model_copy(update=settings))

    save_calibration(tmp_path, judge(), {"agreement": 0.75})
    kept = calibration(tmp_path, judge(concurrency=1))
    assert kept["agreement"] == 0.75
    assert kept["measured_with"]["base_url"] == "http://127.0.0.1:1/v1"
    for other in (judge(2), judge(temperature=0.5), judge(seed=1), judge(max_tokens=9)):
        assert other.id == judge().id
        assert calibration(tmp_path, other) is None


DAMAGE = {
    "cut": lambda text: text[:-20],
    "no object": lambda text: "[]",
    "null": lambda text: "null",
    "nested": lambda text: "[" * 200_000,
    "another number": lambda text: text.replace("0.75", "0.95"),
    "not UTF-8": lambda text: b"\xe9",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_calibration_is_said_and_left_out(tmp_path, caplog, damage):
    from peo_bench.runs.judging import calibration, save_calibration

    judge = make_judge("openai:m@http://127.0.0.1:1/v1", FAST)
    save_calibration(tmp_path, judge, {"agreement": 0.75})
    (path,) = (tmp_path / "judge-calibrations").iterdir()
    damaged = damage(path.read_text())
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    assert calibration(tmp_path, judge) is None
    assert f"{path} is damaged and left out: type `peo-bench judge calibrate` again" in caplog.text
    path.unlink()
    os.mkfifo(path)
    assert calibration(tmp_path, judge) is None
    path.unlink()
    assert calibration(tmp_path, judge) is None


@real
@pytest.mark.parametrize(
    ("judge", "published"), [("pandalm-7b", 0.668), ("gpt-3.5-turbo", 0.693)], ids=["PandaLM-7B", "GPT-3.5"]
)
def test_pandalm_agreement_is_the_published_one(judge, published):
    pairs = read_labelled(PANDALM / "testset-v1.json.gz", "pandalm", PANDALM / f"{judge}-testset-v1.json.gz")
    found = agreement(pairs, recorded(pairs))
    assert round(found["agreement"], 3) == published
    assert Counter(majority(p.labels) for p in pairs) == {0.5: 105, 1.0: 422, 0.0: 472}
    assert found["n_pairs"] == 999


@real
def test_what_pandalms_rule_makes_of_ties():
    """38 results say "Tie": counting them as ties gives 69.8 %, counting garbage as ties too 71.1 %."""
    results = unpacked(PANDALM / "gpt-3.5-turbo-testset-v1.json.gz")
    words = Counter(row["gpt_result"] for row in results)
    assert (words["Tie"], words["garbage"]) == (38, 25)
    most = [majority(p.labels) for p in read_labelled(PANDALM / "testset-v1.json.gz", "pandalm")]
    strict = {"1": 1.0, "2": 0.0}
    for values, expected in ((strict | {"Tie": 0.5}, 697), (strict | {"Tie": 0.5, "garbage": 0.5}, 710)):
        assert sum(values.get(row["gpt_result"]) == label for row, label in zip(results, most, strict=True)) == expected


def _llmbar_files():
    return sorted(LLMBAR.rglob("result.json.gz")) if LLMBAR.is_dir() else []


@real
@pytest.mark.parametrize("path", _llmbar_files(), ids=lambda path: "/".join(path.parts[-5:-1]))
def test_llmbar_raw_replies_give_its_recorded_winners(path):
    """Its accuracy (mean of both orders) and position agreement, counted here from the recorded winners."""
    rows = unpacked(path)
    winners = [[row["results"][-1][f"swap = {swap}"]["winner"] for swap in (False, True)] for row in rows]
    pairs = read_labelled(path, "llmbar")
    table = recorded(pairs)
    names = {1.0: "1", 0.0: "2"}
    said = by_order(table).to_numpy()
    assert [[names.get(value) for value in row] for row in said] == winners
    hits = np.mean([[winner == str(row["label"]) for winner in both] for row, both in zip(rows, winners, strict=True)])
    assert agreement(pairs, table)["agreement"] == pytest.approx(hits)
    shown = card(table, n_calls=0, priced=False)
    both = [pair for pair in winners if None not in pair]
    assert shown["position_consistency"] == pytest.approx(np.mean([first == second for first, second in both]))
    assert shown["parse_failures"] == sum(winner is None for pair in winners for winner in pair)


def test_the_interval_covers():
    """95 % nominal, for shares as averaged orders give them, also near 100 % where Student's t covers 0.83 to 0.91."""
    rng = np.random.default_rng(0)
    levels = np.array([0, 0.25, 0.5, 0.75, 1])
    for odds in ([0.2, 0.1, 0.3, 0.1, 0.3], [0.02, 0.02, 0.04, 0.02, 0.9], [0, 0, 0.1, 0, 0.9]):
        mean = float(levels @ odds)
        drawn = rng.choice(levels, (1500, 50), p=odds)
        inside = [low <= mean <= high for low, high in map(effective_wilson, drawn)]
        assert 0.92 <= np.mean(inside) <= 0.985, odds
