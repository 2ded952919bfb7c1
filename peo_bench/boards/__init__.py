"""Several runs: comparisons and leaderboards."""
