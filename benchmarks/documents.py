"""Put a benchmark's tables into the page that explains them."""

from __future__ import annotations

from pathlib import Path


def put_tables(page: Path, name: str, tables: str) -> None:
    """Replace what stands between the page's markers `<!-- NAME -->` and the next `<!-- end -->`."""
    start, end = f"<!-- {name} -->\n", "\n<!-- end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    if not found:
        raise ValueError(f"{page}: no marker {start.strip()}")
    page.write_text(f"{before}{start}{tables}{end}{rest.partition(end)[2]}", encoding="utf-8")
