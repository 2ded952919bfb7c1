"""Damaged and hostile files for every reader of what others may have written, and what a reader may do with them.

A `Target` (tests/fuzz_targets.py) writes a whole file or folder once; `damaged` copies it and changes something;
`attempt` lets the reader at it. A reader may be content or refuse with one line; whatever else it does is in the
exception that `attempt` lets pass. What is whole must be read: a reader that refused everything would prove nothing.
"""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from peo_bench.errors import PeoBenchError
from peo_bench.jobs.artefact import CHECKSUM, META, sealed

Rng = random.Random
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 0.5, 1e308, -1e308, 1e-320, 10**400, float("nan"), float("inf")),
    *("", "x", "nan", "../../outside", "/etc/passwd", "mine\n", "=1+1", "a[/]b", "\u202e", "\x00", "\ud800"),
    *("1e999", "9" * 5000, "x" * 70_000, [], [[]], {}, {"x": None}, [None] * 3, {"": ""}),
)
"""What is put in the place of a value."""
BYTES = (
    *(b"\x00", b"\xff\xfe", b"\xe9", b"\xef\xbb\xbf", b"\r", b'"', b",", b"NaN", b"-Infinity", b"1e999"),
    *(
        b"9" * 5000,
        b"[" * 50_000,
        b'{"a":' * 20_000,
        b"\\ud800",
        b"!!int x",
        b"!!timestamp x",
        b"2024-13-45",
        b"&a [*a]",
    ),
)
"""What is put between the bytes of a file."""


# ---- damage ------------------------------------------------------------------------------------------------------


def change_bytes(rng: Rng, content: bytes) -> bytes:
    """Cut, flip, insert, repeat or leave out bytes."""
    at = rng.randrange(len(content) + 1)
    to = min(len(content), at + rng.choice((1, 1, 8, 200)))
    return rng.choice((
        lambda: content[:at],
        lambda: content[at:],
        lambda: content[:at] + content[to:],
        lambda: content[:to] + content[at:],
        lambda: content[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in content[at:to]) + content[to:],
        lambda: content[:at] + rng.choice(BYTES) + content[at:],
        lambda: content[:at] + rng.choice(BYTES) + content[to:],
        lambda: b"",
    ))()  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) of nested JSON."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def odd(rng: Rng) -> Any:
    """Return what is put in the place of a value, nobody else's."""
    return copy.deepcopy(rng.choice(VALUES))


