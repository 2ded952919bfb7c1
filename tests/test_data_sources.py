"""Reading pairs: every layout and file format, and what is said when something is wrong."""

import csv
import gzip
import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from peo_bench.data import sources
from peo_bench.data.schema import PairSource, normalise, prompt_id, split_of
from peo_bench.data.sources import LOCATIONS, located, read_source, remember, source_identity
from peo_bench.errors import UsageError
from peo_bench.files.dialogue import to_prompt, turns_of

ROWS = [{"prompt": f"Question {i}?", "chosen": f"Good answer {i}.", "rejected": f"Bad answer {i}."} for i in range(5)]


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv(LOCATIONS, "{}")
    monkeypatch.delenv("PEO_BENCH_DATA_DIR", raising=False)


def load(tmp_path, path, **settings):
    source = PairSource(**{"objective": "helpful", "path": path, **settings})
    return read_source(source_identity(source, tmp_path))


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def as_zstd(path):
    import pyarrow

    with pyarrow.CompressedOutputStream(pyarrow.OSFile(str(path), "wb"), "zstd") as file:
        file.write("".join(json.dumps(row) + "\r\n" for row in ROWS).encode("utf-8-sig"))


def as_csv(path, bom=False):
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "chosen", "rejected"])
        writer.writeheader()
        writer.writerows(ROWS)


