"""Parquet files that stand for more than any memory holds are refused before they are unpacked."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from run_folder_fixture import write_run_folder

from peo_bench.errors import UsageError
from peo_bench.files import parquet
from peo_bench.files.parquet import check_unpacked, read_parquet


def bomb(path: Path, rows: int = 60_000, size: int = 2_000_000) -> Path:
    """120 GB of text in 2 kB."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    pa.parquet.write_table(pa.table({"prompt": texts, "chosen": texts, "rejected": texts}), path)
    return path


def test_a_bomb_is_refused_and_a_usual_table_is_read(tmp_path):
    with pytest.raises(UsageError, match=r"bomb.parquet: unpacks to more than [\d,]+ bytes, half of this machine's"):
        read_parquet(bomb(tmp_path / "bomb.parquet"))
    table = pd.DataFrame({"prompt": ["how ?", "why ?"] * 50, "n": range(100), "parts": [["a", "b"]] * 100})
    table.to_parquet(tmp_path / "usual.parquet")
    assert read_parquet(tmp_path / "usual.parquet").prompt.tolist() == table.prompt.tolist()


@pytest.mark.parametrize("content", ["texts", "lists", "structs", "numbers"])
def test_what_a_table_unpacks_to_is_counted(tmp_path, monkeypatch, content):
    """1,000 rows of 3,000 letters, of as many in lists or structs, or 10,000 equal numbers."""
    column = {
        "texts": ["x" * 3000] * 1000,
        "lists": [["x" * 1000] * 3] * 1000,
        "structs": [{"role": "u" * 1000, "content": "x" * 2000}] * 1000,
        "numbers": [7] * 10_000,
    }[content]
    path = tmp_path / "table.parquet"
    pa.parquet.write_table(pa.table({"column": pa.array(column)}), path)
    true = 80_000 if content == "numbers" else 3_000_000
    memory = parquet.os.sysconf("SC_PHYS_PAGES") * parquet.os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(parquet, "SHARE", 1.2 * true / memory)
    check_unpacked(path)
    monkeypatch.setattr(parquet, "SHARE", 0.9 * true / memory)
    with pytest.raises(UsageError, match="unpacks to more than"):
        check_unpacked(path)


@pytest.mark.parametrize(
    "command", [("report", "run"), ("leaderboard", "add", "run"), ("judge", "calibrate", "--data", "b.parquet")]
)
def test_commands_refuse_a_bomb_in_one_line(peo_bench, tmp_path, command):
    write_run_folder(tmp_path / "run", n_prompts=8, weights=(1.0, 0.5, 0.0))
    bomb(tmp_path / "run" / "answers.parquet")
    bomb(tmp_path / "b.parquet")
    code, _, err = peo_bench(*command)
    assert (code, err.count("\n")) == (2, 1)
    assert ".parquet: unpacks to more than" in err
