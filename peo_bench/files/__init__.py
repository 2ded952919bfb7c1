"""Files that survive a kill: atomic writes, journals, JSON lines, digests. Knows nothing else of peo-bench."""