def as_parquet(path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


WRITERS = {
    "pairs.jsonl": lambda path: jsonl(path, ROWS),
    "pairs.jsonl.gz": lambda path: jsonl(path, ROWS),
    "pairs.jsonl.zst": lambda path: as_zstd(path),
    "crlf.csv": lambda path: as_csv(path, bom=True),
    "pairs.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": lambda path: jsonl(path, ROWS),
    "pairs.csv": as_csv,
    "pairs.parquet": as_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_pairs(tmp_path, name):
    WRITERS[name](tmp_path / name)
    loaded = load(tmp_path, name)
    assert [pair.prompt for pair in loaded.items] == [row["prompt"] for row in ROWS]
    assert loaded.items[3].chosen == "Good answer 3."
    assert not loaded.dropped
    assert not loaded.malformed


def test_globs_and_folders_read_several_files(tmp_path):
    jsonl(tmp_path / "set" / "a.jsonl", ROWS[:2])
    jsonl(tmp_path / "set" / "b.jsonl.gz", ROWS[2:])
    (tmp_path / "set" / "README.md").write_text("not data")
    assert len(load(tmp_path, "set/*.jsonl*").items) == 5
    assert len(load(tmp_path, "set").items) == 5
    assert len(load(None, str(tmp_path / "set" / "*.jsonl")).items) == 2


def test_csv_fields_may_hold_line_breaks_and_odd_separators(tmp_path):
    (tmp_path / "p.csv").write_text('prompt,chosen,rejected\n"a\n\u2028b",c,d\n')
    assert load(tmp_path, "p.csv").items[0].prompt == "a\n\u2028b"


def test_columns_are_mapped(tmp_path):
    jsonl(tmp_path / "p.jsonl", [{"q": "Q?", "safer": "s", "other": "o", "kind": "theft"}])
    columns = {"prompt": "q", "chosen": "safer", "rejected": "other"}
    pair = load(tmp_path, "p.jsonl", columns=columns, category="kind").items[0]
    assert (pair.prompt, pair.chosen, pair.rejected, pair.category) == ("Q?", "s", "o", "theft")


def test_category_from_beavertails_booleans(tmp_path):
    row = ROWS[0] | {"category": {"privacy": False, "theft": True, "hate,speech": True}}
    jsonl(tmp_path / "p.jsonl", [row, ROWS[1] | {"category": None}])
    pairs = load(tmp_path, "p.jsonl", category="category").items
    assert [pair.category for pair in pairs] == ["theft; hate,speech", None]


HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant:"


def test_hh_prompt_ends_with_the_last_assistant_turn(tmp_path):
    rows = [
        {"chosen": HH + " Good bye.", "rejected": HH + " Go."},
        {"chosen": HH + " x", "rejected": HH.replace("Hi", "Ho") + " y"},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant:"},
        {"chosen": "no turns", "rejected": HH},
    ]
    jsonl(tmp_path / "p.jsonl", rows)
    loaded = load(tmp_path, "p.jsonl", layout="hh")
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in loaded.items] == [(HH, "Good bye.", "Go.")]
    assert loaded.dropped == {"prompts differ": 1, "empty answer": 1, "malformed": 1}
    assert "p.jsonl:4: chosen has no assistant turn" in loaded.malformed[0]


def test_hh_single_turn_gives_the_bare_question(tmp_path):
    one = "\n\nHuman: Why?\n\nAssistant:"
    jsonl(tmp_path / "p.jsonl", [{"chosen": t + " a", "rejected": t + " b"} for t in (one, HH)])
    loaded = load(tmp_path, "p.jsonl", layout="hh", single_turn=True)
    assert [pair.prompt for pair in loaded.items] == ["Why?"]
    assert loaded.dropped == {"several turns": 1}
    assert normalise(one) == normalise(" why? ")


def pku(better, safer, **more):
    return {"prompt": "P", "response_0": "zero", "response_1": "one"} | {
        "better_response_id": better,
        "safer_response_id": safer,
        **more,
    }


def test_pku_labels_both_objectives(tmp_path):
    jsonl(tmp_path / "p.jsonl", [pku(0, 1), pku(1, 1), pku(0, 2)])
    helpful = load(tmp_path, "p.jsonl", layout="pku")
    harmless = load(tmp_path, "p.jsonl", layout="pku", objective="harmless")
    assert [(pair.chosen, pair.labels) for pair in helpful.items] == [
        ("zero", {"helpful": 1, "harmless": -1}),
        ("one", {"helpful": 1, "harmless": 1}),
    ]
    assert [(pair.chosen, pair.labels) for pair in harmless.items] == [
        ("one", {"helpful": -1, "harmless": 1}),
        ("one", {"helpful": 1, "harmless": 1}),
    ]
    assert helpful.malformed == [
        "p.jsonl:3: safer_response_id is 2, expected 0 or 1; "
        "expected prompt, response_0, response_1, better_response_id, safer_response_id"
    ]


def test_malformed_rows_are_counted_and_named_by_line(tmp_path):
    bad = ['{"prompt": "cut off', "[1, 2]", {"prompt": "P", "chosen": "c"}, ROWS[0] | {"rejected": 3}]
    jsonl(
        tmp_path / "p.jsonl", [ROWS[0], *bad, "", ROWS[1] | {"prompt": " "}, ROWS[2] | {"rejected": "Good answer 2."}]
    )
    loaded = load(tmp_path, "p.jsonl")
    assert len(loaded.items) == 1
    assert loaded.dropped == {"malformed": 5, "equal answers": 1}
    for line, problem in zip(
        (2, 3, 4, 5, 7), ("not JSON", "object", "'rejected' is missing", "is int", "empty"), strict=True
    ):
        message = next(text for text in loaded.malformed if text.startswith(f"p.jsonl:{line}: "))
        assert problem in message
        assert message.endswith("expected prompt, chosen, rejected")


def test_half_characters_make_a_row_malformed(tmp_path):
    """A traceback of the tokenizer's after training had started, before."""
    rows = [ROWS[0] | {key: f"a {half}"} for key in ROWS[0] for half in ("\ud83d", "\udc00 b")]
    jsonl(tmp_path / "p.jsonl", [ROWS[0], *rows, ROWS[1] | {"prompt": "\U0001f600"}])
    loaded = load(tmp_path, "p.jsonl")
    assert [pair.prompt for pair in loaded.items] == [ROWS[0]["prompt"], "\U0001f600"]
    assert loaded.dropped == {"malformed": 6}
    assert "prompt holds half a character (a lone surrogate)" in loaded.malformed[0]


def test_short_and_long_csv_rows_are_malformed(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,chosen,rejected\na,b,c\nd,e\nf,g,h,i\n")
    assert [text.split(";")[0] for text in load(tmp_path, "p.csv").malformed] == [
        "p.csv:3: column 'rejected' is missing or null",
        "p.csv:4: more fields than columns ('i')",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"q": "x", "chosen": "a", "rejected": "b"}\n', "no column 'prompt' (columns: chosen, q, rejected)"),
        ("", "no rows; expected rows with prompt, chosen, rejected"),
        ("\n\n", "no rows"),
        ("garbage\n", "none of 1 rows can be used; p.jsonl:1: not JSON"),
    ],
)
def test_unusable_files_are_usage_errors(tmp_path, content, said):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(UsageError) as raised:
        load(tmp_path, "p.jsonl")
    assert said in str(raised.value)
    assert str(tmp_path / "p.jsonl") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_column_says_how_to_map_it(tmp_path):
    jsonl(tmp_path / "p.jsonl", [{"prompt": "p", "safer": "a", "other": "b"}])
    with pytest.raises(UsageError, match=r"columns: \{chosen: <one of the columns>\}"):
        load(tmp_path, "p.jsonl")


