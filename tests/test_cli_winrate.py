"""`peo-bench winrate`, `outputs`, `annotate`: published numbers, a way out to alpaca_eval and back, one-line errors."""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_folder_fixture import write_run_folder

SHARED = Path(__file__).parents[2] / "shared" / "data"
ALPACA = SHARED / "alpaca_eval"
needs_data = pytest.mark.skipif(not ALPACA.is_dir(), reason="../shared/data is absent")
CONTROL = (
    *("--difficulty", str(ALPACA / "instruction_difficulty_recovered.csv")),
    *("--gamed", str(ALPACA / "df_gamed_reconstructed.csv")),
)
COMPACT = ALPACA / "annotations_weighted_gpt4_turbo_compact.dev.csv.gz"
FULL = ALPACA / "annotations_full"
TURBO = "weighted_alpaca_eval_gpt4_turbo"
KEYS = ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total")


@pytest.fixture
def winrate(peo_bench):
    def run(*args):
        code, out, err = peo_bench("winrate", *map(str, args), "--json")
        assert (code, err) == (0, "")
        return json.loads(out, parse_constant=pytest.fail)

    return run


@pytest.fixture
def winrate_and_words(peo_bench, winrate):
    return lambda file: (winrate(file), peo_bench("winrate", str(file))[2])


def published(table: str, model: str) -> dict[str, float]:
    return pd.read_csv(ALPACA / "leaderboards" / f"{table}_leaderboard.csv", index_col=0).loc[model].to_dict()


def annotation(number: int, preference, **more):
    return {
        "instruction": f"question {number}", "output_1": "x" * (10 + 7 * number % 30), "generator_1": "base",
        "output_2": "y" * (12 + 5 * number % 20), "generator_2": "mine", "annotator": "judge", "preference": preference,
    } | more  # fmt: skip


def save(path: Path, rows) -> Path:
    path.write_text(json.dumps(rows))
    return path


# --- published numbers ------------------------------------------------------------------------------------------------


@needs_data
def test_one_model_of_a_table_of_28(winrate, peo_bench):
    found = winrate(COMPACT, "--model", "alpaca-7b_verbose", *CONTROL)
    expected = pd.read_csv(SHARED / "expected" / "alpaca_eval_weighted_dev.csv", index_col="model")
    row = expected.loc["alpaca-7b_verbose"]
    assert [found[key] for key in KEYS] == pytest.approx([row[key] for key in KEYS], abs=1e-6)
    assert found["length_controlled_winrate"] == pytest.approx(row["length_controlled_winrate"], abs=0.2)
    code, out, err = peo_bench("winrate", str(COMPACT))
    assert (code, out) == (2, "")
    assert "holds 28 models: FuseChat" in err
    assert err.count("\n") == 1
    assert "did you mean claude-2" in peo_bench("winrate", str(COMPACT), "--model", "claude2")[2]


@needs_data
@pytest.mark.parametrize("file", sorted(FULL.glob("*.json.gz")) if ALPACA.is_dir() else [], ids=lambda path: path.name)
def test_annotations_with_texts(winrate, file):
    model = file.name.partition(".weighted")[0].partition(".alpaca_eval")[0]
    table = "alpaca_eval_gpt4" if ".alpaca_eval_gpt4." in file.name else TURBO
    row = published(table, model)
    found = winrate(file, *CONTROL)
    assert (found["model"], found["annotator"]) == (model, table)
    assert [found[key] for key in KEYS] == pytest.approx([row[key] for key in KEYS], abs=1e-6)
    assert found["length_controlled_winrate"] == pytest.approx(row["length_controlled_winrate"], abs=0.2)
    assert found["n_absent"] == 805 - found["n_rows"] == (2 if model in ("phi-2", "text_davinci_001") else 0)
    if found["n_rows"] == 805:
        assert int(found["avg_length"]) == row["avg_length"]


@needs_data
def test_plain_and_compressed_files_say_the_same(winrate, tmp_path):
    packed = FULL / f"claude-2.{TURBO}.json.gz"
    plain = tmp_path / "annotations.json"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    lines = tmp_path / "annotations.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in json.loads(plain.read_text())))
    assert winrate(plain) == winrate(packed) == winrate(lines)
    assert winrate(packed)["length_controlled_winrate"] is None
    assert "--difficulty" in winrate(packed)["length_controlled_reason"]


