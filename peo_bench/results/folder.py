"""Read a finished run folder (schema_version 1). Everything the report knows comes from here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peo_bench.errors import UsageError
from peo_bench.results.tables import ANSWERS, CURVES, POINTS, VERDICTS, damaged, read_csv, read_parquet

SCHEMA_VERSION = 1
Json = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, parsed; a table is None where a run has none (no texts, no judge, no training curves)."""

    run: Json
    config: str
    points: pd.DataFrame
    metrics: Json
    costs: Json
    generations: pd.DataFrame | None
    judgements: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    job_ids: tuple[str, ...] = ()


def read_run_folder(path: Path) -> RunFolder:
    """Read the run folder ``path``; run.json, points.csv and metrics.json must exist, the rest may be absent.

    Raises UsageError for a folder that is no run folder or has another schema version.
    """
    run = _read_json(path / "run.json")
    if run.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path / 'run.json'}: schema_version {run.get('schema_version')!r}, this version reads {SCHEMA_VERSION}"
        )
    texts, judged, curves = (path / name for name in ("generations.parquet", "judgements.parquet", "curves.csv"))
    config, artefacts = path / "config.yaml", path / "artefacts"
    return RunFolder(
        run=run,
        config=_text(config) if config.exists() else "",
        points=read_csv(path / "points.csv", POINTS),
        metrics=_read_json(path / "metrics.json"),
        costs=_read_json(path / "costs.json") if (path / "costs.json").exists() else {},
        generations=read_parquet(texts, ANSWERS) if texts.exists() else None,
        judgements=read_parquet(judged, VERDICTS) if judged.exists() else None,
        curves=read_csv(curves, CURVES) if curves.exists() else None,
        job_ids=tuple(sorted(found.parent.name for found in artefacts.glob("*/*/meta.json"))),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from None


def number(value: Any) -> float | None:
    """Return ``value`` as a finite float, or None where it is absent, NaN or infinite.

    >>> number("2.5"), number(None), number(float("nan"))
    (2.5, None, None)
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def truth(value: Any) -> bool:
    """Read a boolean cell of a CSV file; empty cells are False.

    >>> truth("True"), truth(False), truth(float("nan")), truth(1.0)
    (True, False, False, True)
    """
    return str(value).strip().lower() in {"true", "1", "1.0"}


def _read_json(path: Path) -> Json:
    try:
        content: Json = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _not_a_run(path) from None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON, {type(error).__name__}: {error}") from None
    if not isinstance(content, dict):
        raise damaged(path, "not a JSON object")
    return content


def _not_a_run(path: Path) -> UsageError:
    return UsageError(f"{path.parent} is not a finished run folder: {path.name} is missing")