def turns(*texts, system=""):
    roles = ("user", "assistant") * len(texts)
    said = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return ([{"role": "system", "content": system}] if system else []) + said


def alone(text):
    return [{"role": "assistant", "content": text}]


def chats(prompt, answer):
    """The rows as messages: what `prompt` (None: there is none) and `answer` make of the texts."""
    keys = ("chosen", "rejected")
    first = ({"prompt": prompt(row["prompt"])} if prompt else {} for row in ROWS)
    return [one | {key: answer(row["prompt"], row[key]) for key in keys} for one, row in zip(first, ROWS, strict=True)]


CHATS = {
    "prompt and answers": chats(turns, lambda prompt, text: alone(text)),
    "implicit prompt": chats(None, turns),
    "text and dialogues": chats(str, turns),  # HuggingFaceH4/ultrafeedback_binarized
    "text and answers": chats(str, lambda prompt, text: alone(text)),
}


@pytest.mark.parametrize("form", CHATS)
@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet"])
def test_messages_give_the_pairs_that_texts_give(tmp_path, form, name):
    """TRL's conversational formats, and texts among them: each row is read by what it holds."""
    if name == "p.parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(CHATS[form]), tmp_path / name)
    else:
        jsonl(tmp_path / name, CHATS[form])
    jsonl(tmp_path / "texts.jsonl", ROWS)
    found = load(tmp_path, name)
    assert found.items == load(tmp_path, "texts.jsonl").items
    assert not found.dropped


def test_implicit_prompts_are_those_that_trl_finds(tmp_path):
    from trl.data_utils import extract_prompt

    jsonl(tmp_path / "p.jsonl", CHATS["implicit prompt"])
    for pair, row in zip(load(tmp_path, "p.jsonl").items, CHATS["implicit prompt"], strict=True):
        theirs = {key: [turn["content"] for turn in said] for key, said in extract_prompt(row).items()}
        assert theirs == {"prompt": [pair.prompt], "chosen": [pair.chosen], "rejected": [pair.rejected]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": turns("a", "b", "c", "d"), "rejected": turns("a", "x", "c", "e")}, "answers of several turns"),
        (
            {"prompt": [*turns("a"), *turns("a")], "chosen": alone("b"), "rejected": alone("c")},
            "turns do not alternate",
        ),
        (
            {"prompt": [*turns("a", "b", "c"), {"role": "tool", "content": "3"}], "chosen": "b", "rejected": "c"},
            "a turn of role tool",
        ),
        ({"prompt": turns("a", "b") + turns("c", system="s"), "chosen": "b", "rejected": "c"}, "a system turn within"),
        ({"prompt": [{"role": "system", "content": "s"}], "chosen": "b", "rejected": "c"}, "no question"),
        ({"chosen": turns("a", "b"), "rejected": turns("z", "c")}, "no question"),
        ({"chosen": turns("a", "b"), "rejected": turns("a", "b")}, "equal answers"),
        ({"prompt": turns("a"), "chosen": turns("b"), "rejected": alone("c")}, "chosen is no assistant's turn"),
        ({"prompt": "z", "chosen": turns("a", "b"), "rejected": turns("a", "c")}, "malformed"),
        ({"prompt": "z", "chosen": [{"role": "assistant"}], "rejected": alone("c")}, "malformed"),
        ({"prompt": "z", "chosen": [["assistant", "b"]], "rejected": alone("c")}, "malformed"),
        ({"prompt": "z", "chosen": {"role": "assistant", "content": "b"}, "rejected": alone("c")}, "malformed"),
        ({"prompt": "z", "chosen": alone("\ud83d"), "rejected": alone("c")}, "malformed"),
        ({"prompt": "z", "chosen": [], "rejected": alone("c")}, "chosen is no assistant's turn"),
    ],
)
def test_dialogues_that_are_no_pair_of_answers_to_one_question_are_counted(tmp_path, row, reason):
    jsonl(tmp_path / "p.jsonl", [row, *ROWS])
    found = load(tmp_path, "p.jsonl")
    assert found.dropped == {reason: 1}
    assert len(found.items) == len(ROWS)