@needs_data
def test_rows_without_a_verdict_stay_in_place_and_leave_the_mean(winrate, tmp_path):
    """A verdict that is taken away changes the counts, not the difficulty of the rows behind it."""
    rows = json.loads(gzip.decompress((FULL / f"claude-2.{TURBO}.json.gz").read_bytes()))
    whole = winrate(FULL / f"claude-2.{TURBO}.json.gz", *CONTROL)
    rows[3]["preference"], rows[50]["preference"] = None, float("nan")
    del rows[700]["preference"]
    found = winrate(save(tmp_path / "a.json", rows), *CONTROL)
    kept = [row["preference"] for i, row in enumerate(rows) if i not in (3, 50, 700)]
    assert (found["n_total"], found["n_missing"], found["n_rows"], found["n_absent"]) == (802, 3, 805, 0)
    assert found["win_rate"] == pytest.approx(100 * (np.mean(kept) - 1))
    assert found["length_controlled_winrate"] == pytest.approx(whole["length_controlled_winrate"], abs=0.3)
    assert found["length_controlled_by_instruction"] is None


@needs_data
def test_absent_instructions_shift_the_published_value_and_both_are_shown(winrate, peo_bench, tmp_path):
    found = winrate(FULL / f"phi-2.{TURBO}.json.gz", *CONTROL)
    assert found["length_controlled_winrate"] == pytest.approx(4.398682, abs=0.2)
    assert found["length_controlled_by_instruction"] == pytest.approx(3.8936, abs=0.01)
    rows = json.loads(gzip.decompress((FULL / f"phi-2.{TURBO}.json.gz").read_bytes()))
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    found = winrate(save(tmp_path / "shuffled.json", shuffled), *CONTROL)
    assert found["length_controlled_winrate"] == pytest.approx(3.8936, abs=0.2)
    assert "2" in peo_bench("winrate", str(FULL / f"phi-2.{TURBO}.json.gz"), *CONTROL)[1]


@needs_data
def test_a_fit_that_forgets_the_model_has_no_adjusted_value(winrate):
    found = winrate(FULL / f"claude-2.{TURBO}.json.gz", "--only", "dataset=vicuna")
    assert found["win_rate"] == pytest.approx(12.28, abs=0.01)
    assert found["length_adjusted_winrate"] is None, "the penalty leaves 50.0 of 12.28"
    assert "shrinks the model's coefficient to 0" in found["length_adjusted_reason"]


@needs_data
def test_missing_rows_are_warned_of(winrate, peo_bench, tmp_path):
    """Every 17th row gone: the value by position is 7 points off, the one by instruction is not."""
    rows = json.loads(gzip.decompress((FULL / f"claude-2.{TURBO}.json.gz").read_bytes()))
    path = save(tmp_path / "a.json", [row for i, row in enumerate(rows) if i % 17])
    found = winrate(path, *CONTROL)
    assert found["length_controlled_winrate"] > 34
    assert found["length_controlled_by_instruction"] == pytest.approx(28.16, abs=1)
    assert ["48 of 805" in found["warnings"][0], "believe the second" in found["warnings"][1]] == [True, True]
    _, _, err = peo_bench("winrate", str(path), *CONTROL)
    assert err.splitlines() == [f"warning: {line}" for line in found["warnings"]]


