"""Read rows from files and hub data sets: every malformed one is counted and named, nothing is lost silently.

Where files lie is no part of what a job is: a job's parameters hold a file's SHA-256 and its name, so that its id stays
the same when a folder moves and changes when a byte does. `remember` keeps the path for a digest in the environment
variable PEO_BENCH_LOCATIONS, because that is what worker processes inherit however they are started (fork, spawn,
torchrun, a scheduler); a module-level table would be empty in a spawned one.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from peo_bench.data.fetched import verified
from peo_bench.data.schema import IMPLICIT, DataSource, DroppedError, PairSource
from peo_bench.errors import UsageError
from peo_bench.files.digest import file_digest
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.files.rows import PACKED_TOO, READERS, Row, RowError, file_format, file_rows

logger = logging.getLogger(__name__)

LOCATIONS = "PEO_BENCH_LOCATIONS"
DATA_DIR = "PEO_BENCH_DATA_DIR"
"""Environment variable with the default of `--data-dir`."""
BESIDE = "PEO_BENCH_BESIDE"
"""Environment variable with the folder of the suite's file, where files are looked for without a `--data-dir`."""

SHOWN = 20
"""Malformed rows that are named; all are counted."""


T = TypeVar("T")


@dataclass
class Loaded(Generic[T]):
    """What the rows of one source became, those left out by reason, and the first malformed ones by place.

    `unread` says of sources why they could not be looked at.
    """

    items: list[T] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    malformed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


# --- identity and location --------------------------------------------------------------------------------------------


def source_identity(source: DataSource, data_dir: Path | None = None) -> JsonObject:
    """Return the JSON that identifies what `source` holds: digests of its files, or the hub id and revision.

    Remembers where the files lie, for jobs of this process and its children. Raises `UsageError` if there are none.
    """
    identity = source.model_dump(mode="json", exclude_defaults=True, exclude={"path"})
    if source.path is None:
        return identity
    files = []
    for name, path in find_files(source.path, data_dir):
        digest = file_digest(path)
        remember(digest, path)
        files.append({"name": name, "sha256": digest})
    return identity | {"files": files}


def find_files(pattern: str, data_dir: Path | None = None) -> list[tuple[str, Path]]:
    """Return (name, path) of the files that `pattern` (a file, folder or glob) stands for.

    It is relative to `data_dir`, by default to `--data-dir`, else to the folder of the suite's file.
    """
    known = os.environ.get(DATA_DIR) or os.environ.get(BESIDE)
    base = data_dir or (Path(known) if known else None)
    if base is None and not Path(pattern).is_absolute():
        raise UsageError(f"{pattern}: where is it? type `--data-dir DIR`, the folder that holds {pattern}")
    if base is None or Path(pattern).is_absolute():
        base = Path(Path(pattern).anchor)
        pattern = str(Path(pattern).relative_to(base))
    whole = base / pattern
    if whole.is_dir():
        found = sorted(path for path in whole.rglob("*") if path.is_file() and file_format(path) in READERS)
    else:
        found = [whole] if whole.is_file() else sorted(path for path in base.glob(pattern) if path.is_file())
    if not found:
        raise UsageError(
            f"no data at {whole}: expected files ending in {', '.join(sorted(READERS))} ({PACKED_TOO}); "
            "type `--data-dir DIR`, the folder it is relative to"
        )
    return [(path.name, path) for path in found]


def look_beside(folder: Path | None) -> None:
    """Look for data in `folder`, that of a suite's file, where there is no `--data-dir`; None: nowhere."""
    if folder is None:
        os.environ.pop(BESIDE, None)
    else:
        os.environ[BESIDE] = str(folder)


def remember(digest: str, path: Path) -> None:
    """Say where the content with this digest lies, to this process and those it starts."""
    known = json.loads(os.environ.get(LOCATIONS, "{}"))
    os.environ[LOCATIONS] = json.dumps(known | {digest: str(path.absolute())})


def located(digest: str, name: str) -> Path:
    """Return where the content with this digest lies; `name` is for the message if that is not known."""
    known = json.loads(os.environ.get(LOCATIONS, "{}"))
    path = Path(known.get(digest, ""))
    if digest not in known or not path.exists():
        raise UsageError(f"{name} (sha256 {digest[:16]}...) has moved: type the command again with `--data-dir`")
    return path


# --- reading ----------------------------------------------------------------------------------------------------------


def read_source(
    identity: Mapping[str, Any], kind: type[DataSource] = PairSource, first: int | None = None
) -> Loaded[Any]:
    """Return what the source with this identity holds (see `source_identity`): pairs, or what another kind reads.

    With `first`, of at most so many rows of each file, or of the hub's data set, which is not downloaded as a whole.
    """
    settings = {key: value for key, value in identity.items() if key != "files"}
    if "files" not in identity:
        source = kind(**settings)
        rows = _hub_rows(source, first)
        return _joined(_converted(rows, source, f"{source.hub} ({source.split})"), source)
    source = kind(**settings, path="files")
    loaded: Loaded[Any] = Loaded()
    for file in identity["files"]:
        path = located(file["sha256"], file["name"])
        if file_digest(path) != file["sha256"]:
            raise UsageError(f"{path} has changed since the run was planned: type the command again")
        part = _converted(islice(file_rows(path, file["name"]), first), source, str(path))
        loaded.items += part.items
        loaded.dropped += part.dropped
        loaded.malformed = (loaded.malformed + part.malformed)[:SHOWN]
    return _joined(loaded, source)


