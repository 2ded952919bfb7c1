"""The tables of docs/run-folder.md, made from the records' docstrings."""

from __future__ import annotations

from peo_bench.results import costs_records as costs
from peo_bench.results import families_records as families
from peo_bench.results import judge_records as judges
from peo_bench.results import metrics_records as metrics
from peo_bench.results import progress, records
from peo_bench.results.measure import Measure, PromptSet
from peo_bench.results.record import Record

FILES: dict[str, tuple[type[Record], ...]] = {
    "run.json": (
        *(records.RunRecord, records.ObjectiveRecord, records.Counts, records.Missing, Measure, PromptSet),
        *(records.ScorerRecord, records.Scale, judges.JudgingRecord, judges.JudgeCounts, records.Hardware),
        records.ComparedRun,
    ),
    "metrics.json": (
        *(metrics.Metrics, metrics.TaskMetrics, metrics.ReferenceUnits, metrics.MethodMetrics, metrics.EstimateRecord),
        *(
            metrics.AsPublished,
            metrics.RankRange,
            metrics.SteerabilityRecord,
            metrics.Comparison,
            metrics.ReferenceSensitivity,
        ),
        *(metrics.SafetyRow, metrics.SafetyZero, metrics.ZeroFit, metrics.CapabilityRow),
        *(judges.JudgeMetrics, judges.JudgeCard, judges.WinRate, judges.OverallWinRate),
    ),
    "costs.json": (costs.Costs, costs.MethodCost, costs.BuildCost, costs.KindCost),
    "progress.json": (progress.ProgressRecord, progress.JobCounts, progress.RunningJob),
    "families.json": (families.SavedFamilies, families.SavedWorld, families.SavedJob),
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
