"""Notes on a run from what its jobs found."""

import json

import pytest
from training_fixtures import save_pairs, save_policy

from peo_bench.data.given_checkpoint import checkpoint_job
from peo_bench.data.pairs import first_rows, pairs_job, prompts_job
from peo_bench.data.prompts import PromptSource, prompts_identity
from peo_bench.data.schema import PairSource
from peo_bench.errors import UsageError
from peo_bench.jobs.job import Cost, Handle, Job
from peo_bench.runs.job_notes import FIRST_ROWS, PARTLY, UNKNOWN, foreseen_notes, job_notes
from peo_bench.training.foresight import Foresight


def handle(job_id, **result):
    return Handle(job_id, None, result, Cost(), 0.0)


def lengths(whole, cut, dropped, limit=64):
    return {"whole": whole, "cut": cut, "dropped": dropped, "limit": limit}


@pytest.mark.parametrize(
    ("job_id", "found", "note"),
    [
        ("aspect-0a", lengths(48, 0, 0), None),
        (
            "aspect-0a",
            lengths(95, 4, 1),
            "aspect helpful: of 100 rows, 4 lost the end of an answer and 1 were left out, being longer than 64 "
            "tokens.",
        ),
        (
            "aspect-0a",
            lengths(23, 22, 3),
            "aspect helpful: of 48 rows, 22 lost the end of an answer and 3 were left out, being longer than 64 "
            "tokens: 52% is too many, raise it with --set training.max_length=...",
        ),
        (
            "reward-model-0b",
            lengths(7, 0, 15),
            "reward-model helpful: of 22 rows, 0 lost the end of an answer and 15 were left out, being longer than 64 "
            "tokens: 68% is too many, raise it with --set reward_model.max_length=...",
        ),
    ],
)
def test_lengths_are_told_and_above_a_twentieth_with_what_to_do(job_id, found, note):
    assert job_notes([handle(job_id, objective="helpful", lengths=found)] * 2) == ([note] if note else [])


def test_the_rows_that_a_reward_model_holds_out_are_told_beside_those_it_reads():
    found = handle("reward-model-0b", objective="helpful", lengths=lengths(90, 0, 4), pairs_held_out=10)
    assert job_notes([found]) == [
        "reward-model helpful: of 94 rows (beside 10 held out), 0 lost the end of an answer and 4 were left out, being "
        "longer than 64 tokens."
    ]


def test_rows_left_out_are_counted_by_reason_and_the_first_malformed_one_is_named():
    dropped = {"helpful": {"malformed": 2, "duplicate": 1}, "harmless": {"malformed": 1}}
    pairs = handle("pairs-2", dropped=dropped, malformed=["h.jsonl:7: not JSON", "h.jsonl:9: prompt is int"])
    assert job_notes([pairs]) == [
        "helpful: rows left out of the data: 2 malformed, 1 duplicate.",
        "harmless: rows left out of the data: 1 malformed.",
        "The first malformed row: h.jsonl:7: not JSON.",
    ]
    assert job_notes([handle("sandbox-pairs-2", dropped={"policy": 3})]) == []  # other counts under the same name
    assert job_notes([handle("pairs-2", dropped={"helpful": {}}, malformed=[])]) == []


ROWS = [{"prompt": f"{i}?", "chosen": "yes", "rejected": "no"} for i in range(300)]


@pytest.mark.parametrize(
    ("rows", "notes"),
    [
        (ROWS, []),
        ([*ROWS, "torn"], []),  # beyond the first 200, as the finished job will tell
        (
            ["torn", {"prompt": "?", "chosen": "yes", "rejected": "yes"}, *ROWS],
            ["helpful: rows left out of the first 200 of every file: 1 malformed, 1 equal answers.",
             "The first malformed row: mine.jsonl:1: not JSON"],
        ),
    ],
)  # fmt: skip
def test_a_plan_tells_what_is_wrong_with_the_first_rows_of_the_data(tmp_path, rows, notes):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (tmp_path / "mine.jsonl").write_text(text)
    source = PairSource(objective="helpful", path="mine.jsonl")
    job = pairs_job([source], ["helpful"], data_dir=tmp_path)
    found = foreseen_notes(job, known())
    assert len(found) == len(notes)
    assert all(told.startswith(note) for told, note in zip(found, notes, strict=True))


def test_a_plan_refuses_data_of_which_nothing_can_be_used(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"question": "?", "chosen": "yes", "rejected": "no"}\n')
    job = pairs_job([PairSource(objective="helpful", path="mine.jsonl")], ["helpful"], data_dir=tmp_path)
    with pytest.raises(UsageError, match=r"no column 'prompt' \(columns: chosen, question, rejected\)"):
        foreseen_notes(job, known())