@pytest.mark.parametrize("n_against", [0, 1])
def test_verdicts_for_one_side_have_no_adjusted_value(tmp_path, n_against):
    """With one against, a fold is left without; liblinear would write to stderr past Python."""
    path = save(tmp_path / "a.json", [annotation(i, 1 if i < n_against else 2) for i in range(40)])
    done = subprocess.run(
        [sys.executable, "-m", "peo_bench", "winrate", str(path), "--json"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["length_adjusted_winrate"] is None
    assert "for one" in found["length_adjusted_reason"]
    assert done.stderr == ""


def test_rows_without_a_text_are_counted_and_in_no_fit(winrate, tmp_path):
    rows = [annotation(i, 1 + (i % 5) / 8) for i in range(60)]
    gaps = [row | ({"output_2": None} if i % 7 == 3 else {}) for i, row in enumerate(rows)]
    found = winrate(save(tmp_path / "a.json", gaps))
    kept = winrate(save(tmp_path / "b.json", [row for row in gaps if row["output_2"]]))
    assert (found["n_without_text"], kept["n_without_text"], found["n_total"]) == (9, 0, 60)
    assert found["length_adjusted_winrate"] == kept["length_adjusted_winrate"] is not None


@needs_data
def test_other_prompts_have_no_controlled_value(winrate, tmp_path):
    rows = [annotation(i, 1 + (i % 3 == 0)) for i in range(60)]
    found = winrate(save(tmp_path / "a.json", rows), *CONTROL)
    assert found["length_controlled_winrate"] is None
    assert found["length_controlled_reason"] == "60 of 60 instructions are not among the 805 known ones"
    assert 0 < found["length_adjusted_winrate"] < 100


@needs_data
def test_a_model_against_itself_is_50(winrate):
    for args in ((FULL / f"gpt4_1106_preview.{TURBO}.json.gz",), (COMPACT, "--model", "gpt4_1106_preview")):
        found = winrate(*args, *CONTROL)
        assert [found[key] for key in ("win_rate", "length_controlled_winrate", "length_adjusted_winrate")] == [
            50.0
        ] * 3
        assert found["lc_standard_error"] == 0


# --- formats and mistakes ---------------------------------------------------------------------------------------------


def test_csv_without_texts(winrate, tmp_path):
    path = tmp_path / "table.csv.gz"
    lines = [
        "model,row,preference,len_output_1,len_output_2",
        *(f"m,{i},{1 + i % 2},{10 + i},{12 + i % 5}" for i in range(9)),
    ]
    path.write_bytes(gzip.compress("\n".join([*lines, "m,9,,30,4", "other,0,1.5,2,2"]).encode()))
    found = winrate(path, "--model", "m")
    assert (found["model"], found["n_total"], found["n_missing"], found["n_wins"]) == ("m", 9, 1, 4)
    assert found["avg_length"] == pytest.approx(np.mean([*(12 + i % 5 for i in range(9)), 4]))


def test_what_is_no_preference_is_left_out_and_counted(winrate, tmp_path):
    found = winrate(save(tmp_path / "a.json", [annotation(i, p) for i, p in enumerate([2, 1, 0, 7, -1, None])]))
    assert [found[key] for key in ("n_total", "n_missing", "n_invalid", "n_draws")] == [3, 1, 2, 1]
    assert found["win_rate"] == 50


@pytest.mark.parametrize(
    ("preferences", "said"),
    [
        ([0, 1, 1, 0, 1], "preference is 0 in 2 rows, 1 in 3"),
        ([1, 1], "preference is 1 in all 2 rows"),
        ([0, 1, 2], None),
        ([2, 2], None),
        ([0, 1.2], None),
        ([1, 1.5], None),
    ],
)
def test_verdicts_of_0_and_1_alone_get_a_hint_at_their_codes(winrate_and_words, tmp_path, preferences, said):
    """The field case: five verdicts in which 1 stood for a win, 20 % by alpaca_eval's rule and 60 % as meant."""
    found, screen = winrate_and_words(save(tmp_path / "a.json", [annotation(i, p) for i, p in enumerate(preferences)]))
    assert 0 <= found["ci_low"] <= found["win_rate"] <= found["ci_high"] <= 100
    assert (found["warnings"] != []) == (said is not None)
    if said:
        assert found["win_rate"] == (20 if 0 in preferences else 0)
        assert said in found["warnings"][0]
        assert f"warning: {said}" in screen


def test_few_rows_give_null_with_a_reason(winrate, tmp_path):
    found = winrate(save(tmp_path / "a.json", [annotation(0, 2)]))
    assert (found["win_rate"], found["standard_error"], found["ci_low"]) == (100.0, None, None)
    assert found["length_adjusted_reason"] == "1 verdicts are too few for 5-fold cross-validation"
    assert found["length_adjusted_winrate"] is None
    bare = [{"preference": 1.25}, {"preference": 1.5}]
    assert (
        winrate(save(tmp_path / "b.json", bare))["length_controlled_reason"]
        == "the rows have neither texts nor lengths"
    )


def test_baselines_and_annotators_are_never_mixed(winrate, peo_bench, tmp_path):
    rows = [annotation(i, 2) for i in range(3)] + [annotation(i, 1, generator_1="other") for i in range(4)]
    rows += [annotation(9, 1.5, annotator="second")]
    path = save(tmp_path / "a.json", rows)
    assert "holds 2 baselines: base, other; choose one with `--baseline base`" in peo_bench("winrate", str(path))[2]
    assert "--only annotator=judge" in peo_bench("winrate", str(path), "--baseline", "base")[2]
    found = winrate(path, "--baseline", "base", "--only", "annotator=judge")
    assert (found["n_total"], found["win_rate"]) == (3, 100.0)
    assert winrate(path, "--baseline", "other")["n_total"] == 4


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, (), "no such file"),
        ("[]", (), "holds no rows"),
        ("[1, 2]", (), "item 1: is no object"),
        ('[{"preference": 1}', (), "cannot be read as json"),
        ('[{"output": "x", "generator": "m"}]', (), "no column 'preference' (columns: generator, output)"),
        ('[{"preference": 1}, {"preference": "good"}]', (), "row 2: preference is 'good': expected a number"),
        ('[{"preference": true}]', (), "row 1: preference is 'True'"),
        ('[{"preference": null}]', (), "none of 1 rows has a verdict"),
        ('[{"preference": 1}]', ("--only", "judge=x"), "unknown column"),
        ('[{"preference": 1}]', ("--only", "judge"), "give COLUMN=VALUE"),
        ('[{"preference": 1}]', ("--model", "x"), "unknown model"),
        ('[{"preference": 1}]', ("--difficulty", "x.csv"), "length control needs both files"),
        (
            '[{"preference": 1}]',
            ("--difficulty", "x.csv", "--gamed", "y.csv"),
            "x.csv: no such file: give a file with difficulties",
        ),
        ('[{"preference": 1, "row": -1}]', (), "row 1: row is -1"),
        ('[{"method_a": "peo"}]', (), "no column 'judge'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(peo_bench, tmp_path, content, options, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    code, out, err = peo_bench("winrate", str(path), "--json", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_byte_order_mark_is_no_mistake(winrate, tmp_path):
    path = tmp_path / "a.json"
    for text in (json.dumps([annotation(0, 2)]), json.dumps(annotation(0, 2)) + "\n"):
        path.write_bytes(text.encode("utf-8-sig"))
        assert winrate(path)["n_total"] == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"hello there", "give annotations"),
        ("a.json", b"\x00\xff\x01", "give annotations"),
        ("a.json.gz", b"[]", "take .gz off its name"),
        ("a.json.gz", gzip.compress(b"[1]" * 99, mtime=0)[:30], "give a whole, undamaged file"),
        ("a.txt", b"x", "give a file ending in"),
        ("folder", None, "is a folder: give a file with annotations"),
    ],
)
def test_what_is_no_file_of_annotations_says_what_to_give(peo_bench, tmp_path, name, content, said):
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    code, _, err = peo_bench("winrate", name)
    assert (code, err.count("\n")) == (2, 1), err
    assert said in err


