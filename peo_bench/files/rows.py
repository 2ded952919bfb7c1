"""Rows of a file in the usual formats: JSON list, JSON lines, CSV, Parquet; gzip and zstd where usual."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peo_bench.errors import UsageError
from peo_bench.files.parquet import check_unpacked
from peo_bench.files.plain import require_file

UNPACKED_TIMES, UNPACKED_LEAST = 100, 2**20
"""A packed file may unpack to so many times its size and so many bytes more; text packs to a tenth or a fifth."""


class RowError(ValueError):
    """A row that is no pair; the text says what is missing or wrong and what was expected."""


Row = tuple[str, object]
"""Where a row stands ("file:line") and its content, a `RowError` where it could not be parsed."""


def is_whole(text: str) -> bool:
    r"""Tell whether a text has no half characters (lone surrogates), which JSON can hold and no file and no model can.

    >>> is_whole("\U0001f600"), is_whole("\ud83d")
    (True, False)
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)


def whole_text(text: str, name: str) -> str:
    """Return `text`; raise `RowError` unless it `is_whole`."""
    if not is_whole(text):
        raise RowError(f"{name} holds half a character (a lone surrogate), expected text")
    return text


def file_rows(path: Path, name: str) -> Iterator[Row]:
    """Yield the rows of one file (JSON list, JSON lines, CSV, Parquet; packed where usual), `name` in their places."""
    reader = READERS.get(file_format(path))
    if reader is None:
        raise UsageError(f"{path}: unknown format: give a file ending in {', '.join(sorted(READERS))} ({PACKED_TOO})")
    require_file(path, f"give a file ending in {file_format(path)}")
    try:
        yield from reader(path, name)
    except (OSError, EOFError, ValueError, csv.Error, zlib.error, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as {file_format(path)[1:]} ({error}): {_instead(error)}") from None


def _instead(error: Exception) -> str:
    if isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
        return "give a compressed file, or take .gz off its name"
    return "give a whole, undamaged file of that format"


def file_format(path: Path) -> str:
    """Return the ending that says how a file is read, that of its packing left out."""
    name = path.with_suffix("") if path.suffix in PACKED else path
    return name.suffix.lower()


def _zstd(path: Path) -> Any:
    import pyarrow  # type: ignore[import-untyped]

    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")


PACKED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".zst": _zstd}
"""How files are opened that are packed."""
PACKED_TOO = f"or {' or '.join(PACKED)}"


def _bytes(path: Path) -> bytes:
    """Return the content, unpacked; raise `ValueError` for a file that unpacks to far more than text does."""
    if path.suffix not in PACKED:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    most = path.stat().st_size * UNPACKED_TIMES + UNPACKED_LEAST
    with PACKED[path.suffix](path) as file:
        content: bytes = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {most:,} bytes, {UNPACKED_TIMES} times its size")
    return content.removeprefix(codecs.BOM_UTF8)


def _jsonl(path: Path, name: str) -> Iterator[Row]:
    for number, line in enumerate(_bytes(path).split(b"\n"), 1):
        if line.strip():
            yield f"{name}:{number}", _parsed(line)


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        return RowError(f"not JSON ({error})")
    except RecursionError:
        return RowError("not JSON (nested too deeply)")


def _json(path: Path, name: str) -> Iterator[Row]:
    """Yield the items of a JSON list; a `.json` file with one object per line is read too."""
    content = _bytes(path)
    if content.lstrip()[:1] != b"[":
        yield from _jsonl(path, name)
        return
    yield from ((f"{name}: item {number}", row) for number, row in enumerate(json.loads(content), 1))


def _csv(path: Path, name: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(_bytes(path).decode(), newline=""))
    for row in reader:
        surplus = row.pop(None, None)  # type: ignore[call-overload]  # where DictReader puts fields beyond the header
        yield f"{name}:{reader.line_num}", RowError(f"more fields than columns ({surplus[0]!r})") if surplus else row


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    check_unpacked(path)
    number = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{name}: row {number}", row


READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