def test_a_plan_reads_the_first_rows_of_a_hubs_data_set(monkeypatch):
    """Streamed, so that it is not downloaded as a whole; one that is out of reach is told and asked for once."""
    import datasets
    import huggingface_hub

    def load(path, streaming=False, **options):
        assert streaming
        return (dict(row) for row in [{"prompt": "?", "chosen": "yes", "rejected": "yes"}, *ROWS])

    job = pairs_job([PairSource(objective="helpful", hub="a/b", revision="r1")], ["helpful"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub, "dataset_info", lambda name, **options: None)
    (told,) = foreseen_notes(job, known())
    assert told == "helpful: rows left out of the first 200 of every file: 1 equal answers."
    first_rows.cache_clear()
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (told,) = foreseen_notes(pairs_job([PairSource(objective="helpful", hub="a/c")], ["helpful"]), known())
    assert told.startswith("Not looked at: the data set 'a/c' cannot be loaded")


def test_a_plan_refuses_evaluation_prompts_of_which_one_is_malformed(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "?"}\n{"prompt": 3}\n')
    own = prompts_identity(PromptSource(path="p.jsonl"), tmp_path)
    with pytest.raises(UsageError, match=r"1 of 2 evaluation prompts are malformed, the first at p.jsonl:2"):
        foreseen_notes(prompts_job(None, 0, 2, own=own), known())


def known(*done):
    """What a plan can count on: finished jobs and their handles."""
    return Foresight({job.id: handle for job, handle in done}.get, FIRST_ROWS)


def test_a_plan_tells_what_a_training_will_cut(tmp_path):
    needs = {"reference": Job("checkpoint", {}), "pairs": Job("pairs", {})}
    done = (needs["reference"], save_policy(tmp_path / "base")), (needs["pairs"], save_pairs(tmp_path / "pairs"))
    long, short = (Job("aspect", {"objective": "helpful", "max_length": n}, needs) for n in (512, 14))
    assert foreseen_notes(long, known(*done)) == []
    (note,) = foreseen_notes(short, known(*done))
    assert note.startswith("aspect helpful: of 48 rows, ")
    assert note.endswith("% is too many, raise it with --set training.max_length=...")
    scorer = Job("reward-model", {"objective": "helpful", "direction": "reward", "max_length": 14}, needs)
    (note,) = foreseen_notes(scorer, known(*done))
    assert note.startswith("reward-model helpful: of 44 rows (beside 4 held out), 0 lost the end of an answer and ")
    assert note.endswith("% is too many, raise it with --set reward_model.max_length=...")


@pytest.mark.parametrize("kind", ["aspect", "reward-model", "online", "data-mix"])
def test_before_anything_is_done_a_plan_counts_on_the_first_rows_of_the_data(tmp_path, kind):
    """Three of four answers are 20 words long; the prompt is <s>, <user>, a word and <assistant>."""
    base = save_policy(tmp_path / "base").path / "model"
    rows = [{"prompt": f"w{i}", "chosen": "good" if i % 4 == 0 else "w1 " * 20, "rejected": "bad"} for i in range(300)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = PairSource(objective="helpful", path="mine.jsonl")
    pairs = pairs_job([source], ["helpful"], data_dir=tmp_path)
    params = {"objective": "helpful", "objectives": ["helpful"], "max_length": 18}
    if kind == "online":
        params |= {"max_length": 18, "max_new_tokens": 16, "temperature": 1.0, "top_p": 1.0}
    if kind == "data-mix":
        kind, params["objective"] = "aspect", "mixture"
        pairs = Job("mixed-pairs", {"objectives": ["helpful"]}, {"pairs:helpful": pairs})
    job = Job(kind, params, {"reference": checkpoint_job(str(base), "base"), "pairs": pairs})
    told, basis = foreseen_notes(job, known())
    lost = {"reward-model": (0, 150, "75%"), "online": (0, 200, "100%")}.get(kind, (150, 0, "75%"))
    assert f": of 200 rows, in the first 200 of every file, {lost[0]} lost the end of an answer and {lost[1]} " in told
    assert f": {lost[2]} is too many, raise it with --set " in told
    assert basis == PARTLY
    assert foreseen_notes(Job(kind, params | {"max_length": 512}, job.needs), known()) == [PARTLY]


@pytest.mark.parametrize("kind", ["aspect", "modpo", "frank-wolfe", "reward-model", "online"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_plan_refuses_texts_that_are_longer_than_the_model_reads(tmp_path, kind, finished):
    """A model of learnt positions breaks there, and one of rotary ones goes on beyond what it has learnt."""
    done = save_policy(tmp_path / "base"), save_pairs(tmp_path / "pairs")
    config = done[0].path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 8}))
    rows = [{"prompt": f"w{i}", "chosen": "good " * 9, "rejected": "bad"} for i in range(30)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = pairs_job([PairSource(objective="helpful", path="mine.jsonl")], ["helpful"], data_dir=tmp_path)
    needs = {"reference": checkpoint_job(str(config.parent), "base"), "pairs": pairs}
    params = {"objective": "helpful", "objectives": ["helpful"], "max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0}
    found = known(*zip(needs.values(), done, strict=True)) if finished else known()
    setting = "reward_model.max_length" if kind == "reward-model" else "training.max_length"
    with pytest.raises(UsageError, match=rf"^{kind} on helpful: texts of up to \d+ .* the 8 .* --set {setting}=8$"):
        foreseen_notes(Job(kind, params, needs), found)
    foreseen_notes(Job(kind, params | {"max_length": 8 if kind != "online" else 10}, needs), found)


def test_a_plan_says_where_lengths_are_not_known_yet(tmp_path):
    base = checkpoint_job(str(save_policy(tmp_path / "base").path / "model"), "base")
    hub = pairs_job([PairSource(objective="helpful", hub="a/b")], ["helpful"])
    sandbox = Job("sft", {}, {"corpus": Job("sandbox-corpus", {"n": 8, "seed": 0})})
    for needs in ({"reference": base, "pairs": hub}, {"reference": sandbox, "pairs": Job("sandbox-pairs")}):
        assert foreseen_notes(Job("aspect", {"objective": "helpful"}, needs), known()) == [UNKNOWN]
    assert foreseen_notes(Job("mixed-pairs", {"objectives": ["helpful"]}, {"pairs:helpful": hub}), known()) == []


def test_remarks_on_checkpoints_are_passed_on_once():
    base = handle("checkpoint-1", name="owner/base", warnings=["a"], remarks=["b"])
    assert job_notes([base, base, handle("prompts-2")]) == ["owner/base: a.", "owner/base: b."]
    adapter = handle("checkpoint-2", name="owner/base", form="lora", warnings=["a"])
    assert job_notes([adapter]) == ["checkpoint-2, an adapter of owner/base: a."]