def test_damaged_files_are_one_line(peo_bench, tmp_path):
    whole = gzip.compress(json.dumps([annotation(i, 1) for i in range(50)]).encode())
    for name, content in (
        ("cut", whole[:60]),
        ("flipped", whole[:40] + b"\xff\x00\xff" + whole[43:]),
        ("plain", b"[]"),
    ):
        path = tmp_path / f"{name}.json.gz"
        path.write_bytes(content)
        code, out, err = peo_bench("winrate", str(path), "--json")
        assert (code, out, err.count("\n")) == (2, "", 1), err


@pytest.mark.parametrize(
    ("difficulty", "gamed", "message"),
    [
        ("index,instruction_difficulty\n0,1\n2,1\n", "", "must count the instructions from 0"),
        ("index,instruction_difficulty\n0,hard\n", "", "row 1: instruction_difficulty is 'hard'"),
        ("index,difficulty\n0,1\n", "", "no column 'instruction_difficulty'"),
        (
            "index,instruction_difficulty\n0,1\n",
            "preference,std_delta_len\n1,1\n",
            "no column 'instruction_difficulty'",
        ),
        (
            "index,instruction_difficulty\n0,1\n",
            "preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n1,1,1,True\n",
            "not_gamed_baseline must be False",
        ),
        (
            "index,instruction_difficulty\n0,1\n",
            "preference,std_delta_len,instruction_difficulty\n1.5,1,1\n",
            "'preference' must be between 0 and 1",
        ),
    ],
)
def test_files_for_length_control_are_checked(peo_bench, tmp_path, difficulty, gamed, message):
    save(tmp_path / "a.json", [annotation(i, 1) for i in range(9)])
    (tmp_path / "d.csv").write_text(difficulty)
    (tmp_path / "g.csv").write_text(gamed or "x\n1\n")
    code, _, err = peo_bench("winrate", "a.json", "--difficulty", "d.csv", "--gamed", "g.csv")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_upstreams_own_difficulty_file_has_positions_only(winrate, tmp_path):
    rng = np.random.default_rng(0)
    hard = rng.normal(size=40)
    (tmp_path / "d.csv").write_text("\n".join([",instruction_difficulty", *(f"{i},{h}" for i, h in enumerate(hard))]))
    header = "index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"
    gamed = [f"{i},{rng.uniform()},{rng.normal()},{h},False" for i, h in enumerate(hard)]
    (tmp_path / "g.csv").write_text("\n".join([header, *gamed]))
    control = ("--difficulty", "d.csv", "--gamed", "g.csv")
    path = save(tmp_path / "a.json", [annotation(i, rng.uniform(1, 2)) for i in range(38)])
    found = winrate(path, *control)
    assert found["n_absent"] == 2
    assert 0 < found["length_controlled_winrate"] < 100
    too_long = save(tmp_path / "b.json", [annotation(i, 1.25) for i in range(41)])
    assert "cannot be told" in winrate(too_long, *control)["length_controlled_reason"]