def test_answers_with_a_rating_each_are_paired_by_prompt(tmp_path):
    """HelpSteer2's layout, two rows per prompt; equal ratings are no pair, and rows need not be neighbours."""
    ratings = [("a?", "a1", 4, 1), ("a?", "a2", 2, 3), ("b?", "b1", 3, 0), ("b?", "b2", 3, 2), ("a?", "a3", 4, 4)]
    rows = [{"prompt": p, "response": r, "helpfulness": h, "verbosity": v} for p, r, h, v in ratings]
    jsonl(tmp_path / "steer.jsonl", rows)
    columns = {"answer": "response", "rating": "helpfulness"}
    found = load(tmp_path, "steer.jsonl", layout="rated", columns=columns)
    assert {(pair.prompt, pair.chosen, pair.rejected) for pair in found.items} == {
        ("a?", "a1", "a2"),
        ("a?", "a3", "a2"),
    }
    assert found.dropped == {"no other rating of its prompt": 2}
    terse = load(
        tmp_path, "steer.jsonl", layout="rated", columns=columns | {"rating": "verbosity"}, lower_is_better=True
    )
    assert {(pair.chosen, pair.rejected) for pair in terse.items} == {
        ("a1", "a2"), ("a1", "a3"), ("a2", "a3"), ("b1", "b2"),
    }  # fmt: skip


ULTRA = {"layout": "rated", "answers": "completions"} | {
    "columns": {"prompt": "instruction", "answer": "response", "rating": "annotations.honesty.Rating"}
}


def completion(text, rating):
    return {"response": text, "annotations": {"honesty": {"Rating": rating}}, "overall_score": 7.0}


@pytest.mark.parametrize("name", ["u.jsonl", "u.parquet"])
def test_a_list_of_rated_answers_is_paired(tmp_path, name):
    """UltraFeedback's layout; ratings are texts, some "N/A"."""
    rows = [
        {"instruction": "a?", "completions": [completion("a1", "5"), completion("a2", "N/A"), completion("a3", "2")]},
        {"instruction": "b?", "completions": [completion("b1", "1"), completion("b2", "1")]},
        {"instruction": "c?", "completions": [completion("c1", "N/A")]},
    ]
    if name == "u.parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    else:
        jsonl(tmp_path / name, rows)
    found = load(tmp_path, name, **ULTRA)
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in found.items] == [("a?", "a1", "a3")]
    assert found.dropped == {"no other rating of its prompt": 2, "no rated answer": 1}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"instruction": "", "completions": [completion("a", "1")]}, "the prompt is empty"),
        (
            {"instruction": 3, "completions": [completion("a", "1")]},
            "instruction is int, expected text or a list of messages",
        ),
        ({"instruction": "?", "completions": "a"}, "completions is str, expected a list of answers"),
        ({"instruction": "?", "completions": ["a"]}, "answer 1 is str, expected an object"),
        (
            {"instruction": "?", "completions": [completion(None, "1")]},
            "response of answer 1 is missing or null",
        ),
        (
            {"instruction": "?", "completions": [completion("a", "good")]},
            "Rating of answer 1 is 'good', expected a number",
        ),
        ({"instruction": "?", "completions": [completion("a", True)]}, "Rating of answer 1 is True, expected a number"),
        (
            {"instruction": "?", "completions": [completion("a", "nan")]},
            "Rating of answer 1 is 'nan', expected a number",
        ),
    ],
)
def test_rated_rows_that_do_not_fit_are_malformed(tmp_path, row, said):
    whole = {"instruction": "a?", "completions": [completion("a1", "5"), completion("a3", "2")]}
    jsonl(tmp_path / "u.jsonl", [row, whole])
    found = load(tmp_path, "u.jsonl", **ULTRA)
    assert len(found.items) == found.dropped["malformed"] == 1
    assert said in found.malformed[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"answers": "completions"}, "belong to layout rated"),
        ({"lower_is_better": True}, "belong to layout rated"),
        ({"layout": "rated", "columns": {"chosen": "x"}}, "layout rated has prompt, answer, rating"),
    ],
)
def test_settings_of_rated_answers(settings, said):
    with pytest.raises(ValidationError, match=said):
        PairSource(objective="helpful", path="x", **settings)


def test_a_rating_that_is_in_no_row_says_how_to_map_it(tmp_path):
    jsonl(tmp_path / "p.jsonl", [{"prompt": "?", "answer": "a"}])
    with pytest.raises(UsageError, match=r"no column 'rating' .*columns: \{rating"):
        load(tmp_path, "p.jsonl", layout="rated")


