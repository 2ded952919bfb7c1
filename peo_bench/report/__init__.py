"""The report of a finished run: one self-contained page, the same numbers as JSON and as Markdown."""

from peo_bench.report.build import build_report

__all__ = ["build_report"]