def judgement(prompt, order, verdict, **more):
    return {
        "judge": "j", "objective": "helpful", "seed": 0, "preference": 0.5, "method_a": "peo", "method_b": "soup",
        "prompt_id": prompt, "order": order, "verdict": verdict,
    } | more  # fmt: skip


def test_our_own_judgements(winrate, peo_bench, tmp_path):
    rows = [
        *(
            judgement("p1", "ab", 1.0),
            judgement("p1", "ba", 1.0),
            judgement("p2", "ab", 1.0),
            judgement("p2", "ba", 0.0),
        ),
        *(judgement("p3", "ab", np.nan), judgement("p3", "ba", np.nan), judgement("p4", "ab", 1.0)),
        judgement("p1", "ab", 0.0, objective="harmless"),
    ]
    path = tmp_path / "judgements.parquet"
    pd.DataFrame(rows).to_parquet(path)
    assert "holds 2 values of objective: harmless, helpful" in peo_bench("winrate", str(path))[2]
    found = winrate(path, "--only", "objective=helpful")
    assert (found["model"], found["baseline"], found["annotator"]) == ("peo", "soup", "j")
    assert [found[key] for key in ("n_wins", "n_wins_base", "n_draws", "n_missing")] == [2, 0, 1, 1]
    turned = winrate(path, "--only", "objective=helpful", "--model", "soup")
    assert turned["win_rate"] == pytest.approx(100 - found["win_rate"])
    assert (turned["n_wins"], turned["n_wins_base"]) == (0, 2)


# --- out to alpaca_eval and back --------------------------------------------------------------------------------------


