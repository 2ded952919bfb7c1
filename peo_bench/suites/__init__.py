"""Suites: a model, its data and settings, in one YAML file; a name of ours, of a third party, or the path of a file."""
