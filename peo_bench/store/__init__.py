"""The content-addressed store: atomic files, locks, journals."""