def test_answers_leave_as_model_outputs(peo_bench, tmp_path):
    run = write_run_folder(tmp_path / "run", seeds=(1, 2), hostile=True)
    table = pd.read_parquet(run / "answers.parquet")
    code, out, err = peo_bench("outputs", str(run), "--method", "peo", "--helpful", "0.25", "--to", "peo.json.gz")
    assert (code, err) == (0, "")
    assert "60 answers of peo-helpful-0.25" in out
    rows = json.loads(gzip.decompress((tmp_path / "peo.json.gz").read_bytes()))
    own = table[(table["method"] == "peo") & (table["preference"] == 0.25) & (table["seed"] == 1)].sort_values(
        "prompt_id"
    )
    assert [row["output"] for row in rows] == own["answer"].tolist()
    assert [row["instruction"] for row in rows] == own["prompt"].tolist()
    assert {tuple(row) for row in rows} == {("dataset", "instruction", "output", "generator")}
    assert peo_bench("outputs", str(run), "--method", "reference", "--to", "r.json", "--name", "base")[0] == 0
    told = json.loads((run / "run.json").read_text())
    told["objectives"].reverse()  # a task that lists harmless first: its answers' preference is harmless's weight
    (run / "run.json").write_text(json.dumps(told))
    assert peo_bench("outputs", str(run), "--method", "peo", "--helpful", "0.75", "--to", "turned.json.gz")[0] == 0
    turned = json.loads(gzip.decompress((tmp_path / "turned.json.gz").read_bytes()))
    assert [row["output"] for row in turned] == own["answer"].tolist()
    assert json.loads((tmp_path / "r.json").read_text())[0]["generator"] == "base"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--helpful", "0.3"), "peo was asked for 0, 0.25, 0.5, 0.75, 1"),
        (("--method", "pea"), "did you mean peo?"),
        (("--seed", "9"), "--seed 9: this run has answers of the seeds 1"),
        (("--to", "x.csv"), "ends in .json"),
        (("--to", "none/x.json"), "no such folder"),
    ],
)
def test_outputs_that_a_run_does_not_hold(peo_bench, tmp_path, args, message):
    run = write_run_folder(tmp_path / "run", n_prompts=8)
    options = {"--method": "peo", "--to": "x.json"} | dict(zip(args[::2], args[1::2], strict=True))
    code, _, err = peo_bench("outputs", str(run), *(part for option in options.items() for part in option))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert peo_bench("outputs", str(tmp_path), "--to", "x.json")[0] == 2


class Judge(BaseHTTPRequestHandler):
    """Says with log probabilities that the shorter of two answers is better; counts calls."""

    calls = 0

    def do_POST(self):
        type(self).calls += 1
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        first, second = text.index("short"), text.index("lengthy")
        better, worse = ("m", "M") if first < second else ("M", "m")
        top = [{"token": token, "logprob": p, "bytes": None} for token, p in ((better, -0.105361), (worse, -2.302585))]
        message = {"role": "assistant", "content": better}
        choice = {"index": 0, "finish_reason": "length", "message": message, "logprobs": {"content": [
            {"token": better, "logprob": -0.105361, "bytes": None, "top_logprobs": top}]}}  # fmt: skip
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        body = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
                           "usage": usage}).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_a_round_trip_through_the_installed_alpaca_eval(winrate, tmp_path):
    """Its default annotator, asked over loopback, prefers the short answers with probability 0.9."""
    instructions = [f"question {i}" for i in range(12)]
    for name, word in (("mine", "short"), ("base", "lengthy")):
        rows = [{"dataset": "d", "instruction": i, "output": f"{word} answer", "generator": name} for i in instructions]
        save(tmp_path / f"{name}.json", rows)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    env = os.environ | {"OPENAI_API_KEY": "canary", "OPENAI_BASE_URL": url, "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        "-m",
        "peo_bench",
        "annotate",
        "mine.json",
        "base.json",
        "--annotator",
        TURBO,
        "--to",
        "a.json",
    ]
    environment = env | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert Judge.calls == 12
    assert "canary" not in done.stdout + done.stderr + (tmp_path / "a.json").read_text()
    found = winrate(tmp_path / "a.json")
    assert (found["model"], found["baseline"], found["annotator"]) == ("mine", "base", TURBO)
    assert found["win_rate"] == pytest.approx(90, abs=1e-3)
    assert (found["n_wins"], found["n_total"]) == (12, 12)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (1, ("--annotator", "longest"), "unknown annotator 'longest'"),
        (1, ("--annotator", TURBO, "--to", "a.csv"), "ends in .json"),
        (2, ("--annotator", TURBO), "outputs of several generators (g0, g1)"),
        (0, ("--annotator", TURBO), "row 1: 'output' is no text"),
    ],
)
def test_nothing_is_asked_after_a_mistake(peo_bench, tmp_path, monkeypatch, rows, options, message):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    outputs = [{"instruction": "i", "output": "o", "generator": f"g{i}"} for i in range(rows)] or [{"instruction": "i"}]
    save(tmp_path / "o.json", outputs)
    code, out, err = peo_bench("annotate", "o.json", "o.json", "--to", "a.json", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