def read_first(identity: Mapping[str, Json], kind: type[DataSource], n: int) -> Loaded[Any]:
    """Return what the first `n` rows of each file of a source hold; a hub's that is out of reach is `unread`."""
    try:
        if "files" not in identity:
            _ask_hub(str(identity["hub"]), identity.get("revision"))
        return read_source(identity, kind, first=n)
    except NotReached as reason:
        return Loaded(unread=[str(reason)])


def _ask_hub(name: str, revision: Json) -> None:
    """Raise `NotReached` unless the hub knows a data set; asked once, where `datasets` would try for half a minute."""
    import huggingface_hub

    try:
        huggingface_hub.dataset_info(name, revision=None if revision is None else str(revision), timeout=10)
    except Exception as error:  # of the hub's library, and of what it asks with
        raise NotReached(_unreachable(name, error)) from None


def _unreachable(name: str, error: Exception) -> str:
    reason = str(error).partition("\n")[0]
    return (
        f"the data set {name!r} cannot be loaded ({reason}): check the id, split and network, "
        "or download it and use `path:` with `--data-dir DIR`"
    )


def _joined(loaded: Loaded[Any], source: DataSource) -> Loaded[Any]:
    """Return what the rows of a source hold together."""
    loaded.items, alone = source.join(loaded.items)
    loaded.dropped += alone
    return loaded


def _converted(rows: Iterable[Row], source: DataSource, where: str) -> Loaded[Any]:
    """Convert rows; raise `UsageError` if there are none, all are malformed, or a column is in none of them."""
    loaded: Loaded[Any] = Loaded()
    columns: set[str] = set()
    total = 0
    for place, row in rows:
        total += 1
        try:
            if not isinstance(row, Mapping):
                raise row if isinstance(row, RowError) else RowError("not an object with named columns")
            columns |= row.keys()
            loaded.items.append(source.convert(row))
        except RowError as problem:
            loaded.dropped["malformed"] += 1
            if len(loaded.malformed) < SHOWN:
                loaded.malformed.append(f"{place}: {problem}; expected {', '.join(source.required.values())}")
        except DroppedError as reason:
            loaded.dropped[str(reason)] += 1
    _check_columns(columns, source, where, total, found=bool(loaded.items))
    if loaded.malformed:
        count = loaded.dropped["malformed"]
        logger.warning("%s: %d of %d rows are malformed, the first at %s", where, count, total, loaded.malformed[0])
    if loaded.dropped["malformed"] == total:
        raise UsageError(f"{where}: none of {total} rows can be used; {loaded.malformed[0]}")
    return loaded


def _check_columns(columns: set[str], source: DataSource, where: str, total: int, *, found: bool) -> None:
    if not total:
        raise UsageError(f"{where}: no rows; expected rows with {', '.join(source.required.values())}")
    absent = {name: column for name, column in source.required.items() if column not in columns}
    if found:
        absent.pop(IMPLICIT.get(source.layout, ""), None)
    if columns and absent:
        name, column = next(iter(absent.items()))
        beside = (
            ", or set implicit_prompt: true if both texts begin with it" if IMPLICIT.get(source.layout) == name else ""
        )
        raise UsageError(
            f"{where}: no column {column!r} (columns: {', '.join(sorted(map(str, columns)))}); layout {source.layout} "
            f"needs {', '.join(source.required)}: map it in the suite with `columns: {{{name}: <one of the columns>}}`"
            f"{beside}"
        )


class NotReached(UsageError):
    """A hub's data set that cannot be loaded from here and now."""


def _hub_rows(source: DataSource, first: int | None) -> Iterator[Row]:
    """Yield the rows of a hub data set, or the `first`; raise `NotReached`.

    Data sets that need code of their own are refused by `datasets`.
    """
    import datasets

    at: dict[str, object] = {"split": source.split, "revision": source.revision}
    stream = {} if first is None else {"streaming": True}
    copied = verified("dataset", str(source.hub), source.revision)
    try:
        if copied is not None and source.file:
            found = datasets.load_dataset("json", data_files=str(copied / source.file), split="train", **stream)
        elif copied is not None:
            at["revision"] = None
            found = datasets.load_dataset(str(copied), name=source.name, data_dir=source.data_dir, **at, **stream)
        elif source.file:
            revision = f"@{source.revision}" if source.revision else ""
            address = f"hf://datasets/{source.hub}{revision}/{source.file}"
            found = datasets.load_dataset("json", data_files=address, split="train", **stream)
        else:
            found = datasets.load_dataset(source.hub, name=source.name, data_dir=source.data_dir, **at, **stream)
        rows = found if first is None else list(islice(found, first))
    except (OSError, ValueError, RuntimeError) as error:
        raise NotReached(_unreachable(str(source.hub), error)) from None
    for number, row in enumerate(rows, 1):
        yield f"{source.hub} {source.split}: row {number}", row
