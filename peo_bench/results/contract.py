"""The tables of docs/run-folder.md, made from the records' docstrings."""

from __future__ import annotations

from peo_bench.results.costs_records import Costs, KindCost, MethodCost
from peo_bench.results.judge_records import JudgeCard, JudgeCounts, JudgeMetrics, JudgingRecord, WinRate
from peo_bench.results.measure import Measure
from peo_bench.results.metrics_records import (
    CapabilityRow,
    Comparison,
    EstimateRecord,
    MethodMetrics,
    Metrics,
    ReferenceSensitivity,
    SafetyRow,
    SafetyZero,
    SteerabilityRecord,
    TaskMetrics,
    ZeroFit,
)
from peo_bench.results.progress import JobCounts, ProgressRecord, RunningJob
from peo_bench.results.record import Record
from peo_bench.results.records import ComparedRun, Counts, Hardware, Missing, RunRecord, ScorerRecord

FILES: dict[str, tuple[type[Record], ...]] = {
    "run.json": (RunRecord, Counts, Missing, Measure, ScorerRecord, JudgingRecord, JudgeCounts, Hardware, ComparedRun),
    "metrics.json": (
        *(Metrics, TaskMetrics, MethodMetrics, EstimateRecord, SteerabilityRecord, Comparison, ReferenceSensitivity),
        *(SafetyRow, SafetyZero, ZeroFit, CapabilityRow, JudgeMetrics, JudgeCard, WinRate),
    ),
    "costs.json": (Costs, MethodCost, KindCost),
    "progress.json": (ProgressRecord, JobCounts, RunningJob),
}
"""The records of every JSON file, the whole file first."""


def run_folder_tables() -> str:
    """Return the tables of docs/run-folder.md: every key of every JSON file, from what its record says."""
    return "\n\n".join(
        f"## `{file}`\n\n" + "\n\n".join(_table(record) for record in records) for file, records in FILES.items()
    )


def _table(record: type[Record]) -> str:
    about = " ".join((record.__doc__ or "").split())
    lines = [about, "", "| key | meaning |", "|---|---|"]
    for name, field in record.model_fields.items():
        lines.append(f"| `{field.alias or name}` | {' '.join((field.description or '').split())} |")
    return "\n".join(lines)
