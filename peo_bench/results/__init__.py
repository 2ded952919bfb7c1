"""The run folder: its files as types, written and read here."""
