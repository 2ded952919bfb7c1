"""Splits by prompt, and the jobs `pairs` and `prompts`."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peo_bench.data.pairs import FRACTIONS, pairs_job, prompts_job, split_of
from peo_bench.data.schema import PairSource, prompt_id
from peo_bench.data.sources import LOCATIONS
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Job
from peo_bench.jobs.store import Store

SHARED = Path(__file__).parents[2] / "shared" / "data"
OBJECTIVES = ("helpful", "harmless")


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch):
    monkeypatch.setenv(LOCATIONS, "{}")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(handle, name):
    return [json.loads(line) for line in (handle.path / f"{name}.jsonl").read_text().splitlines()]


def pairs_of(topic, prompts, answers=3):
    return [
        {"prompt": f"{topic} {i}?", "chosen": f"good {i} {k}", "rejected": f"bad {i} {k}"}
        for i in range(prompts)
        for k in range(answers)
    ]


@pytest.fixture
def data(tmp_path):
    """Helpful and harmless pairs that share the prompts "both 0?" to "both 39?"."""
    write(tmp_path / "helpful.jsonl", pairs_of("nice", 120) + pairs_of("both", 40))
    write(tmp_path / "harmless.jsonl", pairs_of("nasty", 120) + pairs_of("BOTH ", 40))
    return tmp_path


def job(data, **settings):
    sources = [PairSource(objective=name, path=f"{name}.jsonl") for name in OBJECTIVES]
    return pairs_job(sources, OBJECTIVES, **{"max_chars": 100, "data_dir": data, **settings})


def with_short_prompts(pairs, characters):
    """The job with a shorter limit for prompts than for answers."""
    return Job(pairs.kind, {**pairs.params, "max_prompt_chars": characters})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@given(st.text(), st.sampled_from(["", " ", "\n"]), st.booleans())
def test_equal_prompts_are_in_one_split(prompt, padding, single_turn):
    # casefold and NFKC are only asked of ASCII here: upper() is not their inverse for every letter of Unicode
    other = padding + (prompt.upper() if prompt.isascii() else prompt) + padding
    if single_turn and prompt.strip():
        other = f"\n\nHuman: {other}\n\nAssistant:"
    assert split_of(prompt) == split_of(other)
    assert prompt_id(prompt) == prompt_id(other)


@given(st.lists(st.tuples(st.sampled_from(OBJECTIVES), st.text(max_size=8)), max_size=40))
def test_no_prompt_crosses_splits_or_objectives(pairs):
    found = {}
    for _, prompt in pairs:
        found.setdefault(prompt_id(prompt), set()).add(split_of(prompt))
    assert all(len(splits) == 1 for splits in found.values())


def test_splits_have_the_size_of_their_fractions():
    counts = Counter(split_of(f"prompt {i}") for i in range(20_000))
    for name, share in FRACTIONS.items():
        assert counts[name] / 20_000 == pytest.approx(share, abs=0.015)
    assert split_of("x", {"test": 2.0}) == "test"


def test_pairs_are_written_by_objective_and_split(data, store):
    handle = store.run(job(data))
    for objective in OBJECTIVES:
        for split in ("policy", "scorer"):
            rows = rows_of(handle, f"{objective}-{split}")
            assert len(rows) == handle.result["pairs"][objective][split]
            assert set(rows[0]) == {"prompt_id", "prompt", "chosen", "rejected"}
            assert {split_of(row["prompt"]) for row in rows} == {split}
        assert sum(handle.result["prompts"][objective].values()) == 160
    assert handle.result["dropped"] == {"helpful": {}, "harmless": {}}


def test_no_prompt_is_in_two_files_of_different_splits(data, store):
    pairs = job(data)
    handle, prompts = store.run(pairs), store.run(prompts_job(pairs, 20, 20))
    by_split = {"policy": set(), "scorer": set(), "validation": set(), "test": set()}
    for objective in OBJECTIVES:
        for split in ("policy", "scorer"):
            by_split[split] |= {row["prompt_id"] for row in rows_of(handle, f"{objective}-{split}")}
    for row in rows_of(prompts, "prompts"):
        by_split[row["split"]].add(row["prompt_id"])
    assert sum(len(ids) for ids in by_split.values()) == len(set().union(*by_split.values()))


def test_limit_scales_down_and_keeps_prompts_varied(data, store):
    handle = store.run(job(data, limit=20))
    for objective in OBJECTIVES:
        for split in ("policy", "scorer"):
            rows = rows_of(handle, f"{objective}-{split}")
            assert len(rows) == len({row["prompt_id"] for row in rows}) == 20


def test_the_seed_chooses_the_pairs_and_repeats(data, tmp_path):
    first, again, other = (
        rows_of(Store(tmp_path / name).run(job(data, limit=20, seed=seed)), "helpful-policy")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first != other


def test_filters_and_duplicates_are_counted(data, store):
    rows = [*pairs_of("nice", 40), *pairs_of("nice", 2)]
    rows += [{"prompt": "q" * 31, "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a" * 41, "rejected": "b"}]
    write(data / "helpful.jsonl", [*rows, "nothing"])
    handle = store.run(with_short_prompts(job(data, max_chars=40), 30))
    assert handle.result["dropped"]["helpful"] == {
        "malformed": 1, "prompt too long": 1, "answer too long": 1, "duplicate": 6
    }  # fmt: skip
    assert handle.result["malformed"][0].startswith("helpful.jsonl:129: not an object")


def test_labels_are_written_where_both_are_known(tmp_path, store):
    rows = [
        {"prompt": f"p{i}", "response_0": "a", "response_1": "b", "better_response_id": i % 2, "safer_response_id": 1}
        for i in range(60)
    ]
    write(tmp_path / "pku.jsonl", rows)
    sources = [PairSource(objective=name, path="pku.jsonl", layout="pku") for name in OBJECTIVES]
    assert all(source.labels_on_both for source in sources)
    pairs = pairs_job(sources, OBJECTIVES, data_dir=tmp_path)
    row = next(row for row in rows_of(store.run(pairs), "helpful-policy") if row["chosen"] == "a")
    assert row["labels"] == {"helpful": 1, "harmless": -1}
    drawn = rows_of(store.run(prompts_job(pairs, 2, 4)), "prompts")
    assert Counter(row["objective"] for row in drawn) == {"helpful": 3, "harmless": 3}
    assert len({row["prompt_id"] for row in drawn}) == 6


def test_prompts_are_half_and_half_unique_and_repeatable(data, store, tmp_path):
    prompts = prompts_job(job(data, seed=5, limit=3), 12, 16)
    assert prompts.id == prompts_job(job(data), 12, 16).id
    rows = rows_of(store.run(prompts), "prompts")
    assert rows == rows_of(Store(tmp_path / "again").run(prompts), "prompts")
    assert Counter((row["split"], row["objective"]) for row in rows) == {
        ("validation", "helpful"): 6, ("validation", "harmless"): 6, ("test", "helpful"): 8, ("test", "harmless"): 8
    }  # fmt: skip
    assert len({row["prompt_id"] for row in rows}) == 28
    assert rows[0]["category"] == rows[0]["objective"]


def test_too_few_prompts_name_the_objective_and_the_split(data, store):
    with pytest.raises(UsageError, match=r"objective 'h\w+': \d+ prompts in split 'test', 100 needed"):
        store.run(prompts_job(job(data), 4, 200))


def test_too_few_pairs_say_why(data, store):
    with pytest.raises(UsageError, match=r"0 pairs in split 'policy', 1 needed \(rows dropped: 480 prompt too long\)"):
        store.run(job(data, max_chars=2))


def test_an_objective_without_a_source(data):
    sources = [PairSource(objective="helpful", path="helpful.jsonl")]
    with pytest.raises(UsageError, match=r"no pairs for objective 'harmless' \(sources for: helpful\)"):
        pairs_job(sources, OBJECTIVES, data_dir=data)


def test_ids_change_with_content_and_not_with_the_folder(data, tmp_path):
    before = job(data).id
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in OBJECTIVES:
        (moved / f"{name}.jsonl").write_bytes((data / f"{name}.jsonl").read_bytes())
    assert job(moved).id == before
    with (moved / "helpful.jsonl").open("a") as file:
        file.write(json.dumps(pairs_of("more", 1)[0]) + "\n")
    assert job(moved).id != before


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_real_helpful_harmless_and_hh_pairs(store):
    columns = {"chosen": "safer_response", "rejected": "other_response"}
    sources = [
        PairSource(objective="helpful", path="helpful_pairs/*.jsonl.gz"),
        PairSource(objective="harmless", path="pku_saferlhf/pairs_one_safe_one_unsafe.dev.jsonl", columns=columns),
        PairSource(objective="harmless", path="hh_rlhf/harmless-base/*.jsonl.gz", layout="hh", single_turn=True),
    ]
    pairs = with_short_prompts(pairs_job(sources, OBJECTIVES, max_chars=600, data_dir=SHARED), 300)
    result = store.run(pairs).result
    assert result["malformed"] == []
    assert result["dropped"]["harmless"]["prompts differ"] == 5
    assert result["pairs"]["helpful"]["policy"] > 300
    assert result["pairs"]["harmless"]["policy"] > 1000
    drawn = store.run(prompts_job(pairs, 32, 48)).result
    assert drawn == {"prompts": 80, "by_objective": {"helpful": 40, "harmless": 40}}


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_real_rows_of_the_current_pku_schema():
    from peo_bench.data.sources import read_source, source_identity

    source = PairSource(objective="harmless", path="pku_saferlhf/schema_sample_2rows.jsonl", layout="pku")
    loaded = read_source(source_identity(source, SHARED))
    assert len(loaded.items) == 2
    assert set(loaded.items[0].labels) == {"helpful", "harmless"}