@pytest.mark.parametrize("name", ["p.jsonl.gz", "p.jsonl.zst", "p.parquet", "p.json"])
def test_damaged_files_are_usage_errors(tmp_path, name):
    (tmp_path / name).write_bytes(b"[not what the name says")
    with pytest.raises(UsageError, match="cannot be read as"):
        load(tmp_path, name)


def test_unknown_format(tmp_path):
    (tmp_path / "p.xml").write_text("<a/>")
    with pytest.raises(UsageError, match=r"unknown format: give a file ending in \.csv, \.json, \.jsonl, \.parquet"):
        load(tmp_path, "p.xml")


def test_an_absent_path_says_what_was_looked_for(tmp_path):
    with pytest.raises(UsageError, match=rf"no data at {tmp_path}/gone/\*.jsonl: .*--data-dir DIR"):
        load(tmp_path, "gone/*.jsonl")
    with pytest.raises(UsageError, match="type `--data-dir DIR`"):
        load(None, "gone.jsonl")


def test_data_dir_from_the_environment(tmp_path, monkeypatch):
    jsonl(tmp_path / "p.jsonl", ROWS)
    monkeypatch.setenv("PEO_BENCH_DATA_DIR", str(tmp_path))
    assert len(load(None, "p.jsonl").items) == 5


def test_identity_knows_content_and_not_place(tmp_path):
    for folder in ("a", "b"):
        jsonl(tmp_path / folder / "p.jsonl", ROWS)
    source = PairSource(objective="helpful", path="p.jsonl")
    first, second = (source_identity(source, tmp_path / folder) for folder in ("a", "b"))
    assert first == second
    assert str(tmp_path) not in json.dumps(first)
    jsonl(tmp_path / "b" / "p.jsonl", ROWS[:4])
    assert source_identity(source, tmp_path / "b") != first


def test_identity_of_a_hub_source_is_id_and_revision():
    source = PairSource(objective="helpful", hub="a/b", data_dir="d", revision="abc", layout="hh")
    assert source_identity(source) == {
        "objective": "helpful", "hub": "a/b", "data_dir": "d", "revision": "abc", "layout": "hh"
    }  # fmt: skip


def test_a_file_that_changes_after_planning_is_refused(tmp_path):
    jsonl(tmp_path / "p.jsonl", ROWS)
    identity = source_identity(PairSource(objective="helpful", path="p.jsonl"), tmp_path)
    jsonl(tmp_path / "p.jsonl", ROWS[:4])
    with pytest.raises(UsageError, match="has changed since"):
        read_source(identity)
    (tmp_path / "p.jsonl").unlink()
    with pytest.raises(UsageError, match=r"p\.jsonl .* has moved"):
        read_source(identity)


def test_locations_reach_worker_processes(tmp_path):
    remember("abc", tmp_path)
    code = "from peo_bench.data.sources import located; print(located('abc', 'x'))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert child.stdout.strip() == str(tmp_path) == str(located("abc", "x"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "either path"),
        ({"path": "a", "hub": "b"}, "either path"),
        ({"path": "a", "columns": {"answer": "x"}}, "columns maps 'answer'"),
        ({"path": "a", "layout": "pku", "objective": "funny"}, "not 'funny'"),
        ({"path": "a", "colums": {}}, "colums"),
    ],
)
def test_sources_are_checked(settings, said):
    with pytest.raises(ValidationError, match=said):
        PairSource(**{"objective": "helpful", **settings})


def test_hub_data_sets_load_by_id_and_revision(monkeypatch):
    import datasets

    asked = []

    def fake(path, **options):
        asked.append((path, options))
        return datasets.Dataset.from_list([*ROWS, ROWS[0] | {"chosen": None}])

    monkeypatch.setattr(datasets, "load_dataset", fake)
    source = PairSource(objective="helpful", hub="a/b", data_dir="d", revision="r1", split="test")
    loaded = read_source(source_identity(source))
    assert asked == [("a/b", {"name": None, "data_dir": "d", "split": "test", "revision": "r1"})]
    assert len(loaded.items) == 5
    assert loaded.malformed[0].startswith("a/b test: row 6: column 'chosen' is missing")