def change_value(rng: Rng, value: Any) -> Any:
    """Replace, leave out, rename or repeat something in nested JSON, once to three times."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        where = list(places(value))
        if not where:
            return odd(rng)
        container, key = rng.choice(where)
        how = rng.choice(("value", "value", "value", "gone", "name", "twice", "other"))
        if how == "value":
            container[key] = odd(rng)
        elif how == "gone":
            del container[key]
        elif how == "other":
            other, name = rng.choice(where)
            with suppress(LookupError):
                container[key] = json.loads(json.dumps(other[name]))
        elif isinstance(container, dict):
            container[str(odd(rng))[:80]] = container.pop(key) if how == "name" else container[key]
        else:
            container.insert(key, container[key])
    return value


def change_json(rng: Rng, content: bytes) -> bytes:
    return json.dumps(change_value(rng, json.loads(content))).encode()


def change_lines(rng: Rng, content: bytes) -> bytes:
    """Change one record of JSON lines."""
    lines = content.splitlines(keepends=True)
    i = rng.randrange(len(lines))
    lines[i] = json.dumps(change_value(rng, json.loads(lines[i]))).encode() + b"\n"
    return b"".join(lines)


def change_yaml(rng: Rng, content: bytes) -> bytes:
    changed = change_value(rng, yaml.safe_load(content))
    return yaml.safe_dump(changed, allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def change_csv(rng: Rng, content: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(content.decode())))
    row = rng.choice(rows)
    column = rng.randrange(len(row))
    how = rng.choice(("cell", "cell", "cell", "more", "less", "column", "head"))
    said = str(odd(rng)).encode("utf-8", "replace").decode()
    if how == "cell":
        row[column] = said
    elif how == "more":
        row.insert(column, said)
    elif how == "less":
        del row[column]
    elif how == "head":
        rows[0][rng.randrange(len(rows[0]))] = said
    else:
        for each in rows[1:]:
            each[column % len(each)] = said
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def change_parquet(rng: Rng, content: bytes) -> bytes:
    table = pd.read_parquet(io.BytesIO(content))
    column = rng.choice(list(table))
    how = rng.choice(("gone", "null", "text", "number", "cell", "rows", "twice", "lists", "dates"))
    if how == "gone":
        table = table.drop(columns=column)
    elif how == "rows":
        table = table.iloc[: rng.choice((0, 1, len(table) // 2))]
    elif how == "twice":
        table = pd.concat([table, table])
    elif how == "cell":
        cells = table[column].astype(object).copy()
        cells.iloc[rng.randrange(len(cells))] = None
        table[column] = cells
    else:
        values = {"null": None, "text": "=x", "number": 1e308, "dates": pd.Timestamp(0)}
        table[column] = [[1.0]] * len(table) if how == "lists" else values[how]
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


def change_gzip(rng: Rng, content: bytes) -> bytes:
    if rng.random() < 0.1:
        return gzip.compress(b" " * 40_000_000)
    return gzip.compress(change_bytes(rng, gzip.decompress(content)))


BY_FORMAT: dict[str, Callable[[Rng, bytes], bytes]] = {
    **{".json": change_json, ".jsonl": change_lines, ".yaml": change_yaml, ".csv": change_csv},
    **{".parquet": change_parquet, ".gz": change_gzip},
}


def change_kind(rng: Rng, path: Path, outside: Path) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    rng.choice((
        lambda: None,
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(outside),
        lambda: path.symlink_to(outside / "secret"),
        lambda: path.symlink_to(outside / "new"),
    ))()  # fmt: skip


def change_file(rng: Rng, path: Path, outside: Path | None) -> None:
    """Damage a file: its bytes, what it says or, where there is something `outside`, what it is."""
    change = BY_FORMAT.get(path.suffix)
    if outside and rng.random() < 0.05:
        change_kind(rng, path, outside)
        return
    content = path.read_bytes()
    if change is None or rng.random() < 0.4:
        path.write_bytes(change_bytes(rng, content))
        return
    with suppress(ValueError, TypeError, ArithmeticError, yaml.YAMLError, UnicodeError):  # what no format can hold
        path.write_bytes(change(rng, content))


def change_and_renew(rng: Rng, path: Path, outside: Path | None) -> None:
    """Damage a file, and half of the times make the checksum fit."""
    change_file(rng, path, outside)
    if path.name == META and rng.random() < 0.5 and path.is_file() and not path.is_symlink():
        renew(path)


def renew(meta: Path) -> None:
    """Make the checksum of a `meta.json` anew, as somebody would who changed it on purpose."""
    with suppress(ValueError, TypeError, RecursionError):
        content = json.loads(meta.read_bytes())
        content.pop(CHECKSUM, None)
        meta.write_text(json.dumps(sealed(content)))


# ---- targets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A reader: `write(folder)` writes what it reads, `read(folder, rng)` reads it; files may be of other `kinds`.

    `files` are the patterns of those that are damaged, at once `most` of them; where they are `apart`, each is an input
    of its own. `change` damages one file.
    """

    write: Callable[[Path], object]
    read: Callable[[Path, Rng], object]
    files: tuple[str, ...] = ("*",)
    kinds: bool = False
    most: int = 2
    apart: bool = False
    change: Callable[[Rng, Path, Path | None], None] = change_file


def damaged(target: Target, whole: Path, copy: Path, rng: Rng) -> None:
    """Make a damaged `copy` of the folder `whole`."""
    if target.apart:
        copy.mkdir()
        shutil.copy(rng.choice(sorted(whole.iterdir())), copy)
    else:
        shutil.copytree(whole, copy)
    outside = copy.with_name("outside") if target.kinds else None
    if outside:
        shutil.rmtree(outside, ignore_errors=True)
        outside.mkdir()
        (outside / "secret").write_text("secret")
    files = sorted(path for pattern in target.files for path in copy.glob(pattern) if path.is_file())
    for path in rng.sample(files, min(len(files), rng.choice((1, 1, target.most)))):
        target.change(rng, path, outside)


def attempt(target: Target, copy: Path, rng: Rng) -> str:
    """Read a damaged copy; return "read" or "refused". Whatever else happens, or is written outside, is raised."""
    beside = {path: path.read_bytes() if path.is_file() else b"" for path in sorted(copy.parent.iterdir())}
    try:
        return _attempt(target, copy, rng)
    finally:
        after = {path: path.read_bytes() if path.is_file() else b"" for path in sorted(copy.parent.iterdir())}
        outside = copy.with_name("outside")
        assert after == beside
        assert not outside.exists() or [path.name for path in outside.iterdir()] == ["secret"]
        assert not outside.exists() or (outside / "secret").read_text() == "secret"


def _attempt(target: Target, copy: Path, rng: Rng) -> str:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            target.read(copy, rng)
        except PeoBenchError as refusal:
            said = str(refusal)
            assert said.strip(), "a refusal says something"
            assert "\n" not in said, f"more than one line: {said!r}"
            assert len(said) < 3000, f"{len(said)} characters: {said[:200]!r}"
            return "refused"
    return "read"
