"""Parquet tables from others: one that no memory holds is refused before it is unpacked.

A value that many rows share is stored once, so that a file of some kilobytes can stand for more than any machine has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peo_bench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.5
"""Of the machine's memory, that a table may take."""
WORD = 8
"""Bytes of a number, or of where a text is."""


def read_parquet(path: Path) -> pd.DataFrame:
    """Return the table; `UsageError` for one that unpacks to more than `SHARE` of the memory."""
    import pandas as pd

    check_unpacked(path)
    return pd.read_parquet(path)


def check_unpacked(path: Path) -> None:
    """Raise `UsageError` for a Parquet file whose texts unpack to more than `SHARE` of the machine's memory."""
    most = int(SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    needed = 0
    for n in _unpacked(path, most):
        needed += n
        if needed > most:
            raise UsageError(
                f"{path}: unpacks to more than {most:,} bytes, half of this machine's memory: give a smaller table"
            )


def _unpacked(path: Path, most: int) -> Iterator[int]:
    """Yield how many bytes parts of a file unpack to; exactly only where that could be too many."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    with pyarrow.parquet.ParquetFile(path) as file:
        about = file.metadata
        parts = [about.row_group(i).column(j) for i in range(about.num_row_groups) for j in range(about.num_columns)]
        yield sum(part.total_uncompressed_size + WORD * part.num_values for part in parts)
    texts = [part for part in parts if part.physical_type == "BYTE_ARRAY"]
    if sum(part.num_values * part.total_uncompressed_size for part in texts) <= most:
        return
    names = sorted({part.path_in_schema for part in texts})
    with pyarrow.parquet.ParquetFile(path, read_dictionary=names) as file:
        for i in range(file.num_row_groups):
            for column in file.read_row_group(i).columns:
                yield from (_text_bytes(chunk) for chunk in column.chunks)


def _text_bytes(array: Any) -> int:
    """Return how many bytes the texts of an array are, each counted as often as it occurs."""
    import pyarrow.compute  # type: ignore[import-untyped]

    types = pyarrow.types
    if types.is_dictionary(array.type):
        lengths = pyarrow.compute.binary_length(array.dictionary)
        return int(pyarrow.compute.sum(lengths.take(array.indices)).as_py() or 0)
    if types.is_struct(array.type):
        return sum(map(_text_bytes, array.flatten()))
    return _text_bytes(array.flatten()) if types.is_list(array.type) else 0