def test_a_hub_data_set_out_of_reach_says_what_to_do(monkeypatch):
    import datasets

    def fake(path, **options):
        raise ConnectionError("Couldn't reach it\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", fake)
    with pytest.raises(UsageError, match=r"'a/b' cannot be loaded \(Couldn't reach it\): .*--data-dir DIR"):
        read_source(source_identity(PairSource(objective="helpful", hub="a/b")))


def test_only_the_first_malformed_rows_are_named(tmp_path):
    jsonl(tmp_path / "p.jsonl", [ROWS[0], *["x"] * 100])
    loaded = load(tmp_path, "p.jsonl")
    assert loaded.dropped["malformed"] == 100
    assert len(loaded.malformed) == sources.SHOWN


DIALOGUES = {
    "several turns": turns("a", "b", "c"),
    "a system turn": turns("a", system="s"),
    "both": turns("a", "b", "c", system="s"),
}


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet", "p.csv"])
@pytest.mark.parametrize("implicit", [False, True])
def test_dialogues_are_prompts(tmp_path, name, implicit):
    """With the prompt in a column or at the beginning of both answers; in CSV files as the JSON text of the list."""
    answers = {"chosen": alone("yes"), "rejected": alone("no")}
    rows = [
        {key: prompt + said for key, said in answers.items()} if implicit else {"prompt": prompt, **answers}
        for prompt in DIALOGUES.values()
    ]
    write(tmp_path / name, rows)
    found = load(tmp_path, name)
    assert not found.dropped
    said = [[(turn["role"], turn["content"]) for turn in prompt] for prompt in DIALOGUES.values()]
    assert [turns_of(pair.prompt) for pair in found.items] == said
    assert {(pair.chosen, pair.rejected) for pair in found.items} == {("yes", "no")}


def write(path, rows):
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows({key: json.dumps(value) for key, value in row.items()} for row in rows)
    else:
        jsonl(path, rows)


def test_single_turn_leaves_dialogues_out(tmp_path):
    rows = [{"prompt": prompt, "chosen": "yes", "rejected": "no"} for prompt in (*DIALOGUES.values(), turns("a"))]
    jsonl(tmp_path / "p.jsonl", rows)
    found = load(tmp_path, "p.jsonl", single_turn=True)
    assert ([pair.prompt for pair in found.items], found.dropped) == (["a"], {"several turns": 3})


def test_dialogues_with_one_first_question_are_in_one_split():
    said = [to_prompt([("user", "a"), ("assistant", str(i)), ("user", "c")]) for i in range(50)]
    assert {split_of(prompt) for prompt in said} == {split_of("a")}
    assert len({prompt_id(prompt) for prompt in said}) == 50


def test_rated_answers_and_pku_rows_may_be_messages(tmp_path):
    jsonl(
        tmp_path / "r.jsonl",
        [{"prompt": turns("a", "b", "c"), "answer": text, "rating": n} for n, text in enumerate("xy")],
    )
    (pair,) = load(tmp_path, "r.jsonl", layout="rated").items
    assert (turns_of(pair.prompt)[-1], pair.chosen, pair.rejected) == (("user", "c"), "y", "x")
    row = {"response_0": "x", "response_1": "y", "better_response_id": 1, "safer_response_id": 0}
    jsonl(tmp_path / "k.jsonl", [row | {"prompt": turns("a", system="s")}])
    (pair,) = load(tmp_path, "k.jsonl", layout="pku").items
    assert (turns_of(pair.prompt)[0], pair.chosen) == (("system", "s"), "y")


def test_transcripts_are_turns_where_that_is_asked_for(tmp_path):
    told = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    jsonl(tmp_path / "h.jsonl", [{"chosen": told + " yes", "rejected": told + " no"}])
    assert load(tmp_path, "h.jsonl", layout="hh").items[0].prompt == told
    (pair,) = load(tmp_path, "h.jsonl", layout="hh", turns=True).items
    assert turns_of(pair.prompt) == [("user", "a"), ("assistant", "b"), ("user", "c")]


def test_texts_with_an_implicit_prompt(tmp_path):
    """TRL's standard format without a prompt, cut at a whole word; it has to be asked for."""
    row = {"chosen": "The sky is blue.", "rejected": "The sky is blunt."}
    jsonl(tmp_path / "p.jsonl", [row])
    (pair,) = load(tmp_path, "p.jsonl", implicit_prompt=True).items
    assert (pair.prompt, pair.chosen, pair.rejected) == ("The sky is", "blue.", "blunt.")
    with pytest.raises(UsageError, match="no column 'prompt'"):
        load(tmp_path, "p.jsonl")
